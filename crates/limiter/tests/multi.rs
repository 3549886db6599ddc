//! Several limits in one trip: all or none, and the true wait over all of them.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use clocked::{Backend, Counted, HOUR, backends};
use fleetwide_core_traits::{
    AtomicOp, BackendError, Clock as _, Effects, ErasedOp, Executor, Key, Namespace, Outage,
    Script, ServerTime, Write,
};
use fleetwide_limiter::concurrency::ConcurrencyQuota;
use fleetwide_limiter::multi::op::{AllOrNone, Ask};
use fleetwide_limiter::multi::{
    LevelState, Limits, LimitsBuilder, LimitsConfigError, LimitsError, Rule,
};
use fleetwide_limiter::{Answer, ConfigError, Decision, Quota, Source, Unavailable};
use fleetwide_testkit::SimClock;
use rand::Rng as _;
use support::{Rng, for_each_history};

const SECOND: Duration = Duration::from_secs(1);
const MICRO: Duration = Duration::from_micros(1);

/// A random rule of some thousands of µs; permits as well.
fn rule(rng: &mut Rng) -> Rule {
    Rule::Rate(match rng.random_range(0..6) {
        0 => Quota::Gcra(support::gcra(rng)),
        1 => Quota::SlidingWindow(support::window(rng)),
        2 => Quota::TokenBucket(support::bucket(rng)),
        3 => Quota::FixedWindow(support::fixed(rng)),
        4 => Quota::SlidingLog(support::log(rng)),
        _ => {
            let lease = Duration::from_micros(rng.random_range(100_000..=200_000));
            let quota = ConcurrencyQuota::new(rng.random_range(1..=4), lease);
            return Rule::AtOnce(quota.expect("these make a quota"));
        }
    })
}

/// Levels as the executor in memory keeps them.
struct Cells {
    keys: Vec<Key>,
    rules: Vec<Rule>,
    states: Vec<Option<LevelState>>,
    last_id: u64,
}

impl Cells {
    fn new(rng: &mut Rng) -> Self {
        let tag = Namespace::new("test").unwrap().tag("limits", b"a").unwrap();
        let rules: Vec<Rule> = (0..rng.random_range(1..=6)).map(|_| rule(rng)).collect();
        let keys = (0..rules.len()).map(|at| tag.named("l", &[b'a' + at as u8]).unwrap());
        Self { keys: keys.collect(), states: vec![None; rules.len()], rules, last_id: 0 }
    }

    fn asks(&self, cost: u32) -> Vec<(Key, Ask)> {
        let ask = |rule: &Rule| {
            let most = match rule {
                Rule::Rate(quota) => quota.cost_max(),
                Rule::AtOnce(_) => 1,
            };
            Ask { rule: *rule, cost: cost.min(most), id: self.last_id }
        };
        self.keys.iter().cloned().zip(self.rules.iter().map(ask)).collect()
    }

    fn peek(&self, cost: u32, now: u64) -> Vec<Answer> {
        self.apply(&AllOrNone::peek(self.asks(cost)).unwrap(), now).0
    }

    fn apply(&self, op: &AllOrNone, now: u64) -> (Vec<Answer>, Effects<LevelState>) {
        let cells: Vec<Option<&LevelState>> = self.states.iter().map(Option::as_ref).collect();
        let mut out = Effects::new();
        let answers = op.apply(&cells, ServerTime::from_micros(now), &mut out);
        (answers, out)
    }

    fn check(&mut self, cost: u32, now: u64) -> (Vec<Answer>, usize) {
        self.last_id += 1;
        let (answers, out) = self.apply(&AllOrNone::check(self.asks(cost)).unwrap(), now);
        for (place, write) in out.writes() {
            self.states[*place] = match write {
                Write::Put(state, _) => Some(state.clone()),
                _ => None,
            };
        }
        (answers, out.writes().len())
    }
}

fn is_allowed(answers: &[Answer]) -> bool {
    answers.iter().all(|answer| answer.verdict.is_allowed)
}

// Red when a level is written although another one refuses, and when the wait is that of the first
// level that refuses, or of the last.
#[test]
fn no_level_moves_on_a_refusal_and_the_wait_is_minimal_and_sufficient_over_all_levels() {
    let refused_by_several = Cell::new(0);
    for_each_history(2_000, |rng| {
        let mut cells = Cells::new(rng);
        let mut now = 1_780_000_000_000_000 + rng.random_range(0..1_000_000);
        for _ in 0..60 {
            now += if rng.random_ratio(1, 3) { rng.random_range(0..3_000) } else { 0 };
            let cost = if rng.random_ratio(2, 3) { 1 } else { rng.random_range(1..=5) };
            let (answers, writes) = cells.check(cost, now);
            if is_allowed(&answers) {
                assert_eq!(writes, cells.rules.len(), "all levels are debited");
                continue;
            }
            assert_eq!(writes, 0, "a level moved on a refusal");
            let waits = answers.iter().map(|answer| answer.verdict.retry_after_us);
            let wait = waits.max().expect("there is a level");
            assert!(!is_allowed(&cells.peek(cost, now + wait - 1)), "{wait} is too long");
            assert!(is_allowed(&cells.peek(cost, now + wait)), "{wait} is too short");
            let refused = answers.iter().filter(|answer| !answer.verdict.is_allowed).count();
            refused_by_several.set(refused_by_several.get() + usize::from(refused > 1));
        }
    });
    let count = refused_by_several.get();
    assert!(count > 1_000, "{count}: the histories say little");
}

