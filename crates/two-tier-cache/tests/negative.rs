//! What the origin does not have is remembered as such, and is never mistaken for a value.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{clocked, namespace, pair, quick};
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::SimClock;
use fleetwide_two_tier_cache::{LoadContext, LoadError, PutOptions, Tier};

fn key() -> String {
    "key".to_owned()
}

/// A loader that finds nothing, and counts how often it was asked.
fn nothing(
    asked: &Arc<AtomicUsize>,
) -> impl FnOnce(
    LoadContext<String, String>,
) -> std::future::Ready<Result<Option<String>, std::io::Error>>
+ Send
+ 'static {
    let asked = Arc::clone(asked);
    move |_context| {
        asked.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(None))
    }
}

/// Red without `keep_absent` (in the instance that loaded), and without the negative envelope (in
/// the other one).
#[tokio::test]
async fn what_the_origin_does_not_have_is_asked_for_once() {
    let (a, b) = pair().await;
    let asked = Arc::new(AtomicUsize::new(0));
    for cache in [&a.cache, &a.cache, &b.cache, &b.cache] {
        assert!(cache.try_get_or_load(&key(), nothing(&asked)).await.unwrap().is_none());
        assert!(cache.get(&key()).await.is_none());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(b.cache.stats().hits_absent >= 3);
}

#[tokio::test]
async fn a_write_ends_it_on_every_instance() {
    let (a, b) = pair().await;
    let asked = Arc::new(AtomicUsize::new(0));
    for cache in [&a.cache, &b.cache] {
        cache.try_get_or_load(&key(), nothing(&asked)).await.unwrap();
    }
    a.cache.invalidate(&key()).await.unwrap();
    let found = |_context| async { Ok::<_, std::io::Error>(Some("born".to_owned())) };
    assert_eq!(*a.cache.try_get_or_load(&key(), found).await.unwrap().unwrap(), "born");
    let other = "other".to_owned();
    b.cache.try_get_or_load(&other, nothing(&asked)).await.unwrap();
    b.cache.put(&other, "put".to_owned()).await.unwrap();
    assert_eq!(
        b.cache.try_get_or_load(&other, nothing(&asked)).await.unwrap().unwrap().tier(),
        Tier::L1
    );
}

/// Red without `keep_absent`: every read then asks the server.
#[tokio::test]
async fn the_second_read_stays_in_the_process() {
    let (a, _b) = pair().await;
    let asked = Arc::new(AtomicUsize::new(0));
    a.cache.try_get_or_load(&key(), nothing(&asked)).await.unwrap();
    let _silence = a.executor.hold("MGET");
    assert!(a.cache.try_get_or_load(&key(), nothing(&asked)).await.unwrap().is_none());
    assert!(a.cache.get(&key()).await.is_none());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// The negative entry is stored between the look into L2 and the question who loads. Red when it
/// was taken there for an answer.
#[tokio::test]
async fn a_negative_entry_that_comes_in_between_is_no_answer_either() {
    let (a, b) = pair().await;
    let holding = b.executor.hold("MGET");
    let cache = b.cache.clone();
    let reader = tokio::spawn(async move { cache.get_or_load(&key(), quick("value")).await });
    holding.carried_out().await;
    let asked = Arc::new(AtomicUsize::new(0));
    a.cache.try_get_or_load(&key(), nothing(&asked)).await.unwrap();
    holding.release();
    assert_eq!(*reader.await.unwrap().unwrap(), "value");
}

/// Whoever takes nothing but a value asks the origin again; who joins somebody else's load and
/// learns that there is none is told so. Red when the look into L2 took it for an answer.
#[tokio::test]
async fn a_caller_that_needs_a_value_is_not_content_with_its_absence() {
    let (a, b) = pair().await;
    let asked = Arc::new(AtomicUsize::new(0));
    a.cache.try_get_or_load(&key(), nothing(&asked)).await.unwrap();
    assert_eq!(*b.cache.get_or_load(&key(), quick("value")).await.unwrap(), "value");
    let error = a.cache.get_or_load_with(&"none".to_owned(), nothing(&asked)).await.unwrap_err();
    assert!(matches!(error, LoadError::Absent));
}

/// Values that encode to nothing, or to what others use as a mark, are values.
#[tokio::test]
async fn no_value_is_mistaken_for_a_negative_entry() {
    let (a, b) = pair().await;
    for value in ["", "*", "\0", "null", "None", "rueidisid:1"] {
        let key = format!("key of {value:?}");
        a.cache.put_with(&key, value.to_owned(), PutOptions::default()).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let hit = b.cache.try_get_or_load(&key, nothing(&asked)).await.unwrap().unwrap();
        assert_eq!((&**hit, asked.load(Ordering::SeqCst)), (value, 0));
    }
}

/// Red when a negative entry lived as long as a value, or was served as stale.
#[tokio::test(start_paused = true)]
async fn a_negative_entry_ends_with_its_own_ttl() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let ten = Duration::from_secs(10);
    let executor = memory.executor().clone();
    let options = |builder: fleetwide_two_tier_cache::CacheBuilder<_, _, _>| {
        builder
            .negative_ttl(ten)
            .l1_ttl(ten * 9)
            .stale_if_error(ten * 9)
            .stale_while_revalidate(ten * 9)
    };
    let node = clocked(executor, &memory, &clock, &namespace(), options).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let ask = async || node.cache.try_get_or_load(&key(), nothing(&asked)).await;
    ask().await.unwrap();
    clock.advance(Duration::from_secs(9));
    ask().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    clock.advance(Duration::from_secs(2));
    ask().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
