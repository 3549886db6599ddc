//! A million keys are cleared at once: what that costs the server, and what the herd that comes
//! afterwards costs the origin.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::wire::{Options, Ways};
use common::{PATIENCE, namespace};
use fleetwide_core_traits::{Namespace, Tag};
use fleetwide_testkit::{RedisServer, eventually};
use fleetwide_two_tier_cache::Tier;
use tokio::task::JoinSet;

/// So many are in L2, as the cache itself has written the first of them.
const KEYS: usize = 1_000_000;
/// So many of them are read into L1, and asked for again after the clear.
const HOT: usize = 2_000;
/// Loaders of one instance at a time.
const LOADS_MAX: usize = 8;

fn key(number: usize) -> String {
    format!("key {number}")
}

/// Every so many-th key, so that all parts of the key space are looked at.
fn hot() -> impl Iterator<Item = String> {
    (0..HOT).map(|number| key(number * (KEYS / HOT)))
}

/// Puts copies of one value under all other keys. The server has then what a million puts would have
/// left it with; only their trips and their entries in the log are spared.
async fn copy_to_all(server: &RedisServer, tag: &Tag) {
    const COPY: &str = "local value = redis.call('GET', KEYS[1] .. '0') \
        for number = ARGV[1], ARGV[2] do \
        redis.call('SET', KEYS[1] .. string.format('%d', number), value, 'PX', 900000) end \
        return 'OK'";
    let first = String::from_utf8(tag.named("v", key(0).as_bytes()).unwrap().as_bytes().to_vec());
    let prefix = first.unwrap().strip_suffix('0').expect("it ends with its number").to_owned();
    let mut connection = server.connect_admin().await.unwrap();
    for from in (0..KEYS).step_by(10_000) {
        let (from, to) = (from.max(1).to_string(), (from + 9_999).to_string());
        connection.command(&["EVAL", COPY, "1", &prefix, &from, &to]).await.unwrap();
    }
}

/// What was asked of the server since its counts were reset, without what the test itself asks.
async fn commands(server: &RedisServer) -> BTreeMap<String, u64> {
    let mut commands = server.command_stats().await.unwrap();
    commands.retain(|name, _| !["auth", "info", "config|resetstat"].contains(&name.as_str()));
    commands
}

fn total(commands: &BTreeMap<String, u64>) -> u64 {
    commands.values().sum()
}

/// Others remove a cache's keys one by one, after a scan, or flush the server; and then every
/// instance asks the origin for everything at once.
///
/// Red when `clear` raised no floor in L1, and when `clear.lua` did not say so in the meta: the
/// values were served then. Red at the origin without the permits, and at the count of loads
/// without the lease. There is nothing to remove that would make the clear cost a command per key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_cleared_keys_cost_the_server_nothing_each_and_the_origin_what_it_can_bear() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let options = |options: Options| {
        options.loads_max(LOADS_MAX).ttl(Duration::from_secs(900)).l2_budget(4 * PATIENCE)
    };
    let ways =
        Ways::to(&server).redis(|redis| redis.command_timeout(PATIENCE).total_timeout(PATIENCE));
    let a = ways.instance_with(&namespace, options).await;
    let b = ways.instance_with(&namespace, options).await;
    a.cache.put(&key(0), "value".to_owned()).await.unwrap();
    copy_to_all(&server, &tag(&namespace)).await;
    for key in hot() {
        for cache in [&a.cache, &b.cache] {
            assert!(cache.get(&key).await.is_some());
            assert_eq!(cache.get(&key).await.unwrap().tier(), Tier::L1);
        }
    }

    server.reset_stats().await.unwrap();
    a.cache.clear().await.unwrap();
    let applied = || async { b.cache.stats().invalidations_applied == 2 };
    eventually(PATIENCE, "the clear is applied", applied).await;
    // A step of a few commands, and beats: each instance has ten a second.
    let spent = commands(&server).await;
    assert!(total(&spent) < 200, "{spent:?}");
    assert_eq!(spent["publish"], 1, "{spent:?}");
    let size = server.admin(&["DBSIZE"]).await.unwrap().as_integer().unwrap();
    assert!(size >= KEYS as i64, "they are void, and leave by their ttl: {size}");
    for key in hot() {
        assert!(a.cache.peek(&key).is_none() && b.cache.peek(&key).is_none());
    }

    server.reset_stats().await.unwrap();
    let origin = Arc::new(Origin::default());
    let mut herd = JoinSet::new();
    for key in hot() {
        for cache in [&a.cache, &b.cache] {
            let (cache, key, origin) = (cache.clone(), key.clone(), Arc::clone(&origin));
            herd.spawn(async move {
                let loader = move |_key| async move { origin.load().await };
                let hit = cache.get_or_load(&key, loader).await.unwrap();
                assert_eq!(*hit, "new");
            });
        }
    }
    while let Some(read) = herd.join_next().await {
        read.unwrap();
    }
    let most = origin.most.load(Ordering::SeqCst);
    assert!((1..=2 * LOADS_MAX).contains(&most), "{most} at a time");
    assert_eq!(origin.loads.load(Ordering::SeqCst), HOT, "one load per key in the fleet");
    // Each instance looks into L2 and asks for the lease; one of them fills. Who waits looks again.
    let spent = commands(&server).await;
    let steps = spent["mget"] + spent["evalsha"];
    assert!(steps < 10 * HOT as u64, "{steps} steps for {HOT} keys: {spent:?}");
}

/// Counts its calls, and how many of them run at a time.
#[derive(Default)]
struct Origin {
    loads: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Origin {
    async fn load(&self) -> Result<String, std::io::Error> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        // Long enough that others would run beside it if they were let.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok("new".to_owned())
    }
}

fn tag(namespace: &Namespace) -> Tag {
    namespace.tag("cache", b"values").unwrap()
}