fn options<E: Executor>(executor: E, namespace: &Namespace) -> LimitsBuilder<E> {
    Limits::builder(executor, namespace, "api", &["tenant", "user", "route"])
        .rate("tenant-hour", &["tenant"], Quota::sliding_window(20, HOUR).unwrap())
        .rate("user-hour", &["tenant", "user"], Quota::sliding_window(6, HOUR).unwrap())
        .rate("user-pace", &["user", "tenant"], Quota::gcra(1, SECOND, 4).unwrap())
        .rate("route", &["tenant", "route"], Quota::token_bucket(1, 60 * SECOND, 9).unwrap())
        .deadline(Duration::from_secs(30))
        .on_unavailable(Unavailable::Deny)
}

fn limits(backend: &Backend) -> Limits<Counted> {
    let clock = Arc::new(backend.clock.clone());
    options(backend.executor(), backend.namespace()).clock(clock).build().unwrap()
}

async fn left(limits: &Limits<Counted>, keys: &[&str; 3]) -> Vec<u32> {
    let ruling = limits.peek(keys, 1).await.unwrap();
    ruling.levels.iter().map(|level| level.decision.remaining()).collect()
}

#[tokio::test]
async fn levels_are_spent_all_or_none_in_one_trip_and_the_one_that_refuses_is_named() {
    for backend in backends().await {
        let limits = limits(&backend);
        let ada = ["tenant-7", "ada", "orders"];
        backend.trips();
        let ruling = limits.check(&ada, 3).await.unwrap();
        assert_eq!(backend.trips(), 1);
        assert!(ruling.is_allowed() && ruling.decision.source() == Source::Shared);
        assert_eq!((ruling.decision.remaining(), ruling.refused_by()), (1, None));
        assert_eq!(left(&limits, &ada).await, [17, 3, 1, 6]);
        // The pace refuses, and nobody is debited.
        let ruling = limits.check(&ada, 3).await.unwrap();
        assert_eq!(ruling.refused_by().unwrap().as_str(), "user-pace");
        assert_eq!(ruling.decision.retry_after(), Some(2 * SECOND));
        assert_eq!(left(&limits, &ada).await, [17, 3, 1, 6]);
        backend.clock.advance((2 * SECOND).saturating_sub(MICRO));
        assert!(!limits.check(&ada, 3).await.unwrap().is_allowed());
        backend.clock.advance(MICRO);
        assert!(limits.check(&ada, 3).await.unwrap().is_allowed());
        // Now the user's hour refuses for longer than the pace, which refuses as well.
        let ruling = limits.check(&ada, 3).await.unwrap();
        assert_eq!(ruling.refused_by().unwrap().as_str(), "user-hour");
        assert!(ruling.decision.retry_after().unwrap() > HOUR.saturating_sub(60 * SECOND));
        assert!(!ruling.levels[2].decision.is_allowed());
        // Another user of the tenant, on another route; another tenant's user of the same name.
        assert_eq!(left(&limits, &["tenant-7", "bob", "orders"]).await, [14, 6, 4, 3]);
        assert_eq!(left(&limits, &["tenant-7", "ada", "users"]).await[3], 9);
        assert_eq!(left(&limits, &["tenant-8", "ada", "orders"]).await, [20, 6, 4, 9]);
        assert!(limits.check(&ada, 0).await.unwrap().is_allowed());
    }
}

// Red when a name runs into the next: two lists of keys would share a count.
#[tokio::test]
async fn keys_of_a_call_share_a_tag_and_no_two_lists_of_keys_share_a_count() {
    let server = support::server().await;
    let executor = support::redis(&server, |builder| builder).await.executor();
    let namespace = Namespace::new("shop").unwrap();
    let limits = Limits::builder(executor, &namespace, "api", &["a", "b", "c"])
        .rate("all", &["a", "b", "c"], Quota::gcra(1, HOUR, 2).unwrap())
        .rate("first", &["a"], Quota::sliding_log(100, HOUR).unwrap())
        .deadline(Duration::from_secs(30))
        .on_unavailable(Unavailable::Deny)
        .build()
        .unwrap();
    for (number, keys) in
        [["t", "x/y", "z"], ["t", "x", "y/z"], ["t", "x/2.1=y", "z"], ["t", "}{", ":"]]
            .into_iter()
            .enumerate()
    {
        let ruling = limits.check(&keys, 1).await.unwrap();
        let left: Vec<u32> = ruling.levels.iter().map(|level| level.decision.remaining()).collect();
        assert_eq!(left, [1, 99 - number as u32], "{keys:?}");
    }
    let tags = "local tags, count = {}, 0 \
        for _, key in ipairs(redis.call('KEYS', '*')) do \
          local tag = key:match('^{[^}]+}') \
          if not tags[tag] then tags[tag], count = true, count + 1 end \
        end \
        return count * 100 + #redis.call('KEYS', '*')";
    let reply = server.admin(&["EVAL", tags, "0"]).await.unwrap();
    assert_eq!(reply.as_integer(), Some(105), "1 tag, 5 keys");
}

