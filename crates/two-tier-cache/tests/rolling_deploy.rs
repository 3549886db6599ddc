//! Old and new forms of a type live side by side while a fleet is being deployed.

mod common;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, namespace};
use fleetwide_core_traits::{Bus, Executor, Namespace};
use fleetwide_mem_backend::{Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, eventually, seed};
use fleetwide_two_tier_cache::{Cache, Tier};
use parking_lot::Mutex;
use rand::Rng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What was deployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    id: u64,
    name: String,
}

/// What is being deployed. As bincode each form can be read as the other for some values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    id: u64,
    mail: Option<String>,
    name: String,
}

impl Old {
    fn of(id: u64) -> Self {
        Self { id, name: format!("name {id}") }
    }
}

impl New {
    fn of(id: u64) -> Self {
        Self { id, mail: Some(format!("{id}@b.example")), name: format!("name {id}") }
    }
}

/// An instance of the fleet, with or without a log to follow: without, it has no L1, and knows
/// nothing of the server's clock.
async fn instance<V, E, B>(
    executor: E,
    bus: Option<&B>,
    namespace: &Namespace,
    ttl: Duration,
) -> Cache<u64, V, E>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Executor + Clone,
    B: Bus + Clone,
{
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let builder = Cache::builder(executor.clone(), namespace, "users", local);
    let cache = builder.ttl(ttl).build().unwrap();
    if let Some(bus) = bus {
        let log = Log::builder(executor, bus.clone(), cache.tag().clone())
            .follower(cache.follower())
            .heartbeat(Duration::from_millis(50))
            .start();
        log.begun().await.unwrap();
        cache.keep(Box::new(log)).ok().unwrap();
    }
    cache
}

async fn server() -> (RedisServer, Redis) {
    let server = RedisServer::start().await.unwrap();
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
    redis.ready(PATIENCE).await.unwrap();
    (server, redis)
}

/// Under which the loads of each form are counted here.
const OLD: u32 = 1;
const NEW: u32 = 2;

/// How often each key was loaded in each schema.
type Loads = Arc<Mutex<HashMap<(u32, u64), u32>>>;

async fn read<V, E>(cache: &Cache<u64, V, E>, id: u64, of: fn(u64) -> V, schema: u32, loads: &Loads)
where
    V: Debug + PartialEq + Send + Sync + 'static,
    E: Executor + Clone,
{
    let loads = Arc::clone(loads);
    let load = move |id| async move {
        *loads.lock().entry((schema, id)).or_default() += 1;
        Ok::<_, std::io::Error>(of(id))
    };
    assert_eq!(*cache.get_or_load(&id, load).await.unwrap(), of(id));
}

struct Fleet {
    old: Vec<Cache<u64, Old, RedisExecutor>>,
    new: Vec<Cache<u64, New, RedisExecutor>>,
    loads: Loads,
}

impl Fleet {
    async fn read_at_random(&self, rng: &mut impl Rng, keys: u64) {
        let (instance, id) = (rng.random_range(0..3), rng.random_range(0..keys));
        if rng.random() {
            read(&self.old[instance], id, Old::of, OLD, &self.loads).await;
        } else {
            read(&self.new[instance], id, New::of, NEW, &self.loads).await;
        }
    }
}

/// Red without the variants beside one's own in `fill.lua`: then each fill undoes the other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_fleet_loads_each_key_once_in_each_schema_and_sees_no_error() {
    const KEYS: u64 = 20;
    let seed = seed();
    let (_server, redis) = server().await;
    let (namespace, hour) = (namespace(), Duration::from_secs(3600));
    let mut fleet = Fleet { old: Vec::new(), new: Vec::new(), loads: Loads::default() };
    for follows in [true, true, false] {
        let bus = follows.then(|| redis.bus());
        let (executor, bus) = (|| redis.executor(), bus.as_ref());
        fleet.old.push(instance(executor(), bus, &namespace, hour).await);
        fleet.new.push(instance(executor(), bus, &namespace, hour).await);
    }
    let mut rng = seed.rng();
    for _ in 0..1_000 {
        fleet.read_at_random(&mut rng, KEYS).await;
    }
    let loads = std::mem::take(&mut *fleet.loads.lock());
    assert!(loads.values().all(|count| *count == 1), "{loads:?}");
    assert_eq!(loads.len(), 2 * KEYS as usize);
    let stats = fleet.old.iter().map(Cache::stats).chain(fleet.new.iter().map(Cache::stats));
    let (mut foreign, mut l2) = (0, 0);
    for stats in stats {
        assert_eq!((stats.undecodable, stats.load_errors, stats.l2_errors), (0, 0, 0));
        foreign += stats.other_schema;
        l2 += stats.hits_l2;
    }
    assert!(foreign >= KEYS, "a value of the other schema is a miss that is counted: {foreign}");
    assert!(l2 > 100, "both kept their values through each other's fills: {l2}");

    // One invalidation, by either of them, removes both.
    for id in 0..KEYS {
        if id % 2 == 0 {
            fleet.old[0].invalidate(&id).await.unwrap();
        } else {
            fleet.new[1].invalidate(&id).await.unwrap();
        }
        for (old, new) in fleet.old.iter().zip(&fleet.new) {
            eventually(PATIENCE, "old and new are gone", || async {
                old.get(&id).await.is_none() && new.get(&id).await.is_none()
            })
            .await;
        }
    }
}

