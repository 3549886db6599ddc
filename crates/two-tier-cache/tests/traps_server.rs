//! Traps of a server that goes back in time, is full of requests, or counts in milliseconds.
//! `docs/testing.md` lists all traps.

mod common;

use std::time::{Duration, Instant};

use common::wire::{NEVER, Options, Ways};
use common::{PATIENCE, SlowLoad, namespace, quick, until_gone};
use fleetwide_core_traits::Namespace;
use fleetwide_testkit::{RedisServer, Reply, eventually};
use fleetwide_two_tier_cache::{Freshness, Tier};
use tokio::task::JoinSet;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn key() -> String {
    "key".to_owned()
}

/// Makes `follower` an exact copy of `primary`, and then a primary of its own.
async fn becomes_a_copy(follower: &RedisServer, primary: &RedisServer) {
    follower.replicate(primary).await.unwrap();
    let linked = || async {
        let replication = follower.info("replication").await;
        replication.is_ok_and(|fields| fields["master_link_status"] == "up")
    };
    eventually(PATIENCE, "the replica has caught up", linked).await;
    follower.promote().await.unwrap();
}

/// Failover: a replica that has missed the last writes takes the primary's place, behind the same
/// address. It has the value that was invalidated, and an older log that continues as if nothing
/// had happened. A cache that compares numbers alone goes on with both.
///
/// The instances know better than the server what was written: they raise its epoch, which voids
/// L2 and L1, and serve the old value from L1 not even before that.
///
/// Red when a server that went back was not taken for another history (`Divergence::WentBack`).
#[tokio::test]
async fn a_stale_replica_that_was_promoted_voids_both_tiers() {
    let (server, replica) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let namespace = namespace();
    let a = Ways::to(&server).instance(&namespace).await;
    let b = Ways::to(&server).instance(&namespace).await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    becomes_a_copy(&replica, &server).await;
    b.cache.get(&key()).await.unwrap();
    a.cache.invalidate(&key()).await.unwrap();
    until_gone(&b.cache, "key").await;
    a.cache.put(&"other".to_owned(), "lost".to_owned()).await.unwrap();
    becomes_a_copy(&server, &replica).await;
    for instance in [&a, &b] {
        let noticed = || async { instance.cache.stats().resets == 1 };
        eventually(PATIENCE, "the loss is noticed", noticed).await;
        assert!(instance.cache.get(&key()).await.is_none(), "L2 still has it, and it is void");
        assert!(instance.cache.peek(&"other".to_owned()).is_none());
    }
    b.cache.put(&key(), "new".to_owned()).await.unwrap();
    let hit = b.cache.get(&key()).await.unwrap();
    assert_eq!((&**hit, hit.tier()), ("new", Tier::L1));
    let seen = || async { a.cache.get(&key()).await.is_some_and(|hit| *hit == "new") };
    eventually(PATIENCE, "the fleet goes on in the new history", seen).await;
}

/// The same before anybody has noticed: no beat comes here. Whoever has written or heard of more than
/// the server shows does not take its word.
///
/// Red without `went_back` on the way of a read, of one key or of many: the writer itself was then
/// given the value that it had invalidated, marked as verified.
#[tokio::test]
async fn a_stale_replica_is_not_believed_by_those_who_know_more() {
    let (server, replica) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let namespace = namespace();
    let a = Ways::to(&server).heartbeat(NEVER).instance(&namespace).await;
    let b = Ways::to(&server).heartbeat(NEVER).instance(&namespace).await;
    a.cache.put(&key(), "old".to_owned()).await.unwrap();
    becomes_a_copy(&replica, &server).await;
    b.cache.get(&key()).await.unwrap();
    a.cache.invalidate(&key()).await.unwrap();
    until_gone(&b.cache, "key").await;
    becomes_a_copy(&server, &replica).await;
    for instance in [&a, &b] {
        assert!(instance.cache.get(&key()).await.is_none());
        assert!(instance.cache.get_many(&[key()]).get().await.get(&key()).is_none());
        let hit = instance.cache.get_or_load(&key(), quick("origin")).await.unwrap();
        assert_eq!((&**hit, hit.tier()), ("origin", Tier::Load));
        assert_eq!(instance.cache.stats().resets, 0, "nobody has noticed yet");
    }
}

/// The same between the look into L2, which found nothing, and the question who loads.
///
/// Red without `went_back` on the way of a lease, for one key or for many.
#[tokio::test]
async fn a_stale_replica_that_answers_in_the_middle_of_a_read_is_not_believed_either() {
    let (server, replica) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let (namespace, one) = (namespace(), |options: Options| options.loads_max(1));
    let many = ["many".to_owned()];
    let a = Ways::to(&server).heartbeat(NEVER).instance_with(&namespace, one).await;
    for key in [&key(), &many[0]] {
        a.cache.put(key, "old".to_owned()).await.unwrap();
    }
    becomes_a_copy(&replica, &server).await;
    for key in [&key(), &many[0]] {
        a.cache.invalidate(key).await.unwrap();
    }
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("other"));
    let first = tokio::spawn(async move { cache.get_or_load(&"other".to_owned(), loader).await });
    slow.began().await;
    let cache = a.cache.clone();
    let second = tokio::spawn(async move { cache.get_or_load(&key(), quick("origin")).await });
    let (cache, keys) = (a.cache.clone(), many.clone());
    let third = tokio::spawn(async move {
        let all = |keys: Vec<String>| async move {
            let all = keys.into_iter().map(|key| (key, "origin".to_owned()));
            Ok::<_, std::io::Error>(all)
        };
        cache.get_many(&keys).load(all).await.map(|hits| hits.get(&keys[0]).cloned())
    });
    let waits = || async { a.cache.stats().loads_under_way == 3 };
    eventually(PATIENCE, "it has looked into L2, and waits for its turn", waits).await;
    becomes_a_copy(&server, &replica).await;
    slow.finish();
    first.await.unwrap().unwrap();
    for hit in [second.await.unwrap().unwrap(), third.await.unwrap().unwrap().unwrap()] {
        assert_eq!((&**hit, hit.tier()), ("origin", Tier::Load));
    }
    assert_eq!(a.cache.stats().resets, 0, "nobody has noticed yet");
}

