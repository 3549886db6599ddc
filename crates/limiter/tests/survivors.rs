//! What survivors carry over a failover, step by step: two histories in memory, the second of which
//! begins with what the test says that the new primary has, and no clock that runs by itself.

#[path = "support/histories.rs"]
mod histories;
mod support;

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{ExecutorExt, Namespace};
use fleetwide_limiter::op::{Check, cell};
use fleetwide_limiter::{Algorithm, Limiter, PolicyName, Quota, Refunded, Unavailable};
use fleetwide_testkit::{SimClock, eventually};
use histories::Server;

const HOUR: Duration = Duration::from_secs(3600);
const MICRO: Duration = Duration::from_micros(1);
/// What is left of the hour that a [`SimClock`] begins in.
const TO_THE_HOUR: Duration = Duration::from_secs(2_000);
const SOON: Duration = Duration::from_secs(20);
const TEN: u64 = 10;

/// One of each algorithm. A [`SimClock`] begins 1,600 s after the beginning of an hour.
fn quotas() -> [Quota; 5] {
    [
        Quota::gcra(TEN, HOUR, TEN).unwrap(),
        Quota::sliding_window(TEN, HOUR).unwrap(),
        Quota::token_bucket(TEN, HOUR, TEN).unwrap(),
        Quota::fixed_window(TEN, HOUR).unwrap(),
        Quota::sliding_log(TEN, HOUR).unwrap(),
    ]
}

fn namespace() -> Namespace {
    Namespace::new("fleet").unwrap()
}

