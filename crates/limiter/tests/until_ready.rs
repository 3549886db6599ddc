//! Calls that wait: in their order, by the trips of one, no longer than they would, spending once.

#[path = "support/road.rs"]
mod road;
mod support;
#[path = "support/timed.rs"]
mod timed;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Namespace, Outage, Script};
use fleetwide_limiter::{
    CheckError, Decision, Limiter, LimiterBuilder, Quota, Source, Unavailable, WaitError,
};
use fleetwide_mem_backend::Memory;
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::{Direction, Drops, Ended, Proxy, eventually};
use futures_util::future::join_all;
use futures_util::poll;
use parking_lot::Mutex;
use road::Road;
use timed::{TimerClock, Trips};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn options<E: Executor>(executor: E, clock: TimerClock, quota: Quota) -> LimiterBuilder<E> {
    let namespace = Namespace::new("shop").unwrap();
    Limiter::builder(executor, &namespace, "api", quota)
        .on_unavailable(Unavailable::Deny)
        .clock(Arc::new(clock))
}

fn over_memory(quota: Quota) -> (Limiter<Trips>, Trips) {
    let clock = TimerClock::new();
    let trips = Trips::new(clock);
    (options(trips.clone(), clock, quota).build().unwrap(), trips)
}

fn one_a_second() -> Quota {
    Quota::gcra(1, SECOND, 1).unwrap()
}

/// A call that has set out: it is polled once, so its place in the queue is taken.
type Call = Pin<Box<dyn Future<Output = Result<Decision, WaitError>> + Send>>;

async fn set_out<E: Executor>(
    limiter: &Limiter<E>,
    key: &'static str,
    cost: u64,
    max_wait: Duration,
) -> Call {
    let limiter = limiter.clone();
    let mut call: Call = Box::pin(async move { limiter.until_ready(key, cost, max_wait).await });
    assert!(matches!(poll!(&mut call), Poll::Pending));
    call
}

