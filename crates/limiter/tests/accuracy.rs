//! The measured accuracy is the truth, for decisions of all sources.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clocked::{Backend, Counted, HOUR, backends};
use fleetwide_core_traits::{BackendError, Clock, ErasedOp, Executor, Outage, Script};
use fleetwide_limiter::{
    Accuracy, ConfigError, Leasing, Limiter, LimiterBuilder, Quota, Source, Unavailable,
};
use fleetwide_testkit::eventually;
use rand::Rng as _;
use support::Rng;

const SOON: Duration = Duration::from_secs(20);
const NAMES: usize = 4;
const ROUNDS: usize = 10;
/// Calls of a round; together they take less than decisions wait at most.
const CALLS: usize = 9;

/// Ten cells in such a time, counted in each way.
fn quotas(period: Duration) -> [Quota; 5] {
    [
        Quota::gcra(10, period, 10).unwrap(),
        Quota::sliding_window(10, period).unwrap(),
        Quota::token_bucket(7, period, 10).unwrap(),
        Quota::fixed_window(10, period).unwrap(),
        Quota::sliding_log(10, period).unwrap(),
    ]
}

/// A backend that is away for all but who judges, while it is told to be.
#[derive(Clone)]
struct Moody {
    executor: Counted,
    is_away: Arc<AtomicBool>,
    is_away_for_judges: Arc<AtomicBool>,
}

impl Moody {
    fn new(backend: &Backend) -> Self {
        let (is_away, is_away_for_judges) = Default::default();
        Self { executor: backend.executor(), is_away, is_away_for_judges }
    }
}

impl Executor for Moody {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let is_judge = op.script().name() == "limiter.accuracy";
        let is_away = if is_judge { &self.is_away_for_judges } else { &self.is_away };
        if is_away.load(Ordering::Relaxed) {
            return Err(BackendError::NotSent(Outage::Deadline(Duration::from_millis(1))));
        }
        self.executor.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.executor.prepare(scripts);
    }
}

fn options(backend: &Backend, executor: &Moody, name: &str, quota: Quota) -> LimiterBuilder<Moody> {
    Limiter::builder(executor.clone(), backend.namespace(), name, quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(30))
        .clock(Arc::new(backend.clock.clone()))
        .sample_accuracy(1.0)
}

/// What was admitted of one key up to the quota, and how much more it has room for.
#[derive(Default)]
struct Kept(Vec<(u64, u64)>);

impl Kept {
    fn room(&self, quota: Quota, now: u64) -> u64 {
        let max = u64::from(quota.cost_max());
        let sum = |counts: &dyn Fn(u64) -> bool| {
            let counted = self.0.iter().filter(|(at, _)| counts(*at));
            counted.map(|(_, cells)| cells).sum::<u64>()
        };
        match quota {
            Quota::SlidingWindow(quota) => max - sum(&|at| at + quota.window_us() > now),
            Quota::SlidingLog(quota) => max - sum(&|at| at + quota.window_us() > now),
            Quota::FixedWindow(quota) => {
                max - sum(&|at| at / quota.window_us() == now / quota.window_us())
            }
            // In each interval that ends now, and begins with something that was admitted.
            Quota::Gcra(quota) => self.paced(max, now, |d| d / quota.interval_us()),
            Quota::TokenBucket(quota) => {
                let (gain, token) = quota.rate();
                self.paced(max, now, |d| {
                    (u128::from(d) * u128::from(gain) / u128::from(token)) as u64
                })
            }
            _ => unreachable!("there are five"),
        }
    }

    fn paced(&self, burst: u64, now: u64, earned: impl Fn(u64) -> u64) -> u64 {
        let mut sum = 0;
        let each = self.0.iter().rev().map(|(at, cells)| {
            sum += cells;
            (burst + earned(now - at)).saturating_sub(sum)
        });
        each.min().unwrap_or(burst).min(burst)
    }
}

