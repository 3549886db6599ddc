//! A caller may leave at any await point: nobody hangs, nothing is loaded twice, nothing is left.
//!
//! Each test drops one call at each of its await points in turn, once right after the poll and once
//! when the wake-up after it has arrived, and then looks at what others get.

mod common;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::{namespace, node_with};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Script};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::{Drops, Ended};
use fleetwide_two_tier_cache::{Cache, CacheBuilder, Hit, LoadContext, OnAbandon, Tier};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

/// What nobody who asks after a drop may have to wait for: shorter than a lease.
const SOON: Duration = Duration::from_secs(3);

type Loading = Pin<Box<dyn Future<Output = Result<String, io::Error>> + Send>>;
type TestCache = Cache<String, String, Distant>;

/// An executor that takes its time on both ways, so that each command is two await points.
#[derive(Clone)]
struct Distant(MemExecutor);

impl Executor for Distant {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        sleep(Duration::from_millis(1)).await;
        let answer = self.0.execute(op).await;
        sleep(Duration::from_millis(1)).await;
        answer
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.0.prepare(scripts);
    }
}

/// Two instances, and how often each key was loaded.
struct Pair {
    a: TestCache,
    b: TestCache,
    loads: Arc<Mutex<HashMap<String, u32>>>,
}

impl Pair {
    async fn new(
        options: impl Fn(CacheBuilder<String, String, Distant>) -> CacheBuilder<String, String, Distant>,
    ) -> Self {
        let (memory, namespace) = (Memory::new(), namespace());
        let distant = || Distant(memory.executor().clone());
        let a = node_with(distant(), memory.bus(), &namespace, &options).await.cache;
        let b = node_with(distant(), memory.bus(), &namespace, &options).await.cache;
        Self { a, b, loads: Arc::default() }
    }

    /// A loader that takes 5 ms and counts.
    fn loader(
        &self,
        value: &str,
    ) -> impl FnOnce(LoadContext<String, String>) -> Loading + Send + 'static {
        let (loads, value) = (Arc::clone(&self.loads), value.to_owned());
        move |context| {
            Box::pin(async move {
                *loads.lock().entry(context.key().clone()).or_default() += 1;
                sleep(Duration::from_millis(5)).await;
                Ok::<_, io::Error>(value)
            })
        }
    }

    async fn load(&self, cache: &TestCache, key: &String, value: &str) -> Hit<String> {
        let load = cache.get_or_load_with(key, self.loader(value));
        timeout(SOON, load).await.expect("nobody hangs").expect("the loader does not fail")
    }

    fn loads_of(&self, key: &str) -> u32 {
        self.loads.lock().get(key).copied().unwrap_or_default()
    }

    /// Red if a table kept something of a caller who has left.
    async fn nothing_is_left(&self) {
        let left = |cache: &TestCache| {
            let stats = cache.stats();
            stats.loads_under_way + stats.reads_under_way + stats.waiting + stats.queued
        };
        let is_empty = async || left(&self.a) + left(&self.b) == 0;
        fleetwide_testkit::eventually(SOON, "the tables are empty", is_empty).await;
    }
}

/// A key of its own for each drop point.
struct Keys(Mutex<u32>);

impl Keys {
    fn new() -> Self {
        Self(Mutex::new(0))
    }

    fn current(&self) -> String {
        format!("key {}", self.0.lock())
    }

