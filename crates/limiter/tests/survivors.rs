//! What survivors carry over a failover, step by step: two histories in memory, the second of which
//! begins with what the test says that the new primary has, and no clock that runs by itself.

#[path = "support/histories.rs"]
mod histories;
mod support;

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{ExecutorExt, Key, Namespace};
use fleetwide_limiter::op::{Check, cell};
use fleetwide_limiter::{
    GcraQuota, Limiter, PolicyName, Quota, Refunded, Unavailable, WindowQuota,
};
use fleetwide_testkit::{SimClock, eventually};
use histories::Server;

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(20);
const TEN: u64 = 10;

fn quotas() -> [Quota; 2] {
    [Quota::gcra(TEN, HOUR, TEN).unwrap(), Quota::sliding_window(TEN, HOUR).unwrap()]
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
async fn replicate(server: &Server, quota: Quota, name: &str, cost: u32) {
    let policy = PolicyName::new("api").unwrap();
    let at = |key: Result<Key, _>| key.unwrap();
    let name = name.as_bytes();
    match quota {
        Quota::Gcra(quota) => {
            let key = at(cell::<GcraQuota>(&namespace(), &policy, name));
            server.histories[1].run(&Check::new(quota, key, cost)).await.map(drop)
        }
        Quota::SlidingWindow(quota) => {
            let key = at(cell::<WindowQuota>(&namespace(), &policy, name));
            server.histories[1].run(&Check::new(quota, key, cost)).await.map(drop)
        }
        _ => unreachable!("no other has merges"),
    }
    .unwrap();
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
        replicate(&server, quota, "a", 2).await;
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
    let [gcra, window] = quotas();
    for (quota, after, most) in [(gcra, HOUR / 2, 8), (window, HOUR / 2, 3), (window, 2 * HOUR, 10)]
    {
        let server = Server::new(&clock, false);
        let one = limiter(&server, &clock, quota);
        spend(&one, 7).await;
        clock.advance(after);
        server.fail_over();
        assert!(!one.check_cost("a", most + 1).await.is_ok_and(|decision| decision.is_allowed()));
        spend(&one, most).await;
    }
}

#[tokio::test]
async fn call_within_one_history_is_the_plain_script_and_one_trip() {
    for (quota, script) in quotas().into_iter().zip(["limiter.gcra_check", "limiter.window_check"])
    {
        let clock = SimClock::new();
        let server = Server::new(&clock, true);
        let one = limiter(&server, &clock, quota);
        for _ in 0..12 {
            let _ = one.check("a").await.unwrap();
            assert_eq!(server.scripts(), [script]);
        }
    }
}
