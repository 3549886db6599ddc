//! What a bulk costs: round trips, commands, loader calls, time.

use std::time::Duration;

use fleetwide_mem_backend::Memory;
use fleetwide_testkit::{RedisServer, eventually};
use fleetwide_two_tier_cache::{BulkItem, CacheTag, Tier};
use tokio::time::Instant;

use crate::common::{self, PATIENCE, node_with};
use crate::counted::{Counted, Counts};
use crate::support::{Asked, Slow, all, counting, counting_within, numbered, of, seen};

#[tokio::test]
async fn a_hundred_keys_with_thirty_missing_cost_three_trips_and_one_loader_call() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..100);
    a.cache.put_many(wanted[..70].iter().map(|key| (key.clone(), of(key)))).await.unwrap();
    b.counted.take();
    let (asked, mgets) = (Asked::default(), seen(&server, "mget").await);
    let found = b.cache.get_many(&wanted).load(asked.loader()).await.unwrap();
    assert!(found.iter().all(|(key, hit)| **hit == of(key)));
    let tiers = |tier| found.iter().filter(|(_, hit)| hit.tier() == tier).count();
    assert_eq!((tiers(Tier::L2), tiers(Tier::Load)), (70, 30));
    assert_eq!(asked.calls(), [wanted[70..].to_vec()]);
    let stored = || async { b.cache.stats().fills_stored == 30 };
    eventually(PATIENCE, "the fills are stored", stored).await;
    let steps = [("MGET", 1), ("cache_fill", 30), ("cache_lease", 30)];
    assert_eq!(b.counted.take(), Counts::new(3, steps));
    assert_eq!(seen(&server, "mget").await, mgets + 1);
    // What was loaded is in L1 here, and in L2 for the others.
    let again = b.cache.get_many(&wanted).load(asked.loader()).await.unwrap();
    assert_eq!((again.len(), b.counted.take()), (100, Counts::default()));
    let there = a.cache.get_many(&wanted[70..]).get().await;
    assert!(there.iter().all(|(_, hit)| hit.tier() == Tier::L2) && there.len() == 30);
    assert_eq!(asked.calls().len(), 1);
}

#[tokio::test]
async fn more_keys_than_one_trip_carries_go_in_several() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..5_000);
    a.cache.put_many(wanted.iter().map(|key| (key.clone(), of(key)))).await.unwrap();
    // 4,096 keys in 32 steps, then 904 in 8.
    assert_eq!(a.counted.take(), Counts::new(2, [("cache_put_many", 40)]));
    let found = b.cache.get_many(&wanted).get().await;
    assert!(found.iter().all(|(key, hit)| **hit == of(key)) && found.len() == 5_000);
    assert_eq!(b.counted.take(), Counts::new(2, [("MGET", 40)]));
}

#[tokio::test]
async fn tags_of_many_values_cost_one_more_trip_and_a_bump_voids_what_carries_it() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let (a, b) = (counting(&server, &namespace).await, counting(&server, &namespace).await);
    let wanted = numbered(0..60);
    let tag = |number: usize| CacheTag::new(format!("group-{}", number % 3)).unwrap();
    let item = |(number, key): (usize, &String)| {
        (key.clone(), BulkItem::new(of(key)).tag(tag(number)).unwrap())
    };
    a.cache.put_many(wanted.iter().enumerate().map(item)).await.unwrap();
    b.counted.take();
    assert_eq!(b.cache.get_many(&wanted).get().await.len(), 60);
    assert_eq!(b.counted.take(), Counts::new(2, [("HMGET", 1), ("MGET", 1)]));
    a.cache.invalidate_tag(&tag(1)).await.unwrap();
    assert_eq!(a.cache.get_many(&wanted).get().await.len(), 40);
    let (c, asked) = (counting(&server, &namespace).await, Asked::default());
    let found = c.cache.get_many(&wanted).load(asked.loader()).await.unwrap();
    assert_eq!((found.len(), asked.calls()[0].len(), asked.calls().len()), (60, 20, 1));
}

