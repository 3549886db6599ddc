//! While the origin of a key is updated under a guard nothing is kept of it, and when the guard ends,
//! however it does, nothing from before is in any cache.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Node, PATIENCE, SlowLoad, namespace, node, node_with, quick, until_gone};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Namespace, Outage, Script};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::{Drops, SimClock, eventually};
use fleetwide_two_tier_cache::{Cache, Tier};
use parking_lot::Mutex;

/// What a guard lives after its process has died.
const LIFE: Duration = Duration::from_secs(10);

fn key() -> String {
    "key".to_owned()
}

/// An executor that can be cut off for good, as that of a process that dies.
#[derive(Clone)]
struct Mortal {
    inner: MemExecutor,
    dead: Arc<AtomicBool>,
}

impl Executor for Mortal {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(BackendError::NotSent(Outage::Down("dead".to_owned())));
        }
        self.inner.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

/// A writer, a reader, and the origin between them.
struct World {
    clock: SimClock,
    memory: Memory,
    namespace: Namespace,
    writer: Node<Mortal>,
    reader: Node<MemExecutor>,
    origin: Arc<Mutex<&'static str>>,
}

impl World {
    async fn new() -> Self {
        let clock = SimClock::new();
        let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
        let namespace = namespace();
        let mortal = Mortal { inner: memory.executor().clone(), dead: Arc::default() };
        let writer = node(mortal, memory.bus(), &namespace).await;
        let reader = node(memory.executor().clone(), memory.bus(), &namespace).await;
        let origin = Arc::new(Mutex::new("old"));
        Self { clock, memory, namespace, writer, reader, origin }
    }

    fn update(&self) {
        *self.origin.lock() = "new";
    }

    /// Reads through the reader, and says what came and from where.
    async fn read(&self) -> (String, Tier) {
        let origin = Arc::clone(&self.origin);
        let load = move |_| async move { Ok::<_, std::io::Error>((*origin.lock()).to_owned()) };
        let hit = self.reader.cache.get_or_load(&key(), load).await.unwrap();
        (hit.to_string(), hit.tier())
    }

    /// Whether the reader's instance or the shared tier has something.
    async fn is_cached(&self) -> bool {
        self.reader.cache.get(&key()).await.is_some()
    }

    /// Waits until what the reader loads is kept, and says what it is.
    async fn kept(&self) -> String {
        let kept = async || {
            let _loaded = self.read().await;
            self.is_cached().await
        };
        eventually(PATIENCE, "the key to be filled", kept).await;
        let hit = self.reader.cache.get(&key()).await.expect("it was there a moment ago");
        hit.to_string()
    }
}

/// Red if a lease is granted while a guard is held, and red if what is loaded then is kept in L1.
#[tokio::test]
async fn nothing_is_kept_while_the_guard_is_held_and_everything_after_it() {
    let world = World::new().await;
    assert_eq!(world.read().await, ("old".to_owned(), Tier::Load));
    assert!(world.is_cached().await);
    let guard = world.writer.cache.write_guard(&key()).await.unwrap();
    until_gone(&world.reader.cache, &key()).await;
    for _ in 0..3 {
        assert_eq!(world.read().await, ("old".to_owned(), Tier::Load));
        assert!(!world.is_cached().await);
    }
    let other = "other".to_owned();
    let keys = [key(), other.clone()];
    let many = world.reader.cache.get_many(&keys);
    let hits = many.load(|keys: Vec<String>| async move {
        Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, "old".to_owned())))
    });
    assert_eq!(hits.await.unwrap().len(), 2);
    assert!(!world.is_cached().await && world.reader.cache.get(&other).await.is_some());
    world.update();
    assert_eq!(world.read().await, ("new".to_owned(), Tier::Load));
    assert!(!world.is_cached().await);
    guard.commit().await.unwrap();
    assert_eq!(world.read().await, ("new".to_owned(), Tier::Load));
    assert!(world.is_cached().await);
}

/// Red if the beginning of a guard does not take leases away.
#[tokio::test]
async fn a_load_that_was_under_way_when_the_guard_began_is_not_kept() {
    let world = World::new().await;
    let load = SlowLoad::new();
    let reading = {
        let (cache, loader) = (world.reader.cache.clone(), load.loader("old"));
        tokio::spawn(async move { cache.get_or_load(&key(), loader).await })
    };
    load.began().await;
    let guard = world.writer.cache.write_guard(&key()).await.unwrap();
    load.finish();
    assert_eq!(*reading.await.unwrap().unwrap(), "old");
    until_gone(&world.reader.cache, &key()).await;
    assert!(!world.is_cached().await);
    guard.commit().await.unwrap();
}

