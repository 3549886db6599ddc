//! A fleet in one process: several caches over one shared tier, each with its own log follower,
//! and an executor that holds answers back so that a test can order what races.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Bus, Clock, ErasedOp, Executor, Namespace, Script};
use fleetwide_mem_backend::{Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::{SimClock, eventually, unique_namespace};
use fleetwide_two_tier_cache::{Cache, CacheBuilder};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// One instance: a cache and the follower of its log.
pub(crate) struct Node<E> {
    pub(crate) cache: Cache<String, String, E>,
    pub(crate) executor: E,
}

/// A namespace of its own for each test.
pub(crate) fn namespace() -> Namespace {
    Namespace::new(&unique_namespace()).unwrap()
}

/// An instance whose log is followed, with its baseline read.
pub(crate) async fn node<E, B>(executor: E, bus: &B, namespace: &Namespace) -> Node<E>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    node_with(executor, bus, namespace, |builder| builder).await
}

/// The same with other options.
pub(crate) async fn node_with<E, B>(
    executor: E,
    bus: &B,
    namespace: &Namespace,
    options: impl FnOnce(CacheBuilder<String, String, E>) -> CacheBuilder<String, String, E>,
) -> Node<E>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let builder = Cache::builder(executor.clone(), namespace, "values", local);
    let cache = options(builder.l1_ttl(Duration::from_secs(60))).build().unwrap();
    let log = Log::builder(executor.clone(), bus.clone(), cache.tag().clone())
        .follower(cache.follower())
        .heartbeat(Duration::from_millis(50))
        .start();
    log.begun().await.unwrap();
    cache.keep(Box::new(log)).ok().unwrap();
    Node { cache, executor }
}

/// An instance by whose clock nothing passes unless the test says so. Use it under paused time.
pub(crate) async fn clocked<E: Executor + Clone>(
    executor: E,
    memory: &Memory,
    clock: &SimClock,
    namespace: &Namespace,
    options: impl FnOnce(CacheBuilder<String, String, E>) -> CacheBuilder<String, String, E>,
) -> Node<E> {
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let builder = Cache::builder(executor.clone(), namespace, "values", local);
    let builder = builder.l1_ttl(Duration::from_secs(5)).clock(Arc::clone(&clock));
    let cache = options(builder).build().unwrap();
    let log = Log::builder(executor.clone(), memory.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .heartbeat(Duration::from_millis(50))
        .clock(clock)
        .start();
    log.begun().await.unwrap();
    cache.keep(Box::new(log)).ok().unwrap();
    Node { cache, executor }
}

/// Two instances over one memory backend.
pub(crate) async fn pair()
-> (Node<Gate<fleetwide_mem_backend::MemExecutor>>, Node<Gate<fleetwide_mem_backend::MemExecutor>>)
{
    let (memory, namespace) = (Memory::new(), namespace());
    let gate = || Gate::new(memory.executor().clone());
    let first = node(gate(), memory.bus(), &namespace).await;
    let second = node(gate(), memory.bus(), &namespace).await;
    (first, second)
}

/// Waits until `cache` no longer serves `key` from L1, or fails.
pub(crate) async fn until_gone<E: Executor + Clone>(cache: &Cache<String, String, E>, key: &str) {
    let key = key.to_owned();
    eventually(PATIENCE, "the invalidation is applied", || async { cache.peek(&key).is_none() })
        .await;
}

/// An executor whose answers to one script can be held back.
pub(crate) struct Gate<E> {
    inner: E,
    held: Arc<Mutex<Option<Held>>>,
}

#[derive(Clone)]
struct Held {
    script: &'static str,
    arrived: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

/// Holds back the answers to one script until it is dropped or told to go.
pub(crate) struct HoldingBack {
    held: Held,
    slot: Arc<Mutex<Option<Held>>>,
}

impl<E> Gate<E> {
    pub(crate) fn new(inner: E) -> Self {
        Self { inner, held: Arc::default() }
    }

    pub(crate) const fn inner(&self) -> &E {
        &self.inner
    }

    /// From now on, answers to `script` stay here.
    pub(crate) fn hold(&self, script: &'static str) -> HoldingBack {
        let (arrived, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let held = Held { script, arrived, go };
        *self.held.lock() = Some(held.clone());
        HoldingBack { held, slot: Arc::clone(&self.held) }
    }
}

impl HoldingBack {
    /// Waits until one answer is held back: the step has been carried out.
    pub(crate) async fn carried_out(&self) {
        self.held.arrived.acquire().await.unwrap().forget();
    }

    /// Lets everything through.
    pub(crate) fn release(self) {
        drop(self);
    }
}

impl Drop for HoldingBack {
    fn drop(&mut self) {
        *self.slot.lock() = None;
        self.held.go.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

impl<E: Clone> Clone for Gate<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), held: Arc::clone(&self.held) }
    }
}

impl<E: Executor> Executor for Gate<E> {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let held = self.held.lock().clone().filter(|held| held.script == op.script().name());
        let result = self.inner.execute(op).await;
        if let Some(held) = held {
            held.arrived.add_permits(1);
            held.go.acquire().await.unwrap().forget();
        }
        result
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

/// A loader that says when it began, and ends when it is told to.
pub(crate) struct SlowLoad {
    began: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl SlowLoad {
    pub(crate) fn new() -> Self {
        Self { began: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) }
    }

    /// The loader, which will give `value`.
    pub(crate) fn loader(
        &self,
        value: &str,
    ) -> impl FnOnce(
        String,
    ) -> std::pin::Pin<
        Box<dyn Future<Output = Result<String, std::io::Error>> + Send>,
    > + Send
    + 'static {
        let (began, go, value) = (Arc::clone(&self.began), Arc::clone(&self.go), value.to_owned());
        move |_key| {
            Box::pin(async move {
                began.add_permits(1);
                go.acquire().await.unwrap().forget();
                Ok(value)
            })
        }
    }

    pub(crate) async fn began(&self) {
        self.began.acquire().await.unwrap().forget();
    }

    pub(crate) fn finish(&self) {
        self.go.add_permits(1);
    }
}

/// A loader that gives `value` at once.
pub(crate) fn quick(
    value: &str,
) -> impl FnOnce(String) -> std::future::Ready<Result<String, std::io::Error>> + Send + 'static {
    let value = value.to_owned();
    move |_key| std::future::ready(Ok(value))
}
