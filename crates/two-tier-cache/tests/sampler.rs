//! Hits that are read again: what is out of date is found, and by how long.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Gate, PATIENCE, namespace, node};
use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::eventually;
use fleetwide_two_tier_cache::{Cache, CacheTag, ConfigError, PutOptions};

type Deaf = Cache<String, String, Gate<MemExecutor>>;

fn key() -> String {
    "key".to_owned()
}

/// An instance that hears nothing of what others write, and samples every hit.
async fn deaf(memory: &Memory, namespace: &Namespace, share: f64) -> Deaf {
    let executor = Gate::new(memory.executor().clone());
    let local = MokaLocal::builder().build();
    let cache: Deaf = Cache::builder(executor.clone(), namespace, "values", local)
        .l1_ttl(Duration::from_secs(60))
        .sample(share)
        .build()
        .unwrap();
    let silence = Memory::new();
    let log = Log::builder(executor, silence.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .heartbeat(Duration::from_secs(3600))
        .start();
    log.begun().await.unwrap();
    cache.keep(Box::new((log, silence))).ok().unwrap();
    cache
}

async fn until(cache: &Deaf, what: &str, sampled: impl Fn(u64, u64) -> bool) {
    let condition = || async {
        let stats = cache.stats();
        sampled(stats.sampled, stats.sampled_stale)
    };
    eventually(PATIENCE, what, condition).await;
}

/// Red if the place in the log that the hit reflects was not compared.
#[tokio::test]
async fn what_is_out_of_date_is_told_from_what_is_not() {
    let (memory, namespace) = (Memory::new(), namespace());
    let writer = node(memory.executor().clone(), memory.bus(), &namespace).await;
    writer.cache.put(&key(), "one".to_owned()).await.unwrap();
    let cache = deaf(&memory, &namespace, 1.0).await;
    assert_eq!(*cache.get(&key()).await.unwrap(), "one");
    assert_eq!(cache.stats().sampled, 0, "that was no hit of L1");
    assert_eq!(*cache.get(&key()).await.unwrap(), "one");
    until(&cache, "a consistent sample", |all, stale| (all, stale) == (1, 0)).await;
    writer.cache.put(&key(), "two".to_owned()).await.unwrap();
    assert_eq!(*cache.get(&key()).await.unwrap(), "one", "it has not heard of it");
    until(&cache, "a stale sample", |all, stale| (all, stale) == (2, 1)).await;
    // The value was written again after the hit: that hit was not out of date.
    writer.cache.invalidate(&key()).await.unwrap();
    cache.get(&key()).await.unwrap();
    until(&cache, "a sample without an answer", |all, stale| (all, stale) == (3, 1)).await;
}

#[tokio::test]
async fn a_tag_that_was_bumped_makes_a_sample_stale() {
    let (memory, namespace) = (Memory::new(), namespace());
    let writer = node(memory.executor().clone(), memory.bus(), &namespace).await;
    let tag = CacheTag::new("tag").unwrap();
    let tagged = PutOptions::default().tag(tag.clone());
    writer.cache.put_with(&key(), "one".to_owned(), tagged).await.unwrap();
    let cache = deaf(&memory, &namespace, 1.0).await;
    cache.get(&key()).await.unwrap();
    writer.cache.invalidate_tag(&tag).await.unwrap();
    assert!(cache.get(&key()).await.is_some(), "it has not heard of it");
    until(&cache, "a stale sample", |all, stale| (all, stale) == (1, 1)).await;
}

/// Red if the second read was on the caller's path: its answer is held back here.
#[tokio::test]
async fn nobody_waits_for_a_sample_and_few_are_under_way() {
    let (memory, namespace) = (Memory::new(), namespace());
    let writer = node(memory.executor().clone(), memory.bus(), &namespace).await;
    writer.cache.put(&key(), "one".to_owned()).await.unwrap();
    let executor = Gate::new(memory.executor().clone());
    let cache: Deaf =
        Cache::builder(executor.clone(), &namespace, "values", MokaLocal::builder().build())
            .sample(1.0)
            .build()
            .unwrap();
    let log = Log::builder(executor.clone(), memory.bus().clone(), cache.tag().clone())
        .follower(cache.follower())
        .start();
    log.begun().await.unwrap();
    cache.keep(Box::new(log)).ok().unwrap();
    cache.get(&key()).await.unwrap();
    let holding = executor.hold("MGET");
    let spawned = tokio::runtime::Handle::current().metrics();
    let before = spawned.num_alive_tasks();
    for _ in 0..100 {
        assert!(cache.peek(&key()).is_some());
    }
    holding.carried_out().await;
    assert!(spawned.num_alive_tasks() - before <= 4, "they are bounded");
    assert_eq!(cache.stats().sampled, 0);
    holding.release();
    until(&cache, "the samples are counted", |all, _| (1..=4).contains(&all)).await;
}

#[tokio::test]
async fn nothing_is_sampled_unless_it_was_asked_for() {
    let (memory, namespace) = (Memory::new(), namespace());
    let node = node(memory.executor().clone(), memory.bus(), &namespace).await;
    node.cache.put(&key(), "one".to_owned()).await.unwrap();
    for _ in 0..1_000 {
        node.cache.get(&key()).await.unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(node.cache.stats().sampled, 0);
    let local = MokaLocal::builder().build();
    let executor = Arc::new(memory);
    let too_much: Result<Cache<String, String, _>, _> =
        Cache::builder(executor.executor().clone(), &namespace, "values", local)
            .sample(1.5)
            .build();
    assert!(matches!(too_much, Err(ConfigError::Factor { setting: "sample", .. })));
}
