//! Whoever has waited until a write is applied finds no instance that still serves what was before.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, namespace};
use fleetwide_core_traits::Namespace;
use fleetwide_core_traits::log::CHANNEL_PART;
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_two_tier_cache::{Cache, CacheTag, PutOptions, WaitError};

const LIFE: Duration = Duration::from_millis(200);

type Values = Cache<String, String, MemExecutor>;

async fn node(memory: &Memory, namespace: &Namespace, heartbeat: Duration) -> Values {
    let local = MokaLocal::builder().bytes_max(1 << 20).build();
    let executor = memory.executor().clone();
    let cache = Cache::builder(executor.clone(), namespace, "values", local).build().unwrap();
    let log = Log::builder(executor, memory.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .heartbeat(heartbeat)
        .life(LIFE)
        .start();
    log.begun().await.unwrap();
    cache.introduce(Arc::new(log.clone())).ok().unwrap();
    cache.keep(Box::new(log)).ok().unwrap();
    cache
}

fn key() -> String {
    "key".to_owned()
}

/// Red if the wait does not ask, or asks before the write is in the log: the other instance beats
/// every 50 ms, has lost its messages, and serves the old value in between.
#[tokio::test]
async fn no_instance_serves_what_was_before_when_the_wait_has_ended() {
    let (memory, namespace) = (Memory::new(), namespace());
    let a = node(&memory, &namespace, LIFE / 4).await;
    let b = node(&memory, &namespace, LIFE / 4).await;
    let tag = CacheTag::new("tag").unwrap();
    let channel = a.tag().channel(CHANNEL_PART);
    for round in 0..20_u32 {
        let options = PutOptions::default().tag(tag.clone());
        let put = a.put_with(&key(), round.to_string(), options).await.unwrap();
        assert_eq!(a.wait_applied(put, PATIENCE).await.unwrap().nodes, 2);
        assert_eq!(**b.get(&key()).await.unwrap(), round.to_string());
        assert!(b.peek(&key()).is_some());
        if round % 2 == 0 {
            memory.bus().interrupt(&channel);
        }
        let token = match round % 3 {
            0 => a.invalidate(&key()).await,
            1 => a.invalidate_tag(&tag).await,
            _ => a.clear().await,
        };
        a.wait_applied(token.unwrap(), PATIENCE).await.unwrap();
        assert!(b.peek(&key()).is_none(), "round {round}");
        memory.bus().resume(&channel);
    }
}

#[tokio::test]
async fn a_cache_that_follows_nothing_says_so_and_one_that_is_alone_has_nobody_to_wait_for() {
    let memory = Memory::new();
    let local = || MokaLocal::builder().bytes_max(1 << 20).build();
    let build = |alone| {
        let executor = memory.executor().clone();
        let builder = Cache::builder(executor, &namespace(), "values", local());
        builder.alone(alone).build().unwrap()
    };
    let unfollowed: Values = build(false);
    let token = unfollowed.invalidate(&key()).await.unwrap();
    assert_eq!(unfollowed.wait_applied(token, PATIENCE).await, Err(WaitError::NotFollowed));
    let alone: Values = build(true);
    let token = alone.invalidate(&key()).await.unwrap();
    assert_eq!(alone.wait_applied(token, PATIENCE).await.unwrap().nodes, 1);
}
