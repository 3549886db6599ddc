//! Permits over real servers and in memory: never too many, none lost for good, none held in vain.

#[path = "support/clocked.rs"]
mod clocked;
#[path = "support/road.rs"]
mod road;
mod support;
#[path = "support/timed.rs"]
mod timed;

use std::env;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clocked::{Backend, backends};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, BackendError, Clock, Effects, ErasedOp, Executor, ExecutorExt as _, Key,
    Malformed, Namespace, Outage, Script, ServerTime, Wire,
};
use fleetwide_limiter::concurrency::op::Look;
use fleetwide_limiter::concurrency::{
    AcquireError, ConcurrencyLimiter, ConcurrencyLimiterBuilder, ConcurrencyQuota,
    ConcurrencyState, Entry, Permit,
};
use fleetwide_limiter::{Source, Unavailable};
use fleetwide_mem_backend::Memory;
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::{Drops, Proxy, eventually};
use futures_util::future::join_all;
use road::Road;
use timed::{TimerClock, Trips};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn quota(max: u32, lease: Duration) -> ConcurrencyQuota {
    ConcurrencyQuota::new(max, lease).unwrap()
}

fn namespace() -> Namespace {
    Namespace::new("shop").unwrap()
}

fn options<E: Executor>(
    executor: E,
    clock: impl Clock,
    quota: ConcurrencyQuota,
) -> ConcurrencyLimiterBuilder<E> {
    ConcurrencyLimiter::builder(executor, &namespace(), "exports", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(30))
        .clock(Arc::new(clock))
}

async fn take<E: Executor>(limiter: &ConcurrencyLimiter<E>) -> Option<Permit<E>> {
    limiter.try_acquire("a").await.unwrap().permit()
}

/// How much is held of the key, by the server.
async fn held<E: Executor>(executor: &E) -> u32 {
    let key = namespace().tag("limiter", b"exports/a").unwrap().part("at-once");
    executor.run(&Look::new(key)).await.unwrap()
}

async fn until_held<E: Executor>(executor: &E, count: u32) {
    eventually(SOON, &format!("{count} to be held"), async || held(executor).await == count).await;
}

#[tokio::test]
async fn as_many_as_there_are_are_held_and_each_comes_back_when_it_is_dropped_or_released() {
    for backend in backends().await {
        let builder = ConcurrencyLimiter::builder(
            backend.executor(),
            backend.namespace(),
            "exports",
            quota(2, 10 * SECOND),
        );
        let builder = builder.on_unavailable(Unavailable::Deny).deadline(SOON);
        let limiter = builder.clock(Arc::new(backend.clock.clone())).build().unwrap();
        let first = take(&limiter).await.unwrap();
        backend.clock.advance(SECOND);
        let second = take(&limiter).await.unwrap();
        assert_eq!(second.source(), Source::Shared);
        let Entry::Deny { retry_after, source, .. } = limiter.try_acquire("a").await.unwrap()
        else {
            panic!("there are two");
        };
        assert_eq!((retry_after, source), (9 * SECOND, Source::Shared));
        assert!(limiter.try_acquire("b").await.unwrap().is_held());
        first.release().await.unwrap();
        let third = take(&limiter).await.unwrap();
        drop(second);
        let is_back = async || take(&limiter).await.is_some();
        eventually(SOON, "a dropped permit to be back", is_back).await;
        drop(third);
    }
}

#[tokio::test]
async fn key_that_is_none_is_an_error() {
    let backend = Backend::memory();
    let limiter = options(backend.executor(), backend.clock.clone(), quota(1, SECOND));
    let limiter = limiter.build().unwrap();
    assert!(matches!(limiter.try_acquire("").await, Err(AcquireError::Key(_))));
}

// Red without renewals: the first one is lost after a second, and another one is let in.
#[tokio::test(start_paused = true)]
async fn permit_is_renewed_while_it_is_held_and_nothing_runs_when_none_is() {
    let clock = TimerClock::new();
    let trips = Trips::new(clock);
    let limiter = options(trips.clone(), clock, quota(100, SECOND)).build().unwrap();
    let permits = join_all((0..100).map(|_| take(&limiter))).await;
    let permits: Vec<_> = permits.into_iter().map(Option::unwrap).collect();
    trips.take();
    for _ in 0..10 {
        sleep(SECOND).await;
        assert!(take(&limiter).await.is_none());
        assert!(permits.iter().all(|permit| !permit.is_lost()));
    }
    // Ten were asked for; the others renewed 100 permits, two steps three times a second.
    let made = trips.take() - 10;
    assert!((54..=66).contains(&made), "{made} trips for 100 permits in 10 s");
    drop(permits);
    until_held(&trips, 0).await;
    sleep(2 * SECOND).await;
    trips.take();
    sleep(60 * SECOND).await;
    assert_eq!(trips.take(), 0, "nothing is left to renew");
}

