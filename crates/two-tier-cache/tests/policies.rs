//! What is served after its time, while it is renewed, and when the origin is slow or fails.
//! Simulated time throughout.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Gate, Node, SlowLoad, clocked, namespace, quick};
use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use fleetwide_two_tier_cache::{
    BulkError, Cache, CacheBuilder, Freshness, LoadContext, LoadError, Loaded, OnAbandon, Tier,
};
use tokio::task::{JoinSet, yield_now};

type Executor = Gate<MemExecutor>;
type Builder = CacheBuilder<String, String, Executor>;
type AloneBuilder = CacheBuilder<String, String, MemExecutor>;

const TTL: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(600);

fn key() -> String {
    "key".to_owned()
}

/// Instances whose values live for a minute, over one memory and one clock.
struct Fleet {
    memory: Memory,
    clock: SimClock,
    namespace: Namespace,
}

impl Fleet {
    fn new() -> Self {
        let clock = SimClock::new();
        let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
        Self { memory, clock, namespace: namespace() }
    }

    async fn node(&self, options: impl FnOnce(Builder) -> Builder) -> Node<Executor> {
        let executor = Gate::new(self.memory.executor().clone());
        let options = |builder: Builder| options(builder.ttl(TTL));
        clocked(executor, &self.memory, &self.clock, &self.namespace, options).await
    }

    /// Lets the value's time pass.
    fn expire(&self) {
        self.clock.advance(TTL + Duration::from_secs(1));
    }
}

/// One instance, and the clock that it lives by.
async fn alone(
    options: impl FnOnce(Builder) -> Builder,
) -> (Fleet, Cache<String, String, Executor>) {
    let fleet = Fleet::new();
    let node = fleet.node(options).await;
    (fleet, node.cache)
}

/// A loader that counts its runs.
#[derive(Clone, Default)]
struct Origin {
    loads: Arc<AtomicUsize>,
}

impl Origin {
    fn gives(
        &self,
        value: &str,
    ) -> impl FnOnce(String) -> std::future::Ready<Result<String, std::io::Error>> + Send + 'static
    {
        let (loads, value) = (Arc::clone(&self.loads), value.to_owned());
        move |_key| {
            loads.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(value))
        }
    }

    fn fails(
        &self,
    ) -> impl FnOnce(String) -> std::future::Ready<Result<String, std::io::Error>> + Send + 'static
    {
        let loads = Arc::clone(&self.loads);
        move |_key| {
            loads.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Err(std::io::Error::other("origin is down")))
        }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

/// Lets the tasks in the background come to rest, and the log be read once more.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
}

/// Red without the `patience` of a read: it then waits for the loader.
#[tokio::test(start_paused = true)]
async fn an_expired_value_is_served_at_once_while_one_load_renews_it() {
    let (fleet, cache) = alone(|builder| builder.stale_while_revalidate(GRACE)).await;
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    fleet.expire();
    let slow = SlowLoad::new();
    for _ in 0..10 {
        let hit = cache.get_or_load(&key(), slow.loader("new")).await.unwrap();
        assert_eq!((&**hit, hit.freshness()), ("old", Freshness::Stale));
    }
    slow.began().await;
    assert_eq!(cache.stats().loads_under_way, 1);
    slow.finish();
    settle().await;
    let hit = cache.get(&key()).await.unwrap();
    assert_eq!((&**hit, hit.tier(), hit.freshness()), ("new", Tier::L1, Freshness::Verified));
    assert_eq!((cache.stats().loads, cache.stats().hits_stale), (2, 10));
}

/// Red when the lease script took the expired value for an answer, or let both load.
#[tokio::test(start_paused = true)]
async fn instances_renew_a_value_with_one_load() {
    let fleet = Fleet::new();
    let a = fleet.node(|builder| builder.stale_while_revalidate(GRACE)).await;
    let b = fleet.node(|builder| builder.stale_while_revalidate(GRACE)).await;
    let origin = Origin::default();
    a.cache.get_or_load(&key(), origin.gives("old")).await.unwrap();
    b.cache.get_or_load(&key(), origin.gives("old")).await.unwrap();
    assert_eq!(origin.loads(), 1);
    fleet.expire();
    let slow = SlowLoad::new();
    let stale = a.cache.get_or_load(&key(), slow.loader("new")).await.unwrap();
    slow.began().await;
    let also = b.cache.get_or_load(&key(), origin.gives("never")).await.unwrap();
    assert_eq!((&**stale, &**also), ("old", "old"));
    slow.finish();
    settle().await;
    for node in [&a, &b] {
        assert_eq!(*node.cache.get(&key()).await.unwrap(), "new");
    }
    assert_eq!(origin.loads(), 1, "the second instance waited for the first one's load");
}

