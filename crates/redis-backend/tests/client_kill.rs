//! An operator, a proxy or a full server closes connections of one kind.

mod common;

use common::{SOON, channel, connected, count, hear, message, up};
use fleetwide_core_traits::{BackendError, Bus, Signal};
use fleetwide_redis_backend::Command;
use fleetwide_testkit::{ClientKind, RedisServer, eventually};

#[tokio::test]
async fn shared_connection_that_was_killed_is_replaced() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    for round in 1..=5 {
        assert_eq!(count(&redis, "a").await, Ok(round));
        assert_eq!(server.client_kill(ClientKind::Normal).await.unwrap(), 1);
        eventually(SOON, "the end of the connection", async || !redis.health().is_up()).await;
        up(&redis).await;
    }
}

#[tokio::test]
async fn call_under_way_when_its_connection_is_killed_is_unknown() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    server.stop();
    let mut call = std::pin::pin!(count(&redis, "a"));
    // A request is on its way from the first poll on.
    assert!(futures_util::poll!(&mut call).is_pending());
    server.kill();
    let answer = call.await;
    assert!(matches!(answer, Err(BackendError::Unknown(_))), "{answer:?}");
}

#[tokio::test]
async fn subscriptions_that_were_killed_come_back_and_say_so() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let mut heard = redis.bus().subscribe(&channel("a"));
    let mut other = redis.bus().subscribe(&channel("b"));
    for _ in 0..5 {
        assert_eq!(hear(&mut heard).await, Signal::Ready);
        assert_eq!(hear(&mut other).await, Signal::Ready);
        redis.bus().publish(&channel("a"), "x".into()).await.unwrap();
        assert_eq!(hear(&mut heard).await, message("x"));
        assert_eq!(server.client_kill(ClientKind::Pubsub).await.unwrap(), 1);
        assert_eq!(hear(&mut heard).await, Signal::Lost);
        assert_eq!(hear(&mut other).await, Signal::Lost);
    }
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    assert_eq!(count(&redis, "a").await, Ok(1), "commands go their own way");
}

#[tokio::test]
async fn exclusive_connection_that_was_killed_is_not_given_out_again() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let wait = || Command::new("WAIT").int(0).int(1);
    let mut own = redis.exclusive().await.unwrap();
    assert!(own.run(wait(), SOON).await.is_ok());
    assert_eq!(server.client_kill(ClientKind::Normal).await.unwrap(), 2, "shared and exclusive");
    let answer = own.run(wait(), SOON).await;
    assert!(matches!(answer, Err(BackendError::Unknown(_))), "{answer:?}");
    drop(own);
    // One that was killed while it lay in the pool is found out before it is given out.
    drop(redis.exclusive().await.unwrap());
    up(&redis).await;
    server.client_kill(ClientKind::Normal).await.unwrap();
    let mut own = redis.exclusive().await.unwrap();
    assert!(own.run(wait(), SOON).await.is_ok());
}