/// Answers nobody while it is broken.
#[derive(Clone)]
struct Breakable {
    inner: Trips,
    is_broken: Arc<AtomicUsize>,
}

impl Executor for Breakable {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        match self.is_broken.load(Ordering::Relaxed) {
            0 => self.inner.execute(op).await,
            _ => Err(BackendError::NotSent(Outage::Down("unplugged".to_owned()))),
        }
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}

// Red when a lease is counted for longer than it lasts on the server, and when one that was lost is
// renewed all the same.
#[tokio::test(start_paused = true)]
async fn permit_that_cannot_be_renewed_is_lost_before_others_can_have_it_and_for_good() {
    let clock = TimerClock::new();
    let inner = Trips::new(clock);
    let executor = Breakable { inner: inner.clone(), is_broken: Arc::default() };
    let limiter = options(executor.clone(), clock, quota(1, SECOND)).build().unwrap();
    let other = options(inner.clone(), clock, quota(1, SECOND)).build().unwrap();
    let permit = take(&limiter).await.unwrap();
    let nobody_waits_for_it = limiter.try_acquire("b").await.unwrap().permit().unwrap();
    sleep(5 * SECOND).await;
    assert!(!permit.is_lost());
    executor.is_broken.store(1, Ordering::Relaxed);
    let begun = Instant::now();
    permit.lost().await;
    assert!(permit.is_lost());
    assert!(begun.elapsed() <= SECOND, "{:?}", begun.elapsed());
    // Not yet on the server.
    assert!(take(&other).await.is_none(), "lost here first");
    let theirs = other.acquire("a", 5 * SECOND).await.unwrap().permit().unwrap();
    executor.is_broken.store(0, Ordering::Relaxed);
    sleep(5 * SECOND).await;
    assert!(permit.is_lost() && !theirs.is_lost());
    assert!(nobody_waits_for_it.is_lost(), "its holder may have been told");
    drop(permit);
    sleep(SECOND).await;
    assert_eq!(held(&inner).await, 1, "it gave back its own, not that of the other");
}

/// Renewals take a second to get there.
#[derive(Clone)]
struct SlowRenewals(Trips);

impl Executor for SlowRenewals {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        if op.script().name() == "limiter.concurrency_renew" {
            sleep(SECOND).await;
        }
        self.0.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.0.prepare(scripts);
    }
}

// Red when what a renewal has taken anew is not given back once more: it is held for a lease.
#[tokio::test(start_paused = true)]
async fn permit_that_is_given_back_while_its_renewal_is_on_the_way_is_held_by_nobody() {
    let clock = TimerClock::new();
    let executor = SlowRenewals(Trips::new(clock));
    let limiter = options(executor.clone(), clock, quota(1, 60 * SECOND)).build().unwrap();
    let permit = take(&limiter).await.unwrap();
    sleep(20 * SECOND + SECOND / 2).await;
    permit.release().await.unwrap();
    assert_eq!(held(&executor).await, 0);
    sleep(5 * SECOND).await;
    assert_eq!(held(&executor).await, 0);
}

/// Empties a key, as a server does that restarts without its data.
struct Forget(Key);

static DEL: Script = Script::command("DEL");

impl AtomicOp for Forget {
    type State = ConcurrencyState;
    type Reply = ();

    fn script(&self) -> &'static Script {
        &DEL
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.0)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        _: &[Option<&ConcurrencyState>],
        _: ServerTime,
        out: &mut Effects<ConcurrencyState>,
    ) {
        out.delete(0);
    }

    fn decode(&self, reply: Wire) -> Result<(), Malformed> {
        reply.into_unsigned().map(drop)
    }
}

// Red when a renewal that is refused is taken for one that failed.
#[tokio::test(start_paused = true)]
async fn permit_that_the_server_forgot_is_taken_anew_or_lost_if_another_has_its_place() {
    let clock = TimerClock::new();
    let trips = Trips::new(clock);
    let limiter = || options(trips.clone(), clock, quota(1, 60 * SECOND)).build().unwrap();
    let (one, other) = (limiter(), limiter());
    let permit = take(&one).await.unwrap();
    let key = namespace().tag("limiter", b"exports/a").unwrap().part("at-once");
    trips.run(&Forget(key.clone())).await.unwrap();
    sleep(21 * SECOND).await;
    assert!(!permit.is_lost() && held(&trips).await == 1);
    trips.run(&Forget(key)).await.unwrap();
    let theirs = take(&other).await.unwrap();
    let begun = Instant::now();
    permit.lost().await;
    assert!(begun.elapsed() <= 20 * SECOND, "{:?}", begun.elapsed());
    assert!(permit.is_lost() && !theirs.is_lost());
}

