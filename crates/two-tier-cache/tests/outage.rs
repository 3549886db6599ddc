//! Trouble with the shared tier never fails a read that the loader can answer (C4), and no write is
//! lost by it: what could not be confirmed is said, and invalidated later.

mod common;

use std::time::Duration;

use common::{Node, PATIENCE, node, node_with, quick, until_gone};
use fleetwide_core_traits::log::Stamp;
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Namespace, Script};
use fleetwide_mem_backend::Memory;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{DefaultUser, RedisServer, eventually};
use fleetwide_two_tier_cache::{Cache, Freshness, Tier, WriteError};
use tokio::time::{Instant, timeout};

/// Room for one queued write of a short key.
const WRITE: u64 = 256 + 16;

fn key() -> String {
    "key".to_owned()
}

/// Two instances over one real server.
struct Fleet {
    server: RedisServer,
    namespace: Namespace,
    a: Node<RedisExecutor>,
    b: Node<RedisExecutor>,
    _handles: [Redis; 2],
}

/// A server that has its data again after a restart. With the `default` user switched off entirely,
/// Redis 7.0 drops what scripts wrote when it reads its log, and an outage would lose everything:
/// a test of what happens to old values would then be green for nothing.
async fn keeping() -> RedisServer {
    RedisServer::builder()
        .append_only()
        .default_user(DefaultUser::Documented)
        .start()
        .await
        .unwrap()
}

async fn fleet(server: RedisServer) -> Fleet {
    let namespace = common::namespace();
    let connect = || async {
        let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
        redis.ready(PATIENCE).await.unwrap();
        redis
    };
    let (first, second) = (connect().await, connect().await);
    let a = node(first.executor(), &first.bus(), &namespace).await;
    let b = node(second.executor(), &second.bus(), &namespace).await;
    Fleet { server, namespace, a, b, _handles: [first, second] }
}

impl Fleet {
    /// The server's own name of a cached value.
    fn value_key(&self) -> Vec<u8> {
        let tag = self.namespace.tag("cache", b"values").unwrap();
        tag.named("v", key().as_bytes()).unwrap().as_bytes().to_vec()
    }

    async fn admin(&self, words: &[&[u8]]) {
        let reply = self.server.admin(words).await.unwrap();
        assert!(!matches!(reply, fleetwide_testkit::Reply::Error(_)), "{reply:?}");
    }
}

#[tokio::test]
async fn a_fleet_over_redis_agrees() {
    let fleet = fleet(RedisServer::start().await.unwrap()).await;
    fleet.a.cache.put(&key(), "one".to_owned()).await.unwrap();
    assert_eq!(*fleet.b.cache.get(&key()).await.unwrap(), "one");
    fleet.b.cache.put(&key(), "two".to_owned()).await.unwrap();
    until_gone(&fleet.a.cache, "key").await;
    assert_eq!(*fleet.a.cache.get(&key()).await.unwrap(), "two");
    fleet.a.cache.invalidate(&key()).await.unwrap();
    until_gone(&fleet.b.cache, "key").await;
    let hit = fleet.b.cache.get_or_load(&key(), quick("three")).await.unwrap();
    assert_eq!(hit.tier(), Tier::Load);
    let in_l2 = || async { fleet.a.cache.get(&key()).await.is_some_and(|hit| *hit == "three") };
    eventually(PATIENCE, "the load is shared", in_l2).await;
}

/// The age of a value is counted from when it was stored, by whichever instance. Red if the log's
/// follower did not pass on what the server's clock shows.
#[tokio::test]
async fn a_value_is_as_old_as_it_is_on_the_server() {
    let fleet = fleet(RedisServer::start().await.unwrap()).await;
    fleet.a.cache.put(&key(), "value".to_owned()).await.unwrap();
    let stored = std::time::Instant::now();
    let redis = Redis::builder(RedisUrl::parse(&fleet.server.url()).unwrap()).build().unwrap();
    redis.ready(PATIENCE).await.unwrap();
    let late = node(redis.executor(), &redis.bus(), &fleet.namespace).await;
    let at_least = stored.elapsed();
    let hit = late.cache.get(&key()).await.unwrap();
    assert_eq!(hit.tier(), Tier::L2);
    assert!(hit.age() >= at_least, "{:?} < {at_least:?}", hit.age());
}