/// Red when neither `recall` nor `spare` looked at the floors: each alone is enough here.
#[tokio::test(start_paused = true)]
async fn what_was_invalidated_is_not_served_as_stale() {
    let options = |builder: Builder| builder.stale_while_revalidate(GRACE).stale_if_error(GRACE);
    let (fleet, cache) = alone(options).await;
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    fleet.expire();
    cache.invalidate(&key()).await.unwrap();
    let error = cache.get_or_load(&key(), Origin::default().fails()).await.unwrap_err();
    assert!(matches!(error, LoadError::Failed(_)));
}

/// The same when it is invalidated while the reader waits for its loader: red when `spare` did not
/// look at the floors, after the wait.
#[tokio::test(start_paused = true)]
async fn what_is_invalidated_during_a_wait_is_not_served_as_stale() {
    let second = Duration::from_secs(1);
    let (fleet, cache) = alone(|b| b.stale_if_error(GRACE).soft_timeout(second)).await;
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    fleet.expire();
    let slow = SlowLoad::new();
    let (reading, loader) = (cache.clone(), slow.loader("new"));
    let reader = tokio::spawn(async move { reading.get_or_load(&key(), loader).await });
    slow.began().await;
    cache.invalidate(&key()).await.unwrap();
    tokio::time::sleep(second * 2).await;
    slow.finish();
    assert_eq!(*reader.await.unwrap().unwrap(), "new");
}

/// Red without `or_spare`, and, at the count, without the rest after a failure.
#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_instead_of_an_error_and_the_origin_gets_a_rest() {
    let (fleet, cache) = alone(|builder| builder.stale_if_error(GRACE)).await;
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    fleet.expire();
    let origin = Origin::default();
    for _ in 0..10 {
        let hit = cache.get_or_load(&key(), origin.fails()).await.unwrap();
        assert_eq!((&**hit, hit.freshness()), ("old", Freshness::Stale));
    }
    assert_eq!(origin.loads(), 1);
    fleet.clock.advance(Duration::from_secs(2));
    cache.get_or_load(&key(), origin.fails()).await.unwrap();
    assert_eq!(origin.loads(), 2);
    fleet.clock.advance(GRACE);
    cache.get_or_load(&key(), origin.fails()).await.unwrap_err();
    assert_eq!(*cache.get_or_load(&key(), quick("new")).await.unwrap(), "new");
}

/// Red when only an L1 that still held the value could serve it: L2 keeps it for the extra time.
#[tokio::test(start_paused = true)]
async fn an_instance_that_has_just_started_finds_the_stale_value_in_l2() {
    let fleet = Fleet::new();
    let a = fleet.node(|builder| builder.stale_if_error(GRACE)).await;
    a.cache.get_or_load(&key(), quick("old")).await.unwrap();
    settle().await;
    fleet.expire();
    let b = fleet.node(|builder| builder.stale_if_error(GRACE)).await;
    let hit = b.cache.get_or_load(&key(), Origin::default().fails()).await.unwrap();
    assert_eq!((&**hit, hit.freshness()), ("old", Freshness::Stale));
    assert!(b.cache.get(&key()).await.is_none(), "without a loader it has to be asked for");
    let hit = b.cache.at(&key()).allow_stale().get().await.unwrap();
    assert_eq!((&**hit, hit.freshness()), ("old", Freshness::Stale));
}

/// Red without the soft timeout: the reader then waits until the loader is done.
#[tokio::test(start_paused = true)]
async fn a_slow_loader_costs_the_soft_timeout_and_fills_when_it_is_done() {
    let soft = Duration::from_millis(80);
    let (fleet, cache) = alone(|b| b.stale_if_error(GRACE).soft_timeout(soft)).await;
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    fleet.expire();
    let (slow, asked) = (SlowLoad::new(), tokio::time::Instant::now());
    let hit = cache.get_or_load(&key(), slow.loader("new")).await.unwrap();
    assert_eq!((&**hit, asked.elapsed() / 10), ("old", soft / 10));
    slow.finish();
    settle().await;
    assert_eq!(*cache.get(&key()).await.unwrap(), "new");
}

/// Red without the hard timeout: nobody ever answers.
#[tokio::test(start_paused = true)]
async fn a_loader_that_takes_too_long_is_an_error_for_who_waits_and_fills_when_it_is_done() {
    let hard = Duration::from_secs(2);
    let (_fleet, cache) = alone(|builder| builder.hard_timeout(hard)).await;
    let slow = SlowLoad::new();
    let error = cache.get_or_load(&key(), slow.loader("late")).await.unwrap_err();
    assert!(matches!(error, LoadError::TimedOut(after) if after == hard));
    slow.finish();
    settle().await;
    assert_eq!(*cache.get(&key()).await.unwrap(), "late");
}