// Red when each waiter asks for itself.
#[tokio::test(start_paused = true)]
async fn waiters_come_through_in_their_order_at_the_exact_pace_by_the_trips_of_one() {
    let (limiter, trips) = over_memory(Quota::gcra(1, SECOND, 4).unwrap());
    assert!(limiter.check_cost("a", 4).await.unwrap().is_allowed());
    trips.take();
    let begun = Instant::now();
    let done: Mutex<Vec<(usize, u128)>> = Mutex::default();
    // A dear one first: the cheap ones behind it do not pass it.
    let costs = [4, 1, 1, 2, 1, 1];
    let calls = costs.iter().enumerate().map(|(number, &cost)| {
        let (limiter, done) = (&limiter, &done);
        async move {
            let decision = limiter.until_ready("a", cost, HOUR).await.unwrap();
            assert!(decision.is_allowed() && decision.source() == Source::Shared);
            done.lock().push((number, begun.elapsed().as_millis()));
        }
    });
    join_all(calls).await;
    let done = done.lock();
    assert_eq!(done.iter().map(|one| one.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    for (at, seconds) in
        done.iter().map(|one| one.1).zip([4_000, 5_000, 6_000, 8_000, 9_000, 10_000])
    {
        assert!((seconds..seconds + 20).contains(&at), "{done:?}");
    }
    // Each is refused once at most, and then allowed.
    assert!(trips.take() <= 2 * costs.len(), "each asks twice at most");
}

// Red without the look at the time: they would wait for 3 s, or for their time, in vain.
#[tokio::test(start_paused = true)]
async fn wait_that_would_be_in_vain_ends_at_once_with_how_long_it_takes() {
    let (limiter, _) = over_memory(one_a_second());
    let now = Instant::now();
    assert!(limiter.until_ready("a", 1, Duration::ZERO).await.unwrap().is_allowed());
    let refused = limiter.until_ready("a", 1, SECOND / 2).await.unwrap();
    assert_eq!(refused.retry_after(), Some(SECOND));
    let _head = set_out(&limiter, "a", 1, 3 * SECOND).await;
    // Behind somebody who asks again in a second.
    let behind = limiter.until_ready("a", 1, SECOND / 2).await.unwrap();
    assert!(behind.retry_after() >= Some(SECOND), "{behind:?}");
    assert_eq!(now.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_a_head_that_is_refused_for_longer_is_told_when_the_head_is() {
    let (limiter, _) = over_memory(Quota::gcra(1, SECOND, 4).unwrap());
    assert!(limiter.check_cost("a", 4).await.unwrap().is_allowed());
    let first = set_out(&limiter, "a", 1, 9 * SECOND).await;
    let dear = set_out(&limiter, "a", 4, 9 * SECOND).await;
    let last = set_out(&limiter, "a", 1, 2 * SECOND).await;
    let begun = Instant::now();
    let (first, dear, (last, after)) =
        tokio::join!(first, dear, async { (last.await, begun.elapsed()) });
    assert!(first.unwrap().is_allowed() && dear.unwrap().is_allowed());
    // After a second the dear one is the head, and asks again 4 s later.
    assert!(last.unwrap().retry_after() >= Some(3 * SECOND), "{after:?}");
    assert!(after < 2 * SECOND, "it waited for {after:?}, in vain");
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_errors_and_a_cost_of_nothing_does_not_wait() {
    let (limiter, _) = over_memory(one_a_second());
    let error = limiter.until_ready("a", 2, HOUR).await.unwrap_err();
    assert_eq!(error, WaitError::Check(CheckError::Oversize { cost: 2, max: 1 }));
    let error = limiter.until_ready("", 1, HOUR).await.unwrap_err();
    assert!(matches!(error, WaitError::Check(CheckError::Key(_))));
    assert!(limiter.check("a").await.unwrap().is_allowed());
    assert!(limiter.until_ready("a", 0, Duration::MAX).await.unwrap().is_allowed());
}

#[tokio::test(start_paused = true)]
async fn crowd_beyond_the_bound_is_told_so() {
    let (limiter, _) = over_memory(one_a_second());
    assert!(limiter.check("a").await.unwrap().is_allowed());
    let mut waiting = Vec::new();
    for _ in 0..1_024 {
        waiting.push(set_out(&limiter, "a", 1, HOUR).await);
    }
    let error = limiter.until_ready("a", 1, HOUR).await.unwrap_err();
    assert_eq!(error, WaitError::Crowded { max: 1_024 });
    // Another key has a queue of its own, and who leaves makes room.
    assert!(limiter.until_ready("b", 1, HOUR).await.unwrap().is_allowed());
    waiting.truncate(1);
    let last = set_out(&limiter, "a", 1, HOUR).await;
    assert!(waiting.remove(0).await.unwrap().is_allowed());
    assert!(last.await.unwrap().is_allowed());
}

/// A limiter at the end of a road that takes its time.
fn over_road(quota: Quota) -> Limiter<Road> {
    let clock = TimerClock::new();
    let memory = Memory::builder().clock(Arc::new(clock)).build().executor().clone();
    let road = Road::new(memory);
    road.open_for(1_000_000);
    options(road, clock, quota).deny_cache(Duration::ZERO).build().unwrap()
}

/// Until what a call has spent that nobody waits for any more is back: `expected` cells are left.
async fn until_left<E: Executor>(limiter: &Limiter<E>, expected: u32) {
    let what = format!("{expected} cells to be left");
    let is_left = async || limiter.peek("a").await.unwrap().remaining() == expected;
    eventually(SOON, &what, is_left).await;
}

// Red without the settlement: a call that is dropped while its answer is on the way has spent 3.
#[tokio::test(start_paused = true)]
async fn call_dropped_anywhere_spends_nothing_and_blocks_nobody() {
    for quota in [Quota::gcra(10, HOUR, 10).unwrap(), Quota::sliding_window(10, HOUR).unwrap()] {
        let limiter = over_road(quota);
        let call = || async { limiter.until_ready("a", 3, SECOND).await.unwrap() };
        let polls = Drops::new().run(call, async |ended| {
            match ended {
                Ended::Dropped(_) => until_left(&limiter, 10).await,
                Ended::Completed(_) => until_left(&limiter, 7).await,
            }
            // The queue is free: who comes next asks at once.
            let next = limiter.until_ready("a", 1, SECOND).await.unwrap();
            assert!(next.is_allowed());
            limiter.reset("a").await.unwrap();
        });
        assert!(polls.await > 2, "there is something to drop");
    }
}

// Red when a place is not given on by its drop: the one behind waits for ever.
#[tokio::test(start_paused = true)]
async fn waiter_dropped_anywhere_leaves_its_place_to_the_next() {
    let limiter = over_road(one_a_second());
    assert!(limiter.check("a").await.unwrap().is_allowed());
    // The one that is dropped waits behind a head, then is the head, then is on its way.
    let call = || async {
        let head = set_out(&limiter, "a", 1, HOUR).await;
        let dropped = limiter.until_ready("a", 1, HOUR);
        let (head, dropped) = tokio::join!(head, dropped);
        assert!(head.unwrap().is_allowed() && dropped.unwrap().is_allowed());
    };
    Drops::new()
        .run(call, async |_| {
            let next = limiter.until_ready("a", 1, 5 * SECOND).await.unwrap();
            assert!(next.is_allowed(), "{next:?}");
        })
        .await;
}

// Red when a retry is a new request: then 6 or 9 cells are spent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_whose_answers_are_lost_is_asked_again_and_spends_once() {
    let server = support::server().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let url = RedisUrl::parse(&proxy.url_like(&server.url())).unwrap();
    let redis = Redis::builder(url).build().unwrap();
    redis.ready(SOON).await.unwrap();
    let namespace = Namespace::new("shop").unwrap();
    let limiter = |name: &str, quota| {
        Limiter::builder(redis.executor(), &namespace, name, quota)
            .on_unavailable(Unavailable::Deny)
            .deadline(Duration::from_millis(100))
            .probe_every(Duration::from_millis(20))
            .build()
            .unwrap()
    };
    let quotas = [
        Quota::gcra(10, HOUR, 10).unwrap(),
        Quota::sliding_window(10, HOUR).unwrap(),
        Quota::token_bucket(10, HOUR, 10).unwrap(),
        support::fixed_window_just_begun(10),
        Quota::sliding_log(10, HOUR).unwrap(),
    ];
    for (number, quota) in quotas.into_iter().enumerate() {
        let limiter = limiter(&format!("policy-{number}"), quota);
        let is_shared = async || limiter.peek("a").await.unwrap().source() == Source::Shared;
        eventually(SOON, "the fleet's count", is_shared).await;
        proxy.drop_bytes(Direction::ToClient);
        let before = proxy.stats().bytes_from_server;
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.until_ready("a", 3, SOON).await.unwrap() }
        });
        // The server has answered, and nobody has heard it.
        let is_spent = async || proxy.stats().bytes_from_server > before + 16;
        eventually(SOON, "an answer that is lost", is_spent).await;
        proxy.pass_anew().await;
        let decision = waiting.await.unwrap();
        assert!(decision.is_allowed() && decision.source() == Source::Shared, "{decision:?}");
        assert_eq!(limiter.peek("a").await.unwrap().remaining(), 7, "{quota:?}");
    }
}

/// A backend that is down, and says so.
struct Down;

impl Executor for Down {
    async fn execute(&self, _: &mut dyn ErasedOp) -> Result<(), BackendError> {
        Err(BackendError::NotSent(Outage::Down("unplugged".to_owned())))
    }

    fn prepare(&self, _: &[&'static Script]) {}
}

#[tokio::test(start_paused = true)]
async fn rungs_answer_while_the_backend_is_away() {
    let limiter = |unavailable| {
        let quota = Quota::gcra(1, SECOND, 2).unwrap();
        options(Down, TimerClock::new(), quota).on_unavailable(unavailable).build().unwrap()
    };
    let begun = Instant::now();
    let open = limiter(Unavailable::Allow).until_ready("a", 1, HOUR).await.unwrap();
    assert!(open.is_allowed() && open.source() == Source::Open);
    let closed = limiter(Unavailable::Deny);
    let denied = closed.until_ready("a", 1, Duration::from_millis(50)).await.unwrap();
    assert_eq!((denied.is_allowed(), denied.source()), (false, Source::Closed));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let denied = closed.until_ready("a", 1, SECOND).await.unwrap();
    assert_eq!((denied.is_allowed(), denied.source()), (false, Source::Closed));
    assert!(begun.elapsed() <= SECOND);
    // Half of the quota: a cell at once, and then one each two seconds.
    let share = limiter(Unavailable::LocalShare { instances: 2 });
    let begun = Instant::now();
    for seconds in [0, 2, 4] {
        let allowed = share.until_ready("a", 1, HOUR).await.unwrap();
        assert!(allowed.is_allowed() && allowed.source() == Source::LocalShare);
        let after = begun.elapsed();
        assert!((0..20).contains(&(after.as_millis() as i64 - seconds * 1_000)), "{after:?}");
    }
    let denied = share.until_ready("a", 1, SECOND).await.unwrap();
    assert_eq!((denied.is_allowed(), denied.source()), (false, Source::LocalShare));
}
