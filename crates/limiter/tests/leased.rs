//! Leases, judged by brute force over random histories of several instances, in memory and over a
//! real Redis: never over the stated bound, and never over in total.
//!
//! One clock moves the instances and the server, and it stands still unless the test moves it.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::time::Duration;

use clocked::{Backend, Counted, HOUR, backends};
use fleetwide_core_traits::Clock as _;
use fleetwide_limiter::{ConfigError, GcraQuota, Leasing, Limiter, Quota, Source, WindowQuota};
use fleetwide_testkit::eventually;
use futures_util::FutureExt as _;
use rand::Rng as _;
use support::Rng;

/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// An allowed call: its time in µs, and its cost.
type Admitted = (u64, u64);

/// Some instances with one quota and one key.
struct Fleet<'a> {
    backend: &'a Backend,
    name: String,
    quota: Quota,
    leasing: Leasing,
    instances: Vec<Limiter<Counted>>,
    admitted: Vec<Admitted>,
    leased: usize,
}

impl<'a> Fleet<'a> {
    fn new(
        backend: &'a Backend,
        name: String,
        quota: Quota,
        leasing: Leasing,
        count: usize,
    ) -> Self {
        let instances = Vec::new();
        let mut fleet =
            Self { backend, name, quota, leasing, instances, admitted: vec![], leased: 0 };
        fleet.instances = (0..count).map(|_| fleet.instance()).collect();
        fleet
    }

    fn instance(&self) -> Limiter<Counted> {
        self.backend.options(&self.name, self.quota).leased(self.leasing).build().unwrap()
    }

    /// A call of one instance; whether it is allowed.
    async fn call(&mut self, at: usize, cost: u64) -> bool {
        let decision = self.instances[at].check_cost("hot", cost).await.unwrap();
        if decision.is_allowed() {
            self.admitted.push((self.backend.clock.server_time().as_micros(), cost));
            self.leased += usize::from(decision.source() == Source::Leased);
        }
        decision.is_allowed()
    }

    /// What is on its way in the background arrives, mostly.
    async fn settle(&self) {
        let count = self.backend.trips_made();
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        if self.backend.trips_made() > count {
            tokio::task::yield_now().await;
        }
    }
}

/// Cells that GCRA with leases may admit in an interval: burst + d * rate + min(n * l, t * rate), in
/// µs of debt.
fn gcra_allows(quota: &GcraQuota, ahead: u64, lifetime_us: u64, length: u64) -> u64 {
    quota.span_us() + length + lifetime_us.min(ahead * quota.interval_us())
}

fn assert_gcra_holds(quota: &GcraQuota, ahead: u64, lifetime_us: u64, admitted: &[Admitted]) {
    let interval = quota.interval_us();
    for first in 0..admitted.len() {
        let mut sum = 0;
        for &(at, cost) in &admitted[first..] {
            sum += cost * interval;
            let length = at - admitted[first].0;
            let allowed = gcra_allows(quota, ahead, lifetime_us, length);
            assert!(sum <= allowed, "{sum} of {allowed} µs of debt in {length} µs");
            // In total, from the first call on, nothing is over.
            assert!(first > 0 || sum <= quota.span_us() + length, "{sum} in {length} in total");
        }
    }
}

fn assert_window_holds(quota: &WindowQuota, ahead: u64, admitted: &[Admitted]) {
    let (max, length) = (u64::from(quota.max()), quota.window_us());
    for &(begin, _) in admitted {
        let within = admitted.iter().filter(|call| call.0 >= begin && call.0 - begin < length);
        let sum: u64 = within.map(|call| call.1).sum();
        assert!(sum <= max + ahead.min(max), "{sum} of {max} + {ahead} within one window");
    }
    let total: u64 = admitted.iter().map(|call| call.1).sum();
    if let (Some(first), Some(last)) = (admitted.first(), admitted.last()) {
        let windows = (last.0 - first.0) / length + 1;
        assert!(total <= windows * max, "{total} in {windows} windows");
    }
}

/// One history: bursts, pauses around the lifetime of leases, instances that come and go.
async fn play(fleet: &mut Fleet<'_>, rng: &mut Rng, lifetime: Duration, step: Duration) {
    let micro = Duration::from_micros(1);
    for _ in 0..60 {
        let at = rng.random_range(0..fleet.instances.len());
        match rng.random_range(0..16) {
            0 => fleet.backend.clock.advance(lifetime.saturating_sub(micro)),
            1 => fleet.backend.clock.advance(lifetime),
            2 => fleet.backend.clock.advance(lifetime * rng.random_range(0..4) / 3),
            3 => fleet.backend.clock.advance(step * rng.random_range(0..4)),
            4 => {
                let fresh = fleet.instance();
                let old = std::mem::replace(&mut fleet.instances[at], fresh);
                if rng.random() {
                    old.shutdown().await;
                }
                drop(old);
                fleet.settle().await;
            }
            // All that is in hand anywhere, and all that the fleet has left.
            5 => {
                for at in 0..fleet.instances.len() {
                    while fleet.call(at, 1).await {}
                }
            }
            6..=8 => {
                let cost = rng.random_range(1..=4);
                fleet.call(at, cost).await;
            }
            _ => {
                for _ in 0..rng.random_range(1..24) {
                    fleet.call(at, 1).await;
                    if rng.random_ratio(1, 3) {
                        fleet.settle().await;
                    }
                }
            }
        }
        fleet.settle().await;
    }
}

