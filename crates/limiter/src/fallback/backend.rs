//! A backend that may be away: steps with a deadline, and the ladder that says who asks.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{
    AtomicOp, BackendError, Clock, Executor, ExecutorExt, MonoTime, Outage,
};
use tokio::time::timeout;

use super::gate::Gate;
use crate::telemetry::Telemetry;

pub(crate) struct Backend<E> {
    pub(crate) executor: Arc<E>,
    pub(crate) deadline: Duration,
    pub(crate) probe_every: Duration,
    pub(crate) gate: Gate,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
}

/// Why there is no answer.
pub(crate) struct Unanswered {
    /// The backend is not asked before this time is over.
    pub(crate) until_probe: Duration,
    /// Whether the step may have been carried out all the same.
    pub(crate) may_have_happened: bool,
}

impl<E: Executor> Backend<E> {
    /// Makes a step, if it is this caller's turn to ask.
    pub(crate) async fn ask<O: AtomicOp>(&self, op: &O) -> Result<O::Reply, Unanswered> {
        self.ask_by(self.run(op)).await
    }

    /// Waits for `step`, if it is this caller's turn to ask.
    pub(crate) async fn ask_by<T>(
        &self,
        step: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, Unanswered> {
        let asking = self
            .gate
            .enter()
            .map_err(|until_probe| Unanswered { until_probe, may_have_happened: false })?;
        let begun = self.now();
        let result = step.await;
        self.telemetry.asked(self.now().since(begun).as_secs_f64());
        match result {
            Ok(reply) => {
                asking.answered();
                Ok(reply)
            }
            Err(error) => {
                self.telemetry.failed();
                asking.failed(&error);
                let may_have_happened = error.may_have_happened();
                Err(Unanswered { until_probe: self.probe_every, may_have_happened })
            }
        }
    }

    /// Makes a step, whoever's turn it is.
    pub(crate) async fn run<O: AtomicOp>(&self, op: &O) -> Result<O::Reply, BackendError> {
        match timeout(self.deadline, self.executor.run(op)).await {
            Ok(result) => result,
            Err(_) => Err(BackendError::Unknown(Outage::Deadline(self.deadline))),
        }
    }

    pub(crate) fn now(&self) -> MonoTime {
        self.clock.now()
    }
}
