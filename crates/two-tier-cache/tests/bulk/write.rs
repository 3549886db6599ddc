//! What writes of many keys cost, promise, and say when they fail.

use std::time::Duration;

use fleetwide_core_traits::KeyError;
use fleetwide_core_traits::log::Stamp;
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::{RedisServer, eventually};
use fleetwide_two_tier_cache::{BulkItem, CacheTag, Tier, WriteError};
use tokio::time::Instant;

use crate::common::{self, PATIENCE, node_with, pair, quick, until_gone};
use crate::counted::{Counted, Counts};
use crate::support::{counting, keys, numbered, of};

#[tokio::test]
async fn a_hundred_writes_cost_one_command_and_one_entry_of_the_log() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..100);
    let put = a.cache.put_many(wanted.iter().map(|key| (key.clone(), of(key)))).await.unwrap();
    assert_eq!(a.counted.take(), Counts::new(1, [("cache_put_many", 1)]));
    let found = b.cache.get_many(&wanted).at_least(&put).get().await;
    assert!(found.iter().all(|(key, hit)| **hit == of(key)) && found.len() == 100);
    let gone = a.cache.invalidate_many(&wanted).await.unwrap();
    assert_eq!(a.counted.take(), Counts::new(1, [("cache_invalidate_many", 1)]));
    assert_eq!(Stamp::from(gone).seq, Stamp::from(put).seq + 1);
    assert!(a.cache.get_many(&wanted).get().await.is_empty());
    assert!(b.cache.get_many(&wanted).at_least(&gone).get().await.is_empty());
}

/// Each key of the one message counts. Red if a follower read only the first of them.
#[tokio::test]
async fn every_key_of_a_bulk_write_is_gone_from_the_other_instance() {
    let (a, b) = pair().await;
    let wanted = numbered(0..300);
    b.cache.put_many(wanted.iter().map(|key| (key.clone(), "old".to_owned()))).await.unwrap();
    assert_eq!(a.cache.get_many(&wanted).get().await.len(), 300);
    let resets = a.cache.stats().resets;
    let put = b.cache.put_many(wanted.iter().map(|key| (key.clone(), of(key)))).await.unwrap();
    let current = || async {
        let found = a.cache.get_many(&wanted).get().await;
        found.iter().all(|(key, hit)| **hit == of(key))
    };
    assert!(
        a.cache
            .get_many(&wanted)
            .at_least(&put)
            .get()
            .await
            .iter()
            .all(|(key, hit)| **hit == of(key))
    );
    eventually(PATIENCE, "the message is applied", current).await;
    b.cache.invalidate_many(&wanted).await.unwrap();
    for key in &wanted {
        until_gone(&a.cache, key).await;
    }
    assert_eq!(a.cache.stats().resets, resets, "no history was lost on the way");
}

#[tokio::test]
async fn of_a_key_that_comes_twice_the_last_value_counts() {
    let (a, b) = pair().await;
    let twice = ["first", "last"].map(|value| ("k".to_owned(), value.to_owned()));
    a.cache.put_many(twice).await.unwrap();
    for cache in [&a.cache, &b.cache] {
        assert_eq!(*cache.get(&"k".to_owned()).await.unwrap(), "last");
    }
    assert_eq!(a.cache.stats().writes, 1);
}

#[tokio::test]
async fn a_bulk_put_takes_the_right_to_load_away_from_who_has_it() {
    let (a, b) = pair().await;
    let slow = common::SlowLoad::new();
    let (cache, loader) = (a.cache.clone(), slow.loader("old"));
    let load = tokio::spawn(async move { cache.get_or_load(&"k".to_owned(), loader).await });
    slow.began().await;
    b.cache.put_many([("k".to_owned(), "new".to_owned())]).await.unwrap();
    slow.finish();
    load.await.unwrap().unwrap();
    let refused = || async { a.cache.stats().fills_refused == 1 };
    eventually(PATIENCE, "the fill is refused", refused).await;
    assert_eq!(*b.cache.get(&"k".to_owned()).await.unwrap(), "new");
}

#[tokio::test]
async fn a_bulk_put_of_tagged_values_is_voided_by_its_tag() {
    let (a, b) = pair().await;
    let tag = CacheTag::new("t").unwrap();
    let tagged = BulkItem::new("v".to_owned()).tag(tag.clone()).unwrap();
    let plain = BulkItem::new("v".to_owned());
    a.cache.put_many([("x".to_owned(), tagged), ("y".to_owned(), plain)]).await.unwrap();
    assert_eq!(b.cache.get_many(&keys(&["x", "y"])).get().await.len(), 2);
    b.cache.invalidate_tag(&tag).await.unwrap();
    let found = b.cache.get_many(&keys(&["x", "y"])).get().await;
    assert_eq!(found.missing().collect::<Vec<_>>(), ["x"]);
}

#[tokio::test]
async fn keys_that_are_none_are_named_and_the_others_are_written() {
    let (a, b) = pair().await;
    let entries = ["", "good"].map(|key| (key.to_owned(), "v".to_owned()));
    let error = a.cache.put_many(entries).await.unwrap_err();
    assert_eq!(error.failed, [(String::new(), WriteError::Key(KeyError::Empty))]);
    assert!(!error.is_queued());
    let token = error.token.expect("one was written");
    let good = keys(&["good"]);
    assert_eq!(b.cache.get_many(&good).at_least(&token).get().await.len(), 1);
    let error = b.cache.invalidate_many(&keys(&["good", ""])).await.unwrap_err();
    assert_eq!(error.failed.len(), 1);
    assert!(b.cache.get(&good[0]).await.is_none());
    let nothing: [(String, String); 0] = [];
    a.cache.put_many(nothing).await.unwrap();
    a.cache.invalidate_many(&[]).await.unwrap();
}

