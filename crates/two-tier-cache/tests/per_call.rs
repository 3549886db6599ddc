//! What one call does differently from its cache. Simulated time throughout.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{clocked, namespace};
use fleetwide_core_traits::Ttl;
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use fleetwide_two_tier_cache::{
    BulkItem, Cache, CacheBuilder, JitterError, LoadContext, PutOptions, Tier, WriteError,
};

type Values = Cache<String, String, MemExecutor>;

const TTL: Duration = Duration::from_secs(60);
const L1_TTL: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// A cache whose values live for a minute, 5 s of it without a look at L2, and its clock.
async fn cache(
    options: impl FnOnce(
        CacheBuilder<String, String, MemExecutor>,
    ) -> CacheBuilder<String, String, MemExecutor>,
) -> (Values, SimClock) {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let executor = memory.executor().clone();
    let options = |builder: CacheBuilder<_, _, _>| options(builder.ttl(TTL).l1_ttl(L1_TTL));
    let node = clocked(executor, &memory, &clock, &namespace(), options).await;
    (node.cache, clock)
}

fn text(text: &str) -> String {
    text.to_owned()
}

async fn tier(cache: &Values, key: &str) -> Tier {
    cache.get(&text(key)).await.expect("it lives for a minute").tier()
}

/// Puts, loads and puts in bulk a value each, which are to stay in L1 for `l1_ttl`; and one that says
/// nothing.
async fn fill(cache: &Values, l1_ttl: Duration) {
    let options = PutOptions::default().l1_ttl(l1_ttl);
    cache.put_with(&text("put"), text("value"), options).await.unwrap();
    let loader = move |context: LoadContext<String, String>| async move {
        context.l1_ttl(l1_ttl)?;
        Ok::<_, fleetwide_core_traits::TtlError>(text("value"))
    };
    cache.get_or_load_with(&text("loaded"), loader).await.unwrap();
    let item = BulkItem::new(text("value")).l1_ttl(Ttl::new(l1_ttl).unwrap());
    cache.put_many([(text("bulk"), item.clone())]).await.unwrap();
    let loader = move |keys: Vec<String>| {
        let items: Vec<_> = keys.into_iter().map(|key| (key, item.clone())).collect();
        async move { Ok::<_, std::io::Error>(items) }
    };
    cache.get_many(&[text("bulk loaded")]).load(loader).await.unwrap();
    cache.put(&text("usual"), text("value")).await.unwrap();
}

/// Red for each of the four where `own_head` takes the cache's time alone.
#[tokio::test(start_paused = true)]
async fn a_value_stays_in_l1_as_long_as_it_was_said_to() {
    for (said, after) in [(SECOND, 2 * SECOND), (3 * L1_TTL, 2 * L1_TTL)] {
        let (cache, clock) = cache(|builder| builder).await;
        fill(&cache, said).await;
        clock.advance(after);
        let (own, usual) = if said < L1_TTL { (Tier::L2, Tier::L1) } else { (Tier::L1, Tier::L2) };
        for key in ["put", "loaded", "bulk", "bulk loaded"] {
            assert_eq!(tier(&cache, key).await, own, "{key}, {said:?}");
        }
        assert_eq!(tier(&cache, "usual").await, usual, "{said:?}");
    }
}

/// Red without `l1_ttl` in `has_lapsed`.
#[tokio::test(start_paused = true)]
async fn a_read_takes_from_l1_only_what_has_not_been_there_for_too_long() {
    let (cache, clock) = cache(|builder| builder).await;
    let key = text("key");
    cache.put(&key, text("value")).await.unwrap();
    clock.advance(2 * SECOND);
    let own = |l1_ttl| cache.at(&key).l1_ttl(l1_ttl).get();
    assert_eq!(own(3 * SECOND).await.unwrap().tier(), Tier::L1);
    let many = |l1_ttl| {
        let (cache, keys) = (cache.clone(), [key.clone()]);
        async move { cache.get_many(&keys).l1_ttl(l1_ttl).get().await.get(&keys[0]).unwrap().tier() }
    };
    assert_eq!(many(3 * SECOND).await, Tier::L1);
    assert_eq!(own(SECOND).await.unwrap().tier(), Tier::L2);
    assert_eq!(own(SECOND).await.unwrap().tier(), Tier::L1, "it has just been put there");
    clock.advance(2 * SECOND);
    assert_eq!(many(SECOND).await, Tier::L2);
    assert_eq!(own(Duration::ZERO).await.unwrap().tier(), Tier::L2);
    clock.advance(L1_TTL);
    assert_eq!(own(TTL).await.unwrap().tier(), Tier::L2, "a read makes it no longer");
}

