//! Filling a cache before it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetwide_testkit::eventually;
use fleetwide_two_tier_cache::{Progress, Tier};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::common::{PATIENCE, pair};
use crate::support::{Asked, Pairs, Slow, numbered, of};

fn progress(loaded: u64, present: u64, absent: u64, outdated: u64, failed: u64) -> [u64; 5] {
    [loaded, present, absent, outdated, failed]
}

fn counts(of: &Progress) -> [u64; 5] {
    progress(of.loaded, of.present, of.absent, of.outdated, of.failed)
}

#[tokio::test]
async fn pairs_fill_both_tiers_and_replace_nothing_and_publish_nothing() {
    let (a, b) = pair().await;
    let wanted = numbered(0..250);
    let put = b.cache.put(&wanted[7], "newer".to_owned()).await.unwrap();
    let pairs = stream::iter(wanted.clone()).map(|key| (key.clone(), of(&key)));
    let told = Mutex::new(Vec::new());
    let tell = |progress| told.lock().push(progress);
    let done = a.cache.warm(pairs).on_progress(tell).run().await.unwrap();
    assert_eq!((counts(&done), done.done(), done.left), (progress(249, 1, 0, 0, 0), 250, Some(0)));
    let told: Vec<_> = told.into_inner().iter().map(|p| (p.done(), p.left.unwrap())).collect();
    assert!(told.iter().all(|(done, left)| done + left == 250) && told.len() == 3, "{told:?}");
    let stored = || async { a.cache.stats().fills_stored == 249 };
    eventually(PATIENCE, "the fills are stored", stored).await;
    let found = b.cache.get_many(&wanted).get().await;
    assert!(found.iter().all(|(key, hit)| **hit == if *key == wanted[7] { "newer".to_owned() } else { of(key) }));
    assert!(a.cache.get_many(&wanted).get().await.iter().all(|(_, hit)| hit.tier() == Tier::L1));
    // The next write has the next number: a warm-up leaves no entry in the log.
    let next = b.cache.put(&wanted[8], "next".to_owned()).await.unwrap();
    let seq = |token| fleetwide_core_traits::log::Stamp::from(token).seq;
    assert_eq!(seq(next), seq(put) + 1);
}

#[tokio::test]
async fn keys_are_loaded_in_batches_and_what_is_there_is_taken_from_there() {
    let (a, b) = pair().await;
    let wanted = numbered(0..100);
    b.cache.put_many(wanted[..30].iter().map(|key| (key.clone(), of(key)))).await.unwrap();
    let asked = Asked::default();
    let keys = stream::iter(wanted.clone());
    let done = a.cache.warm_keys(keys, asked.loader()).batch(25).run().await.unwrap();
    assert_eq!(counts(&done), progress(70, 30, 0, 0, 0));
    let mut sizes: Vec<_> = asked.calls().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 25, 25]);
}

/// Red if all batches began at once.
#[tokio::test]
async fn no_more_batches_are_under_way_than_allowed_and_no_more_is_taken_from_the_stream() {
    let (a, _b) = pair().await;
    let (now, most, taken) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let (running, peak) = (Arc::clone(&now), Arc::clone(&most));
    let loader = move |missing: Vec<String>| {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(
                missing.into_iter().map(|key| (key.clone(), of(&key))).collect::<Vec<_>>(),
            )
        }
    };
    let keys = stream::iter(numbered(0..200)).inspect(|_| {
        taken.fetch_add(1, Ordering::SeqCst);
    });
    let watched = |progress: Progress| {
        let ahead = taken.load(Ordering::SeqCst) as u64 - progress.done();
        assert!(ahead <= 30, "{ahead} keys are held");
    };
    let warm = a.cache.warm_keys(keys, loader).batch(10).concurrency(3).on_progress(watched);
    assert_eq!(warm.run().await.unwrap().loaded, 200);
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

/// What a slow stream has given does not wait for the rest of its batch. Red with whole batches only:
/// this stream gives its second key when the first is there.
#[tokio::test]
async fn what_a_slow_stream_has_given_is_warmed_at_once() {
    let (a, _b) = pair().await;
    let wanted = numbered(0..2);
    let cache = a.cache.clone();
    let slowly = stream::iter(wanted.clone().into_iter().enumerate()).then(move |(at, key)| {
        let cache = cache.clone();
        async move {
            if at > 0 {
                let there = || async { cache.stats().fills_stored == 1 };
                eventually(PATIENCE, "the first is there", there).await;
            }
            key
        }
    });
    let done = a.cache.warm_keys(slowly, Asked::default().loader()).run().await.unwrap();
    assert_eq!(counts(&done), progress(2, 0, 0, 0, 0));
}

/// Pairs from before a write of this instance do not undo it. Red without the look at the floors.
#[tokio::test]
async fn a_pair_from_before_a_write_is_left_out() {
    let (a, b) = pair().await;
    let wanted = numbered(0..3);
    let (cache, key) = (a.cache.clone(), wanted[1].clone());
    // The origin is read, then the key is invalidated, and only then the batch is complete.
    let pairs = stream::iter(wanted.clone()).then(move |at| {
        let (cache, key) = (cache.clone(), key.clone());
        async move {
            let pair = (at.clone(), of(&at));
            if at == key {
                cache.invalidate(&key).await.unwrap();
            }
            pair
        }
    });
    let done = a.cache.warm(pairs).run().await.unwrap();
    assert_eq!(counts(&done), progress(2, 0, 0, 1, 0));
    let stored = || async { a.cache.stats().fills_stored == 2 };
    eventually(PATIENCE, "the fills are stored", stored).await;
    for cache in [&a.cache, &b.cache] {
        let found = cache.get_many(&wanted).get().await;
        assert_eq!(found.missing().collect::<Vec<_>>(), [&wanted[1]]);
    }
}

#[tokio::test]
async fn an_origin_that_fails_ends_the_warm_up_after_so_many_failures() {
    let (a, _b) = pair().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&asked);
    let failing = move |_missing: Vec<String>| {
        calls.fetch_add(1, Ordering::SeqCst);
        async { Err::<Pairs, _>(std::io::Error::other("origin is down")) }
    };
    let keys = stream::iter(numbered(0..1_000));
    let warm = a.cache.warm_keys(keys, failing).batch(10).concurrency(1).failures_max(25);
    let error = warm.run().await.unwrap_err();
    assert_eq!((error.progress.failed, error.progress.left), (30, Some(970)));
    assert_eq!(
        error.source.loader_error::<std::io::Error>().unwrap().to_string(),
        "origin is down"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_dropped_warm_up_takes_no_more_and_finishes_what_it_has_begun() {
    let (a, b) = pair().await;
    let (slow, taken) = (Slow::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    let keys = stream::iter(numbered(0..100)).inspect(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let (cache, loader) = (a.cache.clone(), slow.loader("value"));
    let (told, mut progress) = watch::channel(Progress::default());
    let warm = tokio::spawn(async move {
        let tell = move |progress| {
            told.send_replace(progress);
        };
        cache.warm_keys(keys, loader).batch(5).concurrency(1).on_progress(tell).run().await
    });
    slow.began().await;
    slow.finish();
    progress.changed().await.unwrap();
    slow.began().await;
    warm.abort();
    assert!(warm.await.unwrap_err().is_cancelled());
    slow.finish();
    let stored = || async { a.cache.stats().fills_stored == 10 };
    eventually(PATIENCE, "both batches are stored", stored).await;
    assert_eq!(taken.load(Ordering::SeqCst), 10);
    assert_eq!(b.cache.get_many(&numbered(0..100)).get().await.len(), 10);
}
