//! What survivors carry over a failover for limits of several levels, and for permits, step by step:
//! as `survivors.rs` for one limit.

#[path = "support/histories.rs"]
mod histories;
mod support;
#[path = "support/timed.rs"]
mod timed;

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Namespace};
use fleetwide_limiter::concurrency::{ConcurrencyLimiter, ConcurrencyQuota, Permit};
use fleetwide_limiter::multi::{Limits, LimitsBuilder, Ruling};
use fleetwide_limiter::{Quota, Source, Unavailable};
use fleetwide_testkit::{SimClock, eventually};
use histories::Server;
use timed::TimerClock;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// Twenty of a tenant and ten of a user; other algorithms have levels of their own.
fn options(server: &Server, clock: impl Clock) -> LimitsBuilder<Server> {
    let namespace = Namespace::new("fleet").unwrap();
    Limits::builder(server.clone(), &namespace, "api", &["tenant", "user"])
        .rate("tenant", &["tenant"], Quota::sliding_window(20, HOUR).unwrap())
        .rate("user", &["tenant", "user"], Quota::gcra(10, HOUR, 10).unwrap())
        .on_unavailable(Unavailable::Deny)
        .deadline(SOON)
        .clock(Arc::new(clock))
}

fn limits(server: &Server, clock: &SimClock) -> Limits<Server> {
    options(server, clock.clone()).build().unwrap()
}

async fn call(limits: &Limits<Server>, user: &str, cost: u64) -> Ruling {
    let ruling = limits.check(&["t", user], cost).await.unwrap();
    assert_eq!(ruling.decision.source(), Source::Shared);
    ruling
}

async fn spend(limits: &Limits<Server>, user: &str, cost: u64) {
    let ruling = call(limits, user, cost).await;
    assert!(ruling.is_allowed(), "{user} cannot have {cost}: {ruling:?}");
}

fn refused_by(ruling: &Ruling) -> &str {
    ruling.refused_by().expect("it is refused").as_str()
}

/// What the tenant and the user have left, to the eyes of who knows nothing.
async fn left(server: &Server, clock: &SimClock, user: &str) -> Vec<u32> {
    let stranger = limits(server, clock);
    let ruling = stranger.peek(&["t", user], 0).await.unwrap();
    ruling.levels.iter().map(|level| level.decision.remaining()).collect()
}

// Seen red: without the payment before a call, and when it is made for the first level alone.
#[tokio::test]
async fn first_call_after_a_failover_carries_what_its_instance_knows_of_each_level() {
    let clock = SimClock::new();
    let server = Server::new(&clock, false);
    let one = limits(&server, &clock);
    spend(&one, "ada", 7).await;
    spend(&one, "bob", 6).await;
    // The new primary has got little of it.
    let promoted = server.to_another();
    promoted.fail_over();
    spend(&limits(&promoted, &clock), "ada", 2).await;
    server.fail_over();
    let refused = call(&one, "ada", 4).await;
    assert_eq!(refused_by(&refused), "user", "7 and not 2 are spent");
    spend(&one, "ada", 3).await;
    assert_eq!(left(&server, &clock, "ada").await, [4, 0], "13 of the tenant, nor 15");
    let refused = call(&one, "cyd", 5).await;
    assert_eq!(refused_by(&refused), "tenant");
    spend(&one, "cyd", 4).await;
}

// Seen red: without the task that pays, and when its steps are made on states that are no level's.
#[tokio::test]
async fn levels_that_are_not_called_again_are_made_good_too() {
    let clock = SimClock::new();
    let server = Server::new(&clock, true);
    let one = limits(&server, &clock);
    spend(&one, "ada", 7).await;
    server.fail_over();
    let is_paid = async || left(&server, &clock, "ada").await == [13, 3];
    eventually(SOON, "the survivor's debts", is_paid).await;
    drop(one);
}