/// A put says that the value is another now, in every schema. Red if a put keeps what lies beside its own.
#[tokio::test]
async fn a_put_in_one_schema_removes_the_value_in_the_others() {
    let (memory, namespace) = (Memory::new(), namespace());
    let hour = Duration::from_secs(3600);
    let (executor, bus) = (|| memory.executor().clone(), Some(memory.bus()));
    let old = instance::<Old, _, _>(executor(), bus, &namespace, hour).await;
    let new = instance::<New, _, _>(executor(), bus, &namespace, hour).await;
    let loads = Loads::default();
    read(&old, 7, Old::of, OLD, &loads).await;
    read(&new, 7, New::of, NEW, &loads).await;
    old.put(&7, Old::of(8)).await.unwrap();
    let gone = || async { new.get(&7).await.is_none() };
    eventually(PATIENCE, "the new form is old now", gone).await;
    assert_eq!(old.get(&7).await.unwrap().into_value().id, 8);
}

/// A string with several variants lives as long as the longest of them; each still ends in time.
/// Red without the look at the server's clock in `variants.rs`.
#[tokio::test]
async fn a_variant_ends_in_time_though_another_lives_on_beside_it() {
    let (_server, redis) = server().await;
    let (namespace, bus) = (namespace(), redis.bus());
    let (short, hour) = (Duration::from_millis(300), Duration::from_secs(3600));
    let (executor, loads) = (|| redis.executor(), Loads::default());
    let old = instance::<Old, _, _>(executor(), Some(&bus), &namespace, short).await;
    let new = instance::<New, _, _>(executor(), Some(&bus), &namespace, hour).await;
    read(&old, 7, Old::of, OLD, &loads).await;
    read(&new, 7, New::of, NEW, &loads).await;
    let reader = instance::<New, _, _>(executor(), Some(&bus), &namespace, hour).await;
    let there = || async { reader.get(&7).await.is_some() };
    eventually(PATIENCE, "the fill, which nobody waits for, is done", there).await;
    let ended = || async {
        // One without an L1 of its own, so that it must ask.
        let fresh = instance::<Old, _, _>(executor(), Some(&bus), &namespace, hour).await;
        fresh.get(&7).await.is_none()
    };
    eventually(PATIENCE, "the short-lived one ends", ended).await;
    let fresh = instance::<New, _, _>(executor(), Some(&bus), &namespace, hour).await;
    let hit = fresh.get(&7).await.expect("the other lives on");
    assert_eq!((hit.tier(), &*hit), (Tier::L2, &New::of(7)));
}

/// Who says that two forms can read each other gets one value for both: nothing is loaded twice.
#[cfg(feature = "json")]
#[tokio::test]
async fn forms_that_are_said_to_be_one_schema_share_their_values() {
    let (memory, namespace) = (Memory::new(), namespace());
    let old = as_json::<Old>(&memory, &namespace);
    let new = as_json::<New>(&memory, &namespace);
    new.put(&7, New::of(7)).await.unwrap();
    assert_eq!(*old.get(&7).await.expect("the field more is passed over"), Old::of(7));
}

#[cfg(feature = "json")]
fn as_json<V>(
    memory: &Memory,
    namespace: &Namespace,
) -> Cache<u64, V, fleetwide_mem_backend::MemExecutor>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    use fleetwide_core_traits::{Format, Serde};

    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let (executor, json) = (memory.executor().clone(), Serde::new(Format::Json));
    let builder = Cache::builder_with_codec(executor, namespace, "users", local, json);
    builder.schema(1).build().unwrap()
}