/// The truth, worked out offline.
#[derive(Default)]
struct Truth {
    keys: HashMap<usize, Kept>,
    accuracy: [u64; 5],
}

impl Truth {
    fn decision(&mut self, quota: Quota, name: usize, now: u64, cost: u64, is_allowed: bool) {
        let kept = self.keys.entry(name).or_default();
        let room = kept.room(quota, now);
        if is_allowed {
            let over = cost.saturating_sub(room);
            kept.0.push((now, cost - over));
            self.add([1, cost, over, 0, 0]);
        } else {
            self.add([0, 0, 0, 1, u64::from(room >= cost)]);
        }
    }

    fn add(&mut self, numbers: [u64; 5]) {
        self.accuracy.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }

    fn judged(&self) -> u64 {
        self.accuracy[0] + self.accuracy[3]
    }
}

fn numbers(accuracy: Accuracy) -> [u64; 5] {
    assert_eq!((accuracy.unjudged, accuracy.dropped), (0, 0));
    let Accuracy { allowed, allowed_cells, over_cells, refused, under_refusals, .. } = accuracy;
    [allowed, allowed_cells, over_cells, refused, under_refusals]
}

/// Plays a trace in which the backend comes and goes. The clock moves while decisions wait only in
/// memory, where a trip takes no time.
async fn play(
    limiter: &Limiter<Moody>,
    backend: &Backend,
    moody: &Moody,
    period: Duration,
    rng: &mut Rng,
) -> [u64; 5] {
    let (quota, mut truth, is_memory) = (limiter.quota(), Truth::default(), period < HOUR);
    let quarter_us = period.as_micros() as u64 / 4;
    for _ in 0..ROUNDS {
        moody.is_away.store(rng.random_ratio(1, 4), Ordering::Relaxed);
        backend.clock.advance(Duration::from_micros(rng.random_range(0..=quarter_us)));
        for _ in 0..CALLS {
            if is_memory {
                backend.clock.advance(Duration::from_micros(rng.random_range(0..=2_000_000)));
            }
            let (name, cost) = (rng.random_range(0..NAMES), rng.random_range(1..=4));
            let now = backend.clock.server_time().as_micros();
            let decision = limiter.check_cost(name.to_string(), cost).await.unwrap();
            truth.decision(quota, name, now, cost, decision.is_allowed());
        }
        let is_judged = async || {
            let Accuracy { allowed, refused, dropped, .. } = limiter.accuracy().unwrap();
            allowed + refused + dropped == truth.judged()
        };
        eventually(SOON, "all decisions are judged", is_judged).await;
    }
    assert_eq!(numbers(limiter.accuracy().unwrap()), truth.accuracy, "{quota:?}");
    truth.accuracy
}

// Seen red: when decisions are dated by when they are judged, and when remembered refusals are not
// handed on.
#[tokio::test]
async fn measured_accuracy_of_all_keys_is_the_truth() {
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let mut sum = [0; 5];
    for (at, backend) in backends().await.into_iter().enumerate() {
        // Short enough that the moment of each call matters; on a server keys expire by the real clock.
        let period = if at == 0 { Duration::from_secs(20) } else { HOUR };
        for (way, quota) in quotas(period).into_iter().enumerate() {
            let rungs =
                [Unavailable::Allow, Unavailable::Deny, Unavailable::LocalShare { instances: 2 }];
            for (rung, unavailable) in rungs.into_iter().enumerate() {
                let moody = Moody::new(&backend);
                let name = format!("q{way}-{rung}");
                let limiter = options(&backend, &moody, &name, quota)
                    .on_unavailable(unavailable)
                    .probe_every(Duration::from_millis(1));
                let limiter = limiter.build().unwrap();
                let truth = play(&limiter, &backend, &moody, period, &mut rng).await;
                sum.iter_mut().zip(truth).for_each(|(sum, number)| *sum += number);
            }
        }
    }
    assert!(sum.iter().all(|number| *number > 50), "the traces meet all of it: {sum:?}");
}

