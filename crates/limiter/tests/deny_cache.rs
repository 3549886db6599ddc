//! Remembered refusals, over both backends: they save trips, and change no answer but what the
//! horizon says.
//!
//! One clock moves this process and the server, and it stands still unless the test moves it.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::time::Duration;

use clocked::{Backend, Counted, HOUR, backends};
use fleetwide_limiter::{Decision, Limiter, Quota, Receipt, Source};
use fleetwide_testkit::eventually;
use rand::Rng as _;

const X: Duration = Duration::from_secs(1);
/// A server rounds up to a millisecond, and by its own clock it is over while ours stands still.
const DROPPED_EARLY: Duration = Duration::from_millis(2);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn quotas() -> [Quota; 5] {
    [
        Quota::gcra(10, HOUR, 10).unwrap(),
        Quota::sliding_window(10, HOUR).unwrap(),
        Quota::token_bucket(10, HOUR, 10).unwrap(),
        Quota::fixed_window(10, HOUR).unwrap(),
        Quota::sliding_log(10, HOUR).unwrap(),
    ]
}

/// Spends all, and is refused once.
async fn exhaust(limiter: &Limiter<Counted>, key: &str) {
    while limiter.check(key).await.unwrap().is_allowed() {}
}

async fn source(limiter: &Limiter<Counted>, key: &str) -> Source {
    limiter.check(key).await.unwrap().source()
}

// Red without the cache: each refusal is a trip.
#[tokio::test]
async fn refused_caller_who_keeps_calling_costs_one_trip_per_horizon() {
    for backend in backends().await {
        for (number, quota) in quotas().into_iter().enumerate() {
            let limiter = backend.options(&format!("q{number}"), quota).build().unwrap();
            exhaust(&limiter, "ada").await;
            backend.trips();
            let retry_after = limiter.check("ada").await.unwrap().retry_after().unwrap();
            for call in 1..=2_999 {
                backend.clock.advance(Duration::from_millis(1));
                let Decision::Deny { retry_after: left, .. } = limiter.check("ada").await.unwrap()
                else {
                    panic!("allowed after {call} ms")
                };
                assert_eq!(left, retry_after.saturating_sub(Duration::from_millis(call)));
            }
            assert_eq!(backend.trips(), 2, "{quota:?}");
        }
    }
}

#[tokio::test]
async fn other_keys_and_cheaper_calls_are_asked_about() {
    let backend = Backend::memory();
    let limiter = backend.limiter(quotas()[1]);
    let _ = limiter.check_cost("ada", 8).await.unwrap();
    assert!(!limiter.check_cost("ada", 5).await.unwrap().is_allowed());
    for (cost, expected) in [(5, Source::Remembered), (9, Source::Remembered), (3, Source::Shared)]
    {
        assert_eq!(limiter.check_cost("ada", cost).await.unwrap().source(), expected, "{cost}");
    }
    assert!(limiter.check_cost("ada", 2).await.unwrap().is_allowed());
    assert!(limiter.check_cost("eve", 5).await.unwrap().is_allowed());
}

#[tokio::test]
async fn calls_with_a_receipt_and_partial_ones_are_refused_without_a_trip_too() {
    let backend = Backend::memory();
    let limiter = backend.limiter(quotas()[0]);
    exhaust(&limiter, "ada").await;
    backend.trips();
    let [full, part] =
        [limiter.check_with_receipt("ada", 1).await, limiter.check_at_most("ada", 4).await];
    for grant in [full.unwrap(), part.unwrap()] {
        assert_eq!((grant.decision.source(), grant.granted), (Source::Remembered, 0));
        assert!(grant.receipt.is_none() && grant.is_shared());
    }
    assert_eq!(backend.trips(), 0);
    assert_eq!(limiter.peek("ada").await.unwrap().source(), Source::Shared, "a peek asks");
}

#[tokio::test]
async fn cache_that_is_switched_off_remembers_nothing() {
    let backend = Backend::memory();
    let limiter = backend.options("off", quotas()[0]).deny_cache(Duration::ZERO).build().unwrap();
    exhaust(&limiter, "ada").await;
    assert_eq!(source(&limiter, "ada").await, Source::Shared);
}

/// What other instances do, unheard: it is seen after the horizon at the latest.
#[tokio::test]
async fn reset_by_another_instance_is_seen_after_the_horizon() {
    for backend in backends().await {
        let [one, other] = [0; 2].map(|_| backend.limiter(quotas()[1]));
        exhaust(&one, "ada").await;
        other.reset("ada").await.unwrap();
        backend.clock.advance(X.saturating_sub(Duration::from_micros(1)));
        assert_eq!(source(&one, "ada").await, Source::Remembered);
        backend.clock.advance(Duration::from_micros(1));
        assert!(one.check("ada").await.unwrap().is_allowed());
    }
}

