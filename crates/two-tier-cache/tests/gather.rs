//! Reads of L2 that come at the same time share a command, and nothing else.

mod common;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "common/counted.rs"]
mod counted;

use std::sync::Arc;
use std::time::Duration;

use common::{Gate, PATIENCE, namespace};
use counted::Counted;
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Outage, Script};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_testkit::Drops;
use fleetwide_two_tier_cache::{Cache, Hit, Tier};
use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

type Values<E> = Cache<String, String, E>;

/// A cache that asks its server for every read: it follows no log.
fn cache<E: Executor + Clone>(executor: E) -> Values<E> {
    let local = MokaLocal::builder().build();
    let builder = Cache::builder(executor, &namespace(), "values", local);
    // Longer than a test takes on a busy machine, so that nothing is missed for it.
    builder.l2_budget(PATIENCE).build().unwrap()
}

fn read<E: Executor + Clone>(cache: &Values<E>, key: usize) -> JoinHandle<Option<Hit<String>>> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.get(&key.to_string()).await })
}

async fn fill<E: Executor + Clone>(cache: &Values<E>, keys: usize) {
    for key in 0..keys {
        cache.put(&key.to_string(), format!("value {key}")).await.unwrap();
    }
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// Red where every read goes out by itself (112 commands), where only one does (2), and where one
/// command takes them all (9).
#[tokio::test]
async fn reads_beyond_the_first_eight_go_out_together_and_each_gets_its_own_value() {
    let executor = Gate::new(Counted::new(Memory::new().executor().clone()));
    let counts = executor.inner().clone();
    let cache = cache(executor.clone());
    fill(&cache, 100).await;
    let held = executor.hold("MGET");
    counts.take();
    let mut first: Vec<_> = (0..8).map(|key| read(&cache, key)).collect();
    settle().await;
    assert_eq!(counts.peek().steps["MGET"], 8, "each went out at once");
    let rest: Vec<_> = (8..112).map(|key| read(&cache, key)).collect();
    settle().await;
    held.release();
    first.extend(rest);
    for (key, read) in first.into_iter().enumerate() {
        let hit = read.await.unwrap();
        let found = hit.as_ref().map(|hit| (hit.as_str(), hit.tier()));
        let value = format!("value {key}");
        assert_eq!(found, (key < 100).then_some((value.as_str(), Tier::L2)), "{key}");
    }
    assert_eq!(counts.peek().steps["MGET"], 10, "104 reads took two commands, of 64 keys at most");
}

/// Red where a read that was dropped is counted for ever: then the last two go out together.
#[tokio::test]
async fn callers_that_leave_take_nobody_with_them() {
    let executor = Gate::new(Counted::new(Memory::new().executor().clone()));
    let counts = executor.inner().clone();
    let cache = cache(executor.clone());
    fill(&cache, 40).await;
    let held = executor.hold("MGET");
    let first: Vec<_> = (0..8).map(|key| read(&cache, key)).collect();
    settle().await;
    let rest: Vec<_> = (8..40).map(|key| read(&cache, key)).collect();
    // Before anything was sent, and after.
    rest[0].abort();
    rest[20].abort();
    settle().await;
    rest[10].abort();
    settle().await;
    held.release();
    for (at, read) in rest.into_iter().enumerate() {
        match read.await {
            Ok(hit) => assert_eq!(*hit.unwrap(), format!("value {}", at + 8)),
            Err(left) => assert!(left.is_cancelled() && at % 10 == 0, "{at}: {left}"),
        }
    }
    for read in first {
        assert!(read.await.unwrap().is_some());
    }
    let held = executor.hold("MGET");
    counts.take();
    let alone = [read(&cache, 6), read(&cache, 7)];
    settle().await;
    assert_eq!(counts.peek().steps["MGET"], 2, "few are under way now, so none waits for others");
    held.release();
    for read in alone {
        assert!(read.await.unwrap().is_some());
    }
}

/// An executor that takes its time on both ways.
#[derive(Clone)]
struct Distant<E>(E);

impl<E: Executor> Executor for Distant<E> {
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

/// Red where a read that was dropped is counted for ever.
#[tokio::test(start_paused = true)]
async fn a_read_among_others_can_be_dropped_anywhere() {
    let counts = Counted::new(Memory::new().executor().clone());
    let cache = cache(Distant(counts.clone()));
    fill(&cache, 20).await;
    let others = Mutex::new(Vec::new());
    let among_others = || {
        // Eight go out by themselves; the ninth begins an errand, if this one does not.
        *others.lock() = (0..8).map(|key| read(&cache, key)).collect();
        let cache = cache.clone();
        async move {
            yield_now().await;
            cache.get(&"19".to_owned()).await.expect("it is there")
        }
    };
    let check = async |_| {
        let waiting: Vec<_> = std::mem::take(&mut *others.lock());
        let more: Vec<_> = (8..19).map(|key| read(&cache, key)).collect();
        for (key, read) in waiting.into_iter().chain(more).enumerate() {
            let hit = timeout(PATIENCE / 2, read).await.expect("nobody hangs").unwrap();
            assert_eq!(*hit.unwrap(), format!("value {key}"));
        }
        counts.take();
        let alone = [read(&cache, 6), read(&cache, 7)];
        for read in alone {
            assert!(read.await.unwrap().is_some());
        }
        assert_eq!(counts.take().steps["MGET"], 2, "nobody is under way any more");
    };
    assert!(Drops::new().run(among_others, check).await >= 2);
}

/// Its errand is lost with the runtime. Red without the errand's `Drop`: the second runtime's reads
/// take it to be under way, and wait until their budget is over.
#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let executor = Gate::new(Memory::new().executor().clone());
    let local = MokaLocal::builder().build();
    let builder = Cache::builder(executor.clone(), &namespace(), "values", local);
    let cache: Values<_> = builder.l2_budget(PATIENCE).build().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    first.block_on(fill(&cache, 20));
    let held = executor.hold("MGET");
    first.block_on(async {
        let reads: Vec<_> = (0..8).map(|key| read(&cache, key)).collect();
        settle().await;
        // Polled once, so that it waits to be sent; and the errand never runs.
        let ninth = cache.clone();
        let mut ninth = Box::pin(async move { ninth.get(&"8".to_owned()).await });
        assert!(futures_util::poll!(&mut ninth).is_pending());
        drop(reads);
    });
    drop(first);
    held.release();
    runtime().block_on(async {
        let held = executor.hold("MGET");
        let reads: Vec<_> = (0..20).map(|key| read(&cache, key)).collect();
        settle().await;
        held.release();
        for (key, read) in reads.into_iter().enumerate() {
            assert!(read.await.unwrap().is_some(), "{key}");
        }
    });
}

/// An executor that has no server.
#[derive(Clone)]
struct Away(Gate<MemExecutor>);

impl Executor for Away {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        // Held back first, so that reads gather behind it.
        self.0.execute(op).await?;
        match op.script().name() {
            "MGET" => Err(BackendError::Unknown(Outage::Deadline(Duration::from_secs(1)))),
            _ => Ok(()),
        }
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.0.prepare(scripts);
    }
}

/// Who is told nothing, because the errand ended without an answer, loads as well.
#[tokio::test]
async fn an_outage_reaches_all_and_each_loads() {
    let gate = Gate::new(Memory::new().executor().clone());
    let cache = Arc::new(cache(Away(gate.clone())));
    let held = gate.hold("MGET");
    let mut reads = JoinSet::new();
    for key in 0..40_u32 {
        let cache = Arc::clone(&cache);
        reads.spawn(async move {
            let loader = |key: String| async move { Ok::<_, std::io::Error>(format!("{key}!")) };
            let hit = cache.get_or_load(&key.to_string(), loader).await.unwrap();
            assert_eq!((hit.as_str(), hit.tier()), (format!("{key}!").as_str(), Tier::Load));
        });
    }
    settle().await;
    held.release();
    assert_eq!(reads.join_all().await.len(), 40);
}
