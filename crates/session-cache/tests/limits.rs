//! What a session, and what all of them together, may have in a process.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Builder, PATIENCE, alone, build, fleet, fleet_with, follow, namespace, put, read};
use fleetwide_core_traits::Local;
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_session_cache::{ConfigError, SessionCache};
use fleetwide_testkit::{Drops, SimClock, eventually};
use fleetwide_two_tier_cache::Tier;

/// Red without the roster: then all sixty are in L1.
#[tokio::test]
async fn fifty_entries_of_a_session_stay_and_those_used_last_at_that() {
    let (_server, [a]) = fleet().await;
    let session = a.session("s");
    for number in 0..50 {
        put(&session, &format!("k{number}"), "v").await;
    }
    // The oldest ten are used again, so the next ten are older now. Red when only writes counted.
    for number in 0..10 {
        read(&session, &format!("k{number}")).await;
    }
    for number in 50..60 {
        put(&session, &format!("k{number}"), "v").await;
    }
    let stats = session.stats().unwrap();
    assert_eq!((stats.entries, stats.evictions), (50, 10));
    let mut elsewhere = 0;
    for number in (0..10).chain(20..60) {
        let found = session.get(&format!("k{number}")).await.found().unwrap();
        elsewhere += u32::from(found.tier() != Tier::L1);
    }
    // Two keys in 65,536 share a stripe, and then a write of one takes the other out of L1.
    assert!(elsewhere <= 3, "{elsewhere} of 50 are not in L1");
    for number in 10..20 {
        let found = session.get(&format!("k{number}")).await.found();
        assert_eq!(found.expect("it is still shared").tier(), Tier::L2, "k{number}");
    }
    assert_eq!(a.sessions.stats().evictions, 20);
}

#[tokio::test]
async fn a_session_does_not_push_out_another() {
    let (_server, [a]) = fleet_with(|builder| builder.l1_entries(5)).await;
    let (small, large) = (a.session("small"), a.session("large"));
    for number in 0..3 {
        put(&small, &format!("k{number}"), "v").await;
    }
    for number in 0..200 {
        put(&large, &format!("k{number}"), "v").await;
    }
    assert_eq!(small.stats().unwrap().entries, 3);
    assert_eq!(large.stats().unwrap().entries, 5);
    assert_eq!(small.stats().unwrap().evictions, 0);
}

/// Without a shared tier, what leaves this process is lost.
#[tokio::test]
async fn in_memory_no_session_loses_entries_by_their_number() {
    let sessions = alone().await;
    let session = sessions.session("s").unwrap();
    for number in 0..500 {
        put(&session, &format!("k{number}"), "v").await;
    }
    let mut lost = 0;
    for number in 0..500 {
        lost += u32::from(read(&session, &format!("k{number}")).await.is_none());
    }
    // Some two are: two keys in 65,536 share a stripe, and a write of one voids the other.
    assert!(lost <= 15, "{lost} of 500 are lost");
}

/// Sessions come and go; the table and L1 stay as large as they may be. Red without the limit on
/// sessions.
#[tokio::test]
async fn sessions_are_tracked_up_to_a_limit() {
    let memory = Memory::builder().cells_max(10_000_000).build();
    let local = MokaLocal::builder().bytes_max(64 << 20).build();
    let builder = SessionCache::<String, _>::builder(
        memory.executor().clone(),
        &namespace(),
        "nodes",
        local.clone(),
    );
    let sessions = builder.sessions_max(160).build().unwrap();
    follow(&sessions, memory.executor().clone(), memory.bus()).await;
    for number in 0..1_000 {
        let session = sessions.session(&format!("s{number}")).unwrap();
        for key in ["a", "b", "c"] {
            put(&session, key, "v").await;
        }
        read(&session, "a").await;
    }
    let active = sessions.stats().active;
    assert!((100..=160).contains(&active), "{active}");
    local.settle();
    assert!(local.len() <= 480, "{} entries in L1", local.len());
    let last = sessions.session("s999").unwrap().stats().unwrap();
    assert_eq!((last.hits, last.entries), (1, 3));
    assert_eq!(sessions.session("s0").unwrap().stats(), None);
}

