//! A cache with nobody to agree with: its L1 is all there is, so a write must not cost others theirs.

mod common;

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::namespace;
use fleetwide_core_traits::Local;
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_testkit::SimClock;
use fleetwide_two_tier_cache::{
    BulkItem, Cache, CacheBuilder, CacheKey, Freshness, Hit, L1Entry, LoadError,
};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

type Alone<K, V> = Cache<K, V, MemExecutor>;
type Builder<K, V> = CacheBuilder<K, V, MemExecutor>;

fn builder<K: CacheKey>(local: impl Local<K, L1Entry<u64>>) -> Builder<K, u64> {
    let executor = Memory::new().executor().clone();
    Cache::builder(executor, &namespace(), "values", local)
        .alone(true)
        .l1_ttl(Duration::from_secs(600))
        .ttl(Duration::from_secs(600))
}

/// A load of key 7 that has begun.
struct Loading {
    end: oneshot::Sender<Result<u64, &'static str>>,
    load: JoinHandle<Result<Hit<u64>, LoadError>>,
}

impl Loading {
    async fn begin(cache: &Alone<u64, u64>) -> Self {
        let (begun, has_begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let cache = cache.clone();
        let loader = |_key| async {
            begun.send(()).unwrap();
            ended.await.unwrap()
        };
        let load = tokio::spawn(async move { cache.get_or_load(&7, loader).await });
        has_begun.await.unwrap();
        Self { end, load }
    }

    async fn end(self, result: Result<u64, &'static str>) -> Result<Hit<u64>, LoadError> {
        self.end.send(result).unwrap();
        self.load.await.unwrap()
    }
}

fn roomy() -> Alone<u64, u64> {
    builder(MokaLocal::builder().bytes_max(1 << 30).build()).build().unwrap()
}

/// Red with the fence of the stripe on hits, as in a fleet: then a seventh of 20,000 puts was gone.
#[tokio::test]
async fn a_write_voids_its_own_key_and_no_other() {
    const KEYS: u64 = 10_000;
    let cache = roomy();
    for key in 0..KEYS {
        cache.put(&key, key).await.unwrap();
    }
    let entries = (KEYS..2 * KEYS).map(|key| (key, BulkItem::new(key)));
    cache.put_many(entries).await.unwrap();
    let missing = (0..2 * KEYS).filter(|key| cache.peek(key).is_none()).count();
    assert_eq!(missing, 0);
    for key in 0..1_000 {
        cache.invalidate(&key).await.unwrap();
        cache.write_guard(&(key + 1_000)).await.unwrap().commit().await.unwrap();
    }
    cache.invalidate_many(&(2_000..3_000).collect::<Vec<_>>()).await.unwrap();
    let there = |keys: std::ops::Range<u64>| keys.filter(|key| cache.peek(key).is_some()).count();
    assert_eq!((there(0..3_000), there(3_000..2 * KEYS)), (0, 2 * KEYS as usize - 3_000));
    cache.clear().await.unwrap();
    assert_eq!(there(0..2 * KEYS), 0);
}

/// Red without the look at the fence before an insert.
#[tokio::test(start_paused = true)]
async fn what_was_loaded_before_a_write_is_not_kept() {
    for put in [true, false] {
        let cache = roomy();
        let loading = Loading::begin(&cache).await;
        if put {
            cache.put(&7, 2_u64).await.unwrap();
        } else {
            cache.invalidate(&7).await.unwrap();
        }
        assert_eq!(*loading.end(Ok(1)).await.unwrap(), 1);
        assert_eq!(cache.peek(&7).map(|hit| *hit), put.then_some(2));
    }
}

/// What is left of a guard knows its key's bytes only: then all of its stripe is void.
/// Red without the fence inside.
#[tokio::test(start_paused = true)]
async fn a_dropped_guard_leaves_nothing_behind_that_was_put_meanwhile() {
    let cache = roomy();
    let guard = cache.write_guard(&7).await.unwrap();
    cache.put(&7, 1_u64).await.unwrap();
    drop(guard);
    assert!(cache.peek(&7).is_none());
}

/// Red without a second look at the stripe for what was put aside: then the old value comes back.
#[tokio::test(start_paused = true)]
async fn a_stale_value_that_was_invalidated_while_it_was_being_renewed_is_not_served() {
    let clock = SimClock::new();
    let local = MokaLocal::builder().build();
    let cache = builder::<u64>(local)
        .clock(Arc::new(clock.clone()))
        .stale_if_error(Duration::from_secs(3_600))
        .build()
        .unwrap();
    cache.put(&7, 1_u64).await.unwrap();
    clock.advance(Duration::from_secs(601));
    // Without a write it is.
    let spare = Loading::begin(&cache).await.end(Err("down")).await.unwrap();
    assert_eq!((*spare, spare.freshness()), (1, Freshness::Stale));
    clock.advance(Duration::from_secs(2));
    let loading = Loading::begin(&cache).await;
    cache.invalidate(&7).await.unwrap();
    assert!(loading.end(Err("down")).await.is_err());
}

/// Keeps the first value of a key whatever comes later.
struct Stubborn<K, V>(Mutex<HashMap<K, V>>);

impl<K: Eq + Hash + Send + 'static, V: Clone + Send + 'static> Local<K, V> for Stubborn<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn insert(&self, key: K, value: V, _weight: u32) {
        self.0.lock().unwrap().entry(key).or_insert(value);
    }

    fn remove(&self, key: &K) {
        self.0.lock().unwrap().remove(key);
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    fn len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn weight(&self) -> u64 {
        self.len()
    }
}

/// Red without the look at what L1 has after a put.
#[tokio::test]
async fn a_tier_that_turns_a_put_away_does_not_keep_the_value_before_it() {
    let cache = builder(Stubborn(Mutex::default())).build().unwrap();
    cache.put(&7_u64, 1_u64).await.unwrap();
    cache.put(&7, 2).await.unwrap();
    assert!(cache.peek(&7).is_none());
}

/// Four threads read and write five keys as fast as they can. Red without the turns: an insert that has looked at the fence waits, a write passes, and
/// the insert brings the old value back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_what_was_invalidated_before_it_asked() {
    const KEYS: u64 = 5;
    const ROUNDS: u64 = 10_000;
    let cache = roomy();
    let origin: Arc<[AtomicU64]> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let written: Arc<[AtomicU64]> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let mut tasks = JoinSet::new();
    for number in 0..4 {
        let (cache, origin, written) = (cache.clone(), Arc::clone(&origin), Arc::clone(&written));
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let key = (round * 7 + number) % KEYS;
                let slot = key as usize;
                if round % 4 == number {
                    let version = origin[slot].fetch_add(1, Ordering::SeqCst) + 1;
                    cache.invalidate(&key).await.unwrap();
                    written[slot].fetch_max(version, Ordering::SeqCst);
                    continue;
                }
                let least = written[slot].load(Ordering::SeqCst);
                let origin = Arc::clone(&origin);
                let loader = move |key: u64| async move {
                    Ok::<_, Infallible>(origin[key as usize].load(Ordering::SeqCst))
                };
                let hit = cache.get_or_load(&key, loader).await.unwrap();
                assert!(*hit >= least, "{} < {least} from {:?}", *hit, hit.tier());
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(cache.stats().hits_l1 > 0);
}