/// The late value is fenced like any other.
#[tokio::test(start_paused = true)]
async fn what_a_late_loader_brings_does_not_outlive_an_invalidation() {
    let fleet = Fleet::new();
    let a = fleet.node(|builder| builder.hard_timeout(Duration::from_secs(2))).await;
    let b = fleet.node(|builder| builder).await;
    let slow = SlowLoad::new();
    a.cache.get_or_load(&key(), slow.loader("old")).await.unwrap_err();
    b.cache.invalidate(&key()).await.unwrap();
    slow.finish();
    settle().await;
    assert!(a.cache.get(&key()).await.is_none() && b.cache.get(&key()).await.is_none());
}

/// Red without `until_overdue`: the key then waits for the loader that hangs, on every instance
/// and for ever, and its permit is never given back.
#[tokio::test(start_paused = true)]
async fn a_loader_that_never_ends_blocks_a_key_for_a_bounded_time() {
    let hard = Duration::from_secs(2);
    let fleet = Fleet::new();
    let a = fleet.node(|builder| builder.hard_timeout(hard).loads_max(1)).await;
    let b = fleet.node(|builder| builder.hard_timeout(hard * 10)).await;
    let hangs = |_key| std::future::pending::<Result<String, std::io::Error>>();
    a.cache.get_or_load(&key(), hangs).await.unwrap_err();
    let asked = tokio::time::Instant::now();
    // The lease is renewed for twice the hard timeout, and then runs out by the server's clock.
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fleet.clock.advance(Duration::from_millis(100));
        }
    };
    let (other, own) = (key(), "other".to_owned());
    tokio::select! {
        hit = b.cache.get_or_load(&other, quick("b")) => assert_eq!(*hit.unwrap(), "b"),
        () = ticking => {}
    }
    assert!(asked.elapsed() < hard * 2 + Duration::from_secs(6), "{:?}", asked.elapsed());
    assert_eq!(*a.cache.get_or_load(&own, quick("a")).await.unwrap(), "a");
}

/// One dice throw per caller: so close to the end and with so long a load, a renewal is as good as
/// certain. Red without the early part of `ask_tiers`.
#[tokio::test(start_paused = true)]
async fn a_busy_key_is_renewed_before_its_end_and_nobody_waits() {
    let fleet = Fleet::new();
    let options = |builder: Builder| builder.early_refresh(1.0).l1_ttl(TTL);
    let (a, b) = (fleet.node(options).await, fleet.node(options).await);
    let (slow, loading) = (SlowLoad::new(), a.cache.clone());
    let loader = slow.loader("old");
    let first = tokio::spawn(async move { loading.get_or_load(&key(), loader).await });
    slow.began().await;
    fleet.clock.advance(Duration::from_secs(1));
    slow.finish();
    first.await.unwrap().unwrap();
    settle().await;
    b.cache.get(&key()).await.unwrap();
    fleet.clock.advance(Duration::from_micros(59_999_990));
    let origin = Origin::default();
    for _ in 0..4 {
        for node in [&a, &b] {
            let hit = node.cache.get_or_load(&key(), origin.gives("new")).await.unwrap();
            assert_ne!(hit.tier(), Tier::Load, "nobody waits for a load");
            settle().await;
        }
    }
    assert_eq!(origin.loads(), 1, "one renewal for the fleet");
    assert_eq!(*a.cache.get(&key()).await.unwrap(), "new");
    fleet.clock.advance(Duration::from_secs(1));
    assert_eq!(*b.cache.get(&key()).await.unwrap(), "new");
}

/// Red without the jitter: then all live to the end.
#[tokio::test(start_paused = true)]
async fn what_was_stored_together_expires_apart() {
    let fleet = Fleet::new();
    let cache = fleet.node(|builder| builder.jitter(0.5).l1_ttl(TTL)).await.cache;
    let keys: Vec<String> = (0..64).map(|number: u32| number.to_string()).collect();
    for key in &keys {
        cache.put(key, "value".to_owned()).await.unwrap();
    }
    let alive = || keys.iter().filter(|key| cache.peek(key).is_some()).count();
    // Two keys may share a stripe of the floors; then one put voids the other.
    let all = alive();
    fleet.clock.advance(TTL * 29 / 60);
    assert_eq!(alive(), all);
    fleet.clock.advance(TTL / 4);
    assert!((1..all).contains(&alive()), "{} of {all}", alive());
    fleet.clock.advance(TTL / 4 + Duration::from_secs(1));
    assert_eq!(alive(), 0);
}