/// The same with a bus: it is seen as soon as word of it is there.
#[tokio::test]
async fn reset_and_refund_by_another_instance_are_seen_as_soon_as_they_are_heard_of() {
    for backend in backends().await {
        let [one, other] = [0; 2].map(|_| backend.with_bus("test", quotas()[0]).build().unwrap());
        let grant = other.check_with_receipt("ada", 1).await.unwrap();
        exhaust(&one, "ada").await;
        other.refund(grant.receipt.unwrap()).await.unwrap();
        // The clock stands still, so nothing is forgotten for its age.
        let is_there = async || one.check("ada").await.unwrap().is_allowed();
        eventually(SOON, "the cell that was given back", is_there).await;
        exhaust(&one, "ada").await;
        other.reset("ada").await.unwrap();
        eventually(SOON, "all cells", is_there).await;
    }
}

/// Two limiters with the same history, one of which remembers.
struct Twins {
    limiters: [Limiter<Counted>; 2],
    receipts: Vec<[Option<Receipt>; 2]>,
    /// Whether the server's own clock has dropped the key of one of them.
    is_torn: bool,
}

impl Twins {
    fn new(backend: &Backend, number: usize, quota: Quota) -> Self {
        let options = |name| backend.options(&format!("{name}-{number}"), quota);
        let remembers = options("remembers").deny_cache(24 * HOUR).build().unwrap();
        let asks = options("asks").deny_cache(Duration::ZERO).build().unwrap();
        Self { limiters: [remembers, asks], receipts: Vec::new(), is_torn: false }
    }

    /// Calls both; their answers are the same. How long both say that it lasts, if refused.
    async fn call(&mut self, key: &str, cost: u64, drops: bool) -> Option<Duration> {
        let [first, second] = &self.limiters;
        let first = first.check_with_receipt(key, cost).await.unwrap();
        let second = second.check_with_receipt(key, cost).await.unwrap();
        let [told, truth] = [&first, &second].map(|grant| grant.decision.retry_after());
        match (told, truth) {
            // A remembered refusal of a cheaper call: a time at which it can pay to ask.
            (Some(told), Some(truth)) if first.decision.source() == Source::Remembered => {
                assert!(told <= truth && !told.is_zero(), "{told:?} of {truth:?}");
            }
            (Some(wait), None) | (None, Some(wait)) if drops && wait <= DROPPED_EARLY => {
                self.is_torn = true;
            }
            _ => assert_eq!(told, truth),
        }
        self.receipts.push([first.receipt, second.receipt]);
        truth
    }

    async fn refund(&mut self, at: usize) {
        let receipts = self.receipts.swap_remove(at);
        for (limiter, receipt) in self.limiters.iter().zip(receipts) {
            if let Some(receipt) = receipt {
                limiter.refund(receipt).await.unwrap();
            }
        }
    }
}

// Red when a refusal is remembered from its answer on or a microsecond too long, for cheaper costs,
// and when a reset or a refund voids nothing.
#[tokio::test]
async fn instance_that_remembers_answers_as_one_that_asks_does() {
    let mut rng = fleetwide_testkit::seed().rng();
    for (backend, histories) in backends().await.into_iter().zip([60, 12]) {
        let drops = histories == 12;
        let mut remembered = 0;
        for number in 0..histories {
            let quota = quotas()[number % 5];
            let mut twins = Twins::new(&backend, number, quota);
            let mut retry = HOUR;
            for _ in 0..80 {
                let key = ["ada", "eve"][rng.random_range(0..2)];
                match rng.random_range(0..20) {
                    0 => {
                        for limiter in &twins.limiters {
                            limiter.reset(key).await.unwrap();
                        }
                    }
                    1..=3 if !twins.receipts.is_empty() => {
                        let at = rng.random_range(0..twins.receipts.len());
                        twins.refund(at).await;
                    }
                    4 => backend.clock.advance(retry),
                    5 => backend.clock.advance(retry.saturating_sub(Duration::from_micros(1))),
                    6 => backend.clock.advance(Duration::from_micros(rng.random_range(0..3))),
                    7 => backend.clock.advance(retry / rng.random_range(2..9)),
                    _ => {
                        let cost = if rng.random() { 1 } else { rng.random_range(1..=6) };
                        retry = twins.call(key, cost, drops).await.unwrap_or(retry);
                    }
                }
                if twins.is_torn {
                    break;
                }
            }
            let limiter = &twins.limiters[0];
            exhaust(limiter, "ada").await;
            remembered += usize::from(source(limiter, "ada").await == Source::Remembered);
        }
        assert_eq!(remembered, histories, "it does remember");
    }
}