    fn next(&self) {
        *self.0.lock() += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_of_the_shared_tier_can_be_dropped_anywhere() {
    let (pair, keys) = (Pair::new(|builder| builder).await, Keys::new());
    pair.b.put(&keys.current(), "there".to_owned()).await.unwrap();
    let get = || {
        let (cache, key) = (pair.a.clone(), keys.current());
        async move { cache.get(&key).await }
    };
    let check = async |_| {
        let hit = timeout(SOON, pair.a.get(&keys.current())).await.expect("nobody hangs");
        assert_eq!(hit.as_deref().map(String::as_str), Some("there"));
        pair.nothing_is_left().await;
        keys.next();
        pair.b.put(&keys.current(), "there".to_owned()).await.unwrap();
    };
    assert!(Drops::new().run(get, check).await >= 2);
}

/// Red if the load was part of the caller's own future.
#[tokio::test(start_paused = true)]
async fn a_load_can_be_dropped_anywhere_and_is_not_done_twice() {
    let (pair, keys) = (Pair::new(|builder| builder).await, Keys::new());
    let load = || {
        let (cache, key, loader) = (pair.a.clone(), keys.current(), pair.loader("loaded"));
        async move { cache.get_or_load_with(&key, loader).await.unwrap() }
    };
    let check = async |_| {
        let key = keys.current();
        let ours = pair.load(&pair.a, &key, "loaded");
        let (one, two) = tokio::join!(ours, pair.load(&pair.b, &key, "loaded"));
        assert_eq!((one.value().as_str(), two.value().as_str()), ("loaded", "loaded"));
        assert_eq!(pair.loads_of(&key), 1);
        pair.nothing_is_left().await;
        keys.next();
    };
    assert!(Drops::new().run(load, check).await >= 3);
}

/// Red if a lease was left behind: then the other instance waits for it to run out.
#[tokio::test(start_paused = true)]
async fn a_load_that_is_given_up_with_its_caller_leaves_no_lease() {
    let pair = Pair::new(|builder| builder.on_abandon(OnAbandon::Cancel)).await;
    let keys = Keys::new();
    let load = || {
        let (cache, key, loader) = (pair.a.clone(), keys.current(), pair.loader("first"));
        async move { cache.get_or_load_with(&key, loader).await.unwrap() }
    };
    let check = async |ended| {
        let key = keys.current();
        let hit = pair.load(&pair.b, &key, "second").await;
        if matches!(ended, Ended::Completed(_)) {
            assert_eq!((hit.value().as_str(), pair.loads_of(&key)), ("first", 1));
        }
        assert!(pair.loads_of(&key) <= 2, "one that was given up, and one that was not");
        pair.nothing_is_left().await;
        keys.next();
    };
    assert!(Drops::new().run(load, check).await >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_instance_can_be_dropped_anywhere() {
    let (pair, keys) = (Pair::new(|builder| builder).await, Keys::new());
    let begin = |pair: &Pair, key: String| {
        let (cache, loads) = (pair.b.clone(), Arc::clone(&pair.loads));
        tokio::spawn(async move {
            let slow = |context: LoadContext<String, String>| async move {
                *loads.lock().entry(context.key().clone()).or_default() += 1;
                sleep(Duration::from_millis(40)).await;
                Ok::<_, io::Error>("theirs".to_owned())
            };
            cache.get_or_load_with(&key, slow).await.unwrap()
        })
    };
    let theirs = Mutex::new(begin(&pair, keys.current()));
    sleep(Duration::from_millis(10)).await;
    let wait = || {
        let (cache, key, loader) = (pair.a.clone(), keys.current(), pair.loader("ours"));
        async move { cache.get_or_load_with(&key, loader).await.unwrap() }
    };
    let check = async |_| {
        let key = keys.current();
        let hit = pair.load(&pair.a, &key, "ours").await;
        assert_eq!((hit.value().as_str(), pair.loads_of(&key)), ("theirs", 1));
        pair.nothing_is_left().await;
        keys.next();
        let next = begin(&pair, keys.current());
        let before = std::mem::replace(&mut *theirs.lock(), next);
        assert_eq!(before.await.unwrap().tier(), Tier::Load);
        sleep(Duration::from_millis(10)).await;
    };
    assert!(Drops::new().run(wait, check).await >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_put_can_be_dropped_anywhere_and_the_next_write_counts() {
    let (pair, keys) = (Pair::new(|builder| builder).await, Keys::new());
    pair.a.put(&keys.current(), "old".to_owned()).await.unwrap();
    let put = || {
        let (cache, key) = (pair.a.clone(), keys.current());
        async move { cache.put(&key, "new".to_owned()).await.unwrap() }
    };
    let check = async |ended| {
        let key = keys.current();
        let hit = pair.load(&pair.b, &key, "loaded").await;
        match ended {
            Ended::Completed(_) => assert_eq!(hit.value().as_str(), "new"),
            Ended::Dropped(_) => assert!(["old", "new"].contains(&hit.value().as_str())),
        }
        pair.a.put(&key, "newest".to_owned()).await.unwrap();
        assert_eq!(pair.a.get(&key).await.unwrap().value().as_str(), "newest");
        pair.nothing_is_left().await;
        keys.next();
        pair.a.put(&keys.current(), "old".to_owned()).await.unwrap();
    };
    assert!(Drops::new().run(put, check).await >= 3);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_can_be_dropped_anywhere_and_the_next_one_counts() {
    let (pair, keys) = (Pair::new(|builder| builder).await, Keys::new());
    pair.a.put(&keys.current(), "old".to_owned()).await.unwrap();
    let invalidate = || {
        let (cache, key) = (pair.a.clone(), keys.current());
        async move { cache.invalidate(&key).await.unwrap() }
    };
    let check = async |ended| {
        let key = keys.current();
        let hit = pair.load(&pair.b, &key, "loaded").await;
        let is_done = matches!(ended, Ended::Completed(_));
        assert!(hit.value().as_str() == "loaded" || !is_done, "{hit:?}");
        pair.a.invalidate(&key).await.unwrap();
        assert_eq!(pair.load(&pair.a, &key, "newest").await.value().as_str(), "newest");
        pair.nothing_is_left().await;
        keys.next();
        pair.a.put(&keys.current(), "old".to_owned()).await.unwrap();
    };
    assert!(Drops::new().run(invalidate, check).await >= 3);
}