/// All data is lost while a loader runs: its lease, the log, and the invalidation that came in
/// between. What it brings must not be stored in the new history, and no L1 may keep it.
///
/// Red without the lease check in `fill.lua`, and without the epoch on a hit.
#[tokio::test]
async fn a_load_from_before_a_loss_of_all_data_is_stored_nowhere() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let a = Ways::to(&server).instance(&namespace).await;
    let b = Ways::to(&server).instance(&namespace).await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let reader = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    b.cache.invalidate(&key()).await.unwrap();
    server.admin(&["FLUSHALL"]).await.unwrap();
    for instance in [&a, &b] {
        let noticed = || async { instance.cache.stats().resets == 1 };
        eventually(PATIENCE, "the loss is noticed", noticed).await;
    }
    slow.finish();
    assert_eq!(*reader.await.unwrap().unwrap(), "old", "it asked before");
    let refused = || async { a.cache.stats().fills_refused == 1 };
    eventually(PATIENCE, "the fill was refused", refused).await;
    assert!(a.cache.get(&key()).await.is_none());
    assert!(b.cache.get(&key()).await.is_none());
}

/// The script cache is lost between the steps of one load: each of them is sent once more in full.
///
/// Red without the healing of a missing script: the lease or the fill is then lost.
#[tokio::test]
async fn scripts_that_are_lost_in_the_middle_of_a_load_cost_nothing() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let a = Ways::to(&server).instance(&namespace).await;
    let b = Ways::to(&server).heartbeat(NEVER).instance(&namespace).await;
    server.script_flush().await.unwrap();
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("value"));
    let reader = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    server.script_flush().await.unwrap();
    slow.finish();
    reader.await.unwrap().unwrap();
    let stored = || async { a.cache.stats().fills_stored == 1 };
    eventually(PATIENCE, "the load is in L2", stored).await;
    assert_eq!(b.cache.get(&key()).await.unwrap().tier(), Tier::L2);
    assert_eq!(a.cache.stats().l2_errors + b.cache.stats().l2_errors, 0);
}

/// Pool exhaustion: the server hangs, and all places for requests are taken. A cache that queues
/// for a connection hands the outage on to its callers.
///
/// Red when a read waited for L2 without a budget of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_client_costs_a_read_its_budget_at_most() {
    const BUDGET: Duration = Duration::from_millis(50);
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let few = Ways::to(&server)
        .redis(|redis| redis.in_flight_max(4).command_timeout(PATIENCE).total_timeout(PATIENCE));
    let options = |options: Options| options.l2_budget(BUDGET);
    let instance = few.instance_with(&namespace, options).await;
    server.stop();
    let mut readers = JoinSet::new();
    for number in 0..200 {
        let cache = instance.cache.clone();
        readers.spawn(async move {
            let asked = Instant::now();
            let hit = cache.get_or_load(&number.to_string(), quick("origin")).await.unwrap();
            assert_eq!((&**hit, hit.tier()), ("origin", Tier::Load));
            asked.elapsed()
        });
    }
    let slowest = readers.join_all().await.into_iter().max().unwrap();
    // Room for a busy machine; without a budget it is the ten seconds of the client.
    assert!(slowest < 20 * BUDGET, "{slowest:?}");
    server.cont();
    let back = || async {
        let key = format!("back {}", rand::random::<u64>());
        instance.cache.put(&key, "put".to_owned()).await.is_ok()
    };
    eventually(PATIENCE, "writes arrive again", back).await;
}

/// Twenty-five days are 2^31 ms, and 50 days 2^32.
///
/// Red when the milliseconds of a ttl were kept in 32 bits.
#[tokio::test]
async fn the_server_keeps_a_value_for_months_and_years() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    for days in [25, 26, 50, 365, 3_650] {
        let life = DAY * days;
        let options = |options: Options| options.ttl(life);
        let instance = Ways::to(&server).instance_with(&namespace, options).await;
        let (put, loaded) = (format!("put {days}"), format!("loaded {days}"));
        instance.cache.put(&put, "value".to_owned()).await.unwrap();
        instance.cache.get_or_load(&loaded, quick("value")).await.unwrap();
        let stored = || async { instance.cache.stats().fills_stored == 1 };
        eventually(PATIENCE, "the load is in L2", stored).await;
        for name in [put, loaded] {
            let left = ttl_of(&server, &namespace, &name).await;
            assert!(left <= life && left + Duration::from_secs(60) > life, "{days}: {left:?}");
            let hit = instance.cache.at(&name).skip_l1().get().await.unwrap();
            assert_eq!((hit.tier(), hit.freshness()), (Tier::L2, Freshness::Verified));
        }
    }
}

async fn ttl_of(server: &RedisServer, namespace: &Namespace, name: &str) -> Duration {
    let tag = namespace.tag("cache", b"values").unwrap();
    let key = tag.named("v", name.as_bytes()).unwrap();
    let Reply::Integer(millis) = server.admin(&[b"PTTL", key.as_bytes()]).await.unwrap() else {
        panic!("no ttl")
    };
    Duration::from_millis(u64::try_from(millis).expect("it is there, and has a ttl"))
}
