//! The ladder as callers share it: a lock, a way around it while all is well, word of each move.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Clock, Outage};
use parking_lot::Mutex;

use super::ladder::{Hysteresis, Ladder, Move, Outcome, Turn};
use crate::telemetry::Telemetry;

/// The rung of a limiter was entered or left.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum RungChange {
    /// The backend gives no answer; from now on the chosen rung does.
    #[non_exhaustive]
    Entered {
        /// What came instead of the last answer.
        reason: BackendError,
    },
    /// The fleet's count decides again.
    #[non_exhaustive]
    Left {
        /// How long the rung answered.
        after: Duration,
    },
}

/// What is told of each [`RungChange`].
pub(crate) type Listener = Box<dyn Fn(&RungChange) + Send + Sync>;

pub(crate) struct Gate {
    ladder: Mutex<Ladder>,
    /// While it is set, nobody needs the lock. It may lag behind for a moment, which costs one more
    /// question to a backend that is away, or one answer that is not counted.
    is_calm: AtomicBool,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    listener: Option<Listener>,
}

impl Gate {
    pub(crate) fn new(
        hysteresis: Hysteresis,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        listener: Option<Listener>,
    ) -> Self {
        let ladder = Mutex::new(Ladder::new(hysteresis));
        Self { ladder, is_calm: AtomicBool::new(true), clock, telemetry, listener }
    }

    /// Lets the caller ask the backend.
    ///
    /// # Errors
    /// It has to take the rung's answer; the backend is not asked before this time is over.
    pub(crate) fn enter(&self) -> Result<Asking<'_>, Duration> {
        if self.is_calm.load(Ordering::Relaxed) {
            return Ok(Asking { gate: self, turn: Turn::Ask });
        }
        match self.ladder.lock().begin(self.clock.now()) {
            Turn::Stay { until_probe } => Err(until_probe),
            turn => Ok(Asking { gate: self, turn }),
        }
    }

    fn finish(&self, turn: Turn, outcome: Outcome, error: Option<&BackendError>) {
        let moved = {
            let mut ladder = self.ladder.lock();
            let moved = ladder.finish(turn, outcome, self.clock.now());
            self.is_calm.store(ladder.is_calm(), Ordering::Relaxed);
            moved
        };
        // Told outside the lock: a listener may use the limiter.
        let change = match (moved, error) {
            (Some(Move::Entered), Some(reason)) => RungChange::Entered { reason: reason.clone() },
            (Some(Move::Left { after }), _) => RungChange::Left { after },
            _ => return,
        };
        self.telemetry.moved(&change);
        if let Some(listener) = &self.listener {
            listener(&change);
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("ladder", &*self.ladder.lock()).finish_non_exhaustive()
    }
}

/// A caller that asks the backend. Dropped without an answer, it gives its place to the next.
#[must_use = "whoever asks says what came of it"]
pub(crate) struct Asking<'a> {
    gate: &'a Gate,
    turn: Turn,
}

impl Asking<'_> {
    pub(crate) fn answered(self) {
        let is_noted = self.turn == Turn::Ask && self.gate.is_calm.load(Ordering::Relaxed);
        if !is_noted {
            self.finish(Outcome::Answered, None);
        }
    }

    pub(crate) fn failed(self, error: &BackendError) {
        let outcome = match error {
            // It concerns keys that are new, and others are answered.
            BackendError::Full { .. } => Outcome::Nothing,
            BackendError::NotSent(Outage::Down(_)) => Outcome::Down,
            _ => Outcome::Failed,
        };
        self.finish(outcome, Some(error));
    }

    fn finish(mut self, outcome: Outcome, error: Option<&BackendError>) {
        // From here on the place of a probe is not this caller's to give back.
        let turn = mem::replace(&mut self.turn, Turn::Ask);
        self.gate.finish(turn, outcome, error);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.turn == Turn::Probe {
            self.gate.finish(Turn::Probe, Outcome::Nothing, None);
        }
    }
}
