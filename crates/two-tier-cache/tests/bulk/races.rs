//! A bulk keeps every promise that one key has, whoever else is at its keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetwide_testkit::{Drops, eventually};
use fleetwide_two_tier_cache::LoadError;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{PATIENCE, SlowLoad, pair, quick, until_gone};
use crate::support::{Asked, Pairs, Slow, all, keys, of};

/// Red if the bulk did not join, or could not be joined: then two loaders run for the same key.
#[tokio::test]
async fn single_and_bulk_loads_of_a_key_join_each_other() {
    let (a, _b) = pair().await;
    let (slow, single) = (Slow::new(), SlowLoad::new());
    let (cache, loader) = (a.cache.clone(), single.loader("single"));
    let one = tokio::spawn(async move { cache.get_or_load(&"s".to_owned(), loader).await });
    single.began().await;
    let (cache, loader) = (a.cache.clone(), slow.loader("bulk"));
    let bulk = tokio::spawn(async move { cache.get_many(&keys(&["s", "b"])).load(loader).await });
    slow.began().await;
    let cache = a.cache.clone();
    let joiner =
        tokio::spawn(async move { cache.get_or_load(&"b".to_owned(), quick("own")).await });
    let cache = a.cache.clone();
    let other = tokio::spawn(async move { cache.get_many(&keys(&["b", "s"])).load(all).await });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    slow.finish();
    assert_eq!(*joiner.await.unwrap().unwrap(), "bulk");
    assert!(!bulk.is_finished(), "it waits for the single load");
    single.finish();
    let (bulk, other) = (bulk.await.unwrap().unwrap(), other.await.unwrap().unwrap());
    assert_eq!(*one.await.unwrap().unwrap(), "single");
    for found in [bulk, other] {
        assert_eq!(**found.get(&"s".to_owned()).unwrap(), "single");
        assert_eq!(**found.get(&"b".to_owned()).unwrap(), "bulk");
    }
}

/// What a bulk load has no value for is absent for all who joined it.
#[tokio::test]
async fn who_joins_a_bulk_load_that_gives_nothing_gets_nothing() {
    let (a, _b) = pair().await;
    let (began, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (said, wait) = (Arc::clone(&began), Arc::clone(&go));
    let nothing = move |_missing| {
        let (said, wait) = (Arc::clone(&said), Arc::clone(&wait));
        async move {
            said.add_permits(1);
            wait.acquire().await.unwrap().forget();
            Ok::<Pairs, std::io::Error>(Vec::new())
        }
    };
    let cache = a.cache.clone();
    let bulk = tokio::spawn(async move { cache.get_many(&keys(&["k"])).load(nothing).await });
    began.acquire().await.unwrap().forget();
    let cache = a.cache.clone();
    let single =
        tokio::spawn(async move { cache.get_or_load(&"k".to_owned(), quick("own")).await });
    let cache = a.cache.clone();
    let second = tokio::spawn(async move { cache.get_many(&keys(&["k"])).load(all).await });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    go.add_permits(1);
    assert!(bulk.await.unwrap().unwrap().is_empty());
    assert!(matches!(single.await.unwrap(), Err(LoadError::Absent)));
    assert!(second.await.unwrap().unwrap().is_empty());
}

/// Each of two instances has the right to load what the other waits for, and their loaders need
/// each other to get on. Red if a bulk waited for others before it loads what is its own.
#[tokio::test]
async fn two_bulks_that_wait_for_each_other_do_not_wait_for_ever() {
    let (a, b) = pair().await;
    let (loads_a, loads_b) = (Slow::new(), Slow::new());
    let holding = a.executor.hold("cache_lease");
    let (cache, loader) = (a.cache.clone(), loads_a.loader("from a"));
    let first = tokio::spawn(async move { cache.get_many(&keys(&["x", "y"])).load(loader).await });
    // The first instance has the lease of x, and has not asked for y yet.
    holding.carried_out().await;
    let (cache, loader) = (b.cache.clone(), loads_b.loader("from b"));
    let second = tokio::spawn(async move { cache.get_many(&keys(&["y", "x"])).load(loader).await });
    loads_b.began().await;
    holding.release();
    timeout(PATIENCE, loads_a.began()).await.expect("a loads x while b has y");
    loads_a.finish();
    loads_b.finish();
    for bulk in [first, second] {
        let found = timeout(PATIENCE, bulk).await.expect("nobody waits for ever").unwrap().unwrap();
        assert_eq!(**found.get(&"x".to_owned()).unwrap(), "from a");
        assert_eq!(**found.get(&"y".to_owned()).unwrap(), "from b");
    }
}

/// Overlapping bulks in any order, from two instances: each key is loaded once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulks_that_overlap_load_each_key_once() {
    let (a, b) = pair().await;
    for round in 0..30 {
        let loads: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let mut callers = JoinSet::new();
        for caller in 0..12 {
            let cache = if caller % 2 == 0 { a.cache.clone() } else { b.cache.clone() };
            let loads = Arc::clone(&loads);
            let mut wanted: Vec<String> =
                (0..20).map(|at| format!("{round}-{}", (at * 7 + caller * 3) % 40)).collect();
            if caller % 3 == 0 {
                wanted.reverse();
            }
            callers.spawn(async move {
                let loader = move |missing: Vec<String>| {
                    for key in &missing {
                        *loads.lock().entry(key.clone()).or_default() += 1;
                    }
                    async move {
                        tokio::task::yield_now().await;
                        all(missing).await
                    }
                };
                let found = cache.get_many(&wanted).load(loader).await.unwrap();
                assert!(found.len() == 20 && found.iter().all(|(key, hit)| **hit == of(key)));
            });
        }
        while let Some(done) = timeout(PATIENCE, callers.join_next()).await.expect("no deadlock") {
            done.unwrap();
        }
        let twice: Vec<_> =
            loads.lock().iter().filter(|(_, n)| **n > 1).map(|(k, _)| k.clone()).collect();
        assert!(twice.is_empty(), "loaded more than once: {twice:?}");
    }
}

