//! What a bulk answers: order, absence, errors, and how its values are kept.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{KeyError, Ttl};
use fleetwide_testkit::eventually;
use fleetwide_two_tier_cache::{BulkItem, CacheTag, LoadError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::common::{PATIENCE, pair, quick};
use crate::support::{Asked, Pairs, all, keys, of};

#[tokio::test]
async fn a_key_that_comes_twice_counts_once_and_the_order_is_that_of_the_question() {
    let (a, _b) = pair().await;
    let asked = Asked::default();
    let wanted = keys(&["c", "a", "c", "b", "a"]);
    let found = a.cache.get_many(&wanted).load(asked.loader()).await.unwrap();
    assert_eq!(asked.calls(), [keys(&["c", "a", "b"])]);
    assert_eq!((found.asked(), found.len()), (3, 3));
    let order: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
    assert_eq!(order, keys(&["c", "a", "b"]));
}

/// What a loader says of its values holds as if each had been loaded alone.
#[tokio::test]
async fn a_loaded_item_has_its_own_ttl_and_tags_or_is_not_kept() {
    let (a, b) = pair().await;
    let tag = CacheTag::new("t").unwrap();
    let carried = tag.clone();
    let loader = move |missing: Vec<String>| {
        let carried = carried.clone();
        let item = move |key: String| {
            let item = BulkItem::new(of(&key));
            let item = match key.as_str() {
                "tagged" => item.tag(carried.clone()).unwrap(),
                "brief" => item.ttl(Ttl::clamped(Duration::from_millis(1))),
                "secret" => item.no_store(),
                _ => item,
            };
            (key, item)
        };
        ready(Ok::<_, std::io::Error>(missing.into_iter().map(item).collect::<Vec<_>>()))
    };
    let wanted = keys(&["tagged", "brief", "secret", "plain"]);
    assert_eq!(a.cache.get_many(&wanted).load(loader).await.unwrap().len(), 4);
    let over = || async { a.cache.peek(&wanted[1]).is_none() };
    eventually(PATIENCE, "the brief one has expired", over).await;
    assert!(a.cache.get(&wanted[2]).await.is_none() && b.cache.get(&wanted[2]).await.is_none());
    eventually(PATIENCE, "stored", || async { a.cache.stats().fills_stored == 3 }).await;
    assert_eq!(b.cache.get_many(&keys(&["tagged", "plain"])).get().await.len(), 2);
    a.cache.invalidate_tag(&tag).await.unwrap();
    assert!(a.cache.get(&wanted[0]).await.is_none() && a.cache.get(&wanted[3]).await.is_some());
}

#[tokio::test]
async fn what_the_loader_does_not_return_is_absent_and_holds_nobody_up() {
    let (a, b) = pair().await;
    let some = |missing: Vec<String>| {
        let kept = missing.into_iter().filter(|key| key != "none");
        ready(Ok::<_, std::io::Error>(kept.map(|key| (key.clone(), of(&key))).collect::<Vec<_>>()))
    };
    let wanted = keys(&["some", "none"]);
    let found = a.cache.get_many(&wanted).load(some).await.unwrap();
    assert_eq!(found.missing().collect::<Vec<_>>(), ["none"]);
    assert_eq!(found.get(&wanted[0]).map(|hit| hit.as_str()), Some("value of some"));
    // That there is none is an entry of its own, here and for the others.
    let unasked =
        |_missing: Vec<String>| async { panic!("nobody asks") as Result<Pairs, std::io::Error> };
    assert_eq!(a.cache.get_many(&wanted).load(unasked).await.unwrap().len(), 1);
    eventually(PATIENCE, "stored", || async { a.cache.stats().fills_stored == 2 }).await;
    assert_eq!(b.cache.get_many(&wanted).load(unasked).await.unwrap().len(), 1);
    let single = b.cache.try_get_or_load(&wanted[1], |_| async { Ok::<_, std::io::Error>(None) });
    assert!(single.await.unwrap().is_none());
    // Until it is written.
    a.cache.put(&wanted[1], "now".to_owned()).await.unwrap();
    assert_eq!(a.cache.get_many(&wanted).get().await.len(), 2);
}

#[tokio::test]
async fn a_value_that_nobody_asked_for_is_not_taken() {
    let (a, b) = pair().await;
    let generous = |missing: Vec<String>| {
        let more = missing.into_iter().chain(["other".to_owned()]);
        ready(Ok::<_, std::io::Error>(more.map(|key| (key.clone(), of(&key))).collect::<Vec<_>>()))
    };
    let found = a.cache.get_many(&keys(&["one"])).load(generous).await.unwrap();
    assert_eq!((found.asked(), found.len()), (1, 1));
    assert!(a.cache.get(&"other".to_owned()).await.is_none());
    assert!(b.cache.get(&"other".to_owned()).await.is_none());
}

#[tokio::test]
async fn a_loader_that_fails_loses_nothing_that_was_found_and_tells_all_who_wait() {
    let (a, b) = pair().await;
    a.cache.put(&"there".to_owned(), "cached".to_owned()).await.unwrap();
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
    let cache = a.cache.clone();
    let wanted = keys(&["x", "there", "y", ""]);
    let bulk = tokio::spawn(async move { cache.get_many(&wanted).load(failing).await });
    began.acquire().await.unwrap().forget();
    let cache = a.cache.clone();
    let joined =
        tokio::spawn(async move { cache.get_or_load(&"x".to_owned(), quick("own")).await });
    tokio::task::yield_now().await;
    go.add_permits(1);
    let error = bulk.await.unwrap().unwrap_err();
    assert_eq!(error.found.iter().map(|(_, hit)| hit.as_str()).collect::<Vec<_>>(), ["cached"]);
    assert_eq!(error.loader_error::<std::io::Error>().unwrap().to_string(), "origin is down");
    let why: HashMap<_, _> = error.failed.into_iter().collect();
    assert!(matches!(why["x"], LoadError::Failed(_)) && matches!(why["y"], LoadError::Failed(_)));
    assert!(matches!(why[""], LoadError::Key(KeyError::Empty)));
    assert!(
        matches!(joined.await.unwrap(), Err(LoadError::Failed(_))),
        "it joined the bulk's load"
    );
    // The leases were given back: the other instance does not wait for them to run out.
    let asked = Instant::now();
    assert_eq!(b.cache.get_many(&keys(&["x", "y"])).load(all).await.unwrap().len(), 2);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_panic_of_a_bulk_loader_is_an_error_for_its_callers_only() {
    let (a, b) = pair().await;
    let panicking = |_missing| async { panic!("out of range") as Result<Pairs, std::io::Error> };
    let error = a.cache.get_many(&keys(&["x", "y"])).load(panicking).await.unwrap_err();
    assert!(error.failed.iter().all(|(_, error)| matches!(error, LoadError::Panicked(_))));
    assert_eq!(b.cache.get_many(&keys(&["x", "y"])).load(all).await.unwrap().len(), 2);
}