/// Red when nothing swept, and when an idle session still counted as active.
#[tokio::test]
async fn a_session_that_nobody_uses_is_forgotten_after_its_ttl() {
    let (memory, clock) = (Memory::new(), SimClock::new());
    let options = |builder: Builder<MemExecutor>| {
        builder.ttl(Duration::from_secs(60)).clock(Arc::new(clock.clone()))
    };
    let sessions = build(memory.executor().clone(), &namespace(), options);
    let (idle, busy) = (sessions.session("idle").unwrap(), sessions.session("busy").unwrap());
    read(&idle, "k").await;
    read(&busy, "k").await;
    assert_eq!(sessions.stats().active, 2);
    clock.advance(Duration::from_secs(45));
    read(&busy, "k").await;
    clock.advance(Duration::from_secs(45));
    assert_eq!(sessions.stats().active, 1);
    assert_eq!(idle.stats(), None);
    assert_eq!(busy.stats().unwrap().idle, Duration::from_secs(45));
    read(&idle, "k").await;
    assert_eq!(idle.stats().unwrap().misses, 2, "nothing has swept it yet");
    clock.advance(Duration::from_secs(90));
    let follower = sessions.follower();
    for _ in 0..16 {
        let at = fleetwide_core_traits::log::Stamp::default();
        follower.verified(at, fleetwide_core_traits::MonoTime::default());
    }
    read(&idle, "k").await;
    assert_eq!(idle.stats().unwrap().misses, 1, "it was swept with its counts");
}

#[tokio::test]
async fn hits_and_misses_are_counted_for_each_session() {
    let (_server, [a]) = fleet().await;
    let (s, t) = (a.session("s"), a.session("t"));
    assert_eq!(s.stats(), None);
    put(&s, "k", "v").await;
    assert_eq!(s.stats().unwrap().hit_ratio(), None);
    for _ in 0..9 {
        read(&s, "k").await;
    }
    read(&s, "none").await;
    read(&t, "none").await;
    let load = |_place| async { Ok::<_, std::io::Error>("loaded".to_owned()) };
    t.get_or_load("k", load).await.unwrap();
    t.get_or_load("k", load).await.unwrap();
    assert_eq!(s.stats().unwrap().hit_ratio(), Some(0.9));
    let t = t.stats().unwrap();
    assert_eq!((t.hits, t.misses), (1, 2), "a load is a miss, what it stored a hit");
    let all = a.sessions.stats();
    assert_eq!((all.hits, all.misses, all.active), (10, 3, 2));
    assert_eq!(all.hit_ratio(), Some(10.0 / 13.0));
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let refused = |options: fn(Builder<MemExecutor>) -> Builder<MemExecutor>| {
        let local = MokaLocal::builder().build();
        let executor = Memory::new().executor().clone();
        let builder = SessionCache::builder(executor, &namespace(), "nodes", local);
        options(builder).build().unwrap_err()
    };
    assert!(matches!(refused(|b| b.l1_entries(0)), ConfigError::Zero("l1_entries")));
    assert!(matches!(refused(|b| b.sessions_max(0)), ConfigError::Zero("sessions_max")));
    assert!(matches!(refused(|b| b.changes_max(0)), ConfigError::Zero("changes_max")));
    // It was taken, and the first who watched a session panicked. Red without the most.
    let too_many = ConfigError::TooMany { setting: "changes_max", max: 65_536 };
    assert_eq!(refused(|b| b.changes_max(usize::MAX)), too_many);
    assert_eq!(refused(|b| b.changes_max(65_537)), too_many);
    assert!(matches!(refused(|b| b.ttl(Duration::ZERO)), ConfigError::Cache(_)));
    let (executor, local) = (Memory::new().executor().clone(), MokaLocal::builder().build());
    let unnamed = SessionCache::<String, _>::builder(executor, &namespace(), "", local).build();
    assert!(matches!(unnamed, Err(ConfigError::Name(_))));
}

/// Writes, reads and loads that are dropped anywhere leave nothing behind that hinders the next.
#[tokio::test]
async fn calls_dropped_anywhere_hinder_nobody() {
    let (_server, [a, b]) = fleet().await;
    let (s, t) = (a.session("s"), b.session("s"));
    let id = put(&s, "k", "v").await.id.unwrap();
    Drops::new()
        .run(
            || Box::pin(s.put("k", "dropped".to_owned())),
            async |_| {
                // Nobody knows whether a dropped write was carried out, so its key is invalidated
                // once more, a moment later. That would take `after` along, or keep it
                // out of `a` until then: red without this wait, 30 times in 30.
                let done = async || a.sessions.cache_stats().queued == 0;
                eventually(PATIENCE, "the dropped write to be settled", done).await;
                let stored = put(&t, "k", "after").await;
                assert_eq!(stored.id, Some(id), "the id is the same whatever was dropped");
                assert_eq!(read(&t, "k").await.as_deref(), Some("after"));
            },
        )
        .await;
    let load = |_place| async { Ok::<_, std::io::Error>("loaded".to_owned()) };
    Drops::new()
        .run(
            || s.get_or_load("loaded", load),
            async |_| {
                let answer = t.get_or_load("loaded", load).await.unwrap();
                assert_eq!(common::text(answer).as_deref(), Some("loaded"));
                t.remove("loaded").await.unwrap();
            },
        )
        .await;
    Drops::new()
        .run(
            || a.sessions.resolve(&id),
            async |_| assert!(a.sessions.resolve(&id).await.unwrap().is_found()),
        )
        .await;
}