async fn on_gcra(backend: &Backend, rng: &mut Rng, number: usize) -> usize {
    let burst = rng.random_range(20..300);
    let quota = GcraQuota::new(rng.random_range(20..300), HOUR, burst).unwrap();
    let lifetime_us = rng.random_range(1..=quota.span_us() / 2);
    let cells_max = rng.random_range(2..=burst as u32 / 2);
    let count = rng.random_range(1..=4);
    let lifetime = Duration::from_micros(lifetime_us);
    let leasing = Leasing::new().cells_max(cells_max).lifetime(lifetime);
    let mut fleet = Fleet::new(backend, format!("g{number}"), quota.into(), leasing, count);
    play(&mut fleet, rng, lifetime, Duration::from_micros(quota.interval_us())).await;
    // Who comes takes the place of who went, whose cells are given back or unused.
    assert_gcra_holds(&quota, count as u64 * u64::from(cells_max), lifetime_us, &fleet.admitted);
    fleet.leased
}

async fn on_window(backend: &Backend, rng: &mut Rng, number: usize) -> usize {
    let max = rng.random_range(20..300);
    let quota = WindowQuota::new(max, HOUR).unwrap();
    let lifetime_us = rng.random_range(1..=quota.window_us() / 2);
    let cells_max = rng.random_range(2..=max as u32 / 2);
    let count = rng.random_range(1..=4);
    let lifetime = Duration::from_micros(lifetime_us);
    let leasing = Leasing::new().cells_max(cells_max).lifetime(lifetime);
    let mut fleet = Fleet::new(backend, format!("w{number}"), quota.into(), leasing, count);
    play(&mut fleet, rng, lifetime, Duration::from_micros(quota.width_us())).await;
    assert_window_holds(&quota, count as u64 * u64::from(cells_max), &fleet.admitted);
    fleet.leased
}

// Red when a lease has no end, when what is in hand is not taken off a purchase, when a whole lease is
// given back although a part of it was used, and when cells are used before they are bought.
#[tokio::test]
async fn instances_that_lease_are_never_over_the_stated_bound() {
    let mut rng = fleetwide_testkit::seed().rng();
    for (backend, histories) in backends().await.into_iter().zip([400, 20]) {
        let mut leased = 0;
        for number in 0..histories {
            leased += on_gcra(&backend, &mut rng, number).await;
            leased += on_window(&backend, &mut rng, number).await;
        }
        assert!(leased > 50 * histories, "{leased} calls from leases: it hardly leases");
    }
}

fn million() -> Quota {
    Quota::sliding_window(1_000_000, HOUR).unwrap()
}

fn leased(backend: &Backend, name: &str) -> Limiter<Counted> {
    let leasing = Leasing::new().lifetime(Duration::from_secs(60));
    backend.options(name, million()).leased(leasing).build().unwrap()
}

/// Calls until one is answered from what is in hand.
async fn until_leased(limiter: &Limiter<Counted>, key: &str) {
    let is_leased = async || limiter.check(key).await.unwrap().source() == Source::Leased;
    eventually(SOON, "a lease", is_leased).await;
}

