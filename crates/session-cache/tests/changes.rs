//! Whoever watches a session misses nothing that happens to it, or is told that something may be
//! missing.

mod common;

use std::time::Duration;

use common::{Builder, Node, PATIENCE, build, fleet, fleet_with, follow, namespace, put, read};
use fleetwide_core_traits::Executor;
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_session_cache::{Changes, Gap, SessionChange};
use fleetwide_testkit::{Drops, Proxy, RedisServer, eventually};
use fleetwide_two_tier_cache::CacheTag;
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

async fn next<E: Executor + Clone>(changes: &mut Changes<E>) -> SessionChange {
    timeout(PATIENCE, changes.next())
        .await
        .expect("a change comes in time")
        .expect("the cache lives")
}

/// A change in a few words: `put k ID`, with the id's presence only.
async fn said<E: Executor + Clone>(changes: &mut Changes<E>) -> String {
    match next(changes).await {
        SessionChange::Put(entry) => format!("put {} {}", entry.key, entry.id.is_some()),
        SessionChange::Removed(entry) => format!("removed {} {}", entry.key, entry.id.is_some()),
        SessionChange::Ended => "ended".to_owned(),
        SessionChange::Cleared => "cleared".to_owned(),
        SessionChange::TagRemoved(tag) => format!("tag {tag:?}"),
        SessionChange::Gap(gap) => format!("{gap:?}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn every_instance_is_told_what_any_does_in_the_order_of_doing() {
    let (_server, [a, b, c]) = fleet().await;
    let mut all = [a.session("s").changes(), b.session("s").changes(), c.session("s").changes()];
    let id = put(&a.session("s"), "x", "1").await.id.unwrap();
    put(&a.session("other"), "x", "not of this session").await;
    put(&b.session("s"), "y", "2").await;
    c.session("s").remove("x").await.unwrap();
    a.session("s").end().await.unwrap();
    put(&b.session("s"), "z", "3").await;
    b.sessions.invalidate_tag(&CacheTag::new("red").unwrap()).await.unwrap();
    b.sessions.clear().await.unwrap();
    for changes in &mut all {
        let SessionChange::Put(entry) = next(changes).await else { panic!("a put comes first") };
        assert_eq!((&*entry.key, entry.id), ("x", Some(id)));
        assert_eq!(said(changes).await, "put y true");
        let SessionChange::Removed(entry) = next(changes).await else { panic!("then a removal") };
        assert_eq!((&*entry.key, entry.id), ("x", Some(id)), "its id is known although it is gone");
        assert_eq!(said(changes).await, "ended");
        assert_eq!(said(changes).await, "put z true");
        assert_eq!(said(changes).await, "tag red");
        assert_eq!(said(changes).await, "cleared");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_after_being_told_reads_the_change() {
    let hour = Duration::from_secs(3600);
    let (_server, [a, b]) = fleet_with(|builder| builder.l1_ttl(hour)).await;
    put(&a.session("s"), "k", "0").await;
    let mut changes = b.session("s").changes();
    let (writer, reader) = (a.session("s"), b.session("s"));
    for round in 1..100 {
        let wanted = round.to_string();
        read(&reader, "k").await;
        put(&writer, "k", &wanted).await;
        // The first change may be the write from before the subscription.
        while !matches!(next(&mut changes).await, SessionChange::Put(_)) {}
        let value: u32 = read(&reader, "k").await.unwrap().parse().unwrap();
        assert!(value >= round - 1, "told of {round}, read {value}");
    }
}

/// Red without the forwarded gap: the subscriber hears the next change and misses those between.
#[tokio::test]
async fn a_history_that_is_lost_is_told() {
    let (server, [a, b]) = fleet().await;
    put(&a.session("s"), "k", "v").await;
    let (mut watched, mut other) = (b.session("s").changes(), b.session("t").changes());
    server.kill();
    server.restart().await.unwrap();
    let back = async || a.session("s").put("k", "v".to_owned()).await.is_ok();
    eventually(PATIENCE, "the server to be back", back).await;
    for changes in [&mut watched, &mut other] {
        // The write from before may have come round after the subscription had begun.
        let mut told = next(changes).await;
        while matches!(told, SessionChange::Put(_)) {
            told = next(changes).await;
        }
        assert_eq!(told, SessionChange::Gap(Gap::Reset));
    }
    // What comes after it is told again.
    let mut last = String::new();
    put(&a.session("s"), "last", "v").await;
    while last != "put last true" {
        last = said(&mut watched).await;
    }
}

/// One instance behind a wire that can be cut, and one that is not.
async fn cut_off() -> (RedisServer, Proxy, Node, Node) {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let b = Node::start(&proxy.url_like(&server.url()), &namespace).await;
    let a = Node::start(&server.url(), &namespace).await;
    (server, proxy, a, b)
}

/// Ends what stands, and lets nothing new in.
fn cut(proxy: &Proxy) {
    proxy.refuse();
    proxy.cut();
}

#[tokio::test]
async fn what_happens_while_an_instance_is_cut_off_is_told_when_it_is_back() {
    let (_server, proxy, a, b) = cut_off().await;
    let mut changes = b.session("s").changes();
    put(&a.session("s"), "before", "v").await;
    assert_eq!(said(&mut changes).await, "put before true");
    cut(&proxy);
    for number in 0..20 {
        put(&a.session("s"), &format!("k{number}"), "v").await;
    }
    a.session("s").end().await.unwrap();
    proxy.pass();
    for number in 0..20 {
        // An id is asked for as the change is taken out; the connection may still be on its way.
        let told = said(&mut changes).await;
        assert!(told.starts_with(&format!("put k{number} ")), "{told}");
    }
    assert_eq!(said(&mut changes).await, "ended");
}

/// More happens than the log keeps: what cannot be told any more is a gap.
#[tokio::test]
async fn what_the_log_has_forgotten_is_a_gap() {
    let (_server, proxy, a, b) = cut_off().await;
    let mut changes = b.session("s").changes();
    cut(&proxy);
    let other = a.session("other");
    let writes = (0..4200).map(|_| other.put("k", "v".to_owned()));
    let stored: Vec<_> = stream::iter(writes).buffer_unordered(64).collect().await;
    assert!(stored.iter().all(Result::is_ok));
    put(&a.session("s"), "k", "v").await;
    proxy.pass();
    let SessionChange::Gap(Gap::Missed { first, last }) = next(&mut changes).await else {
        panic!("a gap comes first")
    };
    assert!(first <= last && last >= 100, "{first} to {last}");
}

/// Red when the count of what was dropped was taken for the end, or for nothing.
#[tokio::test]
async fn a_slow_subscriber_is_told_how_much_it_missed() {
    let (_server, [a]) = fleet_with(|builder| builder.changes_max(4)).await;
    let (mut slow, mut quick) = (a.session("s").changes(), a.session("s").changes());
    for number in 0..10 {
        put(&a.session("s"), &format!("k{number}"), "v").await;
        assert_eq!(said(&mut quick).await, format!("put k{number} true"));
    }
    assert_eq!(next(&mut slow).await, SessionChange::Gap(Gap::Lagged(6)));
    for number in 6..10 {
        assert_eq!(said(&mut slow).await, format!("put k{number} true"));
    }
    assert_eq!(a.sessions.stats().lagged, 6);
}

#[tokio::test]
async fn a_subscription_before_the_log_is_followed_says_so() {
    let memory = Memory::new();
    let sessions = build(memory.executor().clone(), &namespace(), |b: Builder<MemExecutor>| b);
    let session = sessions.session("s").unwrap();
    let mut changes = session.changes();
    put(&session, "unheard", "v").await;
    follow(&sessions, memory.executor().clone(), memory.bus()).await;
    timeout(PATIENCE, sessions.followed()).await.unwrap();
    assert_eq!(next(&mut changes).await, SessionChange::Gap(Gap::NotFollowed));
    put(&session, "heard", "v").await;
    assert_eq!(said(&mut changes).await, "put heard true");
    let mut late = session.changes();
    put(&session, "k", "v").await;
    assert_eq!(said(&mut late).await, "put k true", "nothing is missing for who comes later");
}

#[tokio::test]
async fn a_subscription_ends_with_the_cache() {
    let memory = Memory::new();
    let sessions = build(memory.executor().clone(), &namespace(), |b: Builder<MemExecutor>| b);
    follow(&sessions, memory.executor().clone(), memory.bus()).await;
    let mut changes = sessions.session("s").unwrap().changes();
    drop(sessions);
    assert_eq!(timeout(PATIENCE, changes.next()).await.unwrap(), None);
}

/// Red when the change was taken out before its id was asked for, and not kept meanwhile: then a
/// caller that gives up in between loses it.
#[tokio::test]
async fn a_change_that_was_not_returned_comes_with_the_next_call() {
    let (_server, [a]) = fleet().await;
    let session = a.session("s");
    let changes = tokio::sync::Mutex::new(session.changes());
    let expected = std::sync::atomic::AtomicU32::new(0);
    let polls = Drops::new().run(
        || async {
            put(&session, &expected.load(std::sync::atomic::Ordering::SeqCst).to_string(), "v")
                .await;
            let mut changes = changes.lock().await;
            changes.next().await
        },
        async |_| {
            // Whatever was written and not returned comes now, up to a mark; nothing is skipped.
            let number = expected.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            put(&session, &format!("mark {number}"), "v").await;
            let mut changes = changes.lock().await;
            let mut told = Vec::new();
            while told.last() != Some(&format!("put mark {number} true")) {
                told.push(said(&mut changes).await);
            }
            assert!(told.len() <= 2, "{told:?}");
        },
    );
    let polls = Box::pin(polls).await;
    assert!(polls > 0);
}

/// The drop points of `next` alone: the write is done before, so its change must come.
#[tokio::test]
async fn no_drop_of_next_loses_the_change_it_had_taken() {
    let (_server, [a]) = fleet().await;
    let session = a.session("s");
    let mut number = 0_u32;
    loop {
        // One more poll each round, until a round completes.
        let mut changes = session.changes();
        put(&session, &format!("k{number}"), "v").await;
        let mut polls = 0;
        let finished = {
            let mut next = std::pin::pin!(changes.next());
            std::future::poll_fn(|cx| {
                if polls == number {
                    return std::task::Poll::Ready(None);
                }
                polls += 1;
                next.as_mut().poll(cx).map(Some)
            })
            .await
        };
        if finished.is_some() {
            break;
        }
        assert_eq!(said(&mut changes).await, format!("put k{number} true"));
        number += 1;
    }
    assert!(number > 1, "there is a point between taking it and returning it");
}