/// Red without the recovery queue: the other instance then finds the value from before the outage.
#[tokio::test]
async fn a_write_during_an_outage_is_invalidated_everywhere_when_the_server_is_back() {
    let server = keeping().await;
    let fleet = fleet(server).await;
    fleet.a.cache.put(&key(), "old".to_owned()).await.unwrap();
    assert_eq!(*fleet.b.cache.get(&key()).await.unwrap(), "old");
    fleet.server.kill();
    let error = fleet.a.cache.put(&key(), "new".to_owned()).await.unwrap_err();
    assert!(error.is_queued(), "{error}");
    assert_eq!(*fleet.a.cache.get(&key()).await.unwrap(), "new", "the writer reads its own write");
    let unwritten = "unwritten".to_owned();
    let other = fleet.a.cache.get_or_load(&unwritten, quick("loaded"));
    assert_eq!(*timeout(PATIENCE, other).await.unwrap().unwrap(), "loaded");
    fleet.server.restart_keeping_data().await.unwrap();
    until_gone(&fleet.b.cache, "key").await;
    let done = || async { fleet.a.cache.stats().queued == 0 };
    eventually(PATIENCE, "the queue is empty", done).await;
    assert!(fleet.b.cache.get(&key()).await.is_none_or(|hit| *hit != "old"));
}

/// A cache in one process has what was put or loaded, also before anybody follows its log.
#[tokio::test]
async fn a_cache_alone_keeps_what_came_before_its_log_was_followed() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let local = fleetwide_mem_backend::MokaLocal::builder().bytes_max(1 << 20).build();
    let executor = memory.executor().clone();
    let cache: Cache<String, String, _> =
        Cache::builder(executor.clone(), &namespace, "values", local).alone(true).build().unwrap();
    cache.put(&"first".to_owned(), "1".to_owned()).await.unwrap();
    cache.put(&"second".to_owned(), "2".to_owned()).await.unwrap();
    cache.get_or_load(&"third".to_owned(), quick("3")).await.unwrap();
    let log = Log::builder(executor, memory.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .start();
    log.begun().await.unwrap();
    let hit = cache.get(&"first".to_owned()).await.unwrap();
    assert_eq!((&**hit, hit.freshness()), ("1", Freshness::Verified));
    let gone = cache.invalidate(&"first".to_owned()).await.unwrap();
    assert!(cache.get(&"first".to_owned()).await.is_none());
    let put = cache.put(&"fourth".to_owned(), "4".to_owned()).await.unwrap();
    let (put, gone) = (Stamp::from(put), Stamp::from(gone));
    assert!(put.seq > gone.seq);
    // Red when a cache alone applied its own messages: they came back after the put.
    log.caught_up(put).await.unwrap();
    assert!(cache.get(&"fourth".to_owned()).await.is_some());
    assert!(cache.get(&"second".to_owned()).await.is_some());
    assert!(cache.get(&"third".to_owned()).await.is_some());
    cache.clear().await.unwrap();
    assert!(cache.get(&"third".to_owned()).await.is_none());
}

/// The clock of this test is the runtime's: it moves only when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_costs_a_read_no_more_than_its_budget() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let budget = Duration::from_millis(70);
    let silent = Silent(memory.executor().clone());
    let log = memory.executor().clone();
    let node = {
        // The log is followed through a healthy executor; only the cache's own steps hang.
        let healthy = node(log, memory.bus(), &namespace).await;
        drop(healthy);
        let local = fleetwide_mem_backend::MokaLocal::builder().bytes_max(1 << 20).build();
        Cache::<String, String, ()>::builder(silent, &namespace, "values", local)
            .l2_budget(budget)
            .build()
            .unwrap()
    };
    let asked = Instant::now();
    assert_eq!(*node.get_or_load(&key(), quick("loaded")).await.unwrap(), "loaded");
    assert!(asked.elapsed() <= budget + Duration::from_millis(2), "{:?}", asked.elapsed());
    let hit = node.get(&key()).await.unwrap();
    assert_eq!((hit.tier(), hit.freshness()), (Tier::L1, Freshness::Unverified));
    let put = node.put(&key(), "new".to_owned()).await;
    assert!(matches!(put, Err(WriteError::Unknown(_))), "{put:?}");
    assert_eq!(*node.get(&key()).await.unwrap(), "new");
}

#[tokio::test]
async fn a_full_server_still_takes_invalidations_and_a_refused_put_leaves_nothing_old() {
    let server = RedisServer::start().await.unwrap();
    let fleet = fleet(server).await;
    fleet.a.cache.put(&key(), "old".to_owned()).await.unwrap();
    fleet.server.config_set("maxmemory", "1").await.unwrap();
    let big = "x".repeat(100_000);
    fleet.a.cache.put(&key(), big.clone()).await.unwrap();
    until_gone(&fleet.b.cache, "key").await;
    assert!(fleet.b.cache.get(&key()).await.is_none(), "neither the old value nor the new one");
    assert_eq!(*fleet.a.cache.get(&key()).await.unwrap(), big, "the writer has it in L1");
    fleet.b.cache.invalidate(&key()).await.unwrap();
    until_gone(&fleet.a.cache, "key").await;
    fleet.b.cache.clear().await.unwrap();
    let hit = fleet.b.cache.get_or_load(&key(), quick("loaded")).await.unwrap();
    assert_eq!(*hit, "loaded");
}

