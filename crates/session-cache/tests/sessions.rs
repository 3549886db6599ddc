//! Entries belong to their session, and go with it, on every instance.

mod common;

use std::time::{Duration, Instant};

use common::{Node, PATIENCE, alone, fleet, fleet_with, namespace, put, read, text};
use fleetwide_core_traits::Executor;
use fleetwide_session_cache::{Answer, NameError, SessionCache, SessionError, SessionLoadError};
use fleetwide_testkit::{RedisServer, eventually};
use fleetwide_two_tier_cache::{CacheTag, Freshness, PutOptions, Tier};

/// The default of the cache below.
const STALENESS_BOUND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn entries_of_two_sessions_under_one_key_are_two() {
    let (_server, [a, b]) = fleet().await;
    // Names that would run into each other if they were only joined.
    for (session, key) in [("s", "x/k"), ("s/x", "k"), ("s", "k"), ("1.s", "k")] {
        put(&a.session(session), key, &format!("{session} {key}")).await;
    }
    for (session, key) in [("s", "x/k"), ("s/x", "k"), ("s", "k"), ("1.s", "k")] {
        assert_eq!(read(&b.session(session), key).await, Some(format!("{session} {key}")));
    }
    a.session("s").remove("k").await.unwrap();
    assert_eq!(read(&a.session("s"), "k").await, None);
    assert_eq!(read(&a.session("1.s"), "k").await.as_deref(), Some("1.s k"));
}

#[tokio::test]
async fn names_that_are_none_are_refused_and_nothing_has_them() {
    let (_server, [a]) = fleet().await;
    assert_eq!(a.sessions.session("").unwrap_err(), NameError::Empty);
    let session = a.session("s");
    for key in ["", &"k".repeat(513)] {
        let refused = session.put(key, "v".to_owned()).await.unwrap_err();
        assert!(matches!(refused, SessionError::Name(_)) && !refused.is_queued());
        assert!(matches!(session.get(key).await, Answer::Absent));
    }
}

#[tokio::test]
async fn a_value_is_loaded_once_for_all_instances_and_ends_with_its_session() {
    let (_server, [a, b]) = fleet().await;
    let load = |_place| async { Ok::<_, std::io::Error>("loaded".to_owned()) };
    let first = a.session("s").get_or_load("k", load).await.unwrap().found().unwrap();
    assert_eq!((&**first, first.tier()), ("loaded", Tier::Load));
    let id = first.id().expect("a load gives an id too");
    let shared = async || b.session("s").get("k").await.is_found();
    eventually(PATIENCE, "the load to be shared", shared).await;
    assert_eq!(text(b.sessions.resolve(&id).await.unwrap()).as_deref(), Some("loaded"));
    // Red without the session's tag on what is loaded: the entry outlives its session.
    b.session("s").end().await.unwrap();
    let gone = async || read(&a.session("s"), "k").await.is_none();
    eventually(PATIENCE, "the end", gone).await;
    assert!(read(&b.session("s"), "k").await.is_none());
    let none = |_place| async { Ok::<_, std::io::Error>(None) };
    let answer = a.session("s").get_or_load("none", none).await.unwrap();
    assert!(matches!(answer, Answer::Absent));
    let fails = |_place| async { Err::<String, _>(std::io::Error::other("no")) };
    let error = a.session("s").get_or_load("fails", fails).await.unwrap_err();
    assert!(matches!(error, SessionLoadError::Load(_)), "{error:?}");
}

