//! The server dies, freezes, or was never there: calls answer in time, and everything comes back.

mod common;

use std::time::Duration;

use common::{
    HASTY, SOON, builder, channel, count, hasty, hear, key, message, ready, timed, trouble, up,
};
use fleetwide_core_traits::{BackendError, Bus, Health, Outage, Signal, Store};
use fleetwide_redis_backend::{Command, Redis, RedisUrl, Subscription};
use fleetwide_testkit::{Direction, Fault, Proxy, RedisServer, eventually};
use futures_util::future::join_all;
use tokio::time::sleep;

/// What a busy test machine may add to any wait.
const SCHEDULING: Duration = Duration::from_millis(800);

async fn killed_for(outage: Duration) {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(hasty(&server.url())).await;
    let mut heard = redis.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    assert_eq!(count(&redis, "a").await, Ok(1));

    server.kill();
    assert_eq!(hear(&mut heard).await, Signal::Lost);
    let reason = trouble(&redis, "down").await;
    assert!(reason.starts_with("the connection was closed") || reason.contains("refused"));
    fails_fast(&redis).await;
    // This is the outage itself, and not a wait for something to become right.
    sleep(outage).await;
    fails_fast(&redis).await;
    let refused = format!("connection refused by {}", server.addr());
    assert_eq!(redis.health().reason(), Some(refused.as_str()));

    server.restart().await.unwrap();
    let ((), back) = timed(up(&redis)).await;
    // The longest pause between attempts is a second.
    assert!(back < Duration::from_secs(1) + HASTY * 2 + SCHEDULING, "{back:?}");
    assert_eq!(count(&redis, "a").await, Ok(1), "the server lost its data, and its scripts");
    comes_back(&redis, &mut heard).await;
}

async fn fails_fast(redis: &Redis) {
    let (answer, took) = timed(redis.store().get(&key("a"))).await;
    assert!(matches!(answer, Err(BackendError::NotSent(Outage::Down(_)))), "{answer:?}");
    assert!(took < SCHEDULING, "{took:?}");
}

async fn comes_back(redis: &Redis, heard: &mut Subscription) {
    assert_eq!(hear(heard).await, Signal::Ready);
    redis.bus().publish(&channel("a"), "after".into()).await.unwrap();
    assert_eq!(hear(heard).await, message("after"));
}

#[tokio::test]
async fn everything_comes_back_after_a_kill_of_two_seconds() {
    killed_for(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn everything_comes_back_after_a_kill_of_25_seconds() {
    killed_for(Duration::from_secs(25)).await;
}

#[tokio::test]
async fn frozen_server_delays_no_call_beyond_its_deadline_and_mixes_no_replies() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(hasty(&server.url())).await;
    let mut heard = redis.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    server.stop();
    let frozen = (0..100).map(|number| {
        let redis = redis.clone();
        async move { timed(count(&redis, &number.to_string())).await }
    });
    for (answer, took) in join_all(frozen).await {
        assert!(matches!(answer, Err(BackendError::Unknown(Outage::Deadline(_)))), "{answer:?}");
        assert!(took < HASTY + SCHEDULING, "{took:?}");
    }
    let reason = trouble(&redis, "down").await;
    assert_eq!(reason, "timed out: no answer to PING within 1s");
    fails_fast(&redis).await;
    assert_eq!(hear(&mut heard).await, Signal::Lost);

    server.cont();
    up(&redis).await;
    // Late replies of the frozen server belong to nobody now; each name must see its own count.
    for number in 0..100 {
        let name = number.to_string();
        let now = count(&redis, &name).await.unwrap();
        assert!((1..=2).contains(&now), "{name} was counted {now} times");
        assert_eq!(count(&redis, &name).await, Ok(now + 1));
    }
    comes_back(&redis, &mut heard).await;
}

#[tokio::test]
async fn connection_to_a_frozen_server_is_given_up_in_time() {
    let server = RedisServer::start().await.unwrap();
    server.stop();
    // With the deadlines that users get.
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
    // The first attempt is under way, so calls wait for it, but no longer than they may.
    let (answer, took) = timed(redis.store().get(&key("a"))).await;
    assert!(matches!(answer, Err(BackendError::NotSent(_))), "{answer:?}");
    assert!(took < Duration::from_secs(1) + SCHEDULING, "{took:?}");
    let text = format!("timed out: no connection to {} within 1s", server.addr());
    eventually(SOON, "the reason", async || redis.health().reason() == Some(&text)).await;
    server.cont();
    redis.ready(SOON).await.unwrap();
}

#[tokio::test]
async fn server_that_was_not_there_at_the_start_is_joined_when_it_comes() {
    let server = RedisServer::start().await.unwrap();
    server.kill();
    let redis = builder(&server.url()).build().unwrap();
    let mut heard = redis.bus().subscribe(&channel("a"));
    let early = redis.ready(Duration::from_millis(200)).await.unwrap_err();
    let text = format!("not sent: no connection: connection refused by {}", server.addr());
    assert_eq!(early.to_string(), text);
    assert!(matches!(redis.health(), Health::Down { .. }));
    server.restart().await.unwrap();
    redis.ready(SOON).await.unwrap();
    assert_eq!(count(&redis, "a").await, Ok(1));
    comes_back(&redis, &mut heard).await;
}

#[tokio::test]
async fn name_without_an_address_is_said_to_be_one() {
    let redis = builder("redis://no-such-host.invalid").build().unwrap();
    let text = "no address is known for no-such-host.invalid";
    eventually(SOON, "the reason", async || redis.health().reason() == Some(text)).await;
}

#[tokio::test]
async fn half_open_connections_are_found_and_replaced() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let redis = ready(hasty(&proxy.url_like(&server.url()))).await;
    let mut heard = redis.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    proxy.hold();
    let (answer, took) = timed(count(&redis, "a")).await;
    assert!(matches!(answer, Err(BackendError::Unknown(_))), "{answer:?}");
    assert!(took < HASTY + SCHEDULING, "{took:?}");
    // Nobody publishes, so only the sign of life can find out about the subscriptions.
    assert_eq!(hear(&mut heard).await, Signal::Lost);
    trouble(&redis, "down").await;
    proxy.pass();
    up(&redis).await;
    comes_back(&redis, &mut heard).await;
}

