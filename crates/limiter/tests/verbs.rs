//! What a caller of a limiter may rely on, over both backends.

mod support;

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Executor, KeyError, Namespace};
use fleetwide_limiter::{
    CheckError, ConfigError, Decision, Limiter, LimiterBuilder, PolicyNameError, Quota,
    RefundError, Refunded, ResetError, Source, Unavailable,
};
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::{SimClock, unique_namespace};

/// So long that nothing comes back while a test runs, on whatever clock.
const HOUR: Duration = Duration::from_secs(3600);

fn options<E: Executor>(executor: E, quota: Quota) -> LimiterBuilder<E> {
    let namespace = Namespace::new(&unique_namespace()).unwrap();
    Limiter::builder(executor, &namespace, "test", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(30))
}

fn limiter<E: Executor>(executor: E, quota: Quota) -> Limiter<E> {
    options(executor, quota).build().unwrap()
}

fn quotas() -> [Quota; 5] {
    [
        Quota::gcra(10, HOUR, 10).unwrap(),
        Quota::sliding_window(10, HOUR).unwrap(),
        Quota::token_bucket(10, HOUR, 10).unwrap(),
        support::fixed_window_just_begun(10),
        Quota::sliding_log(10, HOUR).unwrap(),
    ]
}

async fn on_both<F>(check: impl Fn(Limiter<support::AnyExecutor>) -> F)
where
    F: Future<Output = ()>,
{
    let server = support::server().await;
    let redis = support::redis(&server, |builder| builder).await;
    for quota in quotas() {
        check(limiter(support::AnyExecutor::Left(Memory::new().executor().clone()), quota)).await;
        check(limiter(support::AnyExecutor::Right(redis.executor()), quota)).await;
    }
}

#[tokio::test]
async fn ten_cells_are_ten_calls_and_then_a_refusal_says_when() {
    on_both(|limiter| async move {
        for left in (0..10).rev() {
            let decision = limiter.check("a").await.unwrap();
            assert!(decision.is_allowed() && decision.retry_after().is_none());
            assert_eq!((decision.remaining(), decision.source()), (left, Source::Shared));
        }
        let Decision::Deny { retry_after, remaining, reset_after, .. } =
            limiter.check("a").await.unwrap()
        else {
            panic!("an eleventh call is allowed");
        };
        assert_eq!(remaining, 0);
        assert!(retry_after > HOUR / 11 && retry_after <= reset_after, "{retry_after:?}");
        assert!(reset_after <= HOUR + HOUR / 60, "{reset_after:?}");
    })
    .await;
}