/// Large values go in several trips of bounded size.
#[tokio::test]
async fn large_values_go_in_trips_of_bounded_size() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let counted = Counted::new(memory.executor().clone());
    let a = node_with(counted.clone(), memory.bus(), &namespace, |b| b.compress_above(usize::MAX))
        .await;
    counted.take();
    let big = "x".repeat(700_000);
    a.cache.put_many((0..10).map(|at| (format!("{at}"), big.clone()))).await.unwrap();
    let counts = counted.take();
    // One value of 700 kB in a step of 1 MiB, five steps in a trip of 4 MiB.
    assert_eq!(counts.steps["cache_put_many"], 10);
    let many = (0..10).map(|at| (format!("small-{at}"), "x".repeat(100_000)));
    a.cache.put_many(many).await.unwrap();
    assert_eq!(counted.take().steps["cache_put_many"], 1);
}

/// Nothing is lost in an outage, and it costs one timeout however many keys there are.
#[tokio::test]
async fn a_bulk_write_in_an_outage_is_queued_as_a_whole_and_made_up_for() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..9_000);
    a.cache.put_many(wanted.iter().map(|key| (key.clone(), "old".to_owned()))).await.unwrap();
    assert_eq!(**b.cache.get_many(&wanted[..1]).get().await.get(&wanted[0]).unwrap(), "old");
    server.stop();
    let began = Instant::now();
    let written = a.cache.put_many(wanted.iter().map(|key| (key.clone(), of(key)))).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let error = written.unwrap_err();
    assert!(error.is_queued() && error.failed.len() == 9_000 && error.token.is_none());
    assert!(matches!(error.failed[0].1, WriteError::Unknown(_)));
    assert!(matches!(error.failed[8_999].1, WriteError::Queued(_)), "it was not even sent");
    let own = a.cache.get(&wanted[8_999]).await.unwrap();
    assert_eq!(
        (own.tier(), &**own),
        (Tier::L1, of(&wanted[8_999]).as_str()),
        "own writes are read"
    );
    server.cont();
    eventually(PATIENCE, "the queue is empty", || async { a.cache.stats().queued == 0 }).await;
    until_gone(&b.cache, &wanted[0]).await;
    let found = b.cache.get_many(&wanted).get().await;
    assert!(found.iter().all(|(_, hit)| **hit != "old"), "the old values are gone everywhere");
}

/// A full server stores none of the new values, and takes all of the old ones away.
#[tokio::test]
async fn a_full_server_takes_a_bulk_put_for_an_invalidation() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..5);
    a.cache.put_many(wanted.iter().map(|key| (key.clone(), "old".to_owned()))).await.unwrap();
    server.config_set("maxmemory", "1").await.unwrap();
    a.cache.put_many(wanted.iter().map(|key| (key.clone(), of(key)))).await.unwrap();
    assert!(b.cache.get_many(&wanted).get().await.is_empty(), "neither the old nor the new ones");
    a.cache.invalidate_many(&wanted).await.unwrap();
    assert!(a.cache.get_many(&wanted).get().await.is_empty());
    let hit = b.cache.get_or_load(&wanted[0], quick("loaded")).await.unwrap();
    assert_eq!(*hit, "loaded");
}

/// Red if a bulk read did not look into the queue.
#[tokio::test]
async fn keys_that_wait_to_be_invalidated_are_not_read_from_l2() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = keys(&["waits", "open"]);
    b.cache.put_many(wanted.iter().map(|key| (key.clone(), "old".to_owned()))).await.unwrap();
    server.stop();
    let error = a.cache.invalidate_many(&wanted[..1]).await.unwrap_err();
    assert!(error.is_queued());
    server.cont();
    // Whether it has been repeated by now or not: the old value does not come back.
    let found = a.cache.get_many(&wanted).get().await;
    assert_eq!(found.missing().collect::<Vec<_>>(), ["waits"]);
}

/// A caller who leaves knows nothing of its writes: all their keys are void here at once, and
/// invalidated everywhere as soon as the server takes it.
#[tokio::test]
async fn a_bulk_write_whose_caller_leaves_is_made_up_for() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..200);
    a.cache.put_many(wanted.iter().map(|key| (key.clone(), "old".to_owned()))).await.unwrap();
    assert_eq!(b.cache.get_many(&wanted).get().await.len(), 200);
    server.stop();
    let (cache, gone) = (a.cache.clone(), wanted.clone());
    let caller = tokio::spawn(async move { cache.invalidate_many(&gone).await });
    let sent = || async { a.counted.peek().steps.contains_key("cache_invalidate_many") };
    eventually(PATIENCE, "the write is on its way", sent).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert!(a.cache.peek(&wanted[0]).is_none() && a.cache.peek(&wanted[199]).is_none());
    assert_eq!(a.cache.stats().queued, 200);
    server.cont();
    for key in &wanted {
        until_gone(&b.cache, key).await;
    }
    eventually(PATIENCE, "the queue is empty", || async { a.cache.stats().queued == 0 }).await;
}