/// The fence of C1, per key. Red without the floors (L1) and without the lease's end (L2).
#[tokio::test]
async fn an_invalidation_during_a_bulk_load_voids_its_own_key_and_no_other() {
    let (a, b) = pair().await;
    let slow = Slow::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let wanted = keys(&["gone", "put", "kept"]);
    let asked = wanted.clone();
    let bulk = tokio::spawn(async move { cache.get_many(&asked).load(loader).await });
    slow.began().await;
    b.cache.invalidate(&wanted[0]).await.unwrap();
    b.cache.put(&wanted[1], "new".to_owned()).await.unwrap();
    slow.finish();
    // The caller asked before the writes, so it may have the old values.
    assert_eq!(bulk.await.unwrap().unwrap().len(), 3);
    let settled = || async {
        let stats = a.cache.stats();
        (stats.fills_refused, stats.fills_stored) == (2, 1)
    };
    eventually(PATIENCE, "the fills are judged", settled).await;
    until_gone(&a.cache, "gone").await;
    until_gone(&a.cache, "put").await;
    for cache in [&a.cache, &b.cache] {
        let found = cache.get_many(&wanted).get().await;
        let values: Vec<_> = found.iter().map(|(key, hit)| (key.as_str(), hit.as_str())).collect();
        assert_eq!(values, [("put", "new"), ("kept", "old")]);
    }
}

/// The own write of the loading instance is seen by it at once.
#[tokio::test]
async fn an_own_write_during_a_bulk_load_is_not_undone_by_it() {
    let (a, b) = pair().await;
    let slow = Slow::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let wanted = keys(&["x", "y", "z"]);
    let asked = wanted.clone();
    let bulk = tokio::spawn(async move { cache.get_many(&asked).load(loader).await });
    slow.began().await;
    a.cache.put_many([(wanted[0].clone(), "new".to_owned())]).await.unwrap();
    a.cache.invalidate_many(&wanted[1..2]).await.unwrap();
    slow.finish();
    bulk.await.unwrap().unwrap();
    assert_eq!(a.cache.get(&wanted[0]).await.unwrap().as_str(), "new");
    assert!(a.cache.get(&wanted[1]).await.is_none());
    assert!(b.cache.get(&wanted[1]).await.is_none());
}

/// What another instance's loader could not give is loaded here.
#[tokio::test]
async fn keys_that_another_instance_gave_up_are_loaded_here() {
    let (a, b) = pair().await;
    let (began, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (said, wait) = (Arc::clone(&began), Arc::clone(&go));
    let failing = move |_missing| {
        let (said, wait) = (Arc::clone(&said), Arc::clone(&wait));
        async move {
            said.add_permits(1);
            wait.acquire().await.unwrap().forget();
            Err::<Pairs, _>(std::io::Error::other("origin is down"))
        }
    };
    let cache = b.cache.clone();
    let other = tokio::spawn(async move { cache.get_many(&keys(&["x", "y"])).load(failing).await });
    began.acquire().await.unwrap().forget();
    let (cache, asked) = (a.cache.clone(), Asked::default());
    let loader = asked.loader();
    let bulk =
        tokio::spawn(async move { cache.get_many(&keys(&["x", "y", "z"])).load(loader).await });
    let own = || async { asked.calls().len() == 1 };
    eventually(PATIENCE, "what is free is loaded", own).await;
    go.add_permits(1);
    assert!(other.await.unwrap().is_err());
    let found = timeout(PATIENCE, bulk).await.expect("it is our turn").unwrap().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(asked.calls()[0], keys(&["z"]));
    let mut rest = asked.calls()[1..].concat();
    rest.sort();
    assert_eq!(rest, keys(&["x", "y"]));
}

#[tokio::test]
async fn a_bulk_caller_dropped_at_any_point_hangs_nobody_and_leaks_nothing() {
    let (a, b) = pair().await;
    let runs = AtomicUsize::new(0);
    let wanted = Mutex::new(Vec::new());
    Drops::new()
        .run(
            || {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                let next: Vec<String> = (0..5).map(|at| format!("{run}-{at}")).collect();
                *wanted.lock() = next.clone();
                let cache = a.cache.clone();
                async move { cache.get_many(&next).load(all).await.map(drop).unwrap() }
            },
            async |_ended| {
                let wanted = wanted.lock().clone();
                let other = b.cache.get_many(&wanted).load(all);
                let found = timeout(PATIENCE, other).await.expect("nobody hangs").unwrap();
                assert!(found.iter().all(|(key, hit)| **hit == of(key)) && found.len() == 5);
                let idle = || async { a.cache.stats().loads_under_way == 0 };
                eventually(PATIENCE, "no load is left", idle).await;
            },
        )
        .await;
}