#[tokio::test]
async fn one_slow_command_does_not_cost_the_others_their_connection() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let redis = ready(builder(&proxy.url_like(&server.url()))).await;
    let accepted = proxy.stats().accepted;
    // Slower than the limiter's deadline, faster than a PING may be.
    proxy.delay(Duration::from_millis(60));
    let hasty = redis.executor().with_deadline(Duration::from_millis(20));
    let one = fleetwide_testkit::suite::ops::Count::one(&key("a"));
    for _ in 0..5 {
        let missed = fleetwide_core_traits::ExecutorExt::run(&hasty, &one).await;
        assert!(matches!(missed, Err(BackendError::Unknown(Outage::Deadline(_)))), "{missed:?}");
    }
    assert!(count(&redis, "a").await.is_ok());
    assert_eq!(redis.health(), Health::Up);
    assert_eq!(proxy.stats().accepted, accepted, "the connection was replaced");
}

#[tokio::test]
async fn no_more_calls_wait_than_allowed() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(hasty(&server.url()).in_flight_max(8)).await;
    server.stop();
    let calls = (0..20).map(|_| {
        let redis = redis.clone();
        async move { count(&redis, "a").await }
    });
    let answers = join_all(calls).await;
    let saturated = BackendError::NotSent(Outage::Saturated(8));
    let refused = answers.iter().filter(|answer| **answer == Err(saturated.clone())).count();
    assert_eq!(refused, 12, "{answers:?}");
    assert_eq!(saturated.to_string(), "not sent: 8 requests wait already");
    server.cont();
    up(&redis).await;
    let calls = (0..8).map(|_| count(&redis, "a"));
    assert!(join_all(calls).await.iter().all(Result::is_ok), "places are given back");
}

#[tokio::test]
async fn exclusive_connections_answer_in_time_when_the_server_hangs() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(hasty(&server.url())).await;
    // As many idle connections as there can be: a pool tries each of them.
    let all = join_all((0..8).map(|_| redis.exclusive())).await;
    drop(all.into_iter().map(Result::unwrap).collect::<Vec<_>>());
    let mut held = redis.exclusive().await.unwrap();
    server.stop();
    let wait = Command::new("WAIT").int(0).int(1);
    let (answer, took) = timed(held.run(wait.clone(), HASTY)).await;
    assert_eq!(answer, Err(BackendError::Unknown(Outage::Deadline(HASTY))));
    assert!(took < HASTY + SCHEDULING, "{took:?}");
    let again = held.run(wait.clone(), HASTY).await;
    assert!(matches!(again, Err(BackendError::NotSent(_))), "a late reply would be taken for it");
    let (answer, took) = timed(redis.exclusive()).await;
    assert!(matches!(answer, Err(BackendError::NotSent(_))), "{answer:?}");
    assert!(took < Duration::from_secs(2) + SCHEDULING, "{took:?}");
    server.cont();
    drop(held);
    eventually(SOON, "an exclusive connection", async || redis.exclusive().await.is_ok()).await;
    let mut own = redis.exclusive().await.unwrap();
    assert!(own.run(wait, SOON).await.is_ok());
}

#[tokio::test]
async fn slow_network_is_no_outage() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    proxy.set(Direction::ToClient, Fault::Delay(Duration::from_millis(100)));
    let redis = ready(builder(&proxy.url_like(&server.url()))).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    assert_eq!(redis.health(), Health::Up);
}
