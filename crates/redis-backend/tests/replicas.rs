//! A step that waits for replicas says truly how many have it.

mod common;

use std::time::Duration;

use common::{SOON, connected, key};
use fleetwide_core_traits::{Executor, ExecutorExt, Replicas};
use fleetwide_redis_backend::Redis;
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{ClientKind, RedisServer, eventually};

/// Long enough for a replica on the same machine, and short enough to be waited for in vain.
const WITHIN: Duration = Duration::from_millis(200);

/// Adds one, and says where the counter is and how many replicas know.
async fn count(executor: &impl Executor, replicas: u32, within: Duration) -> (u64, usize) {
    let replicas = Replicas { count: replicas, within };
    let done = executor.run_replicated(&Count::one(&key("replicated")), replicas).await.unwrap();
    (done.reply.count, done.acknowledged)
}

/// Whether the replica has acknowledged even the questions for acknowledgements, which are part of
/// what it is sent: `WAIT` over a connection that has written nothing since would count it then.
async fn has_all(primary: &RedisServer) -> bool {
    let replication = primary.info("replication").await.unwrap();
    let replica = replication["slave0"].split(',').find_map(|part| part.strip_prefix("offset="));
    replica == Some(&replication["master_repl_offset"])
}

/// Red if `WAIT` is sent over a connection that has not sent the write: it then speaks of what that
/// one wrote before, which the frozen replica has.
#[tokio::test]
async fn a_frozen_replica_has_not_acknowledged_and_one_that_goes_on_has() {
    let primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    let redis: Redis = connected(&primary).await;
    let executor = redis.executor();
    for round in 0..3 {
        assert_eq!(count(&executor, 1, SOON).await, (1 + 3 * round, 1));
        assert_eq!(count(&executor, 2, WITHIN).await, (2 + 3 * round, 1), "there is only one");
        eventually(SOON, "the replica to say that it has all", async || has_all(&primary).await)
            .await;
        replica.stop();
        assert_eq!(count(&executor, 1, WITHIN).await, (3 + 3 * round, 0));
        replica.cont();
    }
}

#[tokio::test]
async fn a_script_that_was_lost_is_healed_on_the_way_to_the_replicas() {
    let primary = RedisServer::start().await.unwrap();
    let _replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    let redis = connected(&primary).await;
    let executor = redis.executor();
    assert_eq!(count(&executor, 1, SOON).await, (1, 1));
    primary.script_flush().await.unwrap();
    assert_eq!(count(&executor, 1, SOON).await, (2, 1));
}

/// The replica is stopped, so the wait begins, and the connection is cut in the middle of it.
#[tokio::test]
async fn a_wait_that_is_cut_off_does_not_undo_the_step() {
    let primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    let redis = connected(&primary).await;
    assert_eq!(count(&redis.executor(), 1, SOON).await, (1, 1));
    replica.stop();
    let executor = redis.executor();
    let counting = tokio::spawn(async move { count(&executor, 1, SOON).await });
    let waits = async || {
        let clients = primary.admin(&["CLIENT", "LIST"]).await.unwrap();
        clients.as_str().unwrap_or_default().contains("cmd=wait")
    };
    eventually(SOON, "the wait", waits).await;
    primary.client_kill(ClientKind::Normal).await.unwrap();
    assert_eq!(counting.await.unwrap(), (2, 0));
}