// Red when a waiter asks only by the clock.
#[tokio::test(start_paused = true)]
async fn waiters_get_permits_in_their_order_as_soon_as_they_are_given_back_here() {
    let clock = TimerClock::new();
    let trips = Trips::new(clock);
    let limiter = options(trips.clone(), clock, quota(1, 60 * SECOND)).build().unwrap();
    let first = take(&limiter).await.unwrap();
    let order = parking_lot::Mutex::new(Vec::new());
    let begun = Instant::now();
    let waiters = (0..5).map(|number| {
        let (limiter, order) = (&limiter, &order);
        async move {
            let entry = limiter.acquire("a", 30 * SECOND).await.unwrap();
            order.lock().push(number);
            entry.permit().unwrap().release().await.unwrap();
        }
    });
    let release = async {
        sleep(Duration::from_millis(10)).await;
        first.release().await.unwrap();
    };
    tokio::join!(join_all(waiters), release);
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
    assert!(begun.elapsed() < Duration::from_millis(40), "{:?}", begun.elapsed());
    let made = trips.take();
    assert!(made <= 20, "{made} trips");
    let _held = take(&limiter).await.unwrap();
    let begun = Instant::now();
    assert!(!limiter.acquire("a", 2 * SECOND).await.unwrap().is_held());
    assert!((2..3).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

// Red without the guard around the question, and without the release of what is dropped.
#[tokio::test(start_paused = true)]
async fn call_dropped_anywhere_holds_nothing() {
    let clock = TimerClock::new();
    let memory = Memory::builder().clock(Arc::new(clock)).build().executor().clone();
    let road = Road::new(memory);
    road.open_for(1_000_000);
    let limiter = options(road.clone(), clock, quota(1, 3_600 * SECOND)).build().unwrap();
    let call = || async {
        let permit = limiter.acquire("a", SECOND).await.unwrap().permit().unwrap();
        permit.release().await.unwrap();
    };
    let polls = Drops::new().run(call, async |_| until_held(&road, 0).await).await;
    assert!(polls > 3, "{polls}");
}

#[tokio::test]
async fn rungs_give_permits_by_their_rules() {
    let clock = TimerClock::new();
    let executor = Breakable { inner: Trips::new(clock), is_broken: Arc::new(AtomicUsize::new(1)) };
    let limiter = |unavailable| {
        let options = options(executor.clone(), clock, quota(5, SECOND));
        options.on_unavailable(unavailable).build().unwrap()
    };
    let open = limiter(Unavailable::Allow);
    let permits = join_all((0..20).map(|_| take(&open))).await;
    assert!(permits.iter().flatten().all(|permit| permit.source() == Source::Open));
    assert_eq!(permits.iter().flatten().count(), 20);
    let closed = limiter(Unavailable::Deny).try_acquire("a").await.unwrap();
    assert!(matches!(closed, Entry::Deny { source: Source::Closed, .. }));
    let share = limiter(Unavailable::LocalShare { instances: 2 });
    let permits = join_all((0..20).map(|_| take(&share))).await;
    let mut permits: Vec<_> = permits.into_iter().flatten().collect();
    assert_eq!((permits.len(), permits[0].source()), (2, Source::LocalShare));
    permits.pop();
    assert!(take(&share).await.is_some(), "one was given back");
}

// Red when permits of a rung are not renewed: when the server is back, they are counted by nobody.
#[tokio::test(start_paused = true)]
async fn permits_of_a_rung_are_counted_when_the_backend_is_back() {
    let clock = TimerClock::new();
    let inner = Trips::new(clock);
    let executor = Breakable { inner: inner.clone(), is_broken: Arc::new(AtomicUsize::new(1)) };
    let options = options(executor.clone(), clock, quota(4, SECOND));
    let share = Unavailable::LocalShare { instances: 2 };
    let limiter = options.on_unavailable(share).build().unwrap();
    let permits = (take(&limiter).await.unwrap(), take(&limiter).await.unwrap());
    sleep(5 * SECOND).await;
    assert!(!permits.0.is_lost() && held(&inner).await == 0);
    executor.is_broken.store(0, Ordering::Relaxed);
    sleep(SECOND).await;
    assert_eq!(held(&inner).await, 2);
    drop(permits);
    until_held(&inner, 0).await;
}

/// As many limiters as there would be processes, who take and give back as fast as they can. Red with
/// one permit more than there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_never_holds_more_than_the_maximum() {
    let server = support::server().await;
    let (live, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let worker = async |_: usize| {
        let redis = support::redis(&server, |builder| builder).await;
        let clock = fleetwide_core_traits::SystemClock;
        let limiter = options(redis.executor(), clock, quota(3, 2 * SECOND)).build().unwrap();
        let mut got = 0;
        for round in 0..60 {
            let Some(permit) = limiter.acquire("a", SOON).await.unwrap().permit() else { continue };
            let now = live.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            tokio::task::yield_now().await;
            live.fetch_sub(1, Ordering::SeqCst);
            got += 1;
            if round % 2 == 0 {
                permit.release().await.unwrap();
            }
        }
        got
    };
    let got: Vec<usize> = join_all((0..8).map(worker)).await;
    assert_eq!(got, [60; 8]);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
}

const HOLDER: &str = "FLEETWIDE_TEST_HOLDER_URL";

/// The process that is killed: this test binary, told by the environment what to do. By itself it is
/// no test.
#[tokio::test]
async fn holder_process() {
    let Ok(url) = env::var(HOLDER) else { return };
    let redis = Redis::builder(RedisUrl::parse(&url).unwrap()).build().unwrap();
    redis.ready(SOON).await.unwrap();
    let clock = fleetwide_core_traits::SystemClock;
    let limiter = options(redis.executor(), clock, quota(1, 2 * SECOND)).build().unwrap();
    let _permit = take(&limiter).await.unwrap();
    std::future::pending::<()>().await;
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// While the holder lives, its heartbeat keeps the permit; then its lease ends, and the key with it.
// Leases that end beside others are in `tests/concurrency_twin.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permit_of_a_killed_process_comes_back_when_its_lease_ends_and_not_before_it_is_killed() {
    let server = support::server().await;
    let redis = support::redis(&server, |builder| builder).await;
    let clock = fleetwide_core_traits::SystemClock;
    let limiter = options(redis.executor(), clock, quota(1, 2 * SECOND)).build().unwrap();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "holder_process", "--nocapture"]).env(HOLDER, server.url());
    let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut holder = Holder(child);
    until_held(&redis.executor(), 1).await;
    // Longer than a lease: it is renewed.
    assert!(!limiter.acquire("a", 3 * SECOND).await.unwrap().is_held());
    holder.0.kill().unwrap();
    let killed = Instant::now();
    let permit = limiter.acquire("a", SOON).await.unwrap().permit().unwrap();
    let after = killed.elapsed();
    assert!(after < 8 * SECOND, "it came back after {after:?}");
    drop(permit);
}

