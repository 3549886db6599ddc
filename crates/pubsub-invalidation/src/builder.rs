//! Options of following a log.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::{Begin, Entry, Follower, Stamp};
use fleetwide_core_traits::{Bus, Clock, Executor, SystemClock, Tag};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::listener::Listener;
use crate::log::{Log, Progress, Shared};
use crate::ops::{Replay, SCRIPTS};
use crate::pursuit::Pursuit;
use crate::roll::RollCall;
use crate::standing::Standing;
use crate::telemetry::Telemetry;

/// A fifth of the default staleness bound of a cache: several beats may fail before it is missed.
pub(crate) const HEARTBEAT_DEFAULT: Duration = Duration::from_millis(200);
/// A shorter heartbeat would only load the server.
const HEARTBEAT_MIN: Duration = Duration::from_millis(5);

/// Beats that may fail in a row before a follower counts as dead.
const BEATS_PER_LIFE: u32 = 10;
/// A shorter life would end in the pauses of a busy machine.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// Options of a [`Log`]. Setters never fail.
#[must_use = "a builder does nothing until `start`"]
pub struct LogBuilder<E, B> {
    executor: E,
    bus: B,
    tag: Tag,
    follower: Arc<dyn Follower>,
    heartbeat: Duration,
    life: Option<Duration>,
    page_entries_max: u32,
    clock: Arc<dyn Clock>,
}

impl<E: Executor, B: Bus> LogBuilder<E, B> {
    pub(crate) fn new(executor: E, bus: B, tag: Tag) -> Self {
        Self {
            executor,
            bus,
            tag,
            follower: Arc::new(Nobody),
            heartbeat: HEARTBEAT_DEFAULT,
            life: None,
            page_entries_max: Replay::ENTRIES_MAX_DEFAULT,
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets who is told what is in the log, from inside the receive loop. Default: nobody, and
    /// only [`Log::position`] and its kin can be used.
    pub fn follower(self, follower: Arc<dyn Follower>) -> Self {
        Self { follower, ..self }
    }

    /// Sets how often the log is read over the command path. Default: 200 ms; at least 5 ms.
    ///
    /// It bounds for how long a lost message goes unnoticed when no other follows it, and how old
    /// the last proof that nothing is missing can be while all is well.
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        Self { heartbeat: heartbeat.max(HEARTBEAT_MIN), ..self }
    }

    /// Sets for how long this follower counts as live after a beat, at most 24 h. Default: ten
    /// heartbeats, at least 1 s.
    ///
    /// One that is frozen or cut off delays [`Log::applied_by_all`] by this at most. It must be no
    /// shorter than any bound within which what was verified counts as fresh: then whoever is not
    /// waited for any more serves nothing as verified. All followers of a log use the same.
    pub fn life(self, life: Duration) -> Self {
        Self { life: Some(life), ..self }
    }

    /// Sets how many entries are read at once when some were missed. Default: 256; at least 2.
    pub fn page_entries_max(self, page_entries_max: u32) -> Self {
        Self { page_entries_max: page_entries_max.max(2), ..self }
    }

    /// Sets the clock that dates the proofs. Default: the system's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Starts to follow. Returns at once, also when the server is away.
    ///
    /// # Panics
    /// If called outside a Tokio runtime with a time driver.
    pub fn start(self) -> Log {
        self.executor.prepare(&SCRIPTS);
        let telemetry = Telemetry::new(&self.tag);
        let standing = Standing::new(telemetry.log(), self.clock.now());
        let (progress, seen) = watch::channel(Progress::default());
        let checks = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let executor = Arc::new(self.executor);
        let life = self
            .life
            .unwrap_or_else(|| self.heartbeat.saturating_mul(BEATS_PER_LIFE).max(LIFE_MIN));
        let log = Log::new(Shared {
            tag: self.tag.clone(),
            roll: RollCall::new(Arc::clone(&executor), &self.tag, life),
            progress: seen,
            health: standing.watch(),
            checks: checks.clone(),
            _stop: stop.clone().drop_guard(),
        });
        let listener = Listener {
            executor,
            bus: self.bus,
            tag: self.tag,
            id: rand::random(),
            life,
            heartbeat: self.heartbeat,
            page_entries_max: self.page_entries_max,
            clock: self.clock,
            pursuit: Pursuit::new(self.follower, telemetry.clone()),
            telemetry,
            standing,
            progress,
            checks,
            stop,
        };
        tokio::spawn(listener.run());
        log
    }
}

/// A follower that only lets the position be known.
struct Nobody;

impl Follower for Nobody {
    fn begin(&self, _at: Stamp, _why: Begin) {}

    fn apply(&self, _entry: &Entry) {}

    fn tick(&self) {}
}
