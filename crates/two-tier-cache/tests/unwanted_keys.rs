//! Many different keys come by once, and whoever asked for them has left before the origin answered:
//! nothing remembers them.
//!
//! What a cache keeps for each key (flights, wake-ups, tasks, keys that it has seen) is a leak when
//! nobody takes it away for a key that never comes back. So it is counted here after each batch, and
//! the process is weighed. A debug build takes a minute for a million keys, so there are fewer unless
//! `FLEETWIDE_KEYS` says how many.

mod common;

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use common::{PATIENCE, namespace};
use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Local, Outage, Script};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_testkit::eventually;
use fleetwide_two_tier_cache::{Cache, CacheBuilder, Hit, L1Entry, LoadError, OnAbandon, Stats};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};

type TestCache = Cache<String, u64, MemExecutor>;
type Tier = MokaLocal<String, L1Entry<u64>>;
type Builder = CacheBuilder<String, u64, MemExecutor>;
type Read<'a> = Pin<Box<dyn Future<Output = Result<Hit<u64>, LoadError>> + Send + 'a>>;

/// Keys of each test. With a shared tier a key costs half as much again, so there are fewer.
const KEYS: u64 = 100_000;
const KEYS_SHARED: u64 = 20_000;
/// Callers at a time.
const BATCH: u64 = 5_000;
const L1_BYTES: u64 = 1 << 20;
const PENDING_BYTES: u64 = 1 << 20;
/// Flights leave a quarter to writes.
const FLIGHT_BYTES: u64 = PENDING_BYTES / 4 * 3;
const LOADS_MAX: u64 = 64;
/// Loads of the shortest key here that find room.
const LOADS_WITH_ROOM: u64 = FLIGHT_BYTES / (1_280 + 3 * 16);
/// What the process may grow by after the first tenth of the keys. Eight bytes for each of a million
/// would be more; 0.7 MiB is the most that was measured.
const GROWTH_MAX: u64 = 2 << 20;

/// The process is weighed, so one test at a time.
static SCALES: Mutex<()> = Mutex::const_new(());

/// How many keys to take instead of `usual`.
fn keys(usual: u64) -> u64 {
    let said = std::env::var("FLEETWIDE_KEYS").ok();
    said.map_or(usual, |keys| keys.parse().expect("FLEETWIDE_KEYS is a number"))
}

/// Bytes of this process in memory.
fn weight() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("tests run on Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has a size");
    let kib = line.split_whitespace().nth(1).expect("a number and its unit");
    kib.parse::<u64>().expect("a number") * 1024
}

/// Most keys are short; one of a hundred is a whole query.
fn key(number: u64) -> String {
    let mut key = format!("{number:016x}");
    if number.is_multiple_of(100) {
        key.push_str(&"&filter=".repeat(512));
    }
    key
}

/// A cache, and its L1.
fn build(options: impl FnOnce(Builder) -> Builder) -> (TestCache, Tier) {
    let local = MokaLocal::builder().bytes_max(L1_BYTES).build();
    let executor = Memory::new().executor().clone();
    let builder = Cache::builder(executor, &namespace(), "values", local.clone())
        .pending_bytes_max(PENDING_BYTES)
        .loads_max(LOADS_MAX as usize);
    (options(builder).build().unwrap(), local)
}

/// A read whose loader never ends.
fn hopeless(cache: &TestCache, number: u64) -> Read<'_> {
    let loader = |_| pending::<Result<u64, Infallible>>();
    Box::pin(async move { cache.get_or_load(&key(number), loader).await })
}

/// How many tasks there are besides this test.
fn tasks() -> u64 {
    Handle::current().metrics().num_alive_tasks() as u64
}

/// All callers of a batch are there at once, all have begun to wait, and all leave.
async fn come_and_go<'a>(reads: impl Iterator<Item = Read<'a>>, meanwhile: impl FnOnce()) {
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::with_capacity(BATCH as usize);
    for mut read in reads {
        // One poll brings a read to its load: this server answers at once.
        let answer = read.as_mut().poll(&mut context);
        assert!(answer.is_pending(), "the origin has not answered, but {answer:?}");
        waiting.push(read);
    }
    // Those whose turn it is run until they wait for the origin.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    meanwhile();
}

/// Asks for `keys` different keys. `after` says what must hold when a batch has left.
async fn weigh<'a>(
    (keys, batch): (u64, u64),
    read: impl Fn(u64) -> Read<'a>,
    meanwhile: impl Fn(),
    after: impl AsyncFn(),
) {
    let mut first = 0;
    for begin in (0..keys).step_by(batch as usize) {
        come_and_go((begin..begin + batch).map(&read), &meanwhile).await;
        after().await;
        if begin < keys / 10 {
            first = weight();
        }
    }
    let last = weight();
    assert!(last <= first + GROWTH_MAX, "{first} bytes after a tenth of {keys} keys, now {last}");
}

fn under_way(stats: &Stats) -> u64 {
    let flights = stats.loads_under_way + stats.reads_under_way;
    flights + stats.waiting + stats.queued + stats.flight_bytes + stats.queue_bytes
}

async fn all_are_cancelled(keys: u64, alone: bool) {
    let (cache, local) = build(|b| b.alone(alone).on_abandon(OnAbandon::Cancel));
    let before = tasks();
    let meanwhile = || {
        let stats = cache.stats();
        assert!(stats.flight_bytes <= FLIGHT_BYTES, "{stats:?}");
        assert!(stats.loads_under_way > LOADS_WITH_ROOM / 2, "they are at it: {stats:?}");
    };
    let after = async || {
        let nothing = async || under_way(&cache.stats()) == 0 && tasks() == before;
        eventually(PATIENCE, "nothing is under way", nothing).await;
        local.settle();
        assert_eq!(local.weight(), 0);
    };
    weigh((keys, BATCH), |number| hopeless(&cache, number), meanwhile, after).await;
}

