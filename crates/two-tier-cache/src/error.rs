//! What can go wrong, by operation.

use std::error::Error;
use std::sync::Arc;

use fleetwide_core_traits::{
    BackendError, CodecError, EnvelopeError, KeyError, SealError, TtlError,
};

use crate::form::ProtectError;
use crate::tags::TagError;
use crate::token::WriteToken;

/// Why a [`CacheBuilder`](crate::CacheBuilder) built nothing.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The cache's name is no name.
    #[error("the name of a cache: {0}")]
    Name(#[source] KeyError),
    /// A time to live is out of range.
    #[error("{setting}: {source}")]
    Ttl {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        source: TtlError,
    },
    /// A factor is out of range, or no number.
    #[error("{setting} must be from 0 to {max}")]
    Factor {
        /// Which setting.
        setting: &'static str,
        /// The most.
        max: f64,
    },
    /// A time is out of the range that makes sense.
    #[error("{setting} must be from {min:?} to {max:?}")]
    Range {
        /// Which setting.
        setting: &'static str,
        /// The least.
        min: std::time::Duration,
        /// The most.
        max: std::time::Duration,
    },
}

/// Why a write (`put`, `invalidate`, `clear`) is not known to be done everywhere.
///
/// After [`Queued`](Self::Queued) and [`Unknown`](Self::Unknown) this instance no longer serves
/// the old value, and repeats the write as an invalidation until the server has confirmed it.
/// Other instances may serve the old value until then, for their ttl at most.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is empty or too long. Nothing was done.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ttl is zero or too long. Nothing was done.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// The share by which the ttl is to be shortened is none. Nothing was done.
    #[error(transparent)]
    Jitter(#[from] JitterError),
    /// A tag is empty or too long, or there are too many. Nothing was done.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The value cannot be encoded. Nothing was done.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The value's head cannot be written. Nothing was done.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The value cannot be protected. Nothing was done.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The server was not reached; the key waits to be invalidated.
    #[error("queued, because the server was not reached: {0}")]
    Queued(#[source] BackendError),
    /// The server may have done it; the key waits to be invalidated to be sure.
    #[error("outcome unknown, queued to be sure: {0}")]
    Unknown(#[source] BackendError),
    /// It was done, here and by the server, but fewer replicas than asked for have said in time that
    /// they have it: if the server is lost now, the write may be lost with it.
    #[error("done, but only {acknowledged} of {wanted} replicas have acknowledged it")]
    TooFewReplicas {
        /// What the write would have returned.
        token: WriteToken,
        /// How many have. In memory, where there is no replica, 0.
        acknowledged: usize,
        /// How many were asked for.
        wanted: u32,
    },
}

impl From<ProtectError> for WriteError {
    fn from(error: ProtectError) -> Self {
        match error {
            ProtectError::Seal(error) => Self::Seal(error),
            ProtectError::Envelope(error) => Self::Envelope(error),
        }
    }
}

impl WriteError {
    /// Whether the write is queued, so that the caller need not repeat it.
    pub const fn is_queued(&self) -> bool {
        matches!(self, Self::Queued(_) | Self::Unknown(_))
    }
}

/// A ttl cannot be shortened by this share: it is not from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a jitter must be from 0 to 1")]
pub struct JitterError;

/// Why [`Cache::get_or_load`](crate::Cache::get_or_load) has no value. Shared by all who waited.
///
/// Trouble with the server is never among the reasons: then the loader answers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The loader failed.
    #[error("loading failed: {0}")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The loader panicked, with this message.
    #[error("the loader panicked: {0}")]
    Panicked(Arc<str>),
    /// It took longer than the [`hard_timeout`](crate::CacheBuilder::hard_timeout). The loader goes
    /// on, and fills the cache when it is done.
    #[error("loading took longer than {0:?}")]
    TimedOut(std::time::Duration),
    /// The runtime shut down while the loader ran; or all who waited left, and the cache cancels
    /// such loads.
    #[error("the load was given up")]
    Abandoned,
    /// The origin has no such value, and the caller takes nothing but a value:
    /// [`try_get_or_load`](crate::Cache::try_get_or_load) takes that as well.
    #[error("the origin has no such value")]
    Absent,
    /// The loader said that nothing was modified, but there was no previous value.
    #[error("the loader keeps the previous value, but there is none")]
    NothingToKeep,
    /// The key is empty or too long.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl LoadError {
    /// Whether it comes from trouble with the origin, so that what is stale may be better.
    pub(crate) fn is_trouble(&self) -> bool {
        !matches!(self, Self::Key(_) | Self::Absent)
    }

    /// The loader's own error, if it is a `T`.
    pub fn loader_error<T: Error + 'static>(&self) -> Option<&T> {
        match self {
            Self::Failed(error) => error.downcast_ref(),
            _ => None,
        }
    }
}
