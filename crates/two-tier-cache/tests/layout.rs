//! Instances that lay out a cache in different ways do not get into each other's way.

#[path = "common/counted.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod counted;

mod common;

use std::time::Duration;

use common::{PATIENCE, namespace, quick};
use counted::{Counted, Counts};
use fleetwide_core_traits::log::{Begin, Epoch, Stamp};
use fleetwide_core_traits::{Clock, Executor, Health, Key, Namespace};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, Reply, SimClock, eventually};
use fleetwide_two_tier_cache::{Cache, CacheBuilder, Freshness, WriteError};

type TextCache<E> = Cache<String, String, Counted<E>>;

const AGREED: &str = "log 1, shards 1, cache 1, schemas 3, keys 0";
const OTHER: &str = "log 1, shards 1, cache 1, schemas 3, keys 7";

/// An instance whose cache, and nothing else, is counted.
struct Instance<E> {
    cache: TextCache<E>,
    counted: Counted<E>,
}

fn instance<E: Executor + Clone>(
    executor: E,
    namespace: &Namespace,
    keys: u32,
    options: impl FnOnce(
        CacheBuilder<String, String, Counted<E>>,
    ) -> CacheBuilder<String, String, Counted<E>>,
) -> Instance<E> {
    let counted = Counted::new(executor);
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let builder = Cache::builder(counted.clone(), namespace, "values", local);
    let builder = builder.l2_budget(PATIENCE).l1_ttl(Duration::from_secs(600));
    Instance { cache: options(builder.key_version(keys)).build().unwrap(), counted }
}

fn over(server: &RedisServer, namespace: &Namespace, keys: u32) -> Instance<RedisExecutor> {
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
    instance(redis.executor(), namespace, keys, |builder| builder)
}

fn key() -> String {
    "key".to_owned()
}

fn layout_key<E: Executor + Clone>(cache: &TextCache<E>) -> Key {
    cache.tag().part("layout")
}

/// Red with a gate that lets everything pass: `b` then finds the value of `a`, and writes over it.
#[tokio::test]
async fn an_instance_with_another_layout_is_refused_and_leaves_alone_what_is_shared() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let (a, b) = (over(&server, &namespace, 0), over(&server, &namespace, 7));
    a.cache.put(&key(), "shared".to_owned()).await.unwrap();
    let error = b.cache.check_layout().await.unwrap_err();
    assert_eq!((&*error.cache, &*error.fleet, &*error.own), ("values", AGREED, OTHER));
    let text = error.to_string();
    assert!(text.contains(AGREED) && text.contains(OTHER) && text.contains("`values`"), "{text}");
    assert_eq!(b.cache.layout_watch().refused(), Some(error));
    assert!(matches!(b.cache.layout_watch().health(), Health::Degraded { .. }));
    assert!(b.cache.stats().layout_differs && !a.cache.stats().layout_differs);

    assert!(b.cache.get(&key()).await.is_none());
    assert_eq!(*b.cache.get_or_load(&key(), quick("own")).await.unwrap(), "own");
    let wanted = [key(), "more".to_owned()];
    assert!(b.cache.get_many(&wanted).get().await.get(&wanted[1]).is_none());
    for written in [
        b.cache.put(&key(), "own".to_owned()).await,
        b.cache.invalidate(&key()).await,
        b.cache.clear().await,
    ] {
        let error = written.unwrap_err();
        assert!(matches!(error, WriteError::Queued(_)), "nothing was sent: {error}");
        assert!(error.to_string().contains(AGREED), "{error}");
    }
    assert!(b.cache.write_guard(&key()).await.is_err());
    assert_eq!(b.counted.take(), Counts::default(), "nothing of it reached the server");
    assert_eq!(*a.cache.get(&key()).await.unwrap(), "shared");

    let record = layout_key(&a.cache);
    let left = server.admin(&[b"PTTL".as_slice(), record.as_bytes()]).await.unwrap();
    assert!(matches!(left, Reply::Integer(1..)), "{left:?}");
}

/// A rolling deploy: other options, another form of the type, but the same layout.
#[tokio::test]
async fn instances_that_differ_in_anything_else_share_the_cache() {
    let (memory, namespace) = (Memory::new(), namespace());
    let a = instance(memory.executor().clone(), &namespace, 3, |builder| builder);
    let b = instance(memory.executor().clone(), &namespace, 3, |builder| {
        builder.schema(9).ttl(Duration::from_secs(1)).tags_max(5).lease(Duration::from_secs(1))
    });
    for one in [&a, &b] {
        one.cache.check_layout().await.unwrap();
        one.cache.put(&key(), "value".to_owned()).await.unwrap();
        assert_eq!(one.cache.layout_watch().health(), Health::Up);
    }
}

/// Red when the layout was looked at only where the cache is built.
#[tokio::test]
async fn who_starts_without_the_server_is_refused_when_it_comes() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let a = over(&server, &namespace, 0);
    a.cache.put(&key(), "shared".to_owned()).await.unwrap();
    server.stop();
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
    let budget = Duration::from_millis(50);
    let b = instance(redis.executor(), &namespace, 7, |builder| builder.l2_budget(budget));
    assert_eq!(b.cache.check_layout().await, Ok(()), "a server that is away is no reason");
    assert_eq!(*b.cache.get_or_load(&key(), quick("own")).await.unwrap(), "own");
    server.cont();
    let follower = b.cache.follower();
    let noticed = || async {
        // As the follower of a log does, all the time.
        follower.tick();
        b.cache.stats().layout_differs
    };
    eventually(PATIENCE, "the other layout is noticed", noticed).await;
    assert!(b.cache.get(&"other".to_owned()).await.is_none());
    assert_eq!(
        b.counted.take(),
        Counts::default(),
        "nothing was asked before the layout was known"
    );
}

