//! A shared tier that answers too late, or now and then, costs a read its budget and nothing else.
//!
//! The clock of these tests is the runtime's: it moves only when everybody waits.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Gate, PATIENCE, SlowLoad, namespace, node, node_with, quick};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Outage, Script};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_testkit::{SimClock, eventually};
use fleetwide_two_tier_cache::{Cache, CacheTag, Freshness, PutOptions};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

const BUDGET: Duration = Duration::from_millis(200);

fn key() -> String {
    "key".to_owned()
}

/// Carries steps out and answers late, or does not carry them out at all.
#[derive(Clone)]
struct Ailing {
    inner: Gate<MemExecutor>,
    late: Arc<Mutex<HashMap<&'static str, Duration>>>,
    refused: Arc<Mutex<Vec<&'static str>>>,
}

impl Ailing {
    fn new(memory: &Memory) -> Self {
        let inner = Gate::new(memory.executor().clone());
        Self { inner, late: Arc::default(), refused: Arc::default() }
    }

    fn late(&self, script: &'static str, by: Duration) {
        self.late.lock().insert(script, by);
    }
}

impl Executor for Ailing {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let name = op.script().name();
        if self.refused.lock().contains(&name) {
            return Err(BackendError::NotSent(Outage::Saturated(1)));
        }
        let late = self.late.lock().get(name).copied();
        let result = self.inner.execute(op).await;
        if let Some(by) = late {
            sleep(by).await;
        }
        result
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

/// Lookup, lease and tags together: red when each of them had a budget of its own.
#[tokio::test(start_paused = true)]
async fn a_read_of_many_steps_stays_within_one_budget() {
    let (memory, namespace) = (Memory::new(), namespace());
    let ailing = Ailing::new(&memory);
    let a = node_with(ailing.clone(), memory.bus(), &namespace, |b| b.l2_budget(BUDGET)).await;
    let b = node(memory.executor().clone(), memory.bus(), &namespace).await;
    let holding = ailing.inner.hold("MGET");
    let cache = a.cache.clone();
    let asked = Instant::now();
    let reader = tokio::spawn(async move { cache.get_or_load(&key(), quick("loaded")).await });
    holding.carried_out().await;
    let tagged = PutOptions::default().tag(CacheTag::new("t").unwrap());
    b.cache.put_with(&key(), "v".to_owned(), tagged).await.unwrap();
    ailing.late("cache_lease", Duration::from_millis(180));
    ailing.late("HMGET", Duration::from_secs(9));
    holding.release();
    reader.await.unwrap().unwrap();
    assert!(asked.elapsed() < BUDGET * 5 / 4, "{:?}", asked.elapsed());
}

/// Red when a caller that took over from one who left had a new budget.
#[tokio::test(start_paused = true)]
async fn who_takes_over_a_read_has_no_more_time_than_others() {
    let (memory, namespace) = (Memory::new(), namespace());
    let ailing = Ailing::new(&memory);
    let a = node_with(ailing.clone(), memory.bus(), &namespace, |b| b.l2_budget(BUDGET)).await;
    ailing.late("MGET", Duration::from_secs(9));
    let get = || {
        let cache = a.cache.clone();
        tokio::spawn(async move { cache.get(&key()).await })
    };
    let (asked, leader) = (Instant::now(), get());
    tokio::task::yield_now().await;
    let reader = get();
    sleep(BUDGET * 3 / 4).await;
    leader.abort();
    assert!(reader.await.unwrap().is_none());
    assert!(asked.elapsed() < BUDGET * 5 / 4, "{:?}", asked.elapsed());
}

/// Red when whoever joined a read of L2 took what it brought, however long ago it was sent.
#[tokio::test]
async fn a_read_joins_none_that_is_older_than_the_staleness_bound() {
    let (memory, namespace, clock) = (Memory::new(), namespace(), SimClock::new());
    let ailing = Ailing::new(&memory);
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    // It hears of no write, and is more patient than its bound: one second.
    let builder = Cache::builder(ailing.clone(), &namespace, "values", local);
    let deaf: Cache<String, String, _> =
        builder.clock(Arc::new(clock.clone())).l2_budget(PATIENCE).build().unwrap();
    let b = node(memory.executor().clone(), memory.bus(), &namespace).await;
    b.cache.put(&key(), "old".to_owned()).await.unwrap();
    let holding = ailing.inner.hold("MGET");
    let get = || {
        let cache = deaf.clone();
        tokio::spawn(async move { cache.get(&key()).await.unwrap() })
    };
    let first = get();
    holding.carried_out().await;
    clock.advance(Duration::from_secs(1));
    let second = get();
    tokio::task::yield_now().await;
    b.cache.put(&key(), "new".to_owned()).await.unwrap();
    clock.advance(Duration::from_millis(1));
    let third = get();
    tokio::task::yield_now().await;
    assert_eq!(deaf.stats().reads_under_way, 1, "they have joined");
    holding.release();
    let [first, second, third] = [first.await, second.await, third.await].map(Result::unwrap);
    assert_eq!((&**first, &**second), ("old", "old"), "the write had not begun");
    assert_eq!((third.as_str(), third.freshness()), ("new", Freshness::Verified));
}

/// A lease that was granted too late for its caller is given back. Red without that: the other
/// instance then waits until it runs out, five seconds.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_leaves_no_lease_behind() {
    let (memory, namespace) = (Memory::new(), namespace());
    let ailing = Ailing::new(&memory);
    let a = node_with(ailing.clone(), memory.bus(), &namespace, |b| b.l2_budget(BUDGET)).await;
    let b = node(memory.executor().clone(), memory.bus(), &namespace).await;
    ailing.late("cache_lease", BUDGET * 2);
    a.cache.get_or_load(&key(), quick("a")).await.unwrap();
    let asked = Instant::now();
    b.cache.get_or_load(&key(), quick("b")).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

/// Another instance's load from before a queued write must not replace it here. Red if who waits
/// for that load did not look at the queue again.
#[tokio::test(start_paused = true)]
async fn after_a_queued_write_the_old_value_does_not_come_back_to_the_writer() {
    let (memory, namespace) = (Memory::new(), namespace());
    let ailing = Ailing::new(&memory);
    let a = node(ailing.clone(), memory.bus(), &namespace).await;
    let b = node(memory.executor().clone(), memory.bus(), &namespace).await;
    let slow = SlowLoad::new();
    let (cache, loader) = (b.cache.clone(), slow.loader("old"));
    let loading = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    let cache = a.cache.clone();
    let waiting = tokio::spawn(async move { cache.get_or_load(&key(), quick("own")).await });
    eventually(PATIENCE, "a waits", || async { a.cache.stats().loads_under_way == 1 }).await;
    ailing.refused.lock().extend(["cache_put", "cache_invalidate"]);
    assert!(a.cache.put(&key(), "new".to_owned()).await.unwrap_err().is_queued());
    assert_eq!(*a.cache.get(&key()).await.unwrap(), "new");
    slow.finish();
    loading.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert!(a.cache.get(&key()).await.is_none_or(|hit| *hit != "old"));
}

/// The task that repeats queued writes can die with its runtime; the next write that fails starts
/// another one. Red without the guard that says so.
#[test]
fn the_queue_goes_on_after_the_runtime_that_began_it_has_ended() {
    let (memory, namespace) = (Memory::new(), namespace());
    let ailing = Ailing::new(&memory);
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let cache: Cache<String, String, _> =
        Cache::builder(ailing.clone(), &namespace, "values", local).build().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fails = |name: &'static str| {
        ailing.refused.lock().push("cache_invalidate");
        let cache = cache.clone();
        async move { cache.invalidate(&name.to_owned()).await.unwrap_err() }
    };
    let first = runtime();
    first.block_on(fails("first"));
    drop(first);
    runtime().block_on(async {
        fails("second").await;
        ailing.refused.lock().clear();
        let done = || async { cache.stats().queued == 0 };
        timeout(PATIENCE, eventually(PATIENCE, "the queue is repeated", done)).await.unwrap();
    });
}