/// What another version, or nobody we know, wrote is a miss, and the next load replaces it (C7).
#[tokio::test]
async fn a_value_that_cannot_be_decoded_is_a_miss() {
    let fleet = fleet(RedisServer::start().await.unwrap()).await;
    fleet.a.cache.put(&key(), "value".to_owned()).await.unwrap();
    let value_key = fleet.value_key();
    // Ours up to the envelope, which then claims a later version.
    fleet.admin(&[b"SETRANGE", &value_key, b"34", b"\x63"]).await;
    assert!(fleet.b.cache.get(&key()).await.is_none());
    assert_eq!(fleet.b.cache.stats().undecodable, 1);
    assert_eq!(*fleet.b.cache.get_or_load(&key(), quick("loaded")).await.unwrap(), "loaded");
    let stored = || async { fleet.b.cache.stats().fills_stored == 1 };
    eventually(PATIENCE, "the load replaced it", stored).await;
    for garbage in [&b"short"[..], &[0; 64], b""] {
        fleet.admin(&[b"SET", &value_key, garbage]).await;
        fleet.b.cache.clear().await.unwrap();
        assert!(fleet.b.cache.get(&key()).await.is_none());
    }
}

#[tokio::test]
async fn a_key_of_a_wrong_type_fails_no_read_and_a_put_replaces_it() {
    let fleet = fleet(RedisServer::start().await.unwrap()).await;
    let value_key = fleet.value_key();
    fleet.admin(&[b"RPUSH", &value_key, b"not a string"]).await;
    assert_eq!(*fleet.a.cache.get_or_load(&key(), quick("loaded")).await.unwrap(), "loaded");
    fleet.a.cache.put(&key(), "put".to_owned()).await.unwrap();
    assert_eq!(*fleet.b.cache.get(&key()).await.unwrap(), "put");
}

/// FLUSHALL takes the log along: a new history begins, and no instance goes on with the old one.
#[tokio::test]
async fn a_server_that_lost_everything_voids_every_l1() {
    let fleet = fleet(RedisServer::start().await.unwrap()).await;
    fleet.a.cache.put(&key(), "old".to_owned()).await.unwrap();
    assert!(fleet.b.cache.get(&key()).await.is_some());
    fleet.admin(&[b"FLUSHALL"]).await;
    until_gone(&fleet.a.cache, "key").await;
    until_gone(&fleet.b.cache, "key").await;
    fleet.a.cache.put(&key(), "new".to_owned()).await.unwrap();
    assert_eq!(*fleet.b.cache.get(&key()).await.unwrap(), "new");
    let verified = || async {
        fleet.b.cache.peek(&key()).is_some_and(|hit| hit.freshness() == Freshness::Verified)
    };
    eventually(PATIENCE, "hits are verified again", verified).await;
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_healed() {
    let fleet = fleet(RedisServer::start().await.unwrap()).await;
    for round in ["one", "two"] {
        fleet.server.script_flush().await.unwrap();
        fleet.a.cache.put(&key(), round.to_owned()).await.unwrap();
        until_gone(&fleet.b.cache, "key").await;
        assert_eq!(*fleet.b.cache.get(&key()).await.unwrap(), round);
    }
}

#[tokio::test]
async fn a_queue_that_overflows_clears_everything_on_return() {
    let server = keeping().await;
    let fleet = fleet(server).await;
    let redis = Redis::builder(RedisUrl::parse(&fleet.server.url()).unwrap()).build().unwrap();
    redis.ready(PATIENCE).await.unwrap();
    let small = node_with(redis.executor(), &redis.bus(), &fleet.namespace, |b| {
        b.pending_bytes_max(2 * WRITE)
    })
    .await;
    fleet.b.cache.put(&"unrelated".to_owned(), "kept".to_owned()).await.unwrap();
    fleet.server.kill();
    for name in ["k1", "k2", "k3"] {
        small.cache.invalidate(&name.to_owned()).await.unwrap_err();
    }
    let stats = small.cache.stats();
    assert_eq!((stats.queued, stats.queue_bytes), (1, 0), "one clear waits, and no key");
    fleet.server.restart_keeping_data().await.unwrap();
    until_gone(&fleet.b.cache, "unrelated").await;
    let done = || async { small.cache.stats().queued == 0 };
    eventually(PATIENCE, "the queue is empty", done).await;
}

/// Carries out nothing and never answers.
#[derive(Clone)]
struct Silent<E>(E);

impl<E: Executor> Executor for Silent<E> {
    async fn execute(&self, _op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        std::future::pending().await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.0.prepare(scripts);
    }
}