#[tokio::test]
async fn keys_whose_loads_are_cancelled_leave_nothing() {
    let _scales = SCALES.lock().await;
    all_are_cancelled(keys(KEYS), true).await;
    all_are_cancelled(keys(KEYS_SHARED), false).await;
}

async fn none_ends(keys: u64, alone: bool) {
    let (cache, _local) = build(|b| b.alone(alone).on_abandon(OnAbandon::Finish));
    let before = tasks();
    let after = async || {
        let few = async || tasks() - before <= LOADS_WITH_ROOM;
        eventually(PATIENCE, "only loads that found room go on", few).await;
        let stats = cache.stats();
        assert!(stats.loads_under_way <= LOADS_WITH_ROOM, "{stats:?}");
        assert!((1..=FLIGHT_BYTES).contains(&stats.flight_bytes), "{stats:?}");
        assert!(stats.waiting <= LOADS_MAX, "{stats:?}");
        let rest = (stats.reads_under_way, stats.queue_bytes, stats.l1_bytes);
        assert_eq!(rest, (0, 0, 0), "{stats:?}");
    };
    weigh((keys, BATCH), |number| hopeless(&cache, number), || {}, after).await;
}

/// They go on when their callers have left, as `OnAbandon::Finish` promises, but not in any number.
#[tokio::test]
async fn keys_whose_loads_never_end_take_no_more_than_the_budget() {
    let _scales = SCALES.lock().await;
    none_ends(keys(KEYS), true).await;
    none_ends(keys(KEYS_SHARED), false).await;
}

#[tokio::test]
async fn keys_that_are_loaded_for_nobody_stay_within_l1() {
    let _scales = SCALES.lock().await;
    let (cache, local) = build(|b| b.alone(true).on_abandon(OnAbandon::Finish));
    let (before, answers) = (tasks(), Arc::new(Semaphore::new(0)));
    let read = |number| -> Read<'_> {
        let (cache, answers) = (&cache, Arc::clone(&answers));
        let loader = move |_| async move {
            answers.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(number)
        };
        Box::pin(async move { cache.get_or_load(&key(number), loader).await })
    };
    let batch = LOADS_WITH_ROOM / 2;
    let after = async || {
        answers.add_permits(batch as usize);
        let nothing = async || under_way(&cache.stats()) == 0 && tasks() == before;
        eventually(PATIENCE, "all have ended", nothing).await;
        local.settle();
        assert!((1..=L1_BYTES).contains(&local.weight()), "{:?}", cache.stats());
    };
    let keys = keys(KEYS_SHARED) / batch * batch;
    weigh((keys, batch), read, || {}, after).await;
    assert_eq!(cache.stats().loads, keys);
}

/// What stays in L1 must not be large keys that nobody has counted. Red when only values weigh.
#[tokio::test]
async fn long_keys_weigh_in_l1() {
    let (cache, local) = build(|b| b.alone(true));
    let long = |number: u64| format!("{number:032768}");
    for number in 0..100 {
        cache.put(&long(number), number).await.unwrap();
    }
    local.settle();
    let there = (0..100).filter(|number| cache.peek(&long(*number)).is_some()).count() as u64;
    assert!(there * 32_768 <= L1_BYTES, "{there} keys of 32 KiB");
}

/// Carries out nothing.
#[derive(Clone)]
struct Down;

impl Executor for Down {
    async fn execute(&self, _op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        Err(BackendError::NotSent(Outage::Down("it is always down".to_owned())))
    }

    fn prepare(&self, _scripts: &[&'static Script]) {}
}

/// What waits is as large as the ledger says, or smaller. Red with half of its constants.
#[tokio::test]
async fn what_waits_takes_no_more_than_is_counted() {
    const MANY: u64 = 20_000;
    let _scales = SCALES.lock().await;
    for length in [16, 1_024] {
        let (loads, _local) = build(|b| b.pending_bytes_max(u64::MAX).loads_max(1));
        let local = MokaLocal::builder().build();
        let writes: Cache<String, u64, _> = Cache::builder(Down, &namespace(), "values", local)
            .pending_bytes_max(u64::MAX)
            .build()
            .unwrap();
        let before = weight();
        for number in 0..MANY {
            let loader = |_| pending::<Result<u64, Infallible>>();
            let key = format!("{number:0length$}");
            let mut read = Box::pin(loads.get_or_load(&key, loader));
            let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        let with_loads = weight();
        for number in 0..MANY {
            writes.invalidate(&format!("{number:0length$}")).await.unwrap_err();
        }
        let with_writes = weight();
        let (flights, queue) = (loads.stats().flight_bytes, writes.stats().queue_bytes);
        assert_eq!((loads.stats().loads_under_way, writes.stats().queued), (MANY, MANY));
        let (took, counted) = (with_loads.saturating_sub(before) / MANY, flights / MANY);
        assert!(took <= counted, "{length}: a load takes {took} bytes and counts {counted}");
        let (took, counted) = (with_writes.saturating_sub(with_loads) / MANY, queue / MANY);
        assert!(took <= counted, "{length}: a write takes {took} bytes and counts {counted}");
    }
}
