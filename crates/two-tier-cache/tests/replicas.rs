//! A write that asks for replicas returns Ok only if they have it.

mod common;

use std::time::Duration;

use common::{Node, PATIENCE, namespace, node};
use fleetwide_mem_backend::Memory;
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::RedisServer;
use fleetwide_two_tier_cache::{CacheTag, PutOptions, Tier, WriteError, WriteOptions, WriteToken};

fn key() -> String {
    "key".to_owned()
}

fn few(written: Result<WriteToken, WriteError>) -> (usize, u32) {
    match written {
        Err(WriteError::TooFewReplicas { acknowledged, wanted, .. }) => (acknowledged, wanted),
        other => panic!("{other:?}"),
    }
}

/// Red if the options do not reach the executor, or if what it says is not compared with them.
#[tokio::test]
async fn a_write_that_too_few_replicas_have_is_done_and_says_so() {
    let primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    let redis = Redis::builder(RedisUrl::parse(&primary.url()).unwrap()).build().unwrap();
    redis.ready(PATIENCE).await.unwrap();
    let namespace = namespace();
    let a: Node<RedisExecutor> = node(redis.executor(), &redis.bus(), &namespace).await;
    let b = node(redis.executor(), &redis.bus(), &namespace).await;
    let (soon, tag) = (Duration::from_millis(100), CacheTag::new("tag").unwrap());
    let put = |count, within| PutOptions::default().replicas(count, within).tag(tag.clone());
    let all = |count, within| WriteOptions::default().replicas(count, within);
    a.cache.put_with(&key(), "1".to_owned(), put(1, PATIENCE)).await.unwrap();
    a.cache.invalidate_with(&key(), all(1, PATIENCE)).await.unwrap();

    replica.stop();
    assert_eq!(few(a.cache.put_with(&key(), "2".to_owned(), put(1, soon)).await), (0, 1));
    let hit = b.cache.get(&key()).await.expect("it was written all the same");
    assert_eq!((hit.as_str(), hit.tier()), ("2", Tier::L2));
    assert_eq!(few(a.cache.invalidate_tag_with(&tag, all(1, soon)).await), (0, 1));
    assert!(a.cache.get(&key()).await.is_none());
    assert_eq!(few(a.cache.invalidate_with(&key(), all(3, soon)).await), (0, 3));
    assert_eq!(few(a.cache.clear_with(all(1, soon)).await), (0, 1));
    assert_eq!(a.cache.stats().queued, 0);
    replica.cont();
    a.cache.clear_with(all(1, PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn in_memory_there_is_no_replica_to_wait_for() {
    let memory = Memory::new();
    let a = node(memory.executor().clone(), memory.bus(), &namespace()).await;
    let options = WriteOptions::default().replicas(1, PATIENCE);
    assert_eq!(few(a.cache.invalidate_with(&key(), options).await), (0, 1));
}