/// How many of 64 values live after three quarters of their time.
async fn alive_late(cache: &Values, clock: &SimClock) -> usize {
    clock.advance(TTL * 3 / 4);
    let mut alive = 0;
    for number in 0..64 {
        alive += usize::from(cache.get(&number.to_string()).await.is_some());
    }
    alive
}

/// Red where `jittered` takes the cache's share alone.
#[tokio::test(start_paused = true)]
async fn a_value_has_the_jitter_that_it_was_given() {
    for (usual, own, some_go) in [(0.0, 0.5, true), (0.5, 0.0, false)] {
        let jittered = || cache(move |builder| builder.jitter(usual));
        let fits = |alive: usize| if some_go { (1..64).contains(&alive) } else { alive == 64 };

        let (cache, clock) = jittered().await;
        for number in 0..64 {
            let options = PutOptions::default().jitter(own);
            cache.put_with(&number.to_string(), text("value"), options).await.unwrap();
        }
        let alive = alive_late(&cache, &clock).await;
        assert!(fits(alive), "{alive} puts with {own} of {usual}");

        let (cache, clock) = jittered().await;
        for number in 0..64 {
            let loader = move |context: LoadContext<String, String>| async move {
                context.jitter(own).map(|()| text("value"))
            };
            cache.get_or_load_with(&number.to_string(), loader).await.unwrap();
        }
        let alive = alive_late(&cache, &clock).await;
        assert!(fits(alive), "{alive} loads with {own} of {usual}");

        let (cache, clock) = jittered().await;
        let item = BulkItem::new(text("value")).jitter(own).unwrap();
        cache.put_many((0..64).map(|number| (number.to_string(), item.clone()))).await.unwrap();
        let alive = alive_late(&cache, &clock).await;
        assert!(fits(alive), "{alive} of a bulk put with {own} of {usual}");
    }
}

/// How many loads a value sees that took a second and has 10 ms to live, read with `beta`.
async fn renewals(usual: Option<f64>, own: Option<f64>) -> usize {
    let renewing = |builder: CacheBuilder<String, String, MemExecutor>| {
        let builder = builder.l1_ttl(TTL);
        if let Some(beta) = usual { builder.early_refresh(beta) } else { builder }
    };
    let (cache, clock) = cache(renewing).await;
    let (key, later) = (text("key"), clock.clone());
    let slow = move |_key: String| async move {
        later.advance(SECOND);
        Ok::<_, std::io::Error>(text("value"))
    };
    cache.get_or_load(&key, slow).await.unwrap();
    clock.advance(TTL * 5_999 / 6_000);
    let loads = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let count = Arc::clone(&loads);
        let read = cache.at(&key);
        let read = if let Some(beta) = own { read.early_refresh(beta) } else { read };
        let loader = move |_key| async move {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(text("new"))
        };
        assert_ne!(read.get_or_load(loader).await.unwrap().tier(), Tier::Load);
        tokio::task::yield_now().await;
    }
    loads.load(Ordering::SeqCst)
}

/// Red where `is_early` asks the cache instead of the read. With the load a hundred times as long as
/// what is left, a read that may renew does so 99 times in 100.
#[tokio::test(start_paused = true)]
async fn a_read_renews_as_eagerly_as_it_was_told_to() {
    assert_eq!(renewals(None, None).await, 0);
    assert!(renewals(None, Some(1.0)).await > 0);
    assert!(renewals(Some(1.0), None).await > 0);
    for never in [0.0, -1.0, f64::NAN] {
        assert_eq!(renewals(Some(1.0), Some(never)).await, 0, "{never}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_none_is_refused_and_nothing_is_written() {
    let (cache, _clock) = cache(|builder| builder).await;
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let options = PutOptions::default().jitter(share);
        let written = cache.put_with(&text("key"), text("value"), options).await;
        assert!(matches!(written, Err(WriteError::Jitter(JitterError))), "{share}: {written:?}");
        let item = BulkItem::<String>::new(text("value")).jitter(share);
        assert_eq!(item.err(), Some(JitterError));
        let loader = move |context: LoadContext<String, String>| async move {
            context.jitter(share).map(|()| text("value"))
        };
        let refused = cache.get_or_load_with(&text("key"), loader).await.unwrap_err();
        assert_eq!(refused.loader_error(), Some(&JitterError));
    }
    let options = PutOptions::default().l1_ttl(Duration::ZERO);
    let written = cache.put_with(&text("key"), text("value"), options).await;
    assert!(matches!(written, Err(WriteError::Ttl(_))), "{written:?}");
    assert!(cache.get(&text("key")).await.is_none());
}
