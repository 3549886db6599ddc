//! What every backend must do, done by this one.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Channel, Key};
use fleetwide_mem_backend::{MemBus, MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use fleetwide_testkit::suite::differential::{Histories, Side, compare};
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::suite::{self, Interrupt};
use rand::Rng;

#[tokio::test]
async fn store_keeps_the_contract() {
    suite::store::all(Memory::new().store()).await;
}

#[tokio::test]
async fn bus_keeps_the_contract() {
    let memory = Memory::new();
    suite::bus::all(memory.bus(), &Outage(memory.bus().clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn executor_keeps_the_contract() {
    let memory = Memory::new();
    suite::executor::all(memory.executor(), memory.bus()).await;
}

#[tokio::test]
async fn executor_on_a_clock_of_its_own_decides_by_that_clock() {
    let clock = SimClock::new();
    let memory = || Memory::builder().clock(Arc::new(clock.clone())).build();
    let (one, other) = (memory(), memory());
    let histories = Histories { count: 20, ..Histories::seeded() };
    let steps = compare(histories, side(one.executor()), side(other.executor()), |_, names| {
        let key = names.tag("count", b"one").unwrap().key();
        let clock = clock.clone();
        move |rng| {
            clock.advance(Duration::from_millis(rng.random_range(0..30)));
            let ttl = Duration::from_millis(rng.random_range(1..60));
            Count { by: rng.random_range(0..9), limit: 40, ttl, ..Count::one(&key) }
        }
    })
    .await;
    assert_eq!(steps, 2_000);
}

fn side(executor: &MemExecutor) -> Side<'_, MemExecutor, impl AsyncFn(&Key) -> Option<u64>> {
    Side { executor, probe: async |key: &Key| executor.peek_state(key) }
}

/// What the fault tests of other crates use, judged by the suite too.
struct Outage(MemBus);

impl Interrupt for Outage {
    async fn interrupt(&self, channel: &Channel) {
        self.0.interrupt(channel);
    }

    async fn resume(&self, channel: &Channel) {
        self.0.resume(channel);
    }
}
