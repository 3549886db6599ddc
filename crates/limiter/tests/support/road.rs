//! An executor whose trips take as long as a test wants.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Script};
use fleetwide_mem_backend::MemExecutor;
use tokio::sync::Semaphore;
use tokio::time::sleep;

const ONE_WAY: Duration = Duration::from_millis(1);

/// Steps are carried out in memory, at the end of a road that is open for so many trips.
#[derive(Clone)]
pub(crate) struct Road {
    memory: MemExecutor,
    open_for: Arc<Semaphore>,
    trips: Arc<AtomicUsize>,
}

impl Road {
    pub(crate) fn new(memory: MemExecutor) -> Self {
        Self { memory, open_for: Arc::new(Semaphore::new(0)), trips: Arc::default() }
    }

    pub(crate) fn open_for(&self, trips: usize) {
        self.open_for.add_permits(trips);
    }

    /// Closes the road, and says how many trips were made since the last time.
    pub(crate) fn close(&self) -> usize {
        self.open_for.forget_permits(usize::MAX);
        self.trips.swap(0, Ordering::Relaxed)
    }
}

impl Executor for Road {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.open_for.acquire().await.expect("nobody closes it for good").forget();
        self.trips.fetch_add(1, Ordering::Relaxed);
        sleep(ONE_WAY).await;
        let result = self.memory.execute(op).await;
        // Who is dropped on the way back has spent, and does not know it.
        sleep(ONE_WAY).await;
        result
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.memory.prepare(scripts);
    }
}
