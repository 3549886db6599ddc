//! An executor that counts what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetwide_core_traits::{BackendError, Epoch, Epochs, ErasedOp, Executor, Script};

/// Passes everything on, and counts round trips and the commands in them.
#[derive(Clone)]
pub struct Counted<E> {
    inner: E,
    trips: Arc<AtomicU64>,
    commands: Arc<AtomicU64>,
}

impl<E> Counted<E> {
    /// Counts from zero.
    pub fn new(inner: E) -> Self {
        Self { inner, trips: Arc::default(), commands: Arc::default() }
    }

    /// Round trips and commands since the last call.
    pub fn take(&self) -> (u64, u64) {
        (self.trips.swap(0, Ordering::Relaxed), self.commands.swap(0, Ordering::Relaxed))
    }

    fn count(&self, commands: u64) {
        self.trips.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(commands, Ordering::Relaxed);
    }
}

impl<E: Executor> Executor for Counted<E> {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        // Signed by the clock, whatever is asked.
        if op.script().name() != "cache_layout" {
            self.count(1);
        }
        self.inner.execute(op).await
    }

    async fn execute_many(&self, ops: &mut [&mut dyn ErasedOp]) -> Vec<Result<(), BackendError>> {
        self.count(ops.len() as u64);
        self.inner.execute_many(ops).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }

    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    fn epochs(&self) -> Epochs {
        self.inner.epochs()
    }
}
