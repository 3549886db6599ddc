//! One load per key (C3), however many ask, and whoever leaves.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{PATIENCE, SlowLoad, node_with, pair, quick};
use fleetwide_mem_backend::{Memory, MokaLocal};
use fleetwide_testkit::{Drops, eventually};
use fleetwide_two_tier_cache::{Cache, LoadError, Tier};
use tokio::task::JoinSet;
use tokio::time::Instant;

fn key() -> String {
    "key".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_over_two_instances_cost_one_load() {
    let (a, b) = pair().await;
    let loads = Arc::new(AtomicUsize::new(0));
    let slow = Arc::new(SlowLoad::new());
    let mut callers = JoinSet::new();
    for caller in 0..1_000 {
        let cache = if caller % 2 == 0 { a.cache.clone() } else { b.cache.clone() };
        let (loads, inner) = (Arc::clone(&loads), slow.loader("value"));
        callers.spawn(async move {
            let loader = move |key| {
                loads.fetch_add(1, Ordering::SeqCst);
                inner(key)
            };
            cache.get_or_load(&key(), loader).await.unwrap().into_value()
        });
    }
    slow.began().await;
    slow.finish();
    while let Some(value) = callers.join_next().await {
        assert_eq!(*value.unwrap(), "value");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_take_the_load_along() {
    let (a, _b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("value"));
    let first = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    let cache = a.cache.clone();
    let second = tokio::spawn(async move { cache.get_or_load(&key(), quick("other")).await });
    tokio::task::yield_now().await;
    first.abort();
    slow.finish();
    assert_eq!(*second.await.unwrap().unwrap(), "value", "it joined the load of the one who left");
}

#[tokio::test]
async fn an_error_reaches_all_who_wait_and_the_next_caller_loads_again() {
    let (a, b) = pair().await;
    let failing = |_key| async { Err::<String, _>(std::io::Error::other("origin is down")) };
    let error = a.cache.get_or_load(&key(), failing).await.unwrap_err();
    assert_eq!(error.loader_error::<std::io::Error>().unwrap().to_string(), "origin is down");
    // The lease was given back: the other instance does not wait for it to run out.
    let hit = b.cache.get_or_load(&key(), quick("value")).await.unwrap();
    assert_eq!((hit.tier(), &**hit), (Tier::Load, "value"));
}

#[tokio::test]
async fn a_panic_of_the_loader_is_an_error_for_its_callers_only() {
    let (a, b) = pair().await;
    let panicking = |_key| async { panic!("out of range") };
    let loaded = a.cache.get_or_load::<_, _, std::io::Error>(&key(), panicking).await;
    assert!(matches!(&loaded, Err(LoadError::Panicked(text)) if &**text == "out of range"));
    assert_eq!(*b.cache.get_or_load(&key(), quick("value")).await.unwrap(), "value");
}

/// What a value's own code does while it is encoded is no reason to lose the value, or to keep
/// others waiting for the lease.
#[tokio::test(start_paused = true)]
async fn a_panic_while_a_value_is_encoded_costs_only_its_place_in_the_cache() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let build = || {
        let local = MokaLocal::builder().bytes_max(1 << 20).build();
        let executor = memory.executor().clone();
        Cache::<String, Unwritable, ()>::builder(executor, &namespace, "values", local)
            .build()
            .unwrap()
    };
    let (a, b) = (build(), build());
    let load = |_| async { Ok::<_, std::io::Error>(Unwritable) };
    assert_eq!(a.get_or_load(&key(), load).await.unwrap().tier(), Tier::Load);
    let released = || async { a.stats().loads_under_way == 0 };
    eventually(PATIENCE, "the load has ended", released).await;
    let asked = Instant::now();
    b.get_or_load(&key(), load).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[derive(Debug, serde::Deserialize)]
struct Unwritable;

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _to: S) -> Result<S::Ok, S::Error> {
        panic!("a mistake in the value's own code")
    }
}

/// The other instance's loader says when it is done. Time stands still here as long as anybody can
/// do anything, so a wait that ended by itself would show. Red without the signal of a fill.
#[tokio::test(start_paused = true)]
async fn who_waits_for_another_instance_is_woken_by_its_message() {
    let (a, b) = pair().await;
    let slow = SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("value"));
    let first = tokio::spawn(async move { cache.get_or_load(&key(), loader).await });
    slow.began().await;
    let cache = b.cache.clone();
    let holding = b.executor.hold("cache_lease");
    let second = tokio::spawn(async move { cache.get_or_load(&key(), quick("own")).await });
    holding.carried_out().await;
    holding.release();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let finished = Instant::now();
    slow.finish();
    first.await.unwrap().unwrap();
    let hit = second.await.unwrap().unwrap();
    assert_eq!((hit.tier(), &**hit), (Tier::L2, "value"));
    assert_eq!(finished.elapsed(), Duration::ZERO);
}

/// A loader that dies with its process leaves its lease behind; others wait for no longer than that.
#[tokio::test]
async fn a_lease_whose_owner_died_runs_out() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let lease = Duration::from_millis(200);
    let short = |executor| {
        node_with(executor, memory.bus(), &namespace, move |builder| builder.lease(lease))
    };
    let (a, b) = (short(memory.executor().clone()).await, short(memory.executor().clone()).await);
    let slow = SlowLoad::new();
    let died = {
        let (cache, loader) = (a.cache.clone(), slow.loader("never"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move { cache.get_or_load(&key(), loader).await });
        slow.began().await;
        runtime
    };
    // The process dies: its loader and its renewal stop in the middle.
    died.shutdown_background();
    let hit = b.cache.get_or_load(&key(), quick("value")).await.unwrap();
    assert_eq!(*hit, "value");
}

#[tokio::test]
async fn a_caller_dropped_at_any_point_hangs_nobody_and_leaks_nothing() {
    let (a, b) = pair().await;
    let runs = AtomicUsize::new(0);
    let fresh = || format!("key-{}", runs.fetch_add(1, Ordering::SeqCst));
    let key = std::sync::Mutex::new(String::new());
    Drops::new()
        .run(
            || {
                let next = fresh();
                *key.lock().unwrap() = next.clone();
                let cache = a.cache.clone();
                async move { cache.get_or_load(&next, quick("first")).await.map(drop).unwrap() }
            },
            async |_ended| {
                let key = key.lock().unwrap().clone();
                let other = b.cache.get_or_load(&key, quick("second"));
                let hit = tokio::time::timeout(PATIENCE, other).await.expect("nobody hangs");
                assert!(["first", "second"].contains(&hit.unwrap().as_str()));
                let idle = || async { a.cache.stats().loads_under_way == 0 };
                eventually(PATIENCE, "no load is left", idle).await;
            },
        )
        .await;
}
