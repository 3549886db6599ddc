//! How old the last proof is that nothing is missing: it can be read, and it grows during an outage.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{PATIENCE, namespace};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Outage, Script};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::{SimClock, eventually};
use fleetwide_two_tier_cache::Cache;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps the one gauge that is looked at.
#[derive(Clone, Default)]
struct Age(Arc<AtomicU64>);

impl Age {
    fn seconds(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::SeqCst))
    }
}

impl Recorder for Age {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == "fleetwide_cache_verified_age_seconds" {
            Gauge::from_arc(Arc::clone(&self.0))
        } else {
            Gauge::noop()
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A server that can be away.
#[derive(Clone)]
struct Server {
    inner: MemExecutor,
    away: Arc<AtomicBool>,
}

impl Executor for Server {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(BackendError::NotSent(Outage::Down("away".to_owned())));
        }
        self.inner.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

/// Red if the age is only told when there is a new proof: it would stay small in an outage.
#[tokio::test]
async fn the_age_grows_while_beats_fail_and_is_small_again_afterwards() {
    let (age, clock) = (Age::default(), Arc::new(SimClock::new()));
    let _local = metrics::set_default_local_recorder(&age);
    let memory = Memory::builder().clock(clock.clone()).build();
    let server = Server { inner: memory.executor().clone(), away: Arc::default() };
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let builder = Cache::<String, String, ()>::builder(server.clone(), &namespace(), "ages", local);
    let cache: Cache<String, String, _> = builder.clock(clock.clone()).build().unwrap();
    clock.advance(Duration::from_secs(3));
    assert_eq!(cache.stats().verified_age, Duration::from_secs(3), "since it was built");
    let log = Log::builder(server.clone(), memory.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .heartbeat(Duration::from_millis(20))
        .clock(clock.clone())
        .start();
    log.begun().await.unwrap();
    let is = |seconds: f64| {
        let (age, cache) = (&age, &cache);
        async move || {
            let told = cache.stats().verified_age.as_secs_f64();
            (age.seconds() - seconds).abs() < 1e-6 && (told - seconds).abs() < 1e-6
        }
    };
    eventually(PATIENCE, "the first proof", is(0.0)).await;
    server.away.store(true, Ordering::SeqCst);
    for seconds in [7.0, 14.0, 21.0] {
        clock.advance(Duration::from_secs(7));
        eventually(PATIENCE, "the age to grow", is(seconds)).await;
    }
    server.away.store(false, Ordering::SeqCst);
    eventually(PATIENCE, "the next proof", is(0.0)).await;
}