/// Red without the tag on each entry, and red when an end forgot only this process.
#[tokio::test]
async fn an_ended_session_is_gone_everywhere_within_the_staleness_bound() {
    let hour = Duration::from_secs(3600);
    let (_server, [a, b, c]) = fleet_with(|builder| builder.l1_ttl(hour)).await;
    // The first bump of a history voids everything in the shared tier; it must not be this one.
    a.session("another").end().await.unwrap();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.extend(put(&a.session("ends"), &format!("k{number}"), "v").await.id);
        put(&a.session("stays"), &format!("k{number}"), "v").await;
    }
    for node in [&b, &c] {
        for number in 0..5 {
            assert!(read(&node.session("ends"), &format!("k{number}")).await.is_some());
            assert!(read(&node.session("stays"), &format!("k{number}")).await.is_some());
        }
    }
    b.session("ends").end().await.unwrap();
    let ended = Instant::now();
    assert_eq!(read(&b.session("ends"), "k0").await, None, "the one who ended it sees it at once");
    for node in [&a, &b, &c] {
        for number in 0..5 {
            let gone = async || {
                let bound_is_over = ended.elapsed() > STALENESS_BOUND;
                let Some(found) = node.session("ends").get(&format!("k{number}")).await.found()
                else {
                    return true;
                };
                let vouched_for = found.freshness() == Freshness::Verified;
                assert!(!bound_is_over || !vouched_for, "older than allowed");
                false
            };
            eventually(PATIENCE, "the end of the session", gone).await;
            assert!(read(&node.session("stays"), &format!("k{number}")).await.is_some());
        }
        for id in &ids {
            let answer = node.sessions.resolve(id).await.unwrap();
            assert!(matches!(answer, Answer::Absent), "its ids no longer resolve");
        }
    }
    // What is written now belongs to a new beginning, under the old ids.
    assert_eq!(put(&c.session("ends"), "k0", "new").await.id, Some(ids[0]));
    assert_eq!(read(&a.session("ends"), "k0").await.as_deref(), Some("new"));
    assert_eq!(read(&a.session("ends"), "k1").await, None);
}

/// Red when what a session had in L1 stayed there after its end.
#[tokio::test]
async fn the_end_gives_memory_back_on_every_instance() {
    let (_server, [a, b]) = fleet().await;
    for number in 0..20 {
        put(&a.session("s"), &format!("k{number}"), "v").await;
        read(&b.session("s"), &format!("k{number}")).await;
    }
    assert_eq!(b.session("s").stats().unwrap().entries, 20);
    a.session("s").end().await.unwrap();
    assert_eq!(a.session("s").stats(), None);
    let gone = async || b.session("s").stats().is_none();
    eventually(PATIENCE, "the end", gone).await;
}

/// Ending a session of a thousand entries is one script on the server.
#[tokio::test]
async fn the_end_is_one_step_however_many_entries_there_are() {
    let (server, [a]) = fleet().await;
    let entries = (0..1000).map(|number| (format!("k{number}"), "v".to_owned())).collect();
    let stored = a.session("s").put_many(entries, &PutOptions::default()).await;
    assert!(stored.iter().all(Result::is_ok));
    server.reset_stats().await.unwrap();
    a.session("s").end().await.unwrap();
    let stats = server.command_stats().await.unwrap();
    // The log's own beats are among it; nothing is done for each entry.
    assert!(stats.values().all(|count| *count < 100), "{stats:?}");
    assert_eq!(read(&a.session("s"), "k999").await, None);
}

#[tokio::test]
async fn a_tag_removes_entries_of_all_sessions_and_ends_none() {
    let (_server, [a, b]) = fleet().await;
    let tag = CacheTag::new("red").unwrap();
    let tagged = || PutOptions::default().tag(tag.clone());
    for session in ["s", "t"] {
        a.session(session).put_with("red", "v".to_owned(), tagged()).await.unwrap();
        put(&a.session(session), "plain", "v").await;
    }
    // A session that is called like the tag has nothing to do with it.
    put(&a.session("red"), "k", "v").await;
    b.sessions.invalidate_tag(&tag).await.unwrap();
    for session in ["s", "t"] {
        assert_eq!(read(&b.session(session), "red").await, None);
        assert!(read(&b.session(session), "plain").await.is_some());
    }
    assert!(read(&b.session("red"), "k").await.is_some());
    b.sessions.clear().await.unwrap();
    assert_eq!(read(&b.session("s"), "plain").await, None);
}