/// Red without the permit.
#[tokio::test(start_paused = true)]
async fn a_clear_cannot_stampede_the_origin() {
    let (_fleet, cache) = alone(|builder| builder.loads_max(3)).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for number in 0..200 {
        let (cache, running, most) = (cache.clone(), Arc::clone(&running), Arc::clone(&most));
        callers.spawn(async move {
            let loader = move |key| async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<String, std::io::Error>(key)
            };
            cache.get_or_load(&number.to_string(), loader).await.unwrap()
        });
    }
    assert_eq!(callers.join_all().await.len(), 200);
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

/// Red without the look at `nested`: the inner load waits for the permit of the outer one.
#[tokio::test(start_paused = true)]
async fn a_loader_that_loads_does_not_wait_for_itself() {
    let (_fleet, cache) = alone(|builder| builder.loads_max(1)).await;
    let inner = cache.clone();
    let loader = move |_key| async move {
        let hit = inner.get_or_load(&"inner".to_owned(), quick("part")).await?;
        Ok::<String, LoadError>(format!("whole of {}", *hit))
    };
    let outer = key();
    let loading = cache.get_or_load(&outer, loader);
    let hit = tokio::time::timeout(Duration::from_secs(9), loading).await.unwrap().unwrap();
    assert_eq!(&**hit, "whole of part");
}

/// The same with many keys, inside and outside. Red without the look at `nested` in a bulk, and when
/// a bulk loader does not run as one.
#[tokio::test(start_paused = true)]
async fn a_loader_that_loads_many_does_not_wait_for_itself() {
    let (_fleet, cache) = alone(|builder| builder.loads_max(1)).await;
    let (outer, inner) = ([key()], ["inner".to_owned(), "other".to_owned()]);
    let parts = |missing: Vec<String>| async move {
        Ok::<_, std::io::Error>(missing.into_iter().map(|key| (key, "part".to_owned())))
    };
    let in_time = Duration::from_secs(9);

    let (asked, wanted) = (cache.clone(), inner.clone());
    let single = move |_key| async move {
        let found = asked.get_many(&wanted).load(parts).await?;
        Ok::<String, BulkError<String, String>>(format!("{} parts", found.len()))
    };
    let loading = cache.get_or_load(&outer[0], single);
    let hit = tokio::time::timeout(in_time, loading).await.unwrap().unwrap();
    assert_eq!(&**hit, "2 parts");
    cache.clear().await.unwrap();

    let (asked, wanted) = (cache.clone(), inner[0].clone());
    let many = move |missing: Vec<String>| {
        let (asked, wanted) = (asked.clone(), wanted.clone());
        async move {
            let hit = asked.get_or_load(&wanted, quick("part")).await?;
            Ok::<_, LoadError>(missing.into_iter().map(move |key| (key, format!("of {}", *hit))))
        }
    };
    let loading = cache.get_many(&outer).load(many);
    let found = tokio::time::timeout(in_time, loading).await.unwrap().unwrap();
    assert_eq!(&**found.get(&outer[0]).unwrap(), "of part");
    cache.clear().await.unwrap();

    let (asked, wanted) = (cache.clone(), inner.clone());
    let many = move |missing: Vec<String>| {
        let (asked, wanted) = (asked.clone(), wanted.clone());
        async move {
            let parts = asked.get_many(&wanted).load(parts).await?.len();
            let whole = move |key| (key, format!("{parts} parts"));
            Ok::<_, BulkError<String, String>>(missing.into_iter().map(whole))
        }
    };
    let loading = cache.get_many(&outer).load(many);
    let found = tokio::time::timeout(in_time, loading).await.unwrap().unwrap();
    assert_eq!(&**found.get(&outer[0]).unwrap(), "2 parts");
}

/// Red without the look at `previous`.
#[tokio::test(start_paused = true)]
async fn an_origin_can_say_that_nothing_has_changed() {
    let (fleet, cache) = alone(|builder| builder.stale_if_error(GRACE)).await;
    cache.get_or_load(&key(), quick("etag 1")).await.unwrap();
    fleet.expire();
    let unchanged = |context: LoadContext<String, String>| async move {
        assert_eq!(**context.previous().unwrap(), "etag 1");
        Ok::<Loaded<String>, std::io::Error>(Loaded::NotModified)
    };
    let hit = cache.get_or_load_with(&key(), unchanged).await.unwrap();
    assert_eq!((&**hit, hit.tier(), hit.freshness()), ("etag 1", Tier::Load, Freshness::Verified));
    fleet.clock.advance(TTL / 2);
    assert_eq!(*cache.get(&key()).await.unwrap(), "etag 1", "it lives for another ttl, in L2 too");
    cache.invalidate(&key()).await.unwrap();
    let keeps = |context: LoadContext<String, String>| async move {
        assert!(context.previous().is_none());
        Ok::<Loaded<String>, std::io::Error>(Loaded::NotModified)
    };
    let error = cache.get_or_load_with(&key(), keeps).await.unwrap_err();
    assert!(matches!(error, LoadError::NothingToKeep));
}