// Seen red: when what is spent from leases is not handed on.
#[tokio::test]
async fn what_is_spent_from_leases_is_judged() {
    let backend = Backend::memory();
    let moody = Moody::new(&backend);
    let quota = Quota::sliding_window(1_000, HOUR).unwrap();
    let limiter = options(&backend, &moody, "leased", quota)
        .leased(Leasing::new().cells_max(100))
        .build()
        .unwrap();
    let (mut leased, mut calls) = (0, 0);
    while leased < 50 {
        let decision = limiter.check("ada").await.unwrap();
        leased += u64::from(decision.source() == Source::Leased);
        calls += 1;
        tokio::task::yield_now().await;
    }
    let is_judged = async || limiter.accuracy().unwrap().allowed == calls;
    eventually(SOON, "all of them are judged", is_judged).await;
    assert_eq!(numbers(limiter.accuracy().unwrap()), [calls, calls, 0, 0, 0]);
}

// Seen red: without the deletion, all that is spent after a reset is over.
#[tokio::test]
async fn reset_key_is_judged_anew() {
    for backend in backends().await {
        let moody = Moody::new(&backend);
        for (way, quota) in quotas(HOUR).into_iter().enumerate() {
            let limiter = options(&backend, &moody, &format!("r{way}"), quota).build().unwrap();
            for calls in [1, 2] {
                assert!(limiter.check_cost("ada", 10).await.unwrap().is_allowed());
                let is_judged = async || limiter.accuracy().unwrap().allowed == calls;
                eventually(SOON, "it is judged", is_judged).await;
                limiter.reset("ada").await.unwrap();
            }
            assert_eq!(limiter.accuracy().unwrap().over_cells, 0, "{quota:?}");
        }
    }
}

// Seen red: without the look at the age, decisions of hours ago are dated too late for their key.
#[tokio::test]
async fn decision_that_waits_for_too_long_is_counted_as_dropped() {
    let backend = Backend::memory();
    let moody = Moody::new(&backend);
    let [window, long] = [10, 5_000].map(|max| Quota::sliding_window(max, HOUR).unwrap());
    let limiter = options(&backend, &moody, "api", window).build().unwrap();
    moody.is_away_for_judges.store(true, Ordering::Relaxed);
    assert!(limiter.check("ada").await.unwrap().is_allowed());
    backend.clock.advance(Duration::from_secs(31));
    let is_dropped = async || limiter.accuracy().unwrap().dropped == 1;
    eventually(SOON, "it is dropped", is_dropped).await;
    moody.is_away_for_judges.store(false, Ordering::Relaxed);
    assert!(limiter.check("ada").await.unwrap().is_allowed());
    let is_judged = async || limiter.accuracy().unwrap().allowed == 1;
    eventually(SOON, "the next one is judged", is_judged).await;

    let _ =
        limiter.check_with_quota("ada", 1, Quota::sliding_window(20, HOUR).unwrap()).await.unwrap();
    assert_eq!(limiter.accuracy().unwrap().unjudged, 1);
    let limiter = options(&backend, &moody, "long", long).build().unwrap();
    let _ = limiter.check("ada").await.unwrap();
    assert_eq!(limiter.accuracy().unwrap().unjudged, 1, "a log of 5,000 cells is too long");
}

#[tokio::test]
async fn share_of_the_keys_is_from_none_to_all() {
    let backend = Backend::memory();
    let quota = Quota::sliding_window(10, HOUR).unwrap();
    for share in [-0.1, 1.1, f64::NAN] {
        let built = backend.options("api", quota).sample_accuracy(share).build();
        assert_eq!(built.err(), Some(ConfigError::SampledShare));
    }
    let limiter = backend.options("api", quota).sample_accuracy(0.0).build().unwrap();
    let _ = limiter.check("ada").await.unwrap();
    assert_eq!(limiter.accuracy(), None);
}