#[tokio::test]
async fn many_entries_are_written_and_read_at_once() {
    let (server, [a, b]) = fleet().await;
    let mut entries: Vec<_> =
        (0..600).map(|number| (format!("k{number}"), format!("v{number}"))).collect();
    entries[7].0 = String::new();
    let stored = a.session("s").put_many(entries, &PutOptions::default()).await;
    assert!(matches!(stored[7], Err(SessionError::Name(NameError::Empty))));
    assert_eq!(stored.iter().filter(|stored| stored.is_ok()).count(), 599);
    // One that is refused does not shift the ids of the others.
    for number in [6, 8, 599] {
        let id = stored[number].as_ref().unwrap().id.unwrap();
        let answer = b.sessions.resolve(&id).await.unwrap().found().unwrap();
        assert_eq!(
            (answer.place().key(), &***answer.value()),
            (&*format!("k{number}"), &*format!("v{number}"))
        );
    }
    let keys: Vec<_> = (0..600).map(|number| format!("k{number}")).collect();
    let read = b.session("s").get_many(&keys).await;
    for (number, answer) in read.into_iter().enumerate() {
        assert_eq!(text(answer), (number != 7).then(|| format!("v{number}")), "k{number}");
    }
    let more = (0..600).map(|number| (format!("w{number}"), "v".to_owned()));
    let warmed = a.session("s").warm(futures_util::stream::iter(more)).await;
    assert_eq!((warmed.stored, warmed.failed), (600, 0));
    server.kill();
    let more = futures_util::stream::iter([("x".to_owned(), "v".to_owned())]);
    assert_eq!(a.session("s").warm(more).await.failed, 1);
}

/// The same steps, over a server and in memory.
async fn transcript<E: Executor + Clone>(sessions: &SessionCache<String, E>) -> Vec<String> {
    let mut said = Vec::new();
    let (s, t) = (sessions.session("s").unwrap(), sessions.session("t").unwrap());
    let mut changes = s.changes();
    // More than a session may have in L1: in memory nothing may be lost for that.
    for number in 0..12 {
        said.push(format!(
            "{:?}",
            s.put(&format!("k{number}"), format!("v{number}")).await.unwrap().id
        ));
    }
    for number in 0..12 {
        said.push(format!("{:?}", read(&s, &format!("k{number}")).await));
    }
    let id = s.short_id("k5").await.unwrap();
    said.push(format!("{:?}", t.put_reference("r", &id).await.map(|stored| stored.id)));
    said.push(format!("{:?} {:?}", read(&t, "r").await, t.resolve(&id).await.unwrap().is_found()));
    s.remove("k5").await.unwrap();
    said.push(format!("{:?}", t.get("r").await));
    put(&s, "k5", "again").await;
    said.push(format!("{:?}", read(&t, "r").await));
    s.end().await.unwrap();
    said.push(format!("{:?} {:?}", t.get("r").await, sessions.resolve(&id).await.unwrap()));
    put(&s, "k5", "anew").await;
    said.push(format!("{:?}", read(&t, "r").await));
    for _ in 0..16 {
        said.push(format!("{:?}", changes.next().await.unwrap()));
    }
    let stats = sessions.stats();
    said.push(format!("{} {} {}", stats.hits, stats.misses, stats.dangling));
    said
}

#[tokio::test]
async fn a_fleet_of_one_in_memory_does_what_one_over_a_server_does() {
    let (_server, [shared]) = fleet_with(|builder| builder.l1_entries(5)).await;
    let shared = transcript(&shared.sessions).await;
    let mut last = Vec::new();
    // Once in a thousand two of these keys share a stripe, and a write of one voids the other,
    // which in memory is lost with it.
    for _ in 0..3 {
        last = transcript(&alone().await).await;
        if last == shared {
            return;
        }
    }
    assert_eq!(shared, last, "left is the server's");
}

#[tokio::test]
async fn trouble_with_the_server_is_told_and_the_writer_reads_its_own_write() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let node = Node::start(&server.url(), &namespace).await;
    let session = node.session("s");
    let id = put(&session, "k", "old").await.id.unwrap();
    server.kill();
    let error = session.put("k", "new".to_owned()).await.unwrap_err();
    assert!(error.is_queued(), "{error}");
    assert_eq!(read(&session, "k").await.as_deref(), Some("new"));
    assert!(node.sessions.resolve(&id).await.is_err(), "nobody can say what has the id");
    assert!(session.end().await.unwrap_err().is_queued());
    assert_eq!(read(&session, "k").await, None, "ended here at least");
    server.restart().await.unwrap();
    let works = async || session.put("k", "back".to_owned()).await.is_ok();
    eventually(PATIENCE, "the server to be back", works).await;
    // The server has lost its directory with the rest. The id is the same all the same.
    let again = async || session.short_id("k").await.is_ok_and(|again| again == id);
    eventually(PATIENCE, "the id", again).await;
}
