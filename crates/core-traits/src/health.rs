//! How a backend is doing.

use crate::MonoTime;

/// The state of a backend, as its last requests showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Requests are answered.
    Up,
    /// Some requests are answered; `reason` says which are not.
    Degraded {
        /// What is wrong, without any secret.
        reason: String,
        /// When this state began.
        since: MonoTime,
    },
    /// No request is answered.
    Down {
        /// What is wrong, without any secret.
        reason: String,
        /// When this state began.
        since: MonoTime,
    },
}

impl Health {
    /// `up`, `degraded` or `down`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded { .. } => "degraded",
            Self::Down { .. } => "down",
        }
    }

    /// Whether requests can be expected to succeed.
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }

    /// What is wrong, if anything is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Up => None,
            Self::Degraded { reason, .. } | Self::Down { reason, .. } => Some(reason),
        }
    }
}