// Seen red: with debts that are learned from grants alone, and from the levels that refuse alone.
#[tokio::test]
async fn refusal_of_one_level_tells_of_all_others_as_well() {
    let clock = SimClock::new();
    let server = Server::new(&clock, false);
    let dying = server.to_another();
    spend(&limits(&dying, &clock), "ada", 8).await;
    let one = limits(&server, &clock);
    assert_eq!(refused_by(&call(&one, "ada", 5).await), "user");
    server.fail_over();
    assert_eq!(refused_by(&call(&one, "ada", 3).await), "user");
    assert_eq!(left(&server, &clock, "ada").await, [12, 2]);
}

// Seen red: without the payment before a look.
#[tokio::test]
async fn look_tells_of_all_levels_and_makes_them_good() {
    let clock = SimClock::new();
    let server = Server::new(&clock, false);
    let dying = server.to_another();
    spend(&limits(&dying, &clock), "ada", 8).await;
    let one = limits(&server, &clock);
    let _ = one.peek(&["t", "ada"], 1).await.unwrap();
    server.fail_over();
    let _ = one.peek(&["t", "ada"], 1).await.unwrap();
    assert_eq!(left(&server, &clock, "ada").await, [12, 2]);
}

// Seen red: when what is owed of the first level alone is made good.
#[tokio::test]
async fn survivors_who_know_more_and_less_leave_what_the_best_of_them_knows_of_each_level() {
    for order in [[0, 1], [1, 0]] {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let others = [server.to_another(), server.to_another()];
        let both = [0, 1].map(|who| limits(&others[who], &clock));
        spend(&both[0], "ada", 3).await;
        spend(&both[1], "ada", 4).await;
        // Of the tenant the first one knows more, of this user the second one.
        spend(&both[0], "bob", 5).await;
        others.iter().for_each(Server::fail_over);
        for who in order {
            assert!(!call(&both[who], "ada", 10).await.is_allowed());
        }
        assert_eq!(left(&others[0], &clock, "ada").await, [8, 3]);
    }
}

// Seen red: without the payment before a call, and with steps on states that are no level's.
#[tokio::test]
async fn calls_that_hold_permits_carry_their_rates() {
    let clock = SimClock::new();
    let server = Server::new(&clock, false);
    let five = ConcurrencyQuota::new(5, HOUR).unwrap();
    let one = options(&server, clock.clone()).at_once("running", &["tenant"], five);
    let one = one.build().unwrap();
    let admission = one.try_acquire(&["t", "ada"], 3).await.unwrap();
    assert!(admission.ruling.is_allowed());
    server.fail_over();
    server.scripts();
    let refused = one.try_acquire(&["t", "ada"], 8).await.unwrap();
    assert_eq!(refused_by(&refused.ruling), "user");
    let merges = ["limiter.gcra_merge", "limiter.window_merge"];
    assert_eq!(server.scripts(), [merges[0], merges[1], "limiter.multi_check"], "none of permits");
    assert!(one.try_acquire(&["t", "ada"], 7).await.unwrap().permit.is_some());
    assert_eq!(server.scripts(), ["limiter.multi_check"], "what is made good is not owed any more");
}

#[tokio::test]
async fn call_within_one_history_is_one_trip() {
    let clock = SimClock::new();
    let server = Server::new(&clock, true);
    let one = limits(&server, &clock);
    for _ in 0..12 {
        let _ = call(&one, "ada", 1).await;
        assert_eq!(server.scripts(), ["limiter.multi_check"]);
        let _ = one.peek(&["t", "ada"], 1).await.unwrap();
        assert_eq!(server.scripts(), ["limiter.multi_peek"]);
    }
}

