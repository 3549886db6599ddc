//! Makes an executor, a bus and a store that belong together.

use std::sync::Arc;

use fleetwide_core_traits::{Clock, Key, SystemClock};

use crate::store::Listener;
use crate::{Departure, MemBus, MemExecutor, MemStore};

/// Room for a million rate-limited callers; about 230 MB if all of it is used.
const CELLS_MAX_DEFAULT: usize = 1_000_000;
/// A subscriber that is this far behind is better told to catch up by other means.
const QUEUE_MAX_DEFAULT: usize = 1024;
/// Enough for tens of thousands of ordinary values, and unnoticed in most services.
const STORE_BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;
/// Locks per core. Two threads of four cores then meet at a lock once in sixteen steps.
const SHARDS_PER_CORE: usize = 4;

/// The memory of one process, in the place of a server. Cheap to clone.
///
/// Two instances that are given the same `Memory` share state as over a server, which is how tests
/// run a fleet in one process.
#[derive(Clone, Debug)]
pub struct Memory {
    executor: MemExecutor,
    bus: MemBus,
    store: MemStore,
}

impl Memory {
    /// Memory with the default limits and the system's clock.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Options.
    pub fn builder() -> MemoryBuilder {
        MemoryBuilder {
            cells_max: CELLS_MAX_DEFAULT,
            queue_max: QUEUE_MAX_DEFAULT,
            store_bytes_max: STORE_BYTES_MAX_DEFAULT,
            on_departure: None,
            clock: None,
        }
    }

    /// Runs ops; what they publish goes to [`bus`](Self::bus).
    pub fn executor(&self) -> &MemExecutor {
        &self.executor
    }

    /// Carries messages between all who were given this memory.
    pub fn bus(&self) -> &MemBus {
        &self.bus
    }

    /// Keeps plain bytes, apart from the cells of the executor.
    pub fn store(&self) -> &MemStore {
        &self.store
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Options of a [`Memory`].
#[must_use = "a builder does nothing until `build`"]
pub struct MemoryBuilder {
    cells_max: usize,
    queue_max: usize,
    store_bytes_max: u64,
    on_departure: Option<Listener>,
    clock: Option<Arc<dyn Clock>>,
}

impl MemoryBuilder {
    /// Sets how many cells of ops there may be. Default: 1,000,000; never more than 2^32 - 1.
    ///
    /// A step that needs one more fails with [`BackendError::Full`], because a cell that is still
    /// needed cannot be evicted.
    ///
    /// [`BackendError::Full`]: fleetwide_core_traits::BackendError::Full
    pub fn cells_max(self, cells_max: usize) -> Self {
        Self { cells_max, ..self }
    }

    /// Sets how many messages wait for a slow subscriber before it loses some. Default: 1024; at
    /// least 1.
    pub fn queue_max(self, queue_max: usize) -> Self {
        Self { queue_max, ..self }
    }

    /// Sets how many bytes the store may take. Default: 64 MiB. Beyond that it evicts.
    pub fn store_bytes_max(self, store_bytes_max: u64) -> Self {
        Self { store_bytes_max, ..self }
    }

    /// Sets what is told of each entry that leaves the store, and why. Default: nothing.
    ///
    /// It runs on the thread that happens to do the store's housekeeping, so it must be quick, and
    /// must not use the store. If it panics, it is not called again.
    pub fn on_departure(self, told: impl Fn(&Key, Departure) + Send + Sync + 'static) -> Self {
        Self { on_departure: Some(Box::new(told)), ..self }
    }

    /// Sets where time comes from. Default: the system's clocks.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Builds the memory. It takes space as it is used, not now.
    pub fn build(self) -> Memory {
        let bus = MemBus::new(self.queue_max);
        let store = MemStore::new(self.store_bytes_max, self.clock.clone(), self.on_departure);
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = cores * SHARDS_PER_CORE;
        let executor = MemExecutor::new(self.cells_max, shards, clock, bus.clone());
        Memory { executor, bus, store }
    }
}
