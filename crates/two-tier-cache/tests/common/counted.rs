//! An executor that counts what a cache asks of its server.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Script};
use parking_lot::Mutex;

/// Passes everything on, and counts round trips and steps.
#[derive(Clone)]
pub(crate) struct Counted<E> {
    inner: E,
    counts: Arc<Mutex<Counts>>,
}

/// What was asked since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) trips: usize,
    /// Steps by the name of their script; each is one command.
    pub(crate) steps: BTreeMap<&'static str, usize>,
}

impl Counts {
    pub(crate) fn new<const N: usize>(trips: usize, steps: [(&'static str, usize); N]) -> Self {
        Self { trips, steps: steps.into() }
    }
}

impl<E> Counted<E> {
    pub(crate) fn new(inner: E) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// What was asked since the last call.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock())
    }

    pub(crate) fn peek(&self) -> Counts {
        self.counts.lock().clone()
    }

    fn count(&self, steps: &[&'static str]) {
        let mut counts = self.counts.lock();
        counts.trips += 1;
        for step in steps {
            *counts.steps.entry(step).or_default() += 1;
        }
    }
}

impl<E: Executor> Executor for Counted<E> {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        // Signed by the clock, every ten seconds, whatever is asked.
        if op.script().name() == "cache_layout" {
            return self.inner.execute(op).await;
        }
        self.count(&[op.script().name()]);
        self.inner.execute(op).await
    }

    async fn execute_many(&self, ops: &mut [&mut dyn ErasedOp]) -> Vec<Result<(), BackendError>> {
        self.count(&ops.iter().map(|op| op.script().name()).collect::<Vec<_>>());
        self.inner.execute_many(ops).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}
