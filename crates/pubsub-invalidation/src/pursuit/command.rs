//! What a pursuit asks a server, and what it is answered.

use fleetwide_core_traits::MonoTime;
use fleetwide_core_traits::log::{Epoch, Stamp};

use crate::ops::{Page, Pulse, Raised};

/// A question to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Where is the log?
    Beat,
    /// What came from this entry on?
    Replay {
        /// The last entry that was applied.
        from: u64,
    },
    /// End this history.
    Raise {
        /// The history that diverged.
        diverged: Epoch,
    },
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Beat(Pulse),
    Replay(Page),
    Raise(Raised),
}

impl Answer {
    /// Where the log was.
    pub(super) fn place(&self) -> Option<Stamp> {
        match self {
            Self::Beat(pulse) => Some(pulse.meta.at),
            Self::Replay(page) => page.meta.map(|meta| meta.at),
            Self::Raise(raised) => Some(raised.meta.at),
        }
    }
}

/// A question that is under way.
pub(super) struct Asked {
    pub(super) command: Command,
    /// What had been applied when it was sent. The server knew that much, or has lost it.
    pub(super) since: Stamp,
    /// The same, or what was known to be there by then, if that is more.
    pub(super) reaches: Stamp,
    /// When it was sent.
    pub(super) at: MonoTime,
    /// Whether the subscription stood when it was sent.
    pub(super) subscribed: bool,
}
