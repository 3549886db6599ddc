//! What can go wrong, by operation.

use fleetwide_core_traits::{BackendError, KeyError};
use fleetwide_two_tier_cache::{ConfigError as CacheConfigError, LoadError, WriteError};

use crate::directory::IdError;
use crate::id::ShortId;
use crate::place::NameError;

/// Why a [`SessionCacheBuilder`](crate::SessionCacheBuilder) built nothing.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The cache below cannot be built like this.
    #[error(transparent)]
    Cache(#[from] CacheConfigError),
    /// The name is empty or too long.
    #[error("the name of a session cache: {0}")]
    Name(#[source] KeyError),
    /// A number is zero that must not be.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A number is larger than makes sense.
    #[error("{setting} must be at most {max}")]
    TooMany {
        /// Which setting.
        setting: &'static str,
        /// The most.
        max: usize,
    },
}

/// Why a write to a session is not known to be done everywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The key is empty or too long. Nothing was done.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The cache below did not do it, or does not know; see [`WriteError`].
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl SessionError {
    /// Whether the write is queued, so that the caller need not repeat it: the entry is removed
    /// everywhere once the server is back.
    pub const fn is_queued(&self) -> bool {
        matches!(self, Self::Write(error) if error.is_queued())
    }
}

/// Why a reference was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing has this short id. Nothing was done.
    #[error("nothing has the short id {0}")]
    Unknown(ShortId),
    /// An entry cannot show itself. Nothing was done.
    #[error("an entry cannot refer to itself")]
    Itself,
    /// The directory could not be asked what has the id. Nothing was done.
    #[error("the directory of short ids was not reached: {0}")]
    Directory(#[source] BackendError),
    /// Storing it did not work.
    #[error(transparent)]
    Store(#[from] SessionError),
}

/// Why an entry has no short id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShortIdFailed {
    /// The key is empty or too long.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The directory gave none.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Why a read with a loader has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionLoadError {
    /// The key is empty or too long.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The loader gave nothing.
    #[error(transparent)]
    Load(#[from] LoadError),
}
