//! 32 processes on one key, and what happens to processes, networks and servers: never over.
//!
//! Processes are killed and frozen, connections are cut, stalled and robbed of their answers, the server
//! is frozen, and restarted with what it has acknowledged. Each process writes a line for each call that
//! was allowed, when it began and when it was answered, by the clock that it shares with the server. The
//! decision lay between the two, so only what certainly lay within an interval is counted against it. A
//! grant whose process is killed before its line is missing, which can only make the count smaller.
//!
//! Failovers of all kinds, with refunds, resets and instances that die, are in `tests/failover.rs`.

#[path = "fleet/check.rs"]
mod check;
#[path = "fleet/faults.rs"]
mod faults;
#[path = "fleet/member.rs"]
mod member;

use std::env;
use std::time::Duration;

use check::{Admitted, Bound};
use faults::Fleet;
use fleetwide_testkit::eventually;
use member::{Kind, Order, now_us};

const PROCESSES: usize = 32;

/// Faults of one fleet, each of some ten to two hundred ms.
const FAULTS: usize = 24;

/// How often a fleet is played; `FLEETWIDE_FLEETS` sets another number, for the long run.
fn fleets() -> usize {
    match env::var("FLEETWIDE_FLEETS") {
        Ok(text) => text.parse().expect("FLEETWIDE_FLEETS is a number"),
        Err(_) => 1,
    }
}

// All four were seen red when each process counts in a namespace of its own; those that lease, when cells
// stay in hand that were used; the others, when the server comes back with nothing and no survivor makes
// it good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_of_32_processes_is_never_over_whatever_happens_to_them() {
    never_over(Kind::Window).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcra_of_32_processes_is_never_over_whatever_happens_to_them() {
    never_over(Kind::Gcra).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_of_32_processes_that_lease_is_never_over_the_stated_bound() {
    never_over(Kind::LeasedWindow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcra_of_32_processes_that_lease_is_never_over_the_stated_bound() {
    never_over(Kind::LeasedGcra).await;
}

async fn never_over(kind: Kind) {
    for _ in 0..fleets() {
        let mut fleet = Fleet::start(kind, PROCESSES).await;
        fleet.until_all_are_answered().await;
        for fault in 0..FAULTS {
            if fault % FAULTS == FAULTS / 2 {
                fleet.restart_server().await;
            }
            fleet.disturb().await;
        }
        fleet.assert_all_keys_expire().await;
        let calls = fleet.end();
        Bound::of(kind, PROCESSES).assert_holds(&calls.admitted, fleet.seed());
        calls.assert_limited();
        if kind.leasing().is_some() {
            let leased = calls.admitted.iter().filter(|call| call.is_leased).count();
            assert!(leased > 100, "{leased} calls from leases: it hardly leases");
        }
    }
}

// Processes that come in the place of the dead are further instances, for which the bound allows. Seen red
// when each of the 32 takes a 16th.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_of_32_processes_in_an_outage_are_never_over_the_stated_bound() {
    for _ in 0..fleets() {
        let mut fleet = Fleet::start(Kind::Share, PROCESSES).await;
        fleet.until_all_are_answered().await;
        fleet.server().kill();
        for fault in 0..FAULTS {
            if fault < 4 {
                fleet.kill_one_and_start_another().await;
            } else {
                fleet.freeze_one().await;
            }
        }
        let mut calls = fleet.end();
        calls.admitted.retain(|call| call.is_of_share);
        Bound::of(Kind::Share, fleet.started()).assert_holds(&calls.admitted, fleet.seed());
        calls.assert_limited();
    }
}

// The replica misses some thousands of cells. What is granted by it until each process has been answered
// twice may be over; by then each has made good what it knew. Seen red with `debt_keys_max(0)`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_replica_grants_32_processes_nothing_twice_that_they_knew_when_their_debts_arrived() {
    for _ in 0..fleets() {
        let mut fleet = Fleet::start(Kind::Failover, PROCESSES).await;
        fleet.until_all_are_answered().await;
        let (replica, network) = fleet.replica().await;
        fleet.until_spent(2_000).await;
        network.refuse();
        network.cut();
        let cut_at = now_us();
        fleet.until_spent(5_500).await;
        let killed_at = now_us();
        fleet.fail_over_to(&replica).await;
        let led_at = now_us();
        let refused_last = async || {
            let is_refused = |call: &&Admitted| call.begin >= led_at && call.cost == 0;
            let refusals =
                |number| fleet.calls_of(number).admitted.iter().filter(is_refused).count();
            (0..PROCESSES).all(|number| refusals(number) >= 2)
        };
        eventually(Duration::from_secs(60), "all of it to be spent", refused_last).await;
        let paid_at = |number| {
            let calls = fleet.calls_of(number).admitted;
            let mut answers = calls.iter().filter(|call| call.begin >= led_at).map(|call| call.end);
            answers.nth(1)
        };
        let all_paid_at = (0..PROCESSES).filter_map(paid_at).max().expect("they were answered");
        let calls = fleet.end().admitted;
        let sum = |is_meant: &dyn Fn(&&Admitted) -> bool| -> u64 {
            calls.iter().filter(is_meant).map(|call| call.cost).sum()
        };
        let missed = sum(&|call| call.begin > cut_at && call.end < killed_at);
        let before = sum(&|call| call.end >= killed_at && call.begin <= all_paid_at);
        let (all, max) = (sum(&|_| true), u64::from(Kind::Failover.window().max()));
        let said = format!("{all} of {max}, {missed} missed, {before} before all debts arrived");
        assert!(missed > before, "it proves nothing: {said}");
        assert!(all <= max + before, "{said}");
    }
}

/// The checker itself: what it is blind for, and what it is not.
#[test]
fn checker_counts_what_certainly_lay_within_an_interval_and_nothing_else() {
    let call = |begin, end, cost| Admitted { begin, end, cost, ..Admitted::default() };
    let most = |bound: Bound, calls: &[Admitted]| bound.most_over(calls.to_vec());
    let window = || Bound { more: 0, ..Bound::of(Kind::Window, 1) };
    let (max, length) = (window().burst, window().window_us.unwrap());
    assert_eq!(most(window(), &[call(0, 5, max)]), None);
    assert_eq!(most(window(), &[call(0, 5, max), call(length - 2, length - 1, 1)]), Some(1));
    // It may have been decided when the first was out of the window.
    assert_eq!(most(window(), &[call(0, 5, max), call(length - 2, length, 1)]), None);
    let gcra = || Bound { more: 0, ..Bound::of(Kind::Gcra, 1) };
    let (burst, interval) = (gcra().burst, gcra().interval_us.unwrap());
    let first = call(0, 5, burst);
    assert_eq!(most(gcra(), &[first, call(7, interval - 1, 1)]), Some(1));
    assert_eq!(most(gcra(), &[first, call(7, interval, 1)]), None);
    assert_eq!(most(gcra(), &[first, call(7, interval, 3), call(9, 9 * interval, 2)]), Some(2));
}

/// One process of the fleet, started by these tests with an order; for a test runner it is empty.
#[tokio::test]
async fn member_of_the_fleet() {
    let Some(order) = env::args().find_map(|arg| Order::parse(&arg)) else { return };
    order.carry_out(Duration::from_secs(300)).await;
}
