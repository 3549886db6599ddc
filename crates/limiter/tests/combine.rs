//! Calls on one key that share their trips: the answers are those of calls one by one.

#[path = "support/road.rs"]
mod road;
mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fleetwide_core_traits::{Executor, Namespace, ServerTime};
use fleetwide_limiter::{
    Algorithm, CheckError, Decision, Limiter, LimiterBuilder, Quota, Source, Unavailable,
    WindowQuota,
};
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::{Drops, SimClock, unique_namespace};
use futures_util::future::join_all;
use futures_util::poll;
use rand::Rng as _;
use road::Road;
use support::{Random, Rng, Rules, for_each_history};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn ten_an_hour() -> Quota {
    Quota::sliding_window(10, HOUR).unwrap()
}

fn options<E: Executor>(executor: E, quota: Quota) -> LimiterBuilder<E> {
    let namespace = Namespace::new(&unique_namespace()).unwrap();
    Limiter::builder(executor, &namespace, "test", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(30))
        // A refusal that is remembered makes no trip that could be shared.
        .deny_cache(Duration::ZERO)
}

/// A limiter at the end of a road, and the clock that its executor goes by.
struct Fixture {
    clock: SimClock,
    road: Road,
    limiter: Limiter<Road>,
}

impl Fixture {
    fn new(quota: Quota) -> Self {
        Self::with(quota, |options| options)
    }

    fn with(
        quota: Quota,
        change: impl FnOnce(LimiterBuilder<Road>) -> LimiterBuilder<Road>,
    ) -> Self {
        let clock = SimClock::new();
        let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
        let road = Road::new(memory.executor().clone());
        let limiter = change(options(road.clone(), quota)).build().unwrap();
        Self { clock, road, limiter }
    }

    fn now(&self) -> u64 {
        fleetwide_core_traits::Clock::server_time(&self.clock).as_micros()
    }
}

/// A call that has set out: it is polled once, so its place in the queue is taken.
type Call = Pin<Box<dyn Future<Output = Result<Decision, CheckError>> + Send>>;

async fn set_out(limiter: &Limiter<Road>, cost: u32) -> Call {
    let limiter = limiter.clone();
    let mut call: Call = Box::pin(async move { limiter.check_cost("a", cost.into()).await });
    assert!(matches!(poll!(&mut call), Poll::Pending));
    call
}

/// What is kept of the key by who decides one by one.
struct OneByOne<A: Algorithm> {
    quota: A,
    state: Option<A::State>,
}

impl<A: Algorithm> OneByOne<A> {
    fn check(&mut self, now: u64, cost: u32) -> (bool, u32, Option<u64>) {
        let time = ServerTime::from_micros(now);
        let (verdict, next) = self.quota.decide(self.state.as_ref(), time, cost);
        self.state = next.or(self.state.take());
        let retry = (!verdict.is_allowed).then_some(verdict.retry_after_us);
        (verdict.is_allowed, verdict.remaining, retry)
    }
}

fn seen(decision: &Decision) -> (bool, u32, Option<u64>) {
    assert_eq!(decision.source(), Source::Shared);
    let retry = decision.retry_after().map(|retry| retry.as_micros() as u64);
    (decision.is_allowed(), decision.remaining(), retry)
}

fn random_cost(rng: &mut Rng, max: u32) -> u32 {
    if rng.random_ratio(2, 3) { 1 } else { rng.random_range(1..=max) }
}

/// Crowds of random sizes on one key, some of whom leave: before their flight, or when it is back.
fn crowds_are_decided_one_by_one<A: Rules + Random>(quota_of: impl Fn(A) -> Quota) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    for_each_history(300, |rng| {
        runtime.block_on(async {
            let quota = A::random(rng);
            let fixture = Fixture::new(quota_of(quota));
            let mut oracle = OneByOne { quota, state: None };
            for _ in 0..8 {
                fixture.clock.advance(Duration::from_micros(rng.random_range(0..5_000)));
                one_crowd(&fixture, &mut oracle, rng).await;
            }
        });
    });
}

