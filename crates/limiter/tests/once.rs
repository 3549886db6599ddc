//! Requests that are made again after an answer was lost: what they spend, and what they are told.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::time::Duration;

use clocked::{Backend, HOUR, backends};
use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{CheckError, Limiter, Quota, Source, Unavailable};
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::{Direction, Proxy, eventually};

/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn all_algorithms() -> [Quota; 5] {
    [
        Quota::gcra(10, HOUR, 10).unwrap(),
        Quota::sliding_window(10, HOUR).unwrap(),
        Quota::token_bucket(10, HOUR, 10).unwrap(),
        support::fixed_window_just_begun(10),
        Quota::sliding_log(10, HOUR).unwrap(),
    ]
}

async fn left(backend: &Backend, quota: Quota, name: &str) -> u32 {
    let limiter = backend.options(name, quota).build().unwrap();
    limiter.peek("a").await.unwrap().remaining()
}

// Red when the script does not remember.
#[tokio::test]
async fn request_spends_once_within_the_horizon_and_again_after_it() {
    for backend in backends().await {
        for (number, quota) in all_algorithms().into_iter().enumerate() {
            let name = format!("policy-{number}");
            let limiter = backend.options(&name, quota).build().unwrap();
            let first = limiter.check_idempotent("a", 3, "order-1").await.unwrap();
            assert_eq!((first.is_allowed(), first.remaining()), (true, 7), "{quota:?}");
            // Others spend meanwhile, and the limiter may be another instance's.
            assert!(limiter.check_cost("a", 2).await.unwrap().is_allowed());
            let other = backend.options(&name, quota).build().unwrap();
            assert_eq!(other.check_idempotent("a", 3, "order-1").await.unwrap(), first);
            assert_eq!(left(&backend, quota, &name).await, 5);
            // Another request, and another key with an id of the same name.
            assert!(limiter.check_idempotent("a", 3, "order-2").await.unwrap().is_allowed());
            assert!(limiter.check_idempotent("b", 3, "order-1").await.unwrap().is_allowed());
            assert_eq!(left(&backend, quota, &name).await, 2);
        }
        backend.clock.advance(Duration::from_secs(59));
        let quota = all_algorithms()[1];
        let limiter = backend.options("policy-1", quota).build().unwrap();
        assert!(limiter.check_idempotent("a", 3, "order-1").await.unwrap().is_allowed());
        backend.clock.advance(Duration::from_secs(1));
        assert!(!limiter.check_idempotent("a", 3, "order-1").await.unwrap().is_allowed());
    }
}

#[tokio::test]
async fn refused_request_is_asked_anew_and_an_allowed_one_is_never_refused_later() {
    for backend in backends().await {
        let limiter = backend.limiter(Quota::gcra(10, HOUR, 10).unwrap());
        assert!(limiter.check_idempotent("a", 9, "first").await.unwrap().is_allowed());
        let refused = limiter.check_idempotent("a", 2, "second").await.unwrap();
        let retry_after = refused.retry_after().unwrap();
        // The refusal of 2 cells is fresh in this process; yet the first request was allowed.
        assert!(limiter.check_idempotent("a", 9, "first").await.unwrap().is_allowed());
        backend.clock.advance(retry_after);
        assert!(limiter.check_idempotent("a", 2, "second").await.unwrap().is_allowed());
    }
}

#[tokio::test]
async fn request_without_an_id_or_too_dear_is_an_error_and_one_of_nothing_is_allowed() {
    let backend = Backend::memory();
    let limiter = backend.limiter(Quota::gcra(10, HOUR, 10).unwrap());
    assert!(matches!(limiter.check_idempotent("a", 1, "").await, Err(CheckError::Key(_))));
    assert!(matches!(limiter.check_idempotent("", 1, "i").await, Err(CheckError::Key(_))));
    let oversize = limiter.check_idempotent("a", 11, "i").await;
    assert!(matches!(oversize, Err(CheckError::Oversize { .. })));
    assert!(limiter.check_idempotent("a", 0, "i").await.unwrap().is_allowed());
    assert_eq!(limiter.peek("a").await.unwrap().remaining(), 10);
}

// Red without the record: each answer that is lost costs the cells once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_after_lost_answers_spend_once() {
    let server = support::server().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let url = RedisUrl::parse(&proxy.url_like(&server.url())).unwrap();
    let redis = Redis::builder(url).build().unwrap();
    redis.ready(SOON).await.unwrap();
    let namespace = Namespace::new("shop").unwrap();
    for (number, quota) in all_algorithms().into_iter().enumerate() {
        let name = format!("policy-{number}");
        let limiter = Limiter::builder(redis.executor(), &namespace, &name, quota)
            .on_unavailable(Unavailable::Deny)
            .deadline(Duration::from_millis(200))
            .probe_every(Duration::from_millis(10))
            .build()
            .unwrap();
        let is_shared = async || limiter.peek("a").await.unwrap().source() == Source::Shared;
        eventually(SOON, "the fleet's count", is_shared).await;
        proxy.drop_bytes(Direction::ToClient);
        for _ in 0..2 {
            let lost = limiter.check_idempotent("a", 3, "order-1").await.unwrap();
            assert_eq!(lost.source(), Source::Closed);
        }
        proxy.pass_anew().await;
        let is_answered = async || {
            let decision = limiter.check_idempotent("a", 3, "order-1").await.unwrap();
            decision.source() == Source::Shared && decision.remaining() == 7
        };
        eventually(SOON, "the first answer", is_answered).await;
        assert_eq!(limiter.peek("a").await.unwrap().remaining(), 7, "{quota:?}");
    }
}

#[tokio::test]
async fn what_a_request_leaves_behind_is_small_and_expires() {
    let server = support::server().await;
    let executor = support::redis(&server, |builder| builder).await.executor();
    let namespace = Namespace::new("shop").unwrap();
    let limiter = Limiter::builder(executor, &namespace, "api", all_algorithms()[0])
        .on_unavailable(Unavailable::Deny)
        .deadline(SOON)
        .build()
        .unwrap();
    assert!(limiter.check_idempotent("tenant-7", 1, [b'i'; 36]).await.unwrap().is_allowed());
    let ask = async |script: &str| {
        let reply = server.admin(&["EVAL", script, "0"]).await.unwrap();
        reply.as_integer().unwrap()
    };
    let of_request =
        |what: &str| format!("return redis.call({what}, redis.call('KEYS', '*:id:*')[1])");
    let bytes = ask(&of_request("'MEMORY', 'USAGE'")).await;
    assert!(bytes <= 208, "{bytes} bytes for a request with an id of 36");
    // A refusal leaves nothing behind: red when the script remembers it.
    let refused = limiter.check_idempotent("tenant-7", 10, "refused").await.unwrap();
    assert!(!refused.is_allowed());
    assert_eq!(ask("return #redis.call('KEYS', '*:id:*')").await, 1);
    let ttl = ask(&of_request("'PTTL'")).await;
    assert!((50_000..=60_000).contains(&ttl), "{ttl} ms");
}