// Seen red: without the option.
#[tokio::test]
async fn debts_of_all_levels_together_are_bounded() {
    // Of ten tenants with five users each; sixteen is one in each part of the table.
    for (keys_max, merges) in [(None, 60..=60), (Some(16), 1..=16), (Some(0), 0..=0)] {
        let clock = SimClock::new();
        let server = Server::new(&clock, false);
        let mut one = options(&server, clock.clone());
        if let Some(keys_max) = keys_max {
            one = one.debt_keys_max(keys_max);
        }
        let one = one.build().unwrap();
        let call_all = async || {
            for number in 0..50 {
                let [tenant, user] = [number / 5, number % 5].map(|number| number.to_string());
                assert!(one.check(&[tenant, user], 1).await.unwrap().is_allowed());
            }
        };
        call_all().await;
        server.fail_over();
        server.scripts();
        call_all().await;
        let scripts = server.scripts();
        let made = scripts.iter().filter(|name| name.ends_with("_merge")).count();
        assert!(merges.contains(&made), "{made} with {keys_max:?}");
    }
}

// Seen red: with a time of its own for the step.
#[tokio::test(start_paused = true)]
async fn what_is_made_good_before_a_call_takes_of_its_time() {
    let namespace = Namespace::new("fleet").unwrap();
    for (deadline, waits, source) in [(20, 20, Source::Closed), (40, 30, Source::Shared)] {
        let clock = TimerClock::new();
        let server = Server::new(&clock, false).slow(Duration::from_millis(15));
        let one = Limits::builder(server.clone(), &namespace, "api", &["tenant"])
            .rate("tenant", &["tenant"], Quota::sliding_window(20, HOUR).unwrap())
            .on_unavailable(Unavailable::Deny)
            .deadline(Duration::from_millis(deadline))
            .clock(Arc::new(clock))
            .build()
            .unwrap();
        assert!(one.check(&["t"], 1).await.unwrap().is_allowed());
        server.fail_over();
        let begun = Instant::now();
        let ruling = one.check(&["t"], 1).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_millis(waits));
        assert_eq!(ruling.decision.source(), source);
    }
}

/// What a new primary without any leases does: its places are taken, until those who hold the old ones
/// renew them.
async fn play_permits(server: &Server, take: impl AsyncFn(usize) -> Option<Permit<Server>>) {
    let mut permits = Vec::new();
    for who in [0, 0, 0, 1, 1] {
        permits.push(take(who).await.unwrap());
    }
    assert!(take(1).await.is_none(), "there are five");
    server.fail_over();
    for _ in 0..2 {
        permits.push(take(2).await.unwrap());
    }
    let held = || permits.iter().filter(|permit| !permit.is_lost()).count();
    assert_eq!(held(), 7, "two of those that the new primary has missed are held twice");
    // Renewals come three times in a lease.
    sleep(MINUTE / 3 + Duration::from_secs(1)).await;
    assert_eq!(held(), 5, "those who found no room have lost theirs");
    assert!(take(2).await.is_none(), "and those who found some are counted");
    sleep(10 * MINUTE).await;
    assert_eq!(held(), 5);
}

// Seen red: with renewals that look for no room, and with those that take nothing anew.
#[tokio::test(start_paused = true)]
async fn permits_that_a_new_primary_has_missed_are_taken_anew_by_the_next_renewal_or_lost() {
    let five = ConcurrencyQuota::new(5, MINUTE).unwrap();
    let clock = TimerClock::new();
    let server = Server::new(&clock, false);
    let namespace = Namespace::new("fleet").unwrap();
    let each = [0, 1, 2].map(|_| {
        ConcurrencyLimiter::builder(server.clone(), &namespace, "exports", five)
            .on_unavailable(Unavailable::Deny)
            .deadline(SOON)
            .clock(Arc::new(clock))
            .build()
            .unwrap()
    });
    play_permits(&server, async |who| each[who].try_acquire("t").await.unwrap().permit()).await;
    let server = Server::new(&clock, false);
    let each = [0, 1, 2]
        .map(|_| options(&server, clock).at_once("running", &["tenant"], five).build().unwrap());
    let take = async |who: usize| each[who].try_acquire(&["t", "ada"], 0).await.unwrap().permit;
    play_permits(&server, take).await;
}