async fn one_crowd<A: Rules>(fixture: &Fixture, oracle: &mut OneByOne<A>, rng: &mut Rng) {
    let size = rng.random_range(1..=20);
    let costs: Vec<u32> = (0..size).map(|_| random_cost(rng, oracle.quota.cost_max())).collect();
    let mut calls = Vec::new();
    for &cost in &costs {
        calls.push(Some(set_out(&fixture.limiter, cost).await));
    }
    // Not the first one, which is on its way: what becomes of it is not known.
    for call in &mut calls[1..] {
        if rng.random_ratio(1, 5) {
            *call = None;
        }
    }
    let aboard: Vec<bool> = calls.iter().map(Option::is_some).collect();
    fixture.road.open_for(size);
    let mut answers = Vec::new();
    let mut is_back = false;
    for (number, call) in calls.into_iter().enumerate() {
        answers.push(match call {
            // Its answer has come, and is not looked at.
            Some(_) if is_back && rng.random_ratio(1, 6) => None,
            Some(call) => {
                let answer = call.await.unwrap();
                is_back = number > 0;
                Some(seen(&answer))
            }
            None => None,
        });
    }
    let trips = fixture.road.close();
    let most = 1 + usize::from(aboard[1..].contains(&true));
    assert!(trips <= most, "{trips} trips for a crowd of {size}");
    let now = fixture.now();
    for ((answer, cost), is_aboard) in answers.into_iter().zip(costs).zip(aboard) {
        if is_aboard {
            let expected = oracle.check(now, cost);
            if let Some(seen) = answer {
                assert_eq!(seen, expected, "a cost of {cost}");
            }
        }
    }
}

// Red when a batch is decided in another order, when who has left is decided too, and when the state
// is not carried from one cost to the next.
#[test]
fn crowd_on_one_key_gets_the_answers_of_calls_one_by_one() {
    crowds_are_decided_one_by_one(Quota::Gcra);
    crowds_are_decided_one_by_one::<WindowQuota>(Quota::SlidingWindow);
}

#[tokio::test]
async fn calls_that_are_not_combined_make_a_trip_each() {
    let fixture = Fixture::with(ten_an_hour(), |options| options.combining(false));
    fixture.road.open_for(100);
    let calls = join_all((0..8).map(|_| fixture.limiter.check("a"))).await;
    assert!(calls.into_iter().all(|call| call.unwrap().is_allowed()));
    assert_eq!(fixture.road.close(), 8);
}

#[tokio::test]
async fn keys_do_not_wait_for_one_another() {
    let fixture = Fixture::new(ten_an_hour());
    let keys: Vec<String> = (0..8).map(|key| key.to_string()).collect();
    let calls = join_all(keys.iter().map(|key| fixture.limiter.check(key)));
    fixture.road.open_for(8);
    assert!(calls.await.into_iter().all(|call| call.unwrap().remaining() == 9));
    assert_eq!(fixture.road.close(), 8);
}

/// Waits for a call without letting it wait for ever.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it hangs")
}

// Red when the drop of the first caller does not let the others take off.
#[tokio::test]
async fn first_caller_that_leaves_anywhere_keeps_nobody_waiting() {
    let fixture = Fixture::new(Quota::sliding_window(1_000, HOUR).unwrap());
    let mut followers = Vec::new();
    let (sender, mut set_out_later) = tokio::sync::mpsc::unbounded_channel();
    fixture.road.open_for(10_000);
    let make = || {
        let (limiter, sender) = (fixture.limiter.clone(), sender.clone());
        Box::pin(async move {
            let mut first = Box::pin(limiter.check("a"));
            assert!(poll!(&mut first).is_pending());
            for _ in 0..3 {
                let _ = sender.send(set_out(&limiter, 1).await);
            }
            first.await
        })
    };
    Drops::new()
        .run(make, async |_| {
            while let Ok(follower) = set_out_later.try_recv() {
                followers.push(within(follower).await.unwrap());
            }
            let next = within(fixture.limiter.check("a")).await.unwrap();
            assert_eq!(next.source(), Source::Shared);
        })
        .await;
    assert!(followers.len() >= 6 && followers.iter().all(|answer| seen(answer).0));
}

