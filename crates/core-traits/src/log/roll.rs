//! Who follows a log, and how far each has come.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::Stamp;
use crate::{BackendError, ServerTime};

/// The name of one follower, drawn at random when it starts.
pub type FollowerId = [u8; 8];

/// All who follow one log, as its server keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// When it was begun. Who lives has signed at most one life later.
    pub since: ServerTime,
    /// The last sign of life of each.
    pub signs: BTreeMap<FollowerId, Sign>,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// When the server saw it.
    pub seen_at: ServerTime,
    /// For how long it is good.
    pub life: Duration,
    /// What the follower had applied.
    pub at: Stamp,
}

impl Sign {
    /// Whether its time is over.
    pub fn is_over(&self, now: ServerTime) -> bool {
        self.seen_at.plus(self.life) <= now
    }
}

/// Knows how far all who follow one log have come.
///
/// The cache waits by it, and whatever follows logs gives it; they meet here.
pub trait Followers: Send + Sync + 'static {
    /// Waits until each live follower of the log has applied everything up to `stamp`, for
    /// `within` at most.
    ///
    /// # Errors
    /// [`WaitError`]; then it is not known that all have.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn applied(&self, stamp: Stamp, within: Duration) -> Applying<'_>;
}

/// What [`Followers::applied`] returns.
pub type Applying<'a> = Pin<Box<dyn Future<Output = Result<Applied, WaitError>> + Send + 'a>>;

/// Every live follower has applied what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// How many they are; the one in this process is one of them.
    pub nodes: u64,
}

impl Applied {
    /// So many followers have applied it.
    pub const fn by(nodes: u64) -> Self {
        Self { nodes }
    }
}

/// Why it is not known that all live followers have applied something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time was over first.
    #[error("{0}")]
    Late(Behind),
    /// The server was not asked successfully in time; this is why the last try failed.
    #[error("the server did not say who follows: {0}")]
    Unavailable(#[source] BackendError),
    /// The history of the log has ended. Every follower that learns of it drops what it has, but
    /// whether the server still has the write is not known.
    #[error("the history of this log has ended since")]
    Superseded,
    /// Nothing in this process follows the log, so nobody can be asked.
    #[error("nobody follows the log in this process")]
    NotFollowed,
}

/// How far the live followers had come when the time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Behind {
    /// How many followers are live.
    pub nodes: u64,
    /// Whether the server's list has stood for long enough that all who live are in it. It begins
    /// anew when the server has lost it.
    pub complete: bool,
}

impl Behind {
    /// So many followers are live, and the list of them is complete or not.
    pub const fn new(nodes: u64, complete: bool) -> Self {
        Self { nodes, complete }
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, complete } = self;
        if *complete {
            write!(f, "not all of {nodes} nodes have applied it in time")
        } else {
            write!(f, "the list of nodes, which has {nodes}, is too new to be complete")
        }
    }
}