#[tokio::test]
async fn hot_key_costs_few_trips_and_its_calls_wait_for_nothing() {
    for backend in backends().await {
        let limiter = leased(&backend, "hot");
        until_leased(&limiter, "a").await;
        backend.trips();
        let (mut waited, calls) = (0, 20_000);
        for call in 0..calls {
            let check = limiter.check("a");
            let mut check = std::pin::pin!(check);
            if check.as_mut().now_or_never().is_none() {
                waited += 1;
                assert!(check.await.unwrap().is_allowed());
            }
            if call % 16 == 0 {
                // The time in which another task gets its turn.
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
        }
        let trips = backend.trips();
        assert!(trips < calls / 200, "{trips} trips for {calls} calls");
        assert!(waited < calls / 50, "{waited} of {calls} calls waited");
    }
}

// Red when each call makes its key a busy one.
#[tokio::test]
async fn nothing_is_bought_for_keys_that_are_seldom_called() {
    let backend = Backend::memory();
    let limiter = leased(&backend, "cold");
    for _ in 0..3 {
        for key in 0..1_000 {
            let decision = limiter.check(key.to_string()).await.unwrap();
            assert_eq!(decision.source(), Source::Shared);
        }
        tokio::task::yield_now().await;
        backend.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(backend.trips(), 3_000);
}

#[tokio::test]
async fn decision_says_what_is_left_here_and_there() {
    let backend = Backend::memory();
    let limiter = leased(&backend, "left");
    until_leased(&limiter, "a").await;
    let before = limiter.check("a").await.unwrap();
    let after = limiter.check("a").await.unwrap();
    assert_eq!(after.source(), Source::Leased);
    assert!(before.remaining() > 999_900 && after.remaining() == before.remaining() - 1);
    assert!(after.reset_after() > HOUR / 2);
}

// Red without `close` in the shutdown, and without `Drop`.
#[tokio::test]
async fn what_is_not_used_is_given_back_by_a_shutdown_and_by_a_drop() {
    for backend in backends().await {
        for name in ["shutdown", "drop"] {
            let limiter = leased(&backend, name);
            let asks = backend.options(name, million()).build().unwrap();
            let mut spent = 0;
            let mut source = Source::Shared;
            while source != Source::Leased {
                source = limiter.check("a").await.unwrap().source();
                spent += 1;
                tokio::task::yield_now().await;
            }
            let left = 1_000_000 - spent;
            assert!(asks.peek("a").await.unwrap().remaining() < left, "some are in hand");
            if name == "shutdown" {
                limiter.shutdown().await;
                assert_eq!(asks.peek("a").await.unwrap().remaining(), left);
                assert_eq!(limiter.check("a").await.unwrap().source(), Source::Shared);
            } else {
                drop(limiter);
                let is_back = async || asks.peek("a").await.unwrap().remaining() == left;
                eventually(SOON, "all that was not used", is_back).await;
            }
        }
    }
}

// Red without the sweep.
#[tokio::test]
async fn what_nobody_uses_any_more_is_given_back() {
    for backend in backends().await {
        let lifetime = Duration::from_millis(40);
        let leasing = Leasing::new().lifetime(lifetime);
        let limiter = backend.options("idle", million()).leased(leasing).build().unwrap();
        let asks = backend.options("idle", million()).build().unwrap();
        until_leased(&limiter, "a").await;
        tokio::task::yield_now().await;
        backend.clock.advance(lifetime / 2);
        // As much as was used: the calls of `until_leased`, which are few.
        let is_back = async || asks.peek("a").await.unwrap().remaining() > 999_990;
        eventually(SOON, "what nobody uses", is_back).await;
    }
}

// Red when a reset leaves what is in hand.
#[tokio::test]
async fn reset_and_block_take_what_is_in_hand_from_every_instance_that_hears_of_it() {
    for backend in backends().await {
        let leasing = Leasing::new().lifetime(Duration::from_secs(60));
        let [one, other] =
            [0; 2].map(|_| backend.with_bus("void", million()).leased(leasing).build().unwrap());
        until_leased(&one, "a").await;
        one.reset("a").await.unwrap();
        assert_eq!(one.check("a").await.unwrap().source(), Source::Shared);
        until_leased(&one, "a").await;
        other.block("a", HOUR).await.unwrap();
        let is_blocked = async || !one.check("a").await.unwrap().is_allowed();
        eventually(SOON, "the block", is_blocked).await;
    }
}

#[tokio::test]
async fn leases_that_make_no_sense_are_refused() {
    let backend = Backend::memory();
    let build = |quota, leasing| backend.options("x", quota).leased(leasing).build();
    let bucket = Quota::token_bucket(10, HOUR, 10).unwrap();
    assert_eq!(build(bucket, Leasing::new()).unwrap_err(), ConfigError::NotLeasable);
    for lifetime in [Duration::ZERO, HOUR / 2 + Duration::from_micros(1)] {
        let error = build(million(), Leasing::new().lifetime(lifetime)).unwrap_err();
        assert_eq!(error, ConfigError::LeaseLifetime { lifetime, max: HOUR / 2 });
    }
}

/// What a fleet admits of a demand far above its quota, with leases and without: `(leased, exact)`.
async fn admitted_of_a_flood(backend: &Backend, number: usize, quota: Quota) -> (u64, u64) {
    let asks = backend.options(&format!("asks-{number}"), quota).build().unwrap();
    let leasing = Leasing::new().lifetime(Duration::from_secs(60));
    let name = format!("leases-{number}");
    let mut fleet = Fleet::new(backend, name, quota, leasing, 4);
    let (mut exact, mut rng) = (0, fleetwide_testkit::seed().rng());
    for _ in 0..400 {
        backend.clock.advance(Duration::from_secs(rng.random_range(1..30)));
        // Four times as many calls as the quota has room for, by instances of unequal demand.
        for _ in 0..300 {
            let at = [0, 0, 0, 0, 1, 1, 2, 3][rng.random_range(0..8)];
            fleet.call(at, 1).await;
            exact += u64::from(asks.check("hot").await.unwrap().is_allowed());
            tokio::task::yield_now().await;
        }
    }
    (fleet.admitted.len() as u64, exact)
}

// Red when leases are not given back.
#[tokio::test]
async fn fleet_that_leases_admits_nearly_as_much_of_a_flood_as_one_that_asks() {
    let backend = Backend::memory();
    let quotas =
        [Quota::gcra(18_000, HOUR, 2_000).unwrap(), Quota::sliding_window(18_000, HOUR).unwrap()];
    for (number, quota) in quotas.into_iter().enumerate() {
        let (leased, exact) = admitted_of_a_flood(&backend, number, quota).await;
        assert!(leased * 100 >= exact * 97, "{leased} of {exact} by {quota:?}");
    }
}
