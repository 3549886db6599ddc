//! Repeats what is queued, as invalidations, until the server has confirmed them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetwide_core_traits::log::Meta;
use fleetwide_core_traits::{BackendError, Executor, Outage};
use rand::Rng;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::bulk::in_steps;
use crate::cache::Inner;
use crate::error::WriteError;
use crate::key::CacheKey;
use crate::recovery::Target;
use crate::settle::Inside;

/// Pauses between attempts to repeat what is queued.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Writes that are repeated before the queue is looked at again.
const REPEAT_BATCH: usize = 128;

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Starts the task that repeats what is queued.
    pub(crate) fn start_repeating(self: &Arc<Self>) {
        let running = Running { inner: Arc::downgrade(self) };
        // Without a runtime nobody repeats it now: `running` says so as it is dropped.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(repeat(running));
        }
    }

    /// Repeats what is due once. Returns whether all of it was done.
    ///
    /// Keys go together: what waits after an outage can be thousands.
    async fn repeat_due(&self, due: Vec<(Target, u64)>) -> bool {
        let (mut keys, mut steps) = (Vec::new(), Vec::new());
        for (target, written) in due {
            match target {
                Target::Key(wire) => keys.push((wire, written)),
                other => steps.push(vec![(other, written)]),
            }
        }
        for step in in_steps(keys, |(wire, _)| wire.len()) {
            steps.push(step.into_iter().map(|(wire, at)| (Target::Key(wire), at)).collect());
        }
        let mut all = true;
        for step in steps {
            match self.repeat_step(&step).await {
                Ok(meta) => {
                    self.floors.wrote(meta);
                    for (target, written) in step {
                        self.agree(&target, Inside::Unknown, Some(meta.at));
                        self.recovery.done(&target, written);
                    }
                }
                // Concerns this step alone; the others must not wait for it.
                Err(BackendError::Rejected(_)) => all = false,
                Err(_) => return false,
            }
        }
        all
    }

    /// Repeats a tag, a clear, or some keys, as an invalidation.
    async fn repeat_step(&self, step: &[(Target, u64)]) -> Result<Meta, BackendError> {
        let unbuilt = |error| unbuilt(&error);
        match step {
            [(Target::Tag(tag), _)] => self.ask(&self.bump(tag).map_err(unbuilt)?).await,
            [(Target::Everything, _)] => self.ask(&self.clearing().map_err(unbuilt)?).await,
            [(Target::Key(wire), _)] => self.ask(&self.invalidation(wire).map_err(unbuilt)?).await,
            keys => {
                let wires = keys.iter().filter_map(|(target, _)| target.wire());
                self.ask(&self.invalidation_of(wires).map_err(unbuilt)?).await
            }
        }
    }
}

/// The duty to repeat what is queued. Dropping it, also with its runtime, lets the next write that
/// fails start again.
struct Running<K, V, E> {
    inner: Weak<Inner<K, V, E>>,
}

impl<K, V, E> Drop for Running<K, V, E> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.recovery.stopped();
        }
    }
}

/// Repeats what is queued until nothing is left, or the cache is gone.
async fn repeat<K, V, E>(mut running: Running<K, V, E>)
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    let mut pause = RETRY_MIN;
    let mut repeated = 0_usize;
    loop {
        let jitter = rand::rng().random_range(0.5..1.0);
        sleep(pause.mul_f64(jitter)).await;
        let Some(inner) = running.inner.upgrade() else { return };
        let Some(due) = inner.recovery.due(REPEAT_BATCH) else {
            if !inner.recovery.rest() {
                continue;
            }
            // It has stopped already, and somebody may have begun again.
            running.inner = Weak::new();
            tracing::info!(cache = %inner.name, batches = repeated, "queued invalidations are done");
            return;
        };
        if inner.repeat_due(due).await {
            repeated += 1;
            pause = Duration::from_millis(1);
        } else {
            pause = (pause * 2).clamp(RETRY_MIN, RETRY_MAX);
        }
    }
}

/// What is queued was built once before, so it can be built again; if not, it cannot be sent.
fn unbuilt(error: &WriteError) -> BackendError {
    BackendError::NotSent(Outage::Down(error.to_string()))
}
