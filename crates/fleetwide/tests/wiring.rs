//! What the facade promises by itself: which role talks to which backend, and how it starts.

use std::time::Duration;

use fleetwide::cache::Tier;
use fleetwide::env::{RedisUrl, Servers, Settings, Vars};
use fleetwide::events::{Event, Pattern};
use fleetwide::limiter::{ConcurrencyQuota, Entry, Quota, Source};
use fleetwide::{Fleetwide, Memory, Namespace, Role, StartError};
use fleetwide_testkit::{RedisServer, eventually, unique_namespace};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);

fn fleet(vars: &[(&str, &str)]) -> Result<Fleetwide, StartError> {
    Fleetwide::from_settings(Settings::from_vars(&Vars::fixed(vars.iter().copied()))?)
}

fn two_per_hour() -> Quota {
    Quota::sliding_window(2, Duration::from_secs(3600)).unwrap()
}

async fn until_up(fleet: &Fleetwide) {
    eventually(SOON, "all roles to be up", async || fleet.health().overall().is_up()).await;
}

#[tokio::test]
async fn nothing_set_is_in_memory_and_up() {
    let fleet = fleet(&[("REDIS_URL", "")]).unwrap();
    assert_eq!(fleet.mode().name(), "memory");
    assert!(fleet.health().overall().is_up());
    assert!(fleet.health().roles().all(|role| !role.enabled));
    assert_eq!(fleet.infos().await, [None, None, None]);
}

#[tokio::test]
async fn fleets_with_one_memory_are_instances_of_one_service() {
    let memory = Memory::new();
    let instance = || Fleetwide::builder().memory(memory.clone()).build().unwrap();
    let (a, b) = (instance(), instance());
    let limiter = |fleet: &Fleetwide| fleet.limiter("logins", two_per_hour()).build().unwrap();
    assert!(limiter(&a).check("ada").await.unwrap().is_allowed());
    assert!(limiter(&b).check("ada").await.unwrap().is_allowed());
    assert!(!limiter(&a).check("ada").await.unwrap().is_allowed());
    let mut heard = b.events().subscribe(Pattern::all());
    b.events().log().begun().await.unwrap();
    a.events().publish("greeting", "hello").await.unwrap();
    let Some(Event::Message(message)) = heard.next().await else { panic!("no message") };
    assert_eq!(message.payload, "hello");
}

// Red when either is not given the fleet's executor or namespace.
#[tokio::test]
async fn limits_of_several_levels_and_permits_are_shared_by_the_instances() {
    let memory = Memory::new();
    let instance = || Fleetwide::builder().memory(memory.clone()).build().unwrap();
    let [a, b] = [instance(), instance()];
    let limits = |fleet: &Fleetwide| {
        let limits = fleet.limits("api", &["tenant", "user"]);
        limits.rate("tenant", &["tenant"], two_per_hour()).build().unwrap()
    };
    for (fleet, is_allowed) in [(&a, true), (&b, true), (&a, false)] {
        let ruling = limits(fleet).check(&["seven", "ada"], 1).await.unwrap();
        assert_eq!(ruling.is_allowed(), is_allowed);
    }
    let one = ConcurrencyQuota::new(1, Duration::from_secs(60)).unwrap();
    let exports = |fleet: &Fleetwide| fleet.concurrency_limiter("exports", one).build().unwrap();
    let (of_a, of_b) = (exports(&a), exports(&b));
    let permit = of_a.try_acquire("seven").await.unwrap().permit().unwrap();
    assert!(matches!(of_b.try_acquire("seven").await.unwrap(), Entry::Deny { .. }));
    permit.release().await.unwrap();
    assert!(of_b.try_acquire("seven").await.unwrap().is_held());
}

// Red with another rung than that of the settings.
#[tokio::test]
async fn limits_and_permits_take_the_fleets_rung_when_redis_is_away() {
    let vars = [("REDIS_URL", "redis://127.0.0.1:1"), ("RATE_LIMIT_ON_UNAVAILABLE", "deny")];
    let fleet = fleet(&vars).unwrap();
    let limits = fleet.limits("api", &["tenant"]).rate("hour", &["tenant"], two_per_hour());
    let ruling = limits.build().unwrap().check(&["seven"], 1).await.unwrap();
    assert_eq!(ruling.decision.source(), Source::Closed);
    let one = ConcurrencyQuota::new(1, Duration::from_secs(60)).unwrap();
    let exports = fleet.concurrency_limiter("exports", one).build().unwrap();
    let entry = exports.try_acquire("seven").await.unwrap();
    assert!(matches!(entry, Entry::Deny { source: Source::Closed, .. }));
}

#[tokio::test]
async fn all_that_a_cache_holds_is_within_its_one_budget() {
    const BYTES_MAX: u64 = 1 << 20;
    let cache = Fleetwide::memory().cache::<u64, Vec<u8>>("pages").bytes_max(BYTES_MAX);
    let cache = cache.build().unwrap();
    let mut reads = JoinSet::new();
    for number in 0..2_000 {
        cache.put(&number, vec![7; 1_000]).await.unwrap();
        let cache = cache.clone();
        let loader = |_| std::future::pending::<Result<_, std::io::Error>>();
        reads.spawn(async move { cache.get_or_load(&(number + 2_000), loader).await.map(drop) });
    }
    let full = async || {
        let stats = cache.stats();
        let waiting = stats.flight_bytes + stats.queue_bytes;
        assert!(stats.l1_bytes + waiting <= BYTES_MAX, "{stats:?}");
        assert!(waiting <= BYTES_MAX / 16, "{stats:?}");
        stats.l1_bytes > BYTES_MAX / 2 && waiting > BYTES_MAX / 32
    };
    eventually(SOON, "L1 and what waits have what they may", full).await;
}