#[tokio::test]
async fn keys_do_not_share_cells_whatever_they_are_made_of() {
    let long = "x".repeat(60_000);
    let keys = ["a", "b", "A", "a/b", "{a}", "\0", "%00", "ä", &long];
    on_both(async |limiter| {
        for key in keys {
            assert_eq!(limiter.check_cost(key, 7).await.unwrap().remaining(), 3, "{key:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn cost_is_spent_as_a_whole_or_not_at_all() {
    on_both(|limiter| async move {
        assert!(limiter.check_cost("a", 8).await.unwrap().is_allowed());
        assert!(!limiter.check_cost("a", 3).await.unwrap().is_allowed());
        let rest = limiter.check_cost("a", 2).await.unwrap();
        assert!(rest.is_allowed() && rest.remaining() == 0);
    })
    .await;
}

#[tokio::test]
async fn cost_above_the_quota_is_an_error_and_no_invitation_to_wait() {
    on_both(|limiter| async move {
        for cost in [11, u64::from(u32::MAX) + 2, u64::MAX] {
            let error = limiter.check_cost("a", cost).await.unwrap_err();
            assert_eq!(error, CheckError::Oversize { cost, max: 10 });
        }
        assert_eq!(limiter.peek("a").await.unwrap().remaining(), 10);
    })
    .await;
}

#[tokio::test]
async fn cost_of_zero_is_free_also_when_all_is_spent() {
    on_both(|limiter| async move {
        assert_eq!(limiter.check_cost("a", 0).await.unwrap().remaining(), 10);
        assert!(limiter.check_cost("a", 10).await.unwrap().is_allowed());
        let free = limiter.check_cost("a", 0).await.unwrap();
        assert!(free.is_allowed() && free.remaining() == 0);
    })
    .await;
}

#[tokio::test]
async fn peek_says_what_a_check_would_and_spends_nothing() {
    on_both(|limiter| async move {
        for _ in 0..3 {
            let peek = limiter.peek("a").await.unwrap();
            assert!(peek.is_allowed() && peek.remaining() == 10 && peek.reset_after().is_zero());
        }
        assert!(limiter.check_cost("a", 10).await.unwrap().is_allowed());
        let peek = limiter.peek("a").await.unwrap();
        assert!(!peek.is_allowed() && peek.retry_after().is_some());
    })
    .await;
}

#[tokio::test]
async fn reset_gives_all_cells_back_at_once() {
    on_both(|limiter| async move {
        assert!(limiter.check_cost("a", 10).await.unwrap().is_allowed());
        limiter.reset("a").await.unwrap();
        limiter.reset("never used").await.unwrap();
        assert_eq!(limiter.check("a").await.unwrap().remaining(), 9);
    })
    .await;
}

#[tokio::test]
async fn key_that_is_none_is_an_error() {
    on_both(|limiter| async move {
        assert_eq!(limiter.check("").await, Err(CheckError::Key(KeyError::Empty)));
        assert_eq!(limiter.peek("").await, Err(CheckError::Key(KeyError::Empty)));
        assert_eq!(limiter.reset("").await, Err(ResetError::Key(KeyError::Empty)));
        let huge = vec![b'x'; 70_000];
        let error = limiter.check(&huge).await.unwrap_err();
        assert!(matches!(error, CheckError::Key(KeyError::TooLong(_))), "{error}");
    })
    .await;
}

#[tokio::test]
async fn limiters_of_one_name_share_what_was_spent_and_others_do_not() {
    let memory = Memory::new();
    let namespace = Namespace::new("shop").unwrap();
    let named = |name: &str, quota| {
        Limiter::builder(memory.executor().clone(), &namespace, name, quota)
            .on_unavailable(Unavailable::Deny)
            .build()
            .unwrap()
    };
    let [_, ten, ..] = quotas();
    let twenty = Quota::sliding_window(20, HOUR).unwrap();
    assert_eq!(named("a", ten).check_cost("k", 10).await.unwrap().remaining(), 0);
    assert_eq!(named("b", ten).check("k").await.unwrap().remaining(), 9);
    // A larger quota is being rolled out: what was spent stays spent.
    assert_eq!(named("a", twenty).check("k").await.unwrap().remaining(), 9);
    assert_eq!(named("a", ten).peek("k").await.unwrap().remaining(), 0);
}

#[tokio::test]
async fn cells_come_back_on_the_microsecond_and_not_before() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    for quota in quotas() {
        let options = options(memory.executor().clone(), quota);
        let limiter = options.clock(Arc::new(clock.clone())).build().unwrap();
        assert!(limiter.check_cost("a", 10).await.unwrap().is_allowed());
        let retry_after = limiter.check("a").await.unwrap().retry_after().unwrap();
        clock.advance(retry_after.checked_sub(Duration::from_micros(1)).unwrap());
        let early = limiter.check("a").await.unwrap();
        assert_eq!(early.retry_after(), Some(Duration::from_micros(1)));
        clock.advance(Duration::from_micros(1));
        assert!(limiter.check("a").await.unwrap().is_allowed());
    }
}

#[tokio::test]
async fn full_memory_is_answered_by_the_rung_and_does_not_end_sharing() {
    let memory = Memory::builder().cells_max(1).build();
    let limiter = limiter(memory.executor().clone(), quotas()[1]);
    assert_eq!(limiter.check("a").await.unwrap().source(), Source::Shared);
    for _ in 0..10 {
        let decision = limiter.check("b").await.unwrap();
        assert!(!decision.is_allowed());
        assert_eq!(decision.source(), Source::Closed);
    }
    assert_eq!(limiter.check("a").await.unwrap().source(), Source::Shared);
}

#[tokio::test]
async fn what_failed_is_given_back_once_and_what_was_refused_has_no_receipt() {
    on_both(|limiter| async move {
        let grant = limiter.check_with_receipt("a", 7).await.unwrap();
        assert_eq!((grant.granted, grant.decision.remaining()), (7, 3));
        let other = limiter.check_with_receipt("a", 2).await.unwrap();
        let refused = limiter.check_with_receipt("a", 2).await.unwrap();
        assert!(
            !refused.decision.is_allowed() && refused.granted == 0 && refused.receipt.is_none()
        );
        let free = limiter.check_with_receipt("a", 0).await.unwrap();
        assert!(free.decision.is_allowed() && free.receipt.is_none());
        let given = limiter.refund(grant.receipt.unwrap()).await.unwrap();
        assert_ne!(given, Refunded::Nothing);
        // GCRA may have earned a part of one cell by time; a cell of an hour is not back in a test.
        assert_eq!(limiter.peek("a").await.unwrap().remaining(), 8);
        assert_ne!(limiter.refund(other.receipt.unwrap()).await.unwrap(), Refunded::Nothing);
        assert_eq!(limiter.peek("a").await.unwrap().remaining(), 10);
    })
    .await;
}

#[tokio::test]
async fn receipt_from_before_a_reset_gives_nothing_back() {
    on_both(|limiter| async move {
        let grant = limiter.check_with_receipt("a", 5).await.unwrap();
        limiter.reset("a").await.unwrap();
        assert!(limiter.check_cost("a", 6).await.unwrap().is_allowed());
        assert_eq!(limiter.refund(grant.receipt.unwrap()).await.unwrap(), Refunded::Nothing);
        assert_eq!(limiter.peek("a").await.unwrap().remaining(), 4);
    })
    .await;
}

#[tokio::test]
async fn receipt_of_another_algorithm_is_an_error() {
    let [one, other, ..] = quotas().map(|quota| limiter(Memory::new().executor().clone(), quota));
    let grant = one.check_with_receipt("a", 5).await.unwrap();
    assert_eq!(other.refund(grant.receipt.unwrap()).await, Err(RefundError::Foreign));
}

// Red without the receipt's own lapse: the refund would be sent, and the executor is asked.
#[tokio::test]
async fn receipt_that_time_has_made_worthless_costs_no_trip() {
    let clock = SimClock::new();
    let server = support::server().await;
    let redis = support::redis(&server, |builder| builder).await;
    let options = options(redis.executor(), quotas()[0]).clock(Arc::new(clock.clone()));
    let limiter = options.build().unwrap();
    let grant = limiter.check_with_receipt("a", 5).await.unwrap();
    server.kill();
    clock.advance(HOUR);
    assert_eq!(limiter.refund(grant.receipt.unwrap()).await, Ok(Refunded::Nothing));
}

#[tokio::test]
async fn partial_grant_takes_what_is_left_and_then_refuses_one_cell() {
    on_both(|limiter| async move {
        let grant = limiter.check_at_most("a", 4).await.unwrap();
        assert_eq!((grant.granted, grant.decision.remaining()), (4, 6));
        assert_eq!(limiter.check_at_most("a", 0).await.unwrap().granted, 0);
        let rest = limiter.check_at_most("a", u32::MAX).await.unwrap();
        assert_eq!((rest.granted, rest.decision.remaining()), (6, 0));
        let none = limiter.check_at_most("a", 8).await.unwrap();
        let one = limiter.check("a").await.unwrap().retry_after().unwrap();
        let retry_after = none.decision.retry_after().unwrap();
        assert!(none.granted == 0 && none.receipt.is_none() && retry_after >= one);
        assert!(retry_after <= one + Duration::from_secs(60), "{retry_after:?} for one cell");
        assert_ne!(limiter.refund(rest.receipt.unwrap()).await.unwrap(), Refunded::Nothing);
        assert_eq!(limiter.check_at_most("a", 8).await.unwrap().granted, 6);
    })
    .await;
}

#[tokio::test]
async fn blocked_key_is_refused_until_the_block_ends_or_is_reset() {
    on_both(|limiter| async move {
        assert!(limiter.check("a").await.unwrap().is_allowed());
        assert_eq!(limiter.block("a", HOUR).await.unwrap(), HOUR);
        // The longer one stays, and calls do not make it longer.
        let left = limiter.block("a", HOUR / 2).await.unwrap();
        assert!(left > HOUR / 2 && left <= HOUR, "{left:?}");
        for refused in [
            limiter.check("a").await.unwrap(),
            limiter.peek("a").await.unwrap(),
            limiter.check_cost("a", 0).await.unwrap(),
            limiter.check_at_most("a", 3).await.unwrap().decision,
        ] {
            let retry_after = refused.retry_after().expect("it is refused");
            assert!(retry_after > HOUR / 10 * 9 && retry_after <= left, "{retry_after:?}");
            assert_eq!(refused.remaining(), 0);
        }
        assert!(limiter.check("b").await.unwrap().is_allowed());
        limiter.reset("a").await.unwrap();
        assert_eq!(limiter.check("a").await.unwrap().remaining(), 9);
        assert_eq!(limiter.block("new", HOUR).await.unwrap(), HOUR);
        assert!(!limiter.check("new").await.unwrap().is_allowed());
        let year = limiter.block("new", HOUR * 24 * 9_999).await.unwrap();
        assert_eq!(year, 365 * 24 * HOUR, "no block is longer than a year");
    })
    .await;
}

#[test]
fn options_that_do_not_fit_are_refused_with_the_reason() {
    let error = |change: fn(LimiterBuilder<_>) -> LimiterBuilder<_>| {
        change(options(Memory::new().executor().clone(), quotas()[0])).build().unwrap_err()
    };
    assert_eq!(
        error(|options| options.on_unavailable(Unavailable::LocalShare { instances: 0 })),
        ConfigError::NoInstances
    );
    assert_eq!(
        error(|options| options.deadline(Duration::ZERO)),
        ConfigError::Deadline(Duration::ZERO)
    );
    assert_eq!(error(|options| options.share_keys_max(0)), ConfigError::NoKeys);
    let namespace = Namespace::new("shop").unwrap();
    let memory = Memory::new();
    let build =
        |name| Limiter::builder(memory.executor().clone(), &namespace, name, quotas()[0]).build();
    assert_eq!(build("a").unwrap_err(), ConfigError::NoRung);
    assert_eq!(build("a b").unwrap_err(), ConfigError::Name(PolicyNameError::Character));
}
