//! What can go wrong for a caller.

use fleetwide_core_traits::BackendError;

use crate::topic::TopicError;

/// Why [`Log::caught_up`](crate::Log::caught_up) stopped waiting.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatchUpError {
    /// The history has ended before that point was reached, and the follower was told so.
    #[error("the history of this stamp has ended")]
    Superseded,
    /// Nobody follows the log any more.
    #[error("the log is no longer followed")]
    Stopped,
}

/// Why [`Events::publish`](crate::Events::publish) did not accept an event.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic is none.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The payload is larger than the bus takes.
    #[error("a payload may have {max} bytes, this one has {len}")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The limit that was set when the bus was built.
        max: usize,
    },
    /// The server is away, and as many events as may wait for it wait already.
    #[error("the server is away, and {max} events wait for it already")]
    Full {
        /// The limit that was reached.
        max: usize,
    },
    /// The server refused the event for a reason that does not pass by itself; or it is not known
    /// whether it arrived, and there was no room to keep it.
    #[error(transparent)]
    Backend(BackendError),
}

impl PublishError {
    /// Whether the event may have been published all the same.
    pub const fn may_have_happened(&self) -> bool {
        matches!(self, Self::Backend(error) if error.may_have_happened())
    }

    /// Whether the same call can succeed later without anybody changing anything.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Backend(error) => error.is_retryable(),
            Self::Topic(_) | Self::TooLarge { .. } => false,
        }
    }
}