fn clocked(
    memory: &Memory,
    clock: &SimClock,
    namespace: &Namespace,
    keys: u32,
) -> Instance<MemExecutor> {
    let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(clock.clone());
    instance(memory.executor().clone(), namespace, keys, |builder| builder.clock(clock))
}

fn stamp() -> Stamp {
    Stamp { epoch: Epoch(*b"epoch--1"), seq: 1 }
}

/// What those who are gone have left would be misread, so it is void.
///
/// Red when a takeover left the log as it was, and when the last of the old instances counted as alive
/// for longer than its sign of life.
#[tokio::test]
async fn a_cache_is_taken_over_when_nobody_with_the_old_layout_lives_and_nothing_of_theirs_counts()
{
    let (clock, namespace) = (SimClock::new(), namespace());
    let memory = Memory::builder().clock(std::sync::Arc::new(clock.clone())).build();
    let old = clocked(&memory, &clock, &namespace, 0);
    let new = clocked(&memory, &clock, &namespace, 7);
    old.cache.put(&key(), "old".to_owned()).await.unwrap();
    clock.advance(Duration::from_secs(59));
    assert!(new.cache.check_layout().await.is_err());
    // A paused instance has not signed meanwhile.
    clock.advance(Duration::from_secs(1));
    new.cache.check_layout().await.unwrap();
    assert!(new.cache.get(&key()).await.is_none(), "it is from the old layout");
    new.cache.put(&key(), "new".to_owned()).await.unwrap();
    assert!(old.cache.get(&key()).await.is_none(), "it goes on, and finds that it was replaced");
    assert!(old.cache.stats().layout_differs);
    assert!(old.cache.put(&key(), "old".to_owned()).await.is_err());
    assert_eq!(*new.cache.get(&key()).await.unwrap(), "new");
}

/// Red without the sign of life that each tick gives when it is due.
#[tokio::test(start_paused = true)]
async fn an_idle_instance_stays_alive_by_its_ticks() {
    let (clock, namespace) = (SimClock::new(), namespace());
    let memory = Memory::builder().clock(std::sync::Arc::new(clock.clone())).build();
    let old = clocked(&memory, &clock, &namespace, 0);
    let new = clocked(&memory, &clock, &namespace, 7);
    old.cache.check_layout().await.unwrap();
    let follower = old.cache.follower();
    for _ in 0..300 {
        clock.advance(Duration::from_secs(1));
        follower.tick();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(new.cache.check_layout().await.is_err());
    }
}

/// What others invalidate is not understood while the layouts differ, so nothing is verified then, and
/// nothing from then counts afterwards.
///
/// Red when the word of the log was taken while the layouts differ, and when L1 was not voided at the
/// end.
#[tokio::test]
async fn nothing_is_verified_while_the_layouts_differ_and_nothing_from_then_counts_later() {
    let (clock, namespace) = (SimClock::new(), namespace());
    let memory = Memory::builder().clock(std::sync::Arc::new(clock.clone())).build();
    let old = clocked(&memory, &clock, &namespace, 0);
    let new = clocked(&memory, &clock, &namespace, 7);
    old.cache.check_layout().await.unwrap();
    assert!(new.cache.check_layout().await.is_err());
    let follower = new.cache.follower();
    follower.begin(stamp(), Begin::First);
    new.cache.get_or_load(&key(), quick("own")).await.unwrap();
    clock.advance(Duration::from_secs(5));
    follower.verified(stamp(), clock.now());
    let hit = new.cache.peek(&key()).expect("as in an outage");
    assert_eq!(hit.freshness(), Freshness::Unverified);
    clock.advance(Duration::from_secs(60));
    new.cache.check_layout().await.unwrap();
    assert!(new.cache.peek(&key()).is_none(), "an invalidation of it may have been missed");
    new.cache.get_or_load(&key(), quick("again")).await.unwrap();
    follower.verified(stamp(), clock.now());
    follower.begin(stamp(), Begin::Reset);
    follower.verified(stamp(), clock.now());
    assert!(new.cache.stats().verified_age > Duration::ZERO, "the record may be lost as well");
    new.cache.check_layout().await.unwrap();
    assert_eq!(new.cache.stats().verified_age, Duration::ZERO, "it was not");
}

/// Red without the doubt after a reset: the instance would go on for half a minute in a cache that is
/// no longer its own.
#[tokio::test]
async fn a_server_that_lost_everything_is_asked_again_before_it_is_used() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let (a, b) = (over(&server, &namespace, 0), over(&server, &namespace, 7));
    a.cache.check_layout().await.unwrap();
    server.admin(&["FLUSHALL"]).await.unwrap();
    b.cache.check_layout().await.unwrap();
    a.cache.follower().begin(stamp(), Begin::Reset);
    assert!(a.cache.put(&key(), "late".to_owned()).await.is_err());
    assert!(a.cache.stats().layout_differs);
    assert_eq!(a.counted.take(), Counts::default());
}

/// A server without room lets the record be signed, so that reads go on.
#[tokio::test]
async fn a_full_server_lets_its_layout_be_agreed_on() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    server.config_set("maxmemory", "1").await.unwrap();
    let (a, b) = (over(&server, &namespace, 0), over(&server, &namespace, 7));
    a.cache.check_layout().await.unwrap();
    assert!(b.cache.check_layout().await.is_err());
    assert!(a.cache.get(&key()).await.is_none());
    assert_eq!(a.cache.stats().l2_errors, 0);
}
