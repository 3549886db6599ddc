//! A short id is given once, is the same everywhere, and never another entry's.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    Builder, Node, PATIENCE, build, fleet, fleet_with, follow, namespace, put, read, text,
};
use fleetwide_mem_backend::Memory;
use fleetwide_session_cache::{Answer, ReferenceError, ShortId};
use fleetwide_testkit::{RedisServer, SimClock, eventually};
use fleetwide_two_tier_cache::PutOptions;
use futures_util::future::join_all;

#[tokio::test]
async fn an_id_is_the_same_on_every_instance_and_survives_rewrites() {
    let (_server, [a, b]) = fleet().await;
    let id = put(&a.session("s"), "k", "one").await.id.unwrap();
    assert_eq!(id.as_str().len(), 8);
    assert_eq!(put(&a.session("s"), "k", "two").await.id, Some(id));
    assert_eq!(put(&b.session("s"), "k", "three").await.id, Some(id));
    b.session("s").remove("k").await.unwrap();
    assert!(matches!(b.sessions.resolve(&id).await.unwrap(), Answer::Absent));
    assert_eq!(put(&a.session("s"), "k", "four").await.id, Some(id));
    assert_eq!(b.session("s").short_id("k").await.unwrap(), id);
    assert_ne!(put(&a.session("t"), "k", "other").await.id, Some(id));
}

#[tokio::test]
async fn an_id_resolves_fleet_wide_and_in_its_own_session_alone() {
    let (_server, [a, b]) = fleet().await;
    let id = put(&a.session("s"), "k", "v").await.id.unwrap();
    let found = b.sessions.resolve(&id).await.unwrap().found().unwrap();
    assert_eq!((&***found.value(), found.id()), ("v", Some(id)));
    assert_eq!((found.place().session().as_str(), found.place().key()), ("s", "k"));
    assert_eq!(text(b.session("s").resolve(&id).await.unwrap()).as_deref(), Some("v"));
    // Red when a session resolved whatever is anywhere.
    assert!(matches!(b.session("t").resolve(&id).await.unwrap(), Answer::Absent));
    let unknown: ShortId = "00000000".parse().unwrap();
    assert!(matches!(b.sessions.resolve(&unknown).await.unwrap(), Answer::Absent));
}

#[tokio::test]
async fn instances_that_give_ids_at_the_same_time_give_the_same() {
    let (_server, [a, b, c]) = fleet().await;
    for round in 0..50 {
        let key = format!("k{round}");
        let ids = join_all([&a, &b, &c, &a, &b, &c].map(|node| {
            let (session, key) = (node.session("s"), key.clone());
            async move { session.put(&key, "v".to_owned()).await.unwrap().id.unwrap() }
        }));
        let ids = ids.await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}

/// The name under which the server keeps the place of an id.
fn place_key(namespace: &fleetwide_core_traits::Namespace, id: &str) -> Vec<u8> {
    let shard = namespace.tag("session-ids", format!("nodes/{}", &id[..2]).as_bytes()).unwrap();
    shard.named("is", id.as_bytes()).unwrap().as_bytes().to_vec()
}

/// Red when the second place took the id of the first, and when it kept none.
#[tokio::test]
async fn an_entry_whose_id_another_has_gets_a_longer_one_and_keeps_it() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let a = Node::start(&server.url(), &namespace).await;
    let b = Node::start(&server.url(), &namespace).await;
    let probe = Node::start(&server.url(), &common::namespace()).await;
    let short = put(&probe.session("s"), "k", "v").await.id.unwrap();
    // As if another place whose hash begins the same had come first.
    let taken = place_key(&namespace, short.as_str());
    server.admin(&[b"SET", &taken[..], b"5.other/k", b"PX", b"60000"]).await.unwrap();
    let long = put(&a.session("s"), "k", "v").await.id.unwrap();
    assert_eq!(long.as_str().len(), 10);
    assert!(long.as_str().starts_with(short.as_str()));
    assert_eq!(text(b.sessions.resolve(&long).await.unwrap()).as_deref(), Some("v"));
    let nobody = b.sessions.resolve(&short).await.unwrap();
    assert!(matches!(nobody, Answer::Absent), "what stands there is no place of this id");
    // The shorter one is free again, and is not taken: an id does not change.
    server.admin(&[b"DEL", &taken[..]]).await.unwrap();
    assert_eq!(put(&b.session("s"), "k", "w").await.id, Some(long));
    assert_eq!(put(&a.session("s"), "k", "x").await.id, Some(long));
}