// Red without the cut of leases from the future: a dead holder keeps its permit for an hour.
#[tokio::test]
async fn clock_that_steps_changes_no_permit_that_is_renewed_and_keeps_none_of_the_dead() {
    let backend = Backend::memory();
    let lease = 60 * SECOND;
    let limiter = || {
        let options = options(backend.executor(), backend.clock.clone(), quota(1, lease));
        options.build().unwrap()
    };
    let (dead, alive) = (limiter(), limiter());
    // Held by a process that gives no more sign of life.
    std::mem::forget(take(&dead).await.unwrap());
    backend.clock.step_server_back(Duration::from_secs(3_600));
    assert!(take(&alive).await.is_none());
    backend.clock.advance(lease);
    let permit = take(&alive).await.expect("the lease is over");
    assert!(!permit.is_lost());
    backend.clock.advance_server(Duration::from_secs(3_600));
    assert!(!permit.is_lost(), "its own clock has not moved");
}

// Red when what a question without an answer may hold is not given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permit_whose_answer_is_lost_is_given_back() {
    let server = support::server().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let url = RedisUrl::parse(&proxy.url_like(&server.url())).unwrap();
    let redis = Redis::builder(url).build().unwrap();
    redis.ready(SOON).await.unwrap();
    let direct = support::redis(&server, |builder| builder).await.executor();
    let clock = fleetwide_core_traits::SystemClock;
    let limiter = options(redis.executor(), clock, quota(1, 3_600 * SECOND));
    let limiter = limiter.deadline(Duration::from_millis(100)).build().unwrap();
    // The server knows the script from here on, so it carries out what it does not answer.
    let is_there = async || match take(&limiter).await {
        Some(permit) => permit.release().await.is_ok(),
        None => false,
    };
    eventually(SOON, "a first permit", is_there).await;
    proxy.drop_bytes(fleetwide_testkit::Direction::ToClient);
    let entry = limiter.try_acquire("a").await.unwrap();
    assert!(matches!(entry, Entry::Deny { source: Source::Closed, .. }));
    proxy.pass_anew().await;
    until_held(&direct, 0).await;
}
