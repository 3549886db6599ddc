//! Nothing that was invalidated comes back (C1), whatever races with the invalidation.
//!
//! Each race is put in order by hand: loaders say when they have begun, and answers of the shared
//! tier are held back.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, SlowLoad, clocked, node, node_with, pair, quick, until_gone};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Script};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::{SimClock, eventually};
use fleetwide_two_tier_cache::{Freshness, Tier};

fn key() -> String {
    "key".to_owned()
}

/// Red without the lease check in `fill.lua` and its twin: the other instance then finds the old
/// value in L2. Red without the stamp check on a hit: then this instance serves it from L1.
#[tokio::test]
async fn a_load_that_began_before_an_invalidation_is_neither_stored_nor_served() {
    let (a, b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let caller = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    a.cache.invalidate(&key()).await.unwrap();
    slow.finish();
    let hit = caller.await.unwrap().unwrap();
    assert_eq!(*hit, "old", "who asked before the invalidation may get the old value");
    eventually(PATIENCE, "the fill was refused", || async { a.cache.stats().fills_refused == 1 })
        .await;
    assert!(a.cache.get(&key()).await.is_none());
    assert!(b.cache.get(&key()).await.is_none());
}

#[tokio::test]
async fn a_load_that_began_before_a_put_does_not_replace_what_was_put() {
    let (a, b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let caller = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    b.cache.put(&key(), "new".to_owned()).await.unwrap();
    slow.finish();
    caller.await.unwrap().unwrap();
    eventually(PATIENCE, "the fill was refused", || async { a.cache.stats().fills_refused == 1 })
        .await;
    let serves_new = || async { a.cache.get(&key()).await.is_some_and(|hit| *hit == "new") };
    eventually(PATIENCE, "the put is applied", serves_new).await;
    assert_eq!(*b.cache.get(&key()).await.unwrap(), "new");
}

/// Red without the comparison with the last clear in `fill.lua` and its twin.
#[tokio::test]
async fn a_load_that_began_before_a_clear_is_neither_stored_nor_served() {
    let (a, b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let caller = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    a.cache.clear().await.unwrap();
    slow.finish();
    caller.await.unwrap().unwrap();
    eventually(PATIENCE, "the fill was refused", || async { a.cache.stats().fills_refused == 1 })
        .await;
    assert!(a.cache.get(&key()).await.is_none());
    assert!(b.cache.get(&key()).await.is_none());
}

/// A read of L2 that was carried out before an invalidation, and answered after it was applied, is
/// dead on arrival in L1. Red without the stamp check on a hit.
#[tokio::test]
async fn a_read_that_arrives_late_leaves_nothing_in_l1() {
    let (a, b) = pair().await;
    b.cache.put(&key(), "old".to_owned()).await.unwrap();
    until_gone(&a.cache, "key").await;
    let holding = a.executor.hold("MGET");
    let cache = a.cache.clone();
    let reader = tokio::spawn(async move { cache.get(&key()).await });
    holding.carried_out().await;
    a.cache.invalidate(&key()).await.unwrap();
    holding.release();
    assert_eq!(*reader.await.unwrap().unwrap(), "old", "it asked before");
    assert!(a.cache.peek(&key()).is_none());
    assert!(a.cache.get(&key()).await.is_none());
}

/// Red without `detach`: the second caller then joins the flight of the first.
#[tokio::test]
async fn who_asks_after_an_invalidation_does_not_join_a_load_from_before() {
    let (a, _b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let caller = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    a.cache.invalidate(&key()).await.unwrap();
    let key = key();
    let second = a.cache.get_or_load(&key, quick("new"));
    let hit = tokio::time::timeout(PATIENCE, second).await.expect("it waits for nobody").unwrap();
    assert_eq!(*hit, "new");
    slow.finish();
    caller.await.unwrap().unwrap();
    assert_eq!(*a.cache.get(&key).await.unwrap(), "new");
}

/// The same on an instance that has only heard of it. Red without `detach` in `apply`.
#[tokio::test]
async fn who_asks_after_an_invalidation_was_heard_does_not_join_a_load_from_before() {
    let (a, b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let caller = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    b.cache.invalidate(&key()).await.unwrap();
    let heard = || async { a.cache.stats().invalidations_applied == 1 };
    eventually(PATIENCE, "the invalidation is heard", heard).await;
    let key = key();
    let second = a.cache.get_or_load(&key, quick("new"));
    let hit = tokio::time::timeout(PATIENCE, second).await.expect("it waits for nobody").unwrap();
    assert_eq!(*hit, "new");
    slow.finish();
    caller.await.unwrap().unwrap();
    assert_eq!(*a.cache.get(&key).await.unwrap(), "new");
}

/// What was put claims its own place in the log, not the one that is known here when its answer
/// comes. Red with that one: the value then stays in this L1, and nothing will name the key again.
#[tokio::test]
async fn a_put_that_an_invalidation_has_overtaken_leaves_nothing_in_l1() {
    let (a, b) = pair().await;
    let holding = a.executor.hold("cache_put");
    let cache = a.cache.clone();
    let putting = tokio::spawn(async move { cache.put(&key(), "old".to_owned()).await });
    holding.carried_out().await;
    b.cache.invalidate(&key()).await.unwrap();
    let heard = || async { a.cache.stats().invalidations_applied == 2 };
    eventually(PATIENCE, "the invalidation is heard", heard).await;
    holding.release();
    putting.await.unwrap().unwrap();
    assert!(a.cache.peek(&key()).is_none());
    assert!(a.cache.get(&key()).await.is_none());
}

/// A way to the server on which a put takes two seconds.
#[derive(Clone)]
struct LongWay {
    inner: MemExecutor,
    clock: SimClock,
}

impl Executor for LongWay {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        if op.script().name() == "cache_put" {
            self.clock.advance(Duration::from_secs(2));
        }
        self.inner.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

/// Nobody waits for a put for longer than a second: the key may have been written again since. What
/// comes after that removes, and stores nothing. Red without the deadline in `put.lua` and its twin.
#[tokio::test(start_paused = true)]
async fn a_put_that_arrives_after_its_time_stores_nothing_in_l2() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let namespace = common::namespace();
    let way = LongWay { inner: memory.executor().clone(), clock: clock.clone() };
    let a = clocked(way, &memory, &clock, &namespace, |builder| builder).await;
    let inner = memory.executor().clone();
    let b = clocked(inner, &memory, &clock, &namespace, |builder| builder).await;
    b.cache.put(&key(), "newer".to_owned()).await.unwrap();
    a.cache.put(&key(), "late".to_owned()).await.unwrap();
    until_gone(&b.cache, "key").await;
    assert!(b.cache.get(&key()).await.is_none());
}

/// The mark says that every write from before the bound is reflected; after a long load, that is
/// for the log to say. Red when every load with a lease was marked as verified.
#[tokio::test]
async fn a_loaded_value_that_is_known_to_be_void_is_not_marked_as_verified() {
    let (memory, namespace, clock) = (Memory::new(), common::namespace(), SimClock::new());
    let ours = Arc::new(clock.clone());
    let executor = memory.executor().clone();
    let a = node_with(executor, memory.bus(), &namespace, |b| b.clock(ours)).await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let caller = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    a.cache.invalidate(&key()).await.unwrap();
    clock.advance(Duration::from_millis(1_001));
    slow.finish();
    assert_eq!(caller.await.unwrap().unwrap().freshness(), Freshness::Unverified);
}

#[tokio::test]
async fn a_write_is_seen_by_the_other_instance_and_at_once_by_the_writer() {
    let (a, b) = pair().await;
    a.cache.put(&key(), "one".to_owned()).await.unwrap();
    assert_eq!(a.cache.get(&key()).await.unwrap().tier(), Tier::L1);
    let first = b.cache.get(&key()).await.unwrap();
    assert_eq!((first.tier(), first.freshness(), &**first), (Tier::L2, Freshness::Verified, "one"));
    assert_eq!(b.cache.get(&key()).await.unwrap().tier(), Tier::L1);
    a.cache.put(&key(), "two".to_owned()).await.unwrap();
    assert_eq!(*a.cache.get(&key()).await.unwrap(), "two");
    until_gone(&b.cache, "key").await;
    assert_eq!(*b.cache.get(&key()).await.unwrap(), "two");
}

#[tokio::test]
async fn a_clear_empties_every_instance_and_what_comes_after_it_stays() {
    let (a, b) = pair().await;
    for name in ["x", "y"] {
        a.cache.put(&name.to_owned(), name.to_owned()).await.unwrap();
        assert!(b.cache.get(&name.to_owned()).await.is_some());
    }
    a.cache.clear().await.unwrap();
    assert!(a.cache.get(&"x".to_owned()).await.is_none());
    until_gone(&b.cache, "y").await;
    assert!(b.cache.get(&"y".to_owned()).await.is_none());
    a.cache.put(&"x".to_owned(), "again".to_owned()).await.unwrap();
    assert_eq!(*b.cache.get(&"x".to_owned()).await.unwrap(), "again");
}

/// A server that lost the log begins a new history: what was stored in the old one is void, and
/// an instance that finds out drops its L1.
#[tokio::test]
async fn what_belongs_to_a_lost_history_is_void() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let a = node(memory.executor().clone(), memory.bus(), &namespace).await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    // Another server takes the place of the first: same names, other data.
    let other = Memory::new();
    let b = node(other.executor().clone(), other.bus(), &namespace).await;
    b.cache.put(&key(), "new".to_owned()).await.unwrap();
    let follower = a.cache.follower();
    let stamp = b.cache.invalidate(&"unrelated".to_owned()).await.unwrap();
    follower.begin(stamp.into(), fleetwide_core_traits::log::Begin::Reset);
    assert!(a.cache.peek(&key()).is_none());
    assert_eq!(a.cache.stats().resets, 1);
}

#[tokio::test]
async fn bad_keys_and_ttls_are_typed_errors_and_change_nothing() {
    use fleetwide_core_traits::{KeyError, TtlError};
    use fleetwide_two_tier_cache::{LoadError, PutOptions, WriteError};

    let (a, _b) = pair().await;
    let (empty, huge) = (String::new(), "k".repeat(65_537));
    assert_eq!(a.cache.invalidate(&empty).await, Err(WriteError::Key(KeyError::Empty)));
    let put = a.cache.put(&huge, "v".to_owned()).await;
    assert_eq!(put, Err(WriteError::Key(KeyError::TooLong(65_537))));
    let loaded = a.cache.get_or_load(&empty, quick("v")).await;
    assert!(matches!(loaded, Err(LoadError::Key(KeyError::Empty))));
    assert!(a.cache.get(&huge).await.is_none());
    for (ttl, error) in [(Duration::ZERO, TtlError::Zero), (Duration::MAX, TtlError::TooLong)] {
        let options = PutOptions::default().ttl(ttl);
        let put = a.cache.put_with(&key(), "v".to_owned(), options).await;
        assert_eq!(put, Err(WriteError::Ttl(error)));
    }
    assert!(a.cache.get(&key()).await.is_none());
}
