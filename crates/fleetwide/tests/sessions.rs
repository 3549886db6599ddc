//! Sessions of a fleet: the same code in memory and over Redis.

use std::time::Duration;

use fleetwide::Fleetwide;
use fleetwide::env::{Settings, Vars};
use fleetwide::sessions::{SessionChange, Sessions};
use fleetwide_testkit::{RedisServer, eventually};

const SOON: Duration = Duration::from_secs(20);

/// What a service does with a session, whatever is behind it.
async fn use_it(here: &Sessions<String>, there: &Sessions<String>) {
    let mut changes = there.session("alice").unwrap().changes();
    let session = here.session("alice").unwrap();
    let id = session.put("plan", "buy milk".to_owned()).await.unwrap().id.unwrap();
    let found = there.resolve(&id).await.unwrap().found().unwrap();
    assert_eq!((found.as_str(), found.place().key()), ("buy milk", "plan"));
    let bob = there.session("bob").unwrap();
    bob.put_reference("alices", &id).await.unwrap();
    assert!(bob.get("alices").await.is_found());
    match changes.next().await {
        Some(SessionChange::Put(entry)) => assert_eq!(entry.id, Some(id)),
        other => panic!("{other:?}"),
    }
    let token = session.end().await.unwrap();
    let applied = here.wait_applied(token, SOON).await.unwrap();
    assert!(applied.nodes >= 1);
    let gone = async || !bob.get("alices").await.is_found();
    eventually(SOON, "the end of the session", gone).await;
    assert_eq!(changes.next().await, Some(SessionChange::Ended));
}

#[tokio::test]
async fn sessions_work_in_memory_with_nothing_configured() {
    let fleet = Fleetwide::memory();
    let sessions = fleet.sessions::<String>("chats").build().unwrap();
    sessions.followed().await;
    use_it(&sessions, &sessions).await;
}

#[tokio::test]
async fn sessions_are_shared_over_redis() {
    let redis = RedisServer::start().await.unwrap();
    let url = redis.url();
    let fleet = || {
        let settings = Settings::from_vars(&Vars::fixed([("REDIS_URL", url.as_str())])).unwrap();
        Fleetwide::from_settings(settings).unwrap()
    };
    let (a, b) = (fleet(), fleet());
    for fleet in [&a, &b] {
        eventually(SOON, "redis", async || fleet.health().overall().is_up()).await;
    }
    let sessions = |fleet: &Fleetwide| {
        let slow = Duration::from_secs(10);
        let chats = fleet.sessions::<String>("chats");
        chats.options(move |rest| rest.options(move |below| below.l2_budget(slow))).build().unwrap()
    };
    let (here, there) = (sessions(&a), sessions(&b));
    here.followed().await;
    there.followed().await;
    use_it(&here, &there).await;
    // A plain cache of the same name is another cache.
    let plain = a.cache::<String, String>("chats").build().unwrap();
    plain.put(&"5.alice/plan".to_owned(), "plain".to_owned()).await.unwrap();
    assert!(!there.session("alice").unwrap().get("plan").await.is_found());
    a.shutdown().await;
    b.shutdown().await;
}