/// What the server holds can be anything, and is not believed.
#[tokio::test]
async fn a_directory_that_lies_is_not_believed() {
    let (server, namespace) = (RedisServer::start().await.unwrap(), namespace());
    let node = Node::start(&server.url(), &namespace).await;
    let id = put(&node.session("s"), "k", "v").await.id.unwrap();
    put(&node.session("t"), "secret", "v").await;
    for lie in [&b"1.t/secret"[..], b"", b"\xff\xfe", b"999.s/k", b"1.s/"] {
        let key = place_key(&namespace, id.as_str());
        server.admin(&[b"SET", &key[..], lie, b"PX", b"60000"]).await.unwrap();
        let answer = node.sessions.resolve(&id).await.unwrap();
        assert!(matches!(answer, Answer::Absent), "{lie:?} led to {answer:?}");
    }
}

#[tokio::test]
async fn every_key_of_the_directory_expires_after_its_entry() {
    let grace = Duration::from_secs(1000);
    let (server, [a]) =
        fleet_with(|builder| builder.id_grace(grace).ttl(Duration::from_secs(500))).await;
    put(&a.session("s"), "k", "v").await;
    let keys = server.admin(&["KEYS", "*session-ids*"]).await.unwrap();
    let keys = keys.as_array().unwrap().to_vec();
    assert_eq!(keys.len(), 2);
    for key in keys {
        let fleetwide_testkit::Reply::Bulk(key) = key else { panic!("{key:?}") };
        let left = server.admin(&[b"PTTL".as_slice(), &key]).await.unwrap();
        let fleetwide_testkit::Reply::Integer(left) = left else { panic!("{left:?}") };
        assert!((1_900_000..=2_000_000).contains(&left), "{left} ms");
    }
}

/// A rewrite that did not lengthen the id left it half the grace once. Red with half the grace in
/// what is needed.
#[tokio::test]
async fn an_id_outlives_the_last_rewrite_of_its_entry_by_the_whole_grace() {
    let (clock, minute) = (SimClock::new(), Duration::from_secs(60));
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let executor = memory.executor().clone();
    let sessions = build(executor.clone(), &namespace(), |builder: Builder<_>| {
        let builder = builder.clock(Arc::new(clock.clone())).alone(true);
        // Only what is counted here is known not to need another question.
        builder.l1_entries(50).ttl(120 * minute).id_grace(60 * minute)
    });
    follow(&sessions, executor, memory.bus()).await;
    let session = sessions.session("s").unwrap();
    for after in [0, 1, 29, 31, 59, 61, 119] {
        let id = put(&session, "k", "one").await.id.unwrap();
        clock.advance(after * minute);
        assert_eq!(put(&session, "k", "two").await.id, Some(id));
        clock.advance(179 * minute);
        let place = sessions.locate(&id).await.unwrap();
        assert!(place.is_some(), "rewritten after {after} min, the id was gone too soon");
        clock.advance(32 * minute);
        assert!(sessions.locate(&id).await.unwrap().is_none(), "and it goes at last");
    }
}

/// Red without what is known of ids here: then each rewrite is two round trips.
#[tokio::test]
async fn a_rewrite_soon_after_costs_no_second_round_trip() {
    let (server, [a]) = fleet().await;
    put(&a.session("s"), "k", "v").await;
    server.reset_stats().await.unwrap();
    for _ in 0..200 {
        put(&a.session("s"), "k", "v").await;
    }
    let asked = server.command_stats().await.unwrap().get("mget").copied().unwrap_or(0);
    // The script that gives ids reads four places with it, and nothing else here uses it often.
    assert!(asked < 100, "asked {asked} times for 200 rewrites");
}