/// A server that hangs costs all keys together no more than one budget, and the loader answers (C4).
#[tokio::test]
async fn an_outage_costs_a_bulk_one_budget_and_the_loader_answers() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), common::namespace());
    let budget = Duration::from_millis(100);
    let a = counting_within(&server, &namespace, budget).await;
    let wanted = numbered(0..300);
    a.cache.put(&wanted[0], "cached".to_owned()).await.unwrap();
    server.stop();
    let (asked, started) = (Asked::default(), Instant::now());
    let found = a.cache.get_many(&wanted).load(asked.loader()).await.unwrap();
    // The rest is this machine's.
    assert!(started.elapsed() < budget * 4, "{:?}", started.elapsed());
    assert_eq!((found.len(), asked.calls()), (300, vec![wanted[1..].to_vec()]));
    assert_eq!(**found.get(&wanted[0]).unwrap(), "cached");
    let started = Instant::now();
    let other = numbered(300..310);
    assert!(a.cache.get_many(&other).get().await.is_empty());
    assert!(started.elapsed() < budget * 4, "{:?}", started.elapsed());
    server.cont();
    drop(server);
    assert_eq!(a.cache.get_many(&other).load(all).await.unwrap().len(), 10);
}

/// Who waits for another instance's bulk load is woken by its fills, and asks for all that came
/// together in one trip. The clock moves only when everybody waits.
#[tokio::test(start_paused = true)]
async fn who_waits_for_another_bulk_is_woken_by_its_fills() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let a = common::node(memory.executor().clone(), memory.bus(), &namespace).await;
    let counted = Counted::new(memory.executor().clone());
    let b = common::node(counted.clone(), memory.bus(), &namespace).await;
    let (slow, wanted) = (Slow::new(), numbered(0..50));
    let (cache, loader, asked) = (a.cache.clone(), slow.loader("value"), wanted.clone());
    let first = tokio::spawn(async move { cache.get_many(&asked).load(loader).await });
    slow.began().await;
    let (cache, asked) = (b.cache.clone(), wanted.clone());
    let second = tokio::spawn(async move { cache.get_many(&asked).load(all).await });
    let waits = || async { counted.peek().steps.contains_key("cache_lease") };
    eventually(PATIENCE, "b has asked", waits).await;
    counted.take();
    let finished = Instant::now();
    slow.finish();
    first.await.unwrap().unwrap();
    let found = second.await.unwrap().unwrap();
    assert!(found.len() == 50 && found.iter().all(|(_, hit)| hit.tier() == Tier::L2));
    assert!(finished.elapsed() <= Duration::from_millis(20), "{:?}", finished.elapsed());
    let leases = counted.take().steps["cache_lease"];
    assert!((50..=100).contains(&leases), "{leases}");
}

/// The leases of a slow loader are renewed. Red without the renewal: the other instance then loads
/// as well when the first lease has run out.
#[tokio::test(start_paused = true)]
async fn a_bulk_load_that_outlasts_its_leases_keeps_them() {
    let (memory, namespace) = (Memory::new(), common::namespace());
    let lease = Duration::from_millis(200);
    let short = |executor| node_with(executor, memory.bus(), &namespace, move |b| b.lease(lease));
    let (a, b) = (short(memory.executor().clone()).await, short(memory.executor().clone()).await);
    let (slow, wanted) = (Slow::new(), numbered(0..5));
    let (cache, loader, asked) = (a.cache.clone(), slow.loader("value"), wanted.clone());
    let first = tokio::spawn(async move { cache.get_many(&asked).load(loader).await });
    slow.began().await;
    let (cache, theirs, asked) = (b.cache.clone(), Asked::default(), wanted.clone());
    let loader = theirs.loader();
    let second = tokio::spawn(async move { cache.get_many(&asked).load(loader).await });
    tokio::time::sleep(lease * 5).await;
    slow.finish();
    first.await.unwrap().unwrap();
    let found = second.await.unwrap().unwrap();
    assert!(found.iter().all(|(_, hit)| **hit == "value") && theirs.calls().is_empty());
}