/// Red without `abandoned`: the loader then goes on, and its lease with it.
#[tokio::test(start_paused = true)]
async fn a_cache_can_cancel_the_load_that_nobody_waits_for() {
    let fleet = Fleet::new();
    let a = fleet.node(|builder| builder.on_abandon(OnAbandon::Cancel)).await;
    let b = fleet.node(|builder| builder).await;
    let slow = Arc::new(SlowLoad::new());
    let reader = |cache: &Cache<String, String, Executor>| {
        let (cache, loader) = (cache.clone(), slow.loader("never"));
        tokio::spawn(async move { cache.get_or_load(&key(), loader).await })
    };
    let (first, second) = (reader(&a.cache), reader(&a.cache));
    slow.began().await;
    first.abort();
    settle().await;
    assert_eq!(a.cache.stats().loads_under_way, 1, "somebody still waits");
    second.abort();
    settle().await;
    assert_eq!(a.cache.stats().loads_under_way, 0);
    let asked = tokio::time::Instant::now();
    assert_eq!(*b.cache.get_or_load(&key(), quick("b")).await.unwrap(), "b");
    assert_eq!(asked.elapsed(), Duration::ZERO, "the lease was given back");
}

/// That a caller had no patience is no failure of the origin. Red when every load that ends without a
/// value lets it rest.
#[tokio::test(start_paused = true)]
async fn a_load_that_was_abandoned_does_not_keep_the_next_caller_from_the_origin() {
    let impatient = |builder: Builder| builder.on_abandon(OnAbandon::Cancel).stale_if_error(GRACE);
    let (fleet, cache) = alone(impatient).await;
    cache.put(&key(), "old".to_owned()).await.unwrap();
    fleet.expire();
    let slow = SlowLoad::new();
    let (asked, loader) = (cache.clone(), slow.loader("never"));
    let first = tokio::spawn(async move { asked.get_or_load(&key(), loader).await });
    slow.began().await;
    first.abort();
    settle().await;
    assert_eq!(cache.stats().loads_under_way, 0);
    assert_eq!(*cache.get_or_load(&key(), quick("new")).await.unwrap(), "new");
}

/// Red without the limit in `keep`.
#[tokio::test(start_paused = true)]
async fn a_large_value_is_kept_in_l2_alone() {
    let (_fleet, cache) = alone(|builder| builder.l1_value_bytes_max(1_000)).await;
    cache.put(&key(), "x".repeat(2_000)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cache.get(&key()).await.unwrap().tier(), Tier::L2);
    }
    cache.get_or_load(&"loaded".to_owned(), quick(&"y".repeat(2_000))).await.unwrap();
    settle().await;
    assert_eq!(cache.get(&"loaded".to_owned()).await.unwrap().tier(), Tier::L2);
}

#[test]
fn options_that_make_no_sense_are_typed_errors() {
    let build = |options: fn(AloneBuilder) -> AloneBuilder| {
        let local = fleetwide_mem_backend::MokaLocal::builder().build();
        let executor = Memory::new().executor().clone();
        options(Cache::builder(executor, &namespace(), "values", local))
            .build()
            .err()
            .map(|e| e.to_string())
    };
    assert_eq!(build(|b| b.jitter(f64::NAN)).unwrap(), "jitter must be from 0 to 1");
    assert_eq!(build(|b| b.early_refresh(-1.0)).unwrap(), "early_refresh must be from 0 to 100");
    let soft = |b: CacheBuilder<_, _, _>| {
        b.soft_timeout(Duration::from_secs(3)).hard_timeout(Duration::from_secs(2))
    };
    assert_eq!(build(soft).unwrap(), "soft_timeout must be from 0ns to 2s");
    assert_eq!(
        build(|b| b.hard_timeout(Duration::ZERO)).unwrap(),
        "hard_timeout must be from 1ms to 86400s"
    );
    assert!(build(|b| b.negative_ttl(Duration::ZERO)).unwrap().starts_with("negative_ttl"));
    assert_eq!(build(|b| b.loads_max(0)), None);
}
