//! A clock that goes with the runtime's timers: where time is paused, waiting is free and exact.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetwide_core_traits::{
    BackendError, Clock, ErasedOp, Executor, MonoTime, Script, ServerTime,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use tokio::time::Instant;

/// A machine that has been up for a day, in 2026.
const UP_US: u64 = 86_400_000_000;
const YEAR_2026_US: u64 = 1_780_000_000_000_000;

#[derive(Clone, Copy)]
pub(crate) struct TimerClock {
    begun: Instant,
}

impl TimerClock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    fn elapsed_us(self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }
}

impl Clock for TimerClock {
    fn now(&self) -> MonoTime {
        MonoTime::from_micros(UP_US + self.elapsed_us())
    }

    fn server_time(&self) -> ServerTime {
        ServerTime::from_micros(YEAR_2026_US + self.elapsed_us())
    }
}

/// Memory by a clock, and how many steps were made.
#[derive(Clone)]
pub(crate) struct Trips {
    memory: MemExecutor,
    made: Arc<AtomicUsize>,
}

impl Trips {
    pub(crate) fn new(clock: TimerClock) -> Self {
        let memory = Memory::builder().clock(Arc::new(clock)).build().executor().clone();
        Self { memory, made: Arc::default() }
    }

    /// Those since the last time.
    pub(crate) fn take(&self) -> usize {
        self.made.swap(0, Ordering::Relaxed)
    }
}

impl Executor for Trips {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.memory.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.memory.prepare(scripts);
    }
}
