//! What a single read may ask for: how fresh its answer must be, and which tiers may give it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Gate, SlowLoad, clocked, namespace, quick};
use fleetwide_core_traits::{
    BackendError, Bus, Channel, ErasedOp, Executor, Namespace, Script, Signal,
};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::SimClock;
use fleetwide_two_tier_cache::{Cache, Freshness, Tier, WriteToken};
use futures_util::stream::{Pending, pending};
use tokio::task::yield_now;

fn key() -> String {
    "key".to_owned()
}

/// A bus that brings nothing: its instance learns of writes at its heartbeat alone.
#[derive(Clone)]
struct Deaf;

impl Bus for Deaf {
    type Subscription = ReadyOnly;

    async fn publish(&self, _: &Channel, _: bytes::Bytes) -> Result<(), BackendError> {
        Ok(())
    }

    fn subscribe(&self, _: &Channel) -> ReadyOnly {
        ReadyOnly { told: false, rest: pending() }
    }
}

/// Says that it listens, and never anything else.
struct ReadyOnly {
    told: bool,
    rest: Pending<Signal>,
}

impl futures_util::Stream for ReadyOnly {
    type Item = Signal;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Signal>> {
        if std::mem::replace(&mut self.told, true) {
            std::pin::Pin::new(&mut self.rest).poll_next(context)
        } else {
            std::task::Poll::Ready(Some(Signal::Ready))
        }
    }
}

/// An executor that counts the steps it carries out.
#[derive(Clone)]
struct Counting {
    inner: Gate<MemExecutor>,
    steps: Arc<AtomicUsize>,
}