#[tokio::test]
async fn follower_that_leaves_anywhere_keeps_nobody_waiting() {
    let fixture = Fixture::new(Quota::sliding_window(1_000, HOUR).unwrap());
    fixture.road.open_for(10_000);
    let make = || {
        let limiter = fixture.limiter.clone();
        Box::pin(async move {
            let first = set_out(&limiter, 1).await;
            let follower = set_out(&limiter, 1).await;
            let last = set_out(&limiter, 1).await;
            // Whoever is first is back before this one, which is dropped at each of its points.
            let others = tokio::spawn(async move { (first.await, last.await) });
            (follower.await, others.await)
        })
    };
    Drops::new()
        .run(make, async |_| {
            let next = within(fixture.limiter.check("a")).await.unwrap();
            assert_eq!(next.source(), Source::Shared);
        })
        .await;
}

// Red without a deadline of the followers' own. The time is tokio's, and stands unless all wait.
#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_the_deadline_first_or_follower() {
    let fixture = Fixture::with(ten_an_hour(), |options| options.deadline(DEADLINE));
    // The first flight hangs; later the one of all others does.
    for trips in [0, 1] {
        let begun = Instant::now();
        fixture.road.open_for(trips);
        let calls = (0..64).map(|call| {
            let limiter = fixture.limiter.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(call % 16)).await;
                let begun = Instant::now();
                let decision = limiter.check("a").await.unwrap();
                (decision.source(), begun.elapsed())
            }
        });
        for (source, waited) in join_all(calls).await {
            assert!(waited <= DEADLINE + Duration::from_millis(2), "{source:?} in {waited:?}");
        }
        assert!(begun.elapsed() < 3 * DEADLINE);
        tokio::time::sleep(HOUR).await;
        fixture.road.close();
    }
}

// Red when a flight that cannot be begun leaves its lane behind.
#[tokio::test]
async fn first_caller_that_leaves_outside_of_any_runtime_keeps_nobody_waiting() {
    let fixture = Fixture::new(ten_an_hour());
    let first = set_out(&fixture.limiter, 1).await;
    let follower = set_out(&fixture.limiter, 1).await;
    std::thread::spawn(move || drop(first)).join().unwrap();
    fixture.road.open_for(2);
    assert_eq!(within(follower).await.unwrap().remaining(), 9);
    assert_eq!(within(fixture.limiter.check("a")).await.unwrap().remaining(), 8);
}

// Red when a lane whose task is gone is not given up: the runtime that flew for all has ended.
#[tokio::test]
async fn end_of_another_runtime_keeps_nobody_waiting() {
    let fixture = Fixture::new(ten_an_hour());
    let limiter = fixture.limiter.clone();
    let first = set_out(&limiter, 1).await;
    let follower = set_out(&limiter, 1).await;
    std::thread::spawn(move || {
        let other = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // The others' flight is begun by its drop, in a runtime that ends before it is back.
        other.block_on(async move { drop(first) });
    })
    .join()
    .unwrap();
    fixture.road.open_for(2);
    assert_eq!(within(follower).await.unwrap().remaining(), 9);
    assert_eq!(within(limiter.check("a")).await.unwrap().remaining(), 8);
}

// Red when more than the maximum is decided in one step, and without combining in the count of trips.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowd_on_a_real_server_is_never_over_and_shares_its_trips() {
    let server = support::server().await;
    let redis = support::redis(&server, |builder| builder).await;
    for quota in [Quota::gcra(500, HOUR, 500).unwrap(), Quota::sliding_window(500, HOUR).unwrap()] {
        let limiter = options(redis.executor(), quota).build().unwrap();
        assert!(limiter.peek("a").await.unwrap().is_allowed());
        server.reset_stats().await.unwrap();
        let tasks = (0..300).map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let mut allowed = 0;
                for _ in 0..10 {
                    let decision = limiter.check("a").await.unwrap();
                    assert_eq!(decision.source(), Source::Shared);
                    allowed += u32::from(decision.is_allowed());
                }
                allowed
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut allowed = 0;
        for task in tasks {
            allowed += task.await.unwrap();
        }
        assert_eq!(allowed, 500);
        let trips = server.command_stats().await.unwrap()["evalsha"];
        assert!(trips < 1_000, "{trips} trips for 3,000 calls");
    }
}
