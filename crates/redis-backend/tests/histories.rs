//! Which history of the data a reply is from: a reconnect is none of its own, and whatever may have
//! lost data is.

mod common;

use common::{SOON, connected, hasty, key, ready, up};
use fleetwide_core_traits::{AtomicOp, BackendError, Epoch, Executor, ExecutorExt};
use fleetwide_redis_backend::Redis;
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{ClientKind, Proxy, RedisServer, eventually};

/// Counts until the server answers, and says in which history that was.
async fn answered_in(redis: &Redis) -> Epoch {
    let mut epoch = Epoch::default();
    eventually(SOON, "an answer", async || {
        let told = redis.executor().run_told(&Count::one(&key("told"))).await;
        epoch = told.as_ref().map_or(epoch, |told| told.epoch);
        told.is_ok()
    })
    .await;
    epoch
}

#[tokio::test]
async fn reconnect_is_the_same_history_and_a_restart_is_another_one() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let first = answered_in(&redis).await;
    assert!(first > Epoch::default() && first == redis.executor().epoch());
    server.client_kill(ClientKind::Normal).await.unwrap();
    assert_eq!(answered_in(&redis).await, first);
    server.restart_keeping_data().await.unwrap();
    assert!(answered_in(&redis).await > first, "also with its data: nobody knows how much of them");
}

// Seen red: with the name of the process alone.
#[tokio::test]
async fn promotion_without_a_reconnect_is_another_history_from_the_next_doubt_on() {
    let primary = RedisServer::start().await.unwrap();
    let server = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    server.promote().await.unwrap();
    let redis = connected(&server).await;
    let first = answered_in(&redis).await;
    server.replicate(&primary).await.unwrap();
    // Refused as a replica, the connection is asked, and made anew until it is a primary's.
    let is_refused = async || {
        let counted = redis.executor().run(&Count::one(&key("told"))).await;
        matches!(counted, Err(BackendError::Rejected(_)))
    };
    eventually(SOON, "the refusal of a replica", is_refused).await;
    server.promote().await.unwrap();
    eventually(SOON, "another history", async || answered_in(&redis).await > first).await;
}

// Seen red: with the latest history in the place of the connection's own.
#[tokio::test]
async fn reply_of_an_old_connection_is_of_the_old_history() {
    let [old, new] = [RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap()];
    let password = format!(">{}", old.password());
    new.admin(&["ACL", "SETUSER", old.user(), &password]).await.unwrap();
    let proxy = Proxy::start(old.addr()).await.unwrap();
    let redis = ready(hasty(&proxy.url_like(&old.url())).connections(2)).await;
    up(&redis).await;
    // Or each step that the other server does not know would be healed on the old connection.
    redis.executor().prepare(&[Count::one(&key("told")).script()]);
    let first = answered_in(&redis).await;
    proxy.lead_to(new.addr());
    // One of the two connections ends.
    let clients = old.admin(&["CLIENT", "LIST", "TYPE", "normal"]).await.unwrap();
    let ours = clients.as_str().unwrap().lines().find(|line| line.contains("name=fleetwide"));
    let id = ours.and_then(|line| line.split(' ').find_map(|part| part.strip_prefix("id=")));
    old.admin(&["CLIENT", "KILL", "ID", id.unwrap()]).await.unwrap();
    let is_there = async || answered_in(&redis).await > first;
    eventually(SOON, "an answer of the other server", is_there).await;
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(answered_in(&redis).await);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, [first, redis.executor().epoch()], "either connection says its own");
    let (on_old, on_new) = (count_on(&old).await, count_on(&new).await);
    assert!(on_old > 0 && on_new > 0, "{on_old} and {on_new}");
}

/// Keys of a server.
async fn count_on(server: &RedisServer) -> i64 {
    server.admin(&["DBSIZE"]).await.unwrap().as_integer().unwrap()
}