#[tokio::test]
async fn event_bus_of_a_fleet_is_one_however_often_it_is_asked_for() {
    let fleet = Fleetwide::memory();
    assert_eq!(fleet.events().source(), fleet.clone().events().source());
}

#[tokio::test]
async fn instances_on_one_redis_share_a_cache() {
    let redis = RedisServer::start().await.unwrap();
    let url = redis.url();
    let (a, b) = (fleet(&[("REDIS_URL", &url)]).unwrap(), fleet(&[("REDIS_URL", &url)]).unwrap());
    until_up(&a).await;
    until_up(&b).await;
    let cache = |fleet: &Fleetwide| fleet.cache::<u64, String>("users").build().unwrap();
    let (on_a, on_b) = (cache(&a), cache(&b));
    on_a.put(&7, "Ada".to_owned()).await.unwrap();
    let hit = on_b.get(&7).await.expect("it is shared");
    assert_eq!((hit.value().as_str(), hit.tier()), ("Ada", Tier::L2));
    on_a.invalidate(&7).await.unwrap();
    eventually(SOON, "the invalidation", async || on_b.get(&7).await.is_none()).await;
    // The others are known by then, and need not be guessed at.
    let put = on_a.put(&7, "Grace".to_owned()).await.unwrap();
    assert_eq!(on_a.wait_applied(put, SOON).await.unwrap().nodes, 2);
    assert_eq!(*on_b.get(&7).await.unwrap(), "Grace");
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn roles_with_equal_urls_share_one_client() {
    let redis = RedisServer::start().await.unwrap();
    let connections = async |servers: Servers| {
        let fleet = Fleetwide::builder().servers(servers).build().unwrap();
        until_up(&fleet).await;
        let clients = redis.info("clients").await.unwrap()["connected_clients"].clone();
        fleet.shutdown().await;
        clients
    };
    let url = RedisUrl::parse(&redis.url()).unwrap();
    let mut one = Servers::default();
    one.cache = Some(url.clone());
    assert_eq!(connections(Servers::all(&url)).await, connections(one).await);
}

#[tokio::test]
async fn redis_that_comes_late_is_joined() {
    let redis = RedisServer::start().await.unwrap();
    redis.kill();
    let fleet = fleet(&[("REDIS_URL", &redis.url())]).unwrap();
    fleet.settled(SOON).await;
    assert!(fleet.health().unreachable().is_some());
    let limiter = fleet.limiter("logins", two_per_hour()).build().unwrap();
    assert_eq!(limiter.check("ada").await.unwrap().source(), Source::LocalShare);
    redis.restart().await.unwrap();
    until_up(&fleet).await;
    assert!(fleet.infos().await.iter().all(Option::is_some));
}

#[tokio::test]
async fn role_with_a_redis_of_its_own_does_not_notice_the_outage_of_another() {
    let (cache, limiter) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let vars = [("FLEETWIDE_CACHE_URL", &*cache.url()), ("FLEETWIDE_LIMITER_URL", &*limiter.url())];
    let fleet = fleet(&vars).unwrap();
    until_up(&fleet).await;
    cache.kill();
    let is_down = async || fleet.health().unreachable().is_some();
    eventually(SOON, "the outage to be seen", is_down).await;
    let states: Vec<_> =
        fleet.health().roles().map(|role| (role.name, role.enabled, role.health.name())).collect();
    assert_eq!(states, [("cache", true, "down"), ("events", false, "up"), ("limiter", true, "up")]);
}

#[tokio::test]
async fn namespaces_keep_fleets_on_one_redis_apart() {
    let redis = RedisServer::start().await.unwrap();
    let url = RedisUrl::parse(&redis.url()).unwrap();
    let fleet = || {
        let namespace = Namespace::new(&unique_namespace()).unwrap();
        Fleetwide::builder().redis(&url).namespace(namespace).build().unwrap()
    };
    let (a, b) = (fleet(), fleet());
    let cache = |fleet: &Fleetwide| fleet.cache::<u64, String>("users").build().unwrap();
    cache(&a).put(&7, "Ada".to_owned()).await.unwrap();
    assert!(cache(&b).get(&7).await.is_none());
}

#[tokio::test]
async fn topology_that_cannot_be_spoken_to_is_an_error_that_names_the_role() {
    let refused = fleet(&[("FLEETWIDE_EVENTS_URL", "redis+cluster://:hunter2@a,b")]).unwrap_err();
    let StartError::Build(error) = &refused else { panic!("{refused:?}") };
    assert_eq!(error.role(), Role::Events);
    let said = refused.to_string();
    assert!(said.starts_with("FLEETWIDE_EVENTS_URL (or else REDIS_URL) takes"), "{said}");
    assert!(!said.contains("hunter2") && !format!("{refused:?}").contains("hunter2"));
}

#[tokio::test]
async fn locks_and_breakers_are_configured_and_not_connected_to_yet() {
    let vars = [
        ("FLEETWIDE_BREAKER_URL", "redis+cluster://a,b"),
        ("FLEETWIDE_LOCK_URLS", "rediss://a,rediss://b,rediss://c"),
    ];
    let fleet = fleet(&vars).unwrap();
    assert_eq!(fleet.settings().servers.locks.len(), 3);
    assert_eq!(fleet.mode().name(), "memory");
}

#[test]
fn no_debug_output_shows_a_password() {
    let vars = [
        ("REDIS_URL", "redis://user:hunter2@host"),
        ("FLEETWIDE_LOCK_URLS", "redis://:hunter2@a,redis://:hunter2@b"),
    ];
    let settings = Settings::from_vars(&Vars::fixed(vars)).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(!format!("{:?}", Vars::fixed(vars)).contains("hunter2"));
}
