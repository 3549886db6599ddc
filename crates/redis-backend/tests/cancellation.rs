//! Callers leave: by a timeout of their own, a closed request, a lost race.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{SOON, builder, channel, connected, count, hear, key, message, ready};
use fleetwide_core_traits::{Bus, ExecutorExt, Signal, Store, Ttl};
use fleetwide_redis_backend::Command;
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{Drops, RedisServer};
use futures_util::future::join_all;
use rand::Rng;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn call_dropped_anywhere_leaves_no_place_taken_and_no_reply_behind() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(builder(&server.url()).in_flight_max(1)).await;
    let one = Count::one(&key("dropped"));
    let executor = redis.executor();
    Drops::new()
        .run(
            || executor.run(&one),
            async |_| {
                // The only place is free again, and the reply belongs to this call.
                let before = count(&redis, "other").await.unwrap();
                assert_eq!(count(&redis, "other").await, Ok(before + 1));
            },
        )
        .await;
    let steps = [one.clone(), one.clone()];
    Drops::new()
        .run(
            || executor.run_many(&steps),
            async |_| {
                let before = count(&redis, "other").await.unwrap();
                assert_eq!(count(&redis, "other").await, Ok(before + 1));
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_never_mixed_while_others_leave() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let store = redis.store();
    let minute = Ttl::clamped(Duration::from_secs(60));
    for number in 0..64_u32 {
        let value = Bytes::from(number.to_string());
        store.set(&key(&number.to_string()), value, minute).await.unwrap();
    }
    let workers = (0..64_u32).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let (key, mine) = (key(&number.to_string()), Bytes::from(number.to_string()));
            let mut answered = 0;
            for _ in 0..200 {
                let patience = Duration::from_micros(rand::rng().random_range(0..400));
                if let Ok(answer) = timeout(patience, store.get(&key)).await {
                    assert_eq!(answer, Ok(Some(mine.clone())));
                    answered += 1;
                }
            }
            assert_eq!(store.get(&key).await, Ok(Some(mine)));
            answered
        })
    });
    let answered: u32 = join_all(workers).await.into_iter().map(Result::unwrap).sum();
    assert!(answered < 64 * 200, "somebody left");
}

#[tokio::test]
async fn exclusive_call_that_was_dropped_costs_its_connection() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(builder(&server.url()).exclusive_connections(1, SOON)).await;
    let mut own = redis.exclusive().await.unwrap();
    // It blocks in the server for longer than this test may take.
    let wait = Command::new("WAIT").int(1).int(60_000);
    let left = timeout(Duration::from_millis(20), own.run(wait, SOON * 10)).await;
    assert!(left.is_err());
    drop(own);
    let mut next = redis.exclusive().await.unwrap();
    let reply = next.run(Command::new("PING").arg("mine"), SOON).await.unwrap();
    assert_eq!(reply.into_bytes().unwrap(), "mine");
}

#[tokio::test]
async fn waiting_for_a_first_connection_can_be_given_up() {
    let server = RedisServer::start().await.unwrap();
    server.stop();
    let redis = builder(&server.url()).build().unwrap();
    assert!(timeout(Duration::from_millis(20), count(&redis, "a")).await.is_err());
    assert!(timeout(Duration::from_millis(20), redis.ready(SOON)).await.is_err());
    server.cont();
    redis.ready(SOON).await.unwrap();
    assert_eq!(count(&redis, "a").await, Ok(1), "what was given up was never sent");
}

#[tokio::test]
async fn subscriptions_that_come_and_go_do_not_disturb_one_that_stays() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let bus = redis.bus();
    let mut stays = bus.subscribe(&channel("a"));
    assert_eq!(hear(&mut stays).await, Signal::Ready);
    for number in 0..200 {
        let mut goes = bus.subscribe(&channel(if number % 2 == 0 { "a" } else { "b" }));
        if number % 3 == 0 {
            assert_eq!(hear(&mut goes).await, Signal::Ready);
        }
        bus.publish(&channel("a"), number.to_string().into()).await.unwrap();
        drop(goes);
    }
    for number in 0..200 {
        assert_eq!(hear(&mut stays).await, message(&number.to_string()));
    }
}

#[tokio::test]
async fn channel_that_is_left_and_joined_at_once_misses_nothing_after_ready() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let bus = redis.bus();
    for number in 0..300 {
        let mut heard = bus.subscribe(&channel("a"));
        assert_eq!(hear(&mut heard).await, Signal::Ready);
        bus.publish(&channel("a"), number.to_string().into()).await.unwrap();
        assert_eq!(hear(&mut heard).await, message(&number.to_string()));
        drop(heard);
        if number % 7 == 0 {
            // Another moment for the next one to come in.
            sleep(Duration::from_micros(rand::rng().random_range(0..500))).await;
        }
    }
}