#[test]
fn limits_that_cannot_be_one_step_are_refused_when_they_are_built() {
    let backend = Backend::memory();
    let of = |scopes: &[&str]| {
        Limits::builder(backend.executor(), backend.namespace(), "api", scopes)
            .on_unavailable(Unavailable::Deny)
    };
    let quota = Quota::gcra(1, HOUR, 2).unwrap();
    let error = |builder: LimitsBuilder<Counted>| builder.build().unwrap_err();
    let two = of(&["tenant", "route"]);
    assert_eq!(
        error(two.rate("route", &["route"], quota)),
        LimitsConfigError::SpansSlots { level: "route".into(), first: "tenant".into() }
    );
    assert_eq!(error(of(&["tenant"])), LimitsConfigError::NoLevels);
    let many = (0..9).fold(of(&["tenant"]), |limits, number| {
        limits.rate(&number.to_string(), &["tenant"], quota)
    });
    assert_eq!(error(many), LimitsConfigError::TooManyLevels { count: 9 });
    let twice = of(&["a"]).rate("x", &["a"], quota).rate("x", &["a"], quota);
    assert_eq!(error(twice), LimitsConfigError::Twice { name: "x".into() });
    let unknown = of(&["a"]).rate("x", &["a", "b"], quota);
    assert!(matches!(error(unknown), LimitsConfigError::UnknownScope { .. }));
    assert!(matches!(error(of(&["a/b"])), LimitsConfigError::Name { .. }));
    let nobody = Limits::builder(backend.executor(), backend.namespace(), "api", &["a"]);
    assert_eq!(error(nobody), LimitsConfigError::Config(ConfigError::NoRung));
}

#[tokio::test]
async fn mistakes_of_a_call_are_errors_and_spend_nothing() {
    let backend = Backend::memory();
    let limits = limits(&backend);
    backend.trips();
    let error = limits.check(&["t", "u"], 1).await.unwrap_err();
    assert_eq!(error, LimitsError::Keys { scopes: 3, keys: 2 });
    assert!(matches!(limits.check(&["t", "", "r"], 1).await, Err(LimitsError::Key(_))));
    let error = limits.check(&["t", "u", "r"], 5).await.unwrap_err();
    assert_eq!(error, LimitsError::Oversize { cost: 5, level: "user-pace".into(), max: 4 });
    assert_eq!(backend.trips(), 0);
}

/// A backend that is down, and says so.
struct Down;

impl Executor for Down {
    async fn execute(&self, _: &mut dyn ErasedOp) -> Result<(), BackendError> {
        Err(BackendError::NotSent(Outage::Down("unplugged".to_owned())))
    }

    fn prepare(&self, _: &[&'static Script]) {}
}

// Red when the shares are spent one by one until one refuses: the tenant's would have moved.
#[tokio::test]
async fn rungs_answer_for_all_levels_and_shares_are_spent_all_or_none() {
    let clock = SimClock::new();
    let down = |unavailable| {
        let namespace = Namespace::new("shop").unwrap();
        let options = options(Down, &namespace).clock(Arc::new(clock.clone()));
        options.on_unavailable(unavailable).build().unwrap()
    };
    let keys = ["t", "u", "r"];
    let open = down(Unavailable::Allow).check(&keys, 4).await.unwrap();
    assert!(open.is_allowed() && open.decision.source() == Source::Open);
    let closed = down(Unavailable::Deny).check(&keys, 1).await.unwrap();
    assert!(matches!(closed.decision, Decision::Deny { source: Source::Closed, .. }));
    let share = down(Unavailable::LocalShare { instances: 2 });
    let left = async || {
        let ruling = share.peek(&keys, 1).await.unwrap();
        ruling.levels.iter().map(|level| level.decision.remaining()).collect::<Vec<_>>()
    };
    assert_eq!(left().await, [10, 3, 2, 4]);
    assert!(share.check(&keys, 2).await.unwrap().is_allowed());
    assert_eq!(left().await, [8, 1, 0, 2]);
    let refused = share.check(&keys, 2).await.unwrap();
    assert_eq!(refused.decision.source(), Source::LocalShare);
    assert_eq!(left().await, [8, 1, 0, 2]);
    // Above the share of the pace: not before the backend can be asked again.
    clock.advance(60 * SECOND);
    assert!(!share.check(&keys, 3).await.unwrap().is_allowed());
    let now = clock.server_time();
    assert!(share.check(&keys, 1).await.unwrap().is_allowed(), "at {now:?}");
}
