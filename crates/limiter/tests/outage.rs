//! Redis frozen, killed, full, or in the way: who answers, how fast, and when the fleet is back.

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fleetwide_core_traits::{Membership, Namespace};
use fleetwide_limiter::concurrency::{ConcurrencyLimiter, ConcurrencyQuota, Entry};
use fleetwide_limiter::multi::Limits;
use fleetwide_limiter::{
    Limiter, LimiterBuilder, Quota, ResetError, RungChange, Source, Unavailable,
};
use fleetwide_redis_backend::{Redis, RedisBuilder, RedisExecutor, RedisUrl};
use fleetwide_testkit::{Drops, RedisServer, eventually};
use parking_lot::Mutex;

const HOUR: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_millis(20);
/// What a busy machine may add to any wait of a test.
const MACHINE: Duration = Duration::from_secs(3);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn ten_an_hour() -> Quota {
    Quota::sliding_window(10, HOUR).unwrap()
}

/// A Redis with a handle, of default options unless said otherwise.
struct Fixture {
    server: RedisServer,
    redis: Redis,
    namespace: Namespace,
    changes: Arc<Mutex<Vec<RungChange>>>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|options| options).await
    }

    /// With a handle that waits for a server that does not answer, far longer than any limiter.
    async fn patient() -> Self {
        Self::with(|options| options.command_timeout(SOON).total_timeout(SOON)).await
    }

    async fn with(options: impl FnOnce(RedisBuilder) -> RedisBuilder) -> Self {
        let server = support::server().await;
        let url = RedisUrl::parse(&server.url()).unwrap();
        let redis = options(Redis::builder(url)).build().unwrap();
        redis.ready(SOON).await.unwrap();
        let namespace = Namespace::new("shop").unwrap();
        Self { server, redis, namespace, changes: Arc::default() }
    }

    fn options(&self, unavailable: Unavailable) -> LimiterBuilder<RedisExecutor> {
        let changes = Arc::clone(&self.changes);
        Limiter::builder(self.redis.executor(), &self.namespace, "api", ten_an_hour())
            .on_unavailable(unavailable)
            .deadline(SOON)
            .probe_every(Duration::from_millis(50))
            .on_rung_change(move |change| changes.lock().push(change.clone()))
    }

    fn limiter(&self, unavailable: Unavailable) -> Limiter<RedisExecutor> {
        self.options(unavailable).build().unwrap()
    }

    /// The words of the changes so far.
    fn changes(&self) -> Vec<&'static str> {
        let word = |change: &RungChange| match change {
            RungChange::Entered { .. } => "entered",
            RungChange::Left { .. } => "left",
            _ => "other",
        };
        self.changes.lock().iter().map(word).collect()
    }

    /// Waits for them; calls go on meanwhile, because they are what finds out.
    async fn until_changes(&self, limiter: &Limiter<RedisExecutor>, changes: &[&str]) {
        let is_told = async || {
            source_of(limiter, "other").await;
            self.changes() == changes
        };
        eventually(SOON, &format!("{changes:?}"), is_told).await;
    }
}

async fn source_of(limiter: &Limiter<RedisExecutor>, key: &str) -> Source {
    limiter.peek(key).await.unwrap().source()
}

async fn until_source(limiter: &Limiter<RedisExecutor>, source: Source) {
    let what = format!("an answer of {}", source.name());
    eventually(SOON, &what, async || source_of(limiter, "other").await == source).await;
}

