//! The handle of a log that is followed.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::{Applied, Applying, Epoch, Followers, Stamp, WaitError};
use fleetwide_core_traits::{Bus, Executor, Health, Tag};
use tokio::sync::{Notify, watch};
use tokio_util::sync::DropGuard;

use crate::builder::LogBuilder;
use crate::error::CatchUpError;
use crate::pursuit::Pursuit;
use crate::roll::RollCall;

/// A log that is followed by a task of its own. Cheap to clone; the task ends with the last clone.
///
/// The task never gives up: while the server is away it asks again, with a growing, jittered pause
/// of up to a second, and catches up when it is back.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) tag: Tag,
    pub(crate) roll: RollCall,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) checks: Arc<Notify>,
    /// Ends the task when it is dropped.
    pub(crate) _stop: DropGuard,
}

/// Where the follower is, as others see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    at: Option<Stamp>,
    left: Vec<Epoch>,
}

impl Progress {
    /// Takes over what has changed, and says whether anything has.
    pub(crate) fn update(&mut self, pursuit: &Pursuit) -> bool {
        let changed = self.at != pursuit.position();
        self.at = pursuit.position();
        if self.left != pursuit.left() {
            self.left = pursuit.left().to_vec();
        }
        changed
    }

    fn has_applied(&self, stamp: Stamp) -> Option<Result<(), CatchUpError>> {
        match self.at {
            Some(at) if at.epoch == stamp.epoch && at.seq >= stamp.seq => Some(Ok(())),
            Some(_) if self.left.contains(&stamp.epoch) => Some(Err(CatchUpError::Superseded)),
            _ => None,
        }
    }
}

impl Log {
    /// Options of following the log under `tag`, whose scripts `executor` runs and whose messages
    /// `bus` brings.
    pub fn builder<E: Executor, B: Bus>(executor: E, bus: B, tag: Tag) -> LogBuilder<E, B> {
        LogBuilder::new(executor, bus, tag)
    }

    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The tag of the log's keys.
    pub fn tag(&self) -> &Tag {
        &self.shared.tag
    }

    /// Everything up to here has been applied; `None` before the first baseline.
    pub fn position(&self) -> Option<Stamp> {
        self.shared.progress.borrow().at
    }

    /// Asks for a beat now, instead of at the next heartbeat. Returns at once.
    pub fn check(&self) {
        self.shared.checks.notify_one();
    }

    /// Waits until everything up to `stamp` has been applied.
    ///
    /// It waits for as long as that takes, also over an outage: give it a timeout.
    ///
    /// # Errors
    /// [`CatchUpError::Superseded`] if the history of `stamp` was left before that point was
    /// reached, which the follower was told as a reset; [`CatchUpError::Stopped`] if the task has
    /// ended, which happens only when a follower panics or the runtime shuts down.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn caught_up(&self, stamp: Stamp) -> Result<(), CatchUpError> {
        let mut progress = self.shared.progress.clone();
        loop {
            if let Some(result) = progress.borrow_and_update().has_applied(stamp) {
                return result;
            }
            progress.changed().await.map_err(|_| CatchUpError::Stopped)?;
        }
    }

    /// Waits until every live follower of the log, on any instance, has applied everything up to
    /// `stamp`, for `within` at most.
    ///
    /// Each follower signs with every beat what it has applied, and whoever waits here nudges the
    /// others to beat at once. So it costs a few round trips when all are well. A follower that is
    /// frozen, cut off or gone counts as live until its [`life`](crate::LogBuilder::life) is over,
    /// by the server's clock. One that joins later begins after `stamp`, so it needs no wait.
    ///
    /// When the server has lost the list of the followers, or has just begun it, all who live are
    /// in it one life later, and it is waited for that long.
    ///
    /// # Errors
    /// [`WaitError`], which is not [`NotFollowed`](WaitError::NotFollowed).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn applied_by_all(
        &self,
        stamp: Stamp,
        within: Duration,
    ) -> Result<Applied, WaitError> {
        self.shared.roll.applied(stamp, within).await
    }

    /// Waits until the log is followed, and returns where it was then.
    ///
    /// # Errors
    /// [`CatchUpError::Stopped`], as for [`caught_up`](Self::caught_up).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn begun(&self) -> Result<Stamp, CatchUpError> {
        let mut progress = self.shared.progress.clone();
        let begun = progress.wait_for(|progress| progress.at.is_some()).await;
        begun.ok().and_then(|progress| progress.at).ok_or(CatchUpError::Stopped)
    }

    /// How following goes: up; degraded, when messages or commands are missing; down, when both
    /// are. A state has to show twice in a row before it counts as worse.
    pub fn health(&self) -> Health {
        self.shared.health.borrow().clone()
    }

    /// The same, to wait for changes.
    pub fn health_changes(&self) -> watch::Receiver<Health> {
        self.shared.health.clone()
    }
}

impl Followers for Log {
    fn applied(&self, stamp: Stamp, within: Duration) -> Applying<'_> {
        Box::pin(self.applied_by_all(stamp, within))
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("tag", self.tag())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
