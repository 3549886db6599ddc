//! Memory or a Redis by a clock that the test moves, and how many steps were made.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{
    BackendError, Either, ErasedOp, Executor, Namespace, Script, ScriptClock,
};
use fleetwide_limiter::{Limiter, LimiterBuilder, Quota, Unavailable};
use fleetwide_mem_backend::{MemBus, Memory};
use fleetwide_redis_backend::{Redis, RedisBus};
use fleetwide_testkit::{RedisServer, SimClock, unique_namespace};

use crate::support::{self, AnyExecutor};

/// So long that a server, whose keys expire by the real clock, keeps them while a test runs.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Counts the steps.
#[derive(Clone)]
pub(crate) struct Counted {
    executor: AnyExecutor,
    trips: Arc<AtomicUsize>,
}

impl Executor for Counted {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        self.executor.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.executor.prepare(scripts);
    }
}

/// Memory or a Redis, by one clock.
pub(crate) struct Backend {
    pub(crate) clock: SimClock,
    executor: Counted,
    bus: Either<MemBus, RedisBus>,
    namespace: Namespace,
    server: Option<(RedisServer, Redis)>,
}

impl Backend {
    pub(crate) fn memory() -> Self {
        let clock = SimClock::new();
        let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
        let bus = Either::Left(memory.bus().clone());
        Self::of(clock, AnyExecutor::Left(memory.executor().clone()), bus, None)
    }

    pub(crate) async fn redis() -> Self {
        let clock = SimClock::new();
        let server = support::server().await;
        let redis = support::redis(&server, |builder| {
            builder.clock(Arc::new(clock.clone())).script_clock(ScriptClock::Argument)
        });
        let redis = redis.await;
        let bus = Either::Right(redis.bus());
        Self::of(clock, AnyExecutor::Right(redis.executor()), bus, Some((server, redis)))
    }

    fn of(
        clock: SimClock,
        executor: AnyExecutor,
        bus: Either<MemBus, RedisBus>,
        server: Option<(RedisServer, Redis)>,
    ) -> Self {
        let namespace = Namespace::new(&unique_namespace()).unwrap();
        let executor = Counted { executor, trips: Arc::default() };
        Self { clock, executor, bus, namespace, server }
    }

    /// The server, where it is not memory.
    pub(crate) fn server(&self) -> &RedisServer {
        &self.server.as_ref().expect("it is in memory").0
    }

    pub(crate) fn executor(&self) -> Counted {
        self.executor.clone()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn options(&self, name: &str, quota: Quota) -> LimiterBuilder<Counted> {
        Limiter::builder(self.executor.clone(), &self.namespace, name, quota)
            .on_unavailable(Unavailable::Deny)
            .deadline(Duration::from_secs(30))
            .clock(Arc::new(self.clock.clone()))
    }

    pub(crate) fn with_bus(&self, name: &str, quota: Quota) -> LimiterBuilder<Counted> {
        self.options(name, quota).bus(self.bus.clone())
    }

    pub(crate) fn limiter(&self, quota: Quota) -> Limiter<Counted> {
        self.options("test", quota).build().unwrap()
    }

    /// Steps in all.
    pub(crate) fn trips_made(&self) -> usize {
        self.executor.trips.load(Ordering::Relaxed)
    }

    /// Steps since the last time.
    pub(crate) fn trips(&self) -> usize {
        self.executor.trips.swap(0, Ordering::Relaxed)
    }
}

pub(crate) async fn backends() -> [Backend; 2] {
    [Backend::memory(), Backend::redis().await]
}