fn limiter(server: &Server, clock: &SimClock, quota: Quota) -> Limiter<Server> {
    Limiter::builder(server.clone(), &namespace(), "api", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(SOON)
        .deny_cache(Duration::ZERO)
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap()
}

/// What the new primary has got of what was spent: nothing, but for this.
async fn replicate(server: &Server, quota: Quota, cost: u32) {
    match quota {
        Quota::Gcra(quota) => replicate_as(server, quota, cost).await,
        Quota::SlidingWindow(quota) => replicate_as(server, quota, cost).await,
        Quota::TokenBucket(quota) => replicate_as(server, quota, cost).await,
        Quota::FixedWindow(quota) => replicate_as(server, quota, cost).await,
        Quota::SlidingLog(quota) => replicate_as(server, quota, cost).await,
        _ => unreachable!("there are five"),
    }
}

async fn replicate_as<A: Algorithm>(server: &Server, quota: A, cost: u32) {
    let key = cell::<A>(&namespace(), &PolicyName::new("api").unwrap(), b"a").unwrap();
    let _ = server.histories[1].run(&Check::new(quota, key, cost)).await.unwrap();
}

async fn spend(limiter: &Limiter<Server>, cost: u64) {
    assert!(limiter.check_cost("a", cost).await.unwrap().is_allowed());
}

async fn left(limiter: &Limiter<Server>) -> u32 {
    limiter.peek("a").await.unwrap().remaining()
}

// Seen red: without the payment before a call.
#[tokio::test]
async fn first_call_after_a_failover_carries_what_its_instance_knows() {
    for quota in quotas() {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let one = limiter(&server, &clock, quota);
        spend(&one, 7).await;
        replicate(&server, quota, 2).await;
        server.fail_over();
        assert!(!one.check_cost("a", 4).await.unwrap().is_allowed(), "7 and not 2 are spent");
        spend(&one, 3).await;
        assert_eq!(left(&one).await, 0, "nor 9");
    }
}

// Seen red: without the task that pays.
#[tokio::test]
async fn key_that_is_not_called_again_is_made_good_too() {
    for quota in quotas() {
        let clock = SimClock::new();
        let server = Server::new(&clock, true);
        let one = limiter(&server, &clock, quota);
        spend(&one, 7).await;
        server.fail_over();
        let stranger = limiter(&server, &clock, quota);
        let is_paid = async || left(&stranger).await == 3;
        eventually(SOON, "the survivor's debt", is_paid).await;
    }
}

// Seen red: with the sum of both.
#[tokio::test]
async fn survivors_who_know_more_and_less_leave_what_the_best_of_them_knows() {
    for quota in quotas() {
        for order in [[0, 1], [1, 0]] {
            let clock = SimClock::new();
            let server = Server::new(&clock, false);
            let others = [server.to_another(), server.to_another()];
            let both = [0, 1].map(|who| limiter(&others[who], &clock, quota));
            spend(&both[0], 3).await;
            spend(&both[1], 4).await;
            others.iter().for_each(Server::fail_over);
            for who in order {
                let _ = both[who].check_cost("a", TEN).await.unwrap();
            }
            assert_eq!(left(&both[0]).await, 3);
        }
    }
}

// Seen red: without the look at the generation.
#[tokio::test]
async fn reset_on_the_new_primary_is_not_undone_by_who_comes_later() {
    for quota in quotas() {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let late = server.to_another();
        let [one, other] = [&server, &late].map(|server| limiter(server, &clock, quota));
        spend(&one, 3).await;
        spend(&other, 4).await;
        server.fail_over();
        clock.advance(Duration::from_micros(1));
        one.reset("a").await.unwrap();
        late.fail_over();
        spend(&other, TEN).await;
    }
}

// Seen red: without the payment before a reset, which then finds nothing and leaves no mark.
#[tokio::test]
async fn reset_that_comes_first_leaves_a_mark_for_the_others() {
    for quota in quotas() {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let late = server.to_another();
        let [one, other] = [&server, &late].map(|server| limiter(server, &clock, quota));
        spend(&one, 3).await;
        spend(&other, 4).await;
        server.fail_over();
        one.reset("a").await.unwrap();
        spend(&one, 1).await;
        late.fail_over();
        spend(&other, TEN - 1).await;
    }
}

// Seen red: without `Debts::give_back`.
#[tokio::test]
async fn what_was_given_back_is_not_owed() {
    for quota in quotas() {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let one = limiter(&server, &clock, quota);
        spend(&one, 3).await;
        let receipt = one.check_with_receipt("a", 4).await.unwrap().receipt.unwrap();
        assert_eq!(one.refund(receipt).await.unwrap(), Refunded::All);
        server.fail_over();
        spend(&one, 7).await;
        assert_eq!(left(&one).await, 0);
    }
}

#[tokio::test]
async fn debt_is_worth_less_as_time_goes_on() {
    let clock = SimClock::new();
    let [gcra, window, bucket, fixed, log] = quotas();
    for (quota, after, most) in [
        (fixed, TO_THE_HOUR.saturating_sub(MICRO), 3),
        (fixed, HOUR, 10),
        (gcra, HOUR / 2, 8),
        (bucket, HOUR / 2, 8),
        (window, HOUR / 2, 3),
        (window, 2 * HOUR, 10),
        (log, HOUR.saturating_sub(MICRO), 3),
        (log, HOUR, 10),
    ] {
        let server = Server::new(&clock, false);
        let one = limiter(&server, &clock, quota);
        spend(&one, 7).await;
        clock.advance(after);
        server.fail_over();
        assert!(!one.check_cost("a", most + 1).await.is_ok_and(|decision| decision.is_allowed()));
        spend(&one, most).await;
    }
}

// The story: who came first knew of cells that had left the window meanwhile, and his were taken for
// those that another one knew of, so they came back with his. Seen red so.
#[tokio::test]
async fn who_comes_first_and_knew_less_lately_does_not_have_cells_come_back_too_soon() {
    let [_, window, _, _, log] = quotas();
    for quota in [window, log] {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let late = server.to_another();
        let [one, other] = [&server, &late].map(|server| limiter(server, &clock, quota));
        spend(&one, 5).await;
        clock.advance(HOUR / 2);
        spend(&one, 5).await;
        clock.advance(HOUR * 2 / 3);
        spend(&other, 5).await;
        [&server, &late].into_iter().for_each(Server::fail_over);
        assert!(!one.check("a").await.unwrap().is_allowed());
        assert!(!other.check("a").await.unwrap().is_allowed());
        clock.advance(HOUR / 2);
        assert!(!one.check_cost("a", 6).await.unwrap().is_allowed(), "five are not an hour old");
        clock.advance(HOUR * 2 / 3);
        spend(&one, TEN).await;
    }
}

/// What is left of a fixed window that began by one clock, by another one that is so many seconds
/// ahead, or behind. The failover is `after` its end by the first, or before.
async fn left_of_fixed_window(clock_is_off: i64, after: i64) -> (u32, SimClock, Limiter<Server>) {
    let (clock, other) = (SimClock::new(), SimClock::new());
    let off = Duration::from_secs(clock_is_off.unsigned_abs());
    if clock_is_off < 0 {
        other.step_server_back(off);
    } else {
        other.advance_server(off);
    }
    let server = Server::by([&clock, &other], false);
    let one = limiter(&server, &clock, Quota::fixed_window(TEN, HOUR).unwrap());
    let pass = |seconds| {
        for clock in [&clock, &other] {
            clock.advance(Duration::from_secs(seconds));
        }
    };
    pass(1_900);
    spend(&one, 7).await;
    pass((100 + after) as u64);
    server.fail_over();
    // It is refused, or the whole maximum of another window is spent.
    let is_spent = one.check_cost("a", TEN).await.unwrap().is_allowed();
    let left = if is_spent { 10 } else { left(&one).await };
    (left, other, one)
}

// Seen red: with the end rounded up, with it rounded down, and without the slack.
#[tokio::test]
async fn debt_of_a_fixed_window_is_that_of_the_same_window_by_another_clock() {
    for (off, after, expected, why) in [
        (0, -1, 3, "the same clock"),
        (0, 1, 10, "over"),
        (30, -40, 3, "ahead, and not over"),
        (30, -20, 10, "ahead, and over: nothing is charged to the next window"),
        (-30, -20, 3, "behind"),
        (-30, 20, 3, "behind: the window goes on that is over by the survivor's"),
        (-30, 31, 10, "behind, and over"),
    ] {
        let (left, other, one) = left_of_fixed_window(off, after).await;
        assert_eq!(left, expected, "{why}");
        if left == 3 {
            let rest = Duration::from_secs((-after - off) as u64);
            other.advance(rest.saturating_sub(MICRO));
            assert!(
                !one.check_cost("a", 4).await.unwrap().is_allowed(),
                "{why}: it ended too soon"
            );
            other.advance(MICRO);
            spend(&one, TEN).await;
        }
    }
}

#[tokio::test]
async fn call_within_one_history_is_the_plain_script_and_one_trip() {
    let scripts = ["gcra", "window", "bucket", "fixed", "log"];
    for (quota, script) in quotas().into_iter().zip(scripts) {
        let script = format!("limiter.{script}_check");
        let clock = SimClock::new();
        let server = Server::new(&clock, true);
        let one = limiter(&server, &clock, quota);
        for _ in 0..12 {
            let _ = one.check("a").await.unwrap();
            assert_eq!(server.scripts(), [&*script]);
        }
    }
}