// Red without the timeout around the step, and red in the number of waits when every call probes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_redis_delays_no_decision_beyond_its_deadline_and_few_at_all() {
    let fixture = Fixture::patient().await;
    let share = Unavailable::LocalShare { instances: 1 };
    let limiter = fixture.options(share).deadline(DEADLINE).build().unwrap();
    until_source(&limiter, Source::Shared).await;
    fixture.server.stop();
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let callers = (0..32).map(|caller| {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            let mut waits = Vec::new();
            for call in 0..200 {
                let begun = Instant::now();
                let key = format!("{caller}/{call}");
                assert!(limiter.check(&key).await.unwrap().is_allowed());
                waits.push(begun.elapsed());
                // An answer of the rung waits for nothing, so nobody else would get a turn.
                tokio::task::yield_now().await;
            }
            waits
        })
    });
    let mut waits = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        waits.extend(caller.await.unwrap());
    }
    let longest = waits.iter().max().copied().unwrap();
    assert!(longest < DEADLINE + MACHINE, "one decision took {longest:?}");
    // All callers of the first moment waited, and then a probe each 50 ms.
    let waited = waits.iter().filter(|wait| **wait >= DEADLINE).count();
    assert!(waited < waits.len() / 10, "{waited} of {} calls waited", waits.len());
    let metrics = tokio::runtime::Handle::current().metrics();
    // The backend mends its connection with a few; the 6,400 calls leave none.
    assert!(metrics.num_alive_tasks() < alive + 20, "{} tasks", metrics.num_alive_tasks());
    fixture.server.cont();
    fixture.until_changes(&limiter, &["entered", "left"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_redis_is_stood_in_for_and_shared_again_when_it_is_back() {
    let fixture = Fixture::new().await;
    let limiter = fixture.limiter(Unavailable::LocalShare { instances: 2 });
    assert_eq!(limiter.check_cost("a", 4).await.unwrap().remaining(), 6);
    fixture.server.kill();
    until_source(&limiter, Source::LocalShare).await;
    // Six were left for the fleet, so three for this one of two instances.
    let mut spent = 0;
    while limiter.check("a").await.unwrap().is_allowed() {
        spent += 1;
    }
    assert_eq!(spent, 3);
    fixture.server.restart().await.unwrap();
    fixture.until_changes(&limiter, &["entered", "left"]).await;
    assert_eq!(limiter.check("a").await.unwrap().source(), Source::Shared);
    // It goes away again: the share was used up, and stays so.
    fixture.server.kill();
    fixture.until_changes(&limiter, &["entered", "left", "entered"]).await;
    assert!(!limiter.check("a").await.unwrap().is_allowed());
}

/// How many instances live, as the test sets it.
struct Live(AtomicU32);

impl Membership for Live {
    fn instances(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.load(Ordering::Relaxed))
    }
}

// Seen red: without the membership in the share, and after `set_quota` without it in the new one.
#[tokio::test]
async fn share_of_an_outage_goes_by_the_instances_that_were_last_known_to_live() {
    let fixture = Fixture::new().await;
    let live = Arc::new(Live(AtomicU32::new(5)));
    let limiter = fixture.options(Unavailable::LocalShare { instances: 2 });
    let limiter = limiter.membership(live.clone()).build().unwrap();
    until_source(&limiter, Source::Shared).await;
    fixture.server.kill();
    until_source(&limiter, Source::LocalShare).await;
    let spend = async |key: &str| {
        let mut spent = 0;
        while spent < 100 && limiter.check(key).await.unwrap().is_allowed() {
            spent += 1;
        }
        spent
    };
    assert_eq!(spend("a").await, 2);
    live.0.store(1, Ordering::Relaxed);
    assert_eq!((spend("a").await, spend("b").await), (3, 5), "two are configured");
    live.0.store(5, Ordering::Relaxed);
    assert_eq!((spend("a").await, spend("c").await), (0, 2));
    limiter.set_quota(Quota::sliding_window(20, HOUR).unwrap()).unwrap();
    assert_eq!((spend("a").await, spend("c").await), (0, 2));
}

/// What comes of calls until one is refused.
async fn all<T>(call: impl AsyncFn() -> Option<T>) -> Vec<T> {
    let mut granted = Vec::new();
    while granted.len() < 100
        && let Some(one) = call().await
    {
        granted.push(one);
    }
    granted
}

// Seen red: without the membership in the shares of the levels, and in those of their permits.
#[tokio::test]
async fn shares_of_levels_go_by_the_instances_that_were_last_known_to_live() {
    let fixture = Fixture::new().await;
    let live = Arc::new(Live(AtomicU32::new(5)));
    let ten = ConcurrencyQuota::new(10, HOUR).unwrap();
    let limits = Limits::builder(fixture.redis.executor(), &fixture.namespace, "api", &["tenant"])
        .rate("hour", &["tenant"], ten_an_hour())
        .at_once("running", &["tenant"], ten)
        .on_unavailable(Unavailable::LocalShare { instances: 2 })
        .membership(live.clone())
        .deadline(SOON)
        .build()
        .unwrap();
    assert_eq!(limits.peek(&["a"], 1).await.unwrap().decision.source(), Source::Shared);
    fixture.server.kill();
    let is_away =
        async || limits.peek(&["a"], 1).await.unwrap().decision.source() == Source::LocalShare;
    eventually(SOON, "an answer of the share", is_away).await;
    // A permit that is dropped is free again, and a cell is not; a call of no cells takes a permit.
    let spent = async |key: &str| {
        all(async || {
            let admission = limits.try_acquire(&[key], 1).await.unwrap();
            admission.ruling.is_allowed().then_some(())
        })
        .await
        .len()
    };
    let held =
        async |key: &str| all(async || limits.try_acquire(&[key], 0).await.unwrap().permit).await;
    assert_eq!(spent("a").await, 2);
    let mut permits = held("b").await;
    assert_eq!(permits.len(), 2);
    live.0.store(1, Ordering::Relaxed);
    permits.extend(held("b").await);
    assert_eq!(
        (spent("a").await, spent("c").await, permits.len()),
        (3, 5, 5),
        "two are configured"
    );
    live.0.store(5, Ordering::Relaxed);
    assert_eq!((spent("a").await, spent("d").await, held("b").await.len()), (0, 2, 0));
    assert!(permits.iter().all(|permit| !permit.is_lost()));
}

// Seen red: without the membership in the share.
#[tokio::test]
async fn shares_of_permits_go_by_the_instances_that_were_last_known_to_live() {
    let fixture = Fixture::new().await;
    let live = Arc::new(Live(AtomicU32::new(5)));
    let ten = ConcurrencyQuota::new(10, HOUR).unwrap();
    let executor = fixture.redis.executor();
    let limiter = ConcurrencyLimiter::builder(executor, &fixture.namespace, "exports", ten)
        .on_unavailable(Unavailable::LocalShare { instances: 2 })
        .membership(live.clone())
        .deadline(SOON)
        .build()
        .unwrap();
    let source = async || match limiter.try_acquire("other").await.unwrap() {
        Entry::Held(permit) => permit.source(),
        Entry::Deny { source, .. } => source,
    };
    assert_eq!(source().await, Source::Shared);
    fixture.server.kill();
    eventually(SOON, "an answer of the share", async || source().await == Source::LocalShare).await;
    let held = async || all(async || limiter.try_acquire("a").await.unwrap().permit()).await;
    let mut permits = held().await;
    assert_eq!(permits.len(), 2);
    live.0.store(1, Ordering::Relaxed);
    permits.extend(held().await);
    assert_eq!(permits.len(), 5, "two are configured");
    live.0.store(5, Ordering::Relaxed);
    permits.pop();
    assert_eq!(held().await.len(), 0, "four are held already");
}

#[tokio::test]
async fn nothing_is_open_where_nobody_chose_it() {
    let fixture = Fixture::new().await;
    let all = [Unavailable::Allow, Unavailable::Deny, Unavailable::LocalShare { instances: 10 }];
    let limiters = all.map(|unavailable| fixture.limiter(unavailable));
    fixture.server.kill();
    let sources = [Source::Open, Source::Closed, Source::LocalShare];
    let allowed = [25, 0, 1];
    for ((limiter, source), allowed) in limiters.iter().zip(sources).zip(allowed) {
        until_source(limiter, source).await;
        let mut count = 0;
        for _ in 0..25 {
            let decision = limiter.check("a").await.unwrap();
            assert_eq!(decision.source(), source);
            assert!(decision.is_allowed() || decision.retry_after() > Some(Duration::ZERO));
            count += usize::from(decision.is_allowed());
        }
        assert_eq!(count, allowed, "{source:?}");
    }
}

#[tokio::test]
async fn reset_of_a_backend_that_is_away_is_an_error_within_the_deadline() {
    let fixture = Fixture::patient().await;
    let limiter = fixture.options(Unavailable::Allow).deadline(DEADLINE).build().unwrap();
    fixture.server.stop();
    let begun = Instant::now();
    let error = limiter.reset("a").await.unwrap_err();
    assert!(begun.elapsed() < DEADLINE + MACHINE, "{:?}", begun.elapsed());
    assert!(matches!(error, ResetError::Backend(error) if error.may_have_happened()));
    fixture.server.cont();
}

// Red when a reset leaves alone what the fleet last said is left.
#[tokio::test]
async fn key_that_was_reset_starts_the_outage_with_a_whole_share() {
    let fixture = Fixture::new().await;
    let limiter = fixture.limiter(Unavailable::LocalShare { instances: 2 });
    assert!(limiter.check_cost("a", 10).await.unwrap().is_allowed());
    limiter.reset("a").await.unwrap();
    fixture.server.kill();
    until_source(&limiter, Source::LocalShare).await;
    assert_eq!(limiter.check("a").await.unwrap().remaining(), 4);
}

#[tokio::test]
async fn one_poisoned_key_does_not_take_the_others_from_the_fleet() {
    let fixture = Fixture::new().await;
    let limiter = fixture.limiter(Unavailable::Deny);
    fixture.server.admin(&["LPUSH", "{shop:limiter:api/bad}:window", "x"]).await.unwrap();
    for _ in 0..20 {
        assert_eq!(limiter.check("bad").await.unwrap().source(), Source::Closed);
        assert_eq!(source_of(&limiter, "good").await, Source::Shared);
    }
    assert!(fixture.changes().is_empty());
}

#[tokio::test]
async fn redis_without_memory_is_stood_in_for_without_a_wait() {
    let fixture = Fixture::new().await;
    let limiter = fixture.limiter(Unavailable::LocalShare { instances: 1 });
    assert!(limiter.check("a").await.unwrap().is_allowed());
    fixture.server.config_set("maxmemory", "1").await.unwrap();
    let decision = limiter.check("a").await.unwrap();
    assert_eq!((decision.source(), decision.remaining()), (Source::LocalShare, 8));
    fixture.server.config_set("maxmemory", "0").await.unwrap();
    let is_shared = async || limiter.check_cost("b", 0).await.unwrap().source() == Source::Shared;
    eventually(SOON, "memory again", is_shared).await;
}

#[tokio::test]
async fn garbage_under_a_key_harms_that_key_alone_and_never_hangs_the_server() {
    let fixture = Fixture::new().await;
    let limiter = fixture.limiter(Unavailable::Deny);
    let mut rng = fleetwide_testkit::seed().rng();
    for length in [0, 1, 24, 35, 36, 37, 291, 292, 293, 1_000] {
        for name in 0..8 {
            let garbage: Vec<u8> = (0..length).map(|_| rand::Rng::random(&mut rng)).collect();
            let key = format!("{{shop:limiter:api/{length}-{name}}}:window");
            let words: [&[u8]; 5] = [b"SET", key.as_bytes(), &garbage, b"PX", b"60000"];
            fixture.server.admin(&words).await.unwrap();
            let begun = Instant::now();
            let _ = limiter.check(format!("{length}-{name}")).await.unwrap();
            assert!(begun.elapsed() < MACHINE, "{:?}", begun.elapsed());
            limiter.reset(format!("{length}-{name}")).await.unwrap();
        }
    }
    until_source(&limiter, Source::Shared).await;
}

// Red when the drop of a probe does not give its place back: then nobody ever asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_that_leaves_while_it_probes_keeps_nobody_from_probing() {
    let fixture = Fixture::new().await;
    let options = fixture.options(Unavailable::Deny).deadline(DEADLINE);
    let limiter = options.probe_every(Duration::from_micros(1)).build().unwrap();
    fixture.server.stop();
    fixture.until_changes(&limiter, &["entered"]).await;
    Drops::new().run(|| Box::pin(limiter.check("a")), async |_| {}).await;
    fixture.server.cont();
    until_source(&limiter, Source::Shared).await;
}