#[tokio::test]
async fn a_reference_shows_its_target_as_it_is_now() {
    let hour = Duration::from_secs(3600);
    let (_server, [a, b]) = fleet_with(|builder| builder.l1_ttl(hour)).await;
    let id = put(&a.session("s"), "k", "one").await.id.unwrap();
    let stored = b.session("t").put_reference("r", &id).await.unwrap();
    let own = stored.id.expect("a reference is an entry, with an id");
    assert_ne!(own, id);
    for node in [&a, &b] {
        let found = node.session("t").get("r").await.found().unwrap();
        assert_eq!((&***found.value(), found.id()), ("one", Some(own)));
        assert_eq!(found.target().unwrap().id, id);
        assert_eq!(found.place().session().as_str(), "t");
        assert_eq!(text(node.sessions.resolve(&own).await.unwrap()).as_deref(), Some("one"));
    }
    // Everything is in the L1 of both now, for an hour: only invalidation can change what is shown.
    put(&a.session("s"), "k", "two").await;
    assert_eq!(read(&a.session("t"), "r").await.as_deref(), Some("two"));
    let current = async || read(&b.session("t"), "r").await.as_deref() == Some("two");
    eventually(PATIENCE, "the change", current).await;
    a.session("s").remove("k").await.unwrap();
    let dangling = async || match b.session("t").get("r").await {
        Answer::Dangling(target) => target.id == id && target.place.key() == "k",
        _ => false,
    };
    eventually(PATIENCE, "the reference to dangle", dangling).await;
    put(&a.session("s"), "k", "three").await;
    let current = async || read(&b.session("t"), "r").await.as_deref() == Some("three");
    eventually(PATIENCE, "the change", current).await;
    a.session("s").end().await.unwrap();
    assert!(matches!(a.session("t").get("r").await, Answer::Dangling(_)));
    let dangling = async || matches!(b.session("t").get("r").await, Answer::Dangling(_));
    eventually(PATIENCE, "the reference to dangle", dangling).await;
    assert!(b.sessions.stats().dangling > 0);
}

/// Red without the limit on how deep references are followed: then it does not end.
#[tokio::test]
async fn a_circle_of_references_dangles() {
    let (_server, [a]) = fleet().await;
    let s = a.session("s");
    let x = put(&s, "x", "value").await.id.unwrap();
    let y = s.put_reference("y", &x).await.unwrap().id.unwrap();
    assert_eq!(read(&s, "y").await.as_deref(), Some("value"));
    s.put_reference("x", &y).await.unwrap();
    assert!(matches!(s.get("x").await, Answer::Dangling(_)));
    assert!(matches!(a.sessions.resolve(&y).await.unwrap(), Answer::Dangling(_)));
    assert_eq!(s.put_reference("x", &x).await, Err(ReferenceError::Itself));
    let unknown: ShortId = "00000000".parse().unwrap();
    let refused = s.put_reference("z", &unknown).await;
    assert_eq!(refused, Err(ReferenceError::Unknown(unknown)));
    assert!(matches!(s.get("z").await, Answer::Absent));
    // Four deep is shown, five is not.
    put(&s, "v0", "deep").await;
    for depth in 1..=5 {
        let below = s.short_id(&format!("v{}", depth - 1)).await.unwrap();
        s.put_reference(&format!("v{depth}"), &below).await.unwrap();
    }
    assert_eq!(read(&s, "v4").await.as_deref(), Some("deep"));
    assert!(matches!(s.get("v5").await, Answer::Dangling(_)));
}

#[tokio::test]
async fn a_reference_lives_as_long_as_it_is_told_to() {
    let (_server, [a]) = fleet().await;
    let id = put(&a.session("s"), "k", "v").await.id.unwrap();
    let brief = PutOptions::default().ttl(Duration::from_millis(50));
    a.session("t").put_reference_with("r", &id, brief).await.unwrap();
    let gone = async || matches!(a.session("t").get("r").await, Answer::Absent);
    eventually(PATIENCE, "the reference to expire", gone).await;
    assert!(read(&a.session("s"), "k").await.is_some());
}