impl Executor for Counting {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        if op.script().name() != "log_beat" {
            self.steps.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

impl Counting {
    fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }
}

struct Node {
    cache: Cache<String, String, Counting>,
    executor: Counting,
}

/// An instance that hears of writes once in `heartbeat`.
async fn deaf(memory: &Memory, namespace: &Namespace, heartbeat: Duration) -> Node {
    let inner = Gate::new(memory.executor().clone());
    let executor = Counting { inner, steps: Arc::default() };
    let local = MokaLocal::builder().build();
    let cache = Cache::builder(executor.clone(), namespace, "values", local)
        .l1_ttl(Duration::from_secs(600))
        .build()
        .unwrap();
    let log = Log::builder(executor.clone(), Deaf, cache.tag().clone())
        .follower(cache.follower())
        .heartbeat(heartbeat)
        .start();
    log.begun().await.unwrap();
    // The beat that verifies what was just begun.
    while cache.stats().l1_entries == 0 {
        cache.put(&"probe".to_owned(), String::new()).await.unwrap();
        yield_now().await;
    }
    cache.keep(Box::new(log)).ok().unwrap();
    Node { cache, executor }
}

const NEVER: Duration = Duration::from_secs(300);

async fn two() -> (Memory, Namespace, Node, Node) {
    let (memory, namespace) = (Memory::new(), namespace());
    let a = deaf(&memory, &namespace, NEVER).await;
    let b = deaf(&memory, &namespace, NEVER).await;
    (memory, namespace, a, b)
}

/// Red without `reflects`: the instance that has not heard of the write serves what it has.
#[tokio::test(start_paused = true)]
async fn who_holds_the_token_of_a_write_reads_it_on_every_instance() {
    let (_memory, _namespace, a, b) = two().await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    b.cache.get(&key()).await.unwrap();
    let token = a.cache.put(&key(), "new".to_owned()).await.unwrap();
    assert_eq!(*b.cache.get(&key()).await.unwrap(), "old", "it has not heard of it yet");
    let hit = b.cache.at(&key()).at_least(&token).get().await.unwrap();
    assert_eq!((&**hit, hit.tier()), ("new", Tier::L2));
    // What it has read reflects the write, so that the next read with the token stays here.
    assert_eq!(b.cache.at(&key()).at_least(&token).get().await.unwrap().tier(), Tier::L1);
}

/// A token of one key holds for all that a session reads after it.
#[tokio::test(start_paused = true)]
async fn a_token_covers_every_write_before_it() {
    let (_memory, _namespace, a, b) = two().await;
    let other = "other".to_owned();
    a.cache.put(&other, "old".to_owned()).await.unwrap();
    b.cache.get(&other).await.unwrap();
    a.cache.put(&other, "new".to_owned()).await.unwrap();
    let token = a.cache.invalidate(&key()).await.unwrap();
    assert_eq!(*b.cache.at(&other).at_least(&token).get().await.unwrap(), "new");
}

/// Red when such a read joined the load of another caller, which had begun before the write.
#[tokio::test(start_paused = true)]
async fn a_read_with_a_token_does_not_take_what_was_loaded_before_the_write() {
    let (_memory, _namespace, a, b) = two().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (b.cache.clone(), slow.loader("old"));
    let early = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    let token = a.cache.invalidate(&key()).await.unwrap();
    let cache = b.cache.clone();
    let late =
        tokio::spawn(
            async move { cache.at(&key()).at_least(&token).get_or_load(quick("new")).await },
        );
    for _ in 0..50 {
        yield_now().await;
    }
    slow.finish();
    assert_eq!(*late.await.unwrap().unwrap(), "new");
    assert_eq!(*early.await.unwrap().unwrap(), "old", "it began before the write");
}

/// The server has lost the write, or everything: then only the origin can know. Red without
/// `has_seen`.
#[tokio::test(start_paused = true)]
async fn a_write_that_the_server_has_lost_is_read_from_the_origin() {
    let (_memory, _namespace, a, b) = two().await;
    a.cache.put(&key(), "in L2".to_owned()).await.unwrap();
    let whole = a.cache.invalidate(&"other".to_owned()).await.unwrap().to_bytes();
    let lost = |at: usize, byte: u8| {
        let mut bytes = whole;
        bytes[at] ^= byte;
        WriteToken::from_bytes(bytes)
    };
    // Of another history, and of a place that this one never reached.
    for token in [lost(0, 1), lost(8, 0x10)] {
        let key = key();
        assert!(b.cache.at(&key).at_least(&token).get().await.is_none());
        let read = b.cache.at(&key).at_least(&token);
        let hit = read.get_or_load(quick("origin")).await.unwrap();
        assert_eq!((&**hit, hit.tier()), ("origin", Tier::Load));
    }
}

/// Red when a bound of its own was not looked at.
#[tokio::test(start_paused = true)]
async fn a_read_can_ask_for_less_staleness_than_the_cache() {
    let (_memory, _namespace, a, b) = two().await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    b.cache.get(&key()).await.unwrap();
    a.cache.put(&key(), "new".to_owned()).await.unwrap();
    let hit = b.cache.get(&key()).await.unwrap();
    assert_eq!((&**hit, hit.freshness()), ("old", Freshness::Verified), "within the bound");
    let hit = b.cache.at(&key()).max_staleness(Duration::from_micros(1)).get().await.unwrap();
    assert_eq!((&**hit, hit.tier()), ("new", Tier::L2));
}

/// Red when a read that was under way before could answer it.
#[tokio::test(start_paused = true)]
async fn a_read_without_staleness_joins_no_earlier_read() {
    let (_memory, _namespace, a, b) = two().await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    let holding = b.executor.inner.hold("MGET");
    let cache = b.cache.clone();
    let early = tokio::spawn(async move { cache.get(&key()).await });
    holding.carried_out().await;
    a.cache.put(&key(), "new".to_owned()).await.unwrap();
    let cache = b.cache.clone();
    let late =
        tokio::spawn(async move { cache.at(&key()).max_staleness(Duration::ZERO).get().await });
    holding.carried_out().await;
    holding.release();
    assert_eq!(*late.await.unwrap().unwrap(), "new");
    assert_eq!(*early.await.unwrap().unwrap(), "old");
}

/// The same for a read with a token. Red without the look at the token in `is_shareable`.
#[tokio::test(start_paused = true)]
async fn a_read_with_a_token_joins_no_earlier_read() {
    let (_memory, _namespace, a, b) = two().await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    let holding = b.executor.inner.hold("MGET");
    let cache = b.cache.clone();
    let early = tokio::spawn(async move { cache.get(&key()).await });
    holding.carried_out().await;
    let token = a.cache.put(&key(), "new".to_owned()).await.unwrap();
    let cache = b.cache.clone();
    let late = tokio::spawn(async move { cache.at(&key()).at_least(&token).get().await });
    for _ in 0..50 {
        yield_now().await;
    }
    holding.release();
    assert_eq!(*late.await.unwrap().unwrap(), "new");
    assert_eq!(*early.await.unwrap().unwrap(), "old", "it began before the write");
}

/// Red when `verified` was not looked at, on the short way or on the long one.
#[tokio::test(start_paused = true)]
async fn a_strict_read_takes_nothing_that_is_not_verified() {
    let (clock, namespace) = (SimClock::new(), namespace());
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let node = async |strict| {
        let executor = memory.executor().clone();
        clocked(executor, &memory, &clock, &namespace, |builder| builder.strict(strict)).await
    };
    let (lax, strict) = (node(false).await, node(true).await);
    lax.cache.put(&key(), "value".to_owned()).await.unwrap();
    strict.cache.get(&key()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    for node in [&lax, &strict] {
        let hit = node.cache.get(&key()).await.unwrap();
        assert_eq!((hit.tier(), hit.freshness()), (Tier::L1, Freshness::Verified));
    }
    // Longer than the bound, and no beat since.
    clock.advance(Duration::from_secs(2));
    let hit = lax.cache.get(&key()).await.unwrap();
    assert_eq!((hit.tier(), hit.freshness()), (Tier::L1, Freshness::Unverified));
    assert!(lax.cache.at(&key()).strict().skip_l2().get().await.is_none());
    let hit = strict.cache.get(&key()).await.unwrap();
    assert_eq!((hit.tier(), hit.freshness()), (Tier::L2, Freshness::Verified));
}

/// Red when the tier was asked all the same.
#[tokio::test(start_paused = true)]
async fn a_read_can_pass_a_tier_by() {
    let (_memory, _namespace, a, b) = two().await;
    a.cache.put(&key(), "shared".to_owned()).await.unwrap();
    assert_eq!(a.cache.get(&key()).await.unwrap().tier(), Tier::L1);
    assert_eq!(a.cache.at(&key()).skip_l1().get().await.unwrap().tier(), Tier::L2);
    let before = b.executor.steps();
    assert!(b.cache.at(&key()).skip_l2().get().await.is_none());
    let hit = b.cache.at(&key()).skip_l2().get_or_load(quick("own")).await.unwrap();
    assert_eq!((&**hit, b.executor.steps()), ("own", before));
}

/// Values that only one process ever writes need no proof of anything.
#[tokio::test]
async fn a_cache_alone_meets_every_demand_from_memory() {
    let executor = Memory::new().executor().clone();
    let cache: Cache<String, String, _> =
        Cache::builder(executor, &namespace(), "values", MokaLocal::builder().build())
            .alone(true)
            .build()
            .unwrap();
    let token = cache.put(&key(), "value".to_owned()).await.unwrap();
    let key = key();
    let read = || cache.at(&key);
    for read in [read().at_least(&token), read().max_staleness(Duration::ZERO), read().strict()] {
        let hit = read.get().await.unwrap();
        assert_eq!((hit.tier(), hit.freshness()), (Tier::L1, Freshness::Verified));
    }
}