/// The writer dies after its update. Red if a reader's load from the time between is kept.
#[tokio::test]
async fn a_guard_of_a_process_that_died_runs_out_and_leaves_nothing_old() {
    let world = World::new().await;
    assert_eq!(world.kept().await, "old");
    let guard = world.writer.cache.write_guard(&key()).await.unwrap();
    until_gone(&world.reader.cache, &key()).await;
    assert_eq!(world.read().await.0, "old");
    world.update();
    world.writer.executor.dead.store(true, Ordering::SeqCst);
    // Neither its drop nor its renewals reach the server.
    drop(guard);
    world.clock.advance(Duration::from_millis(9_999));
    assert_eq!(world.read().await, ("new".to_owned(), Tier::Load));
    assert!(!world.is_cached().await);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.read().await, ("new".to_owned(), Tier::Load));
    assert!(world.is_cached().await);
}

/// Red without the renewal: the clock goes on for two lives.
#[tokio::test(start_paused = true)]
async fn a_guard_that_is_held_does_not_run_out() {
    let world = World::new().await;
    let guard = world.writer.cache.write_guard(&key()).await.unwrap();
    for _ in 0..20 {
        // Both clocks: the renewals go by the runtime's, which moves when everybody waits.
        tokio::time::sleep(LIFE / 10).await;
        world.clock.advance(LIFE / 10);
        assert_eq!(world.read().await.1, Tier::Load);
        assert!(!world.is_cached().await);
    }
    guard.commit().await.unwrap();
    assert_eq!(world.kept().await, "old");
}

/// Red without the drop: what was put stays, and the key is not filled for ten seconds.
#[tokio::test]
async fn a_guard_that_is_dropped_by_a_panic_ends_in_the_background() {
    let world = World::new().await;
    let cache = world.writer.cache.clone();
    let guard = cache.write_guard(&key()).await.unwrap();
    world.reader.cache.put(&key(), "put".to_owned()).await.unwrap();
    assert!(world.is_cached().await);
    world.update();
    let update = tokio::spawn(async move {
        let _guard = guard;
        panic!("the update is done, and this task is, too");
    });
    assert!(update.await.is_err());
    let gone = async || !world.is_cached().await;
    eventually(PATIENCE, "what was put to go", gone).await;
    assert_eq!(world.kept().await, "new");
}

/// Red if the end of one guard ends the others.
#[tokio::test]
async fn the_last_of_several_guards_lets_the_key_be_filled() {
    let world = World::new().await;
    let first = world.writer.cache.write_guard(&key()).await.unwrap();
    let second = world.reader.cache.write_guard(&key()).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(world.read().await.1, Tier::Load);
    assert!(!world.is_cached().await);
    second.commit().await.unwrap();
    assert_eq!(world.kept().await, "old");
}

#[tokio::test]
async fn a_cache_that_is_alone_guards_its_own() {
    let (memory, namespace) = (Memory::new(), namespace());
    let executor = memory.executor().clone();
    let alone = node_with(executor, memory.bus(), &namespace, |builder| builder.alone(true));
    let cache: Cache<String, String, _> = alone.await.cache;
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    let guard = cache.write_guard(&key()).await.unwrap();
    assert!(cache.peek(&key()).is_none());
    cache.get_or_load(&key(), quick("old")).await.unwrap();
    guard.commit().await.unwrap();
    assert!(cache.peek(&key()).is_none());
    assert_eq!(*cache.get_or_load(&key(), quick("new")).await.unwrap(), "new");
}

/// Dropped wherever it waits, an update under a guard leaves nothing old behind.
#[tokio::test]
async fn an_update_that_is_dropped_anywhere_leaves_nothing_old() {
    let world = World::new().await;
    let make = || {
        let world = &world;
        async move {
            *world.origin.lock() = "old";
            let _loaded = world.read().await;
            let guard = world.writer.cache.write_guard(&key()).await.unwrap();
            tokio::task::yield_now().await;
            world.update();
            tokio::task::yield_now().await;
            guard.commit().await.unwrap();
        }
    };
    let check = async |_ended| {
        let settled = async || world.writer.cache.stats().queued == 0;
        eventually(PATIENCE, "the queue to be empty", settled).await;
        // Guards that nobody ends any more.
        world.clock.advance(LIFE);
        if *world.origin.lock() == "new" {
            assert_eq!(world.kept().await, "new");
            let fresh = node(world.memory.executor().clone(), world.memory.bus(), &world.namespace);
            assert_eq!(**fresh.await.cache.get(&key()).await.unwrap(), *"new");
        }
        world.reader.cache.invalidate(&key()).await.unwrap();
    };
    Drops::new().run(make, check).await;
}
