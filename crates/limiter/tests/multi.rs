//! Several limits in one trip: all or none, and the true wait over all of them.

#[path = "support/clocked.rs"]
mod clocked;
mod support;
#[path = "support/timed.rs"]
mod timed;

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

// Red when a level is written although another one refuses.
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

#[test]
fn step_over_levels_that_cannot_be_one_is_none() {
    let namespace = Namespace::new("test").unwrap();
    let key = |tag: &str, name: &str| {
        namespace.tag("limits", tag.as_bytes()).unwrap().named("l", name.as_bytes()).unwrap()
    };
    let two = ConcurrencyQuota::new(2, SECOND).unwrap();
    let cell = Ask { rule: Rule::Rate(Quota::gcra(1, HOUR, 2).unwrap()), cost: 2, id: 0 };
    let permit = Ask { rule: Rule::AtOnce(two), cost: 1, id: 7 };
    assert!(AllOrNone::check(vec![(key("a", "x"), cell), (key("a", "y"), permit)]).is_some());
    assert!(AllOrNone::check(vec![(key("a", "x"), cell), (key("a", "x"), cell)]).is_none());
    assert!(AllOrNone::peek(vec![(key("a", "x"), cell), (key("b", "y"), cell)]).is_none());
    assert!(AllOrNone::check(vec![]).is_none());
    let nine = (0..9).map(|number: u32| (key("a", &number.to_string()), cell));
    assert!(AllOrNone::check(nine.collect()).is_none());
    for (ask, cost) in [(cell, 3), (permit, 0), (permit, 3)] {
        assert!(AllOrNone::check(vec![(key("a", "x"), Ask { cost, ..ask })]).is_none());
    }
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

/// Ten a second, a thousand an hour and five at once; and two routes at once.
fn with_permits<E: Executor>(executor: E, namespace: &Namespace) -> LimitsBuilder<E> {
    let five = ConcurrencyQuota::new(5, 10 * SECOND).unwrap();
    let two = ConcurrencyQuota::new(2, 10 * SECOND).unwrap();
    Limits::builder(executor, namespace, "exports", &["tenant", "route"])
        .at_once("running", &["tenant"], five)
        .rate("pace", &["tenant"], Quota::gcra(10, SECOND, 10).unwrap())
        .at_once("route", &["tenant", "route"], two)
        .rate("hour", &["tenant"], Quota::sliding_window(1_000, HOUR).unwrap())
        .deadline(Duration::from_secs(30))
        .on_unavailable(Unavailable::Deny)
}

// Red when a refusal of one level leaves a lease at another; red when the permits of levels are given
// back or renewed as those of limiters of their own, which is another kind of state in memory.
#[tokio::test]
async fn permits_and_cells_are_taken_together_or_not_at_all() {
    for backend in backends().await {
        let limits = with_permits(backend.executor(), backend.namespace());
        let limits = limits.clock(Arc::new(backend.clock.clone())).build().unwrap();
        let (ada, bob) = (["t", "a"], ["t", "b"]);
        assert!(matches!(limits.check(&ada, 1).await, Err(LimitsError::Unheld { .. })));
        let mut permits = Vec::new();
        for _ in 0..2 {
            permits.extend(limits.try_acquire(&ada, 3).await.unwrap().permit);
        }
        let refused = limits.try_acquire(&ada, 1).await.unwrap();
        assert_eq!(refused.ruling.refused_by().unwrap().as_str(), "route");
        assert!(refused.permit.is_none());
        assert_eq!(refused.ruling.decision.retry_after(), Some(10 * SECOND));
        let left = async |keys| {
            let ruling = limits.peek(keys, 1).await.unwrap();
            ruling.levels.iter().map(|level| level.decision.remaining()).collect::<Vec<_>>()
        };
        assert_eq!(left(&ada).await, [3, 4, 0, 994]);
        // The pace refuses: no permit is taken.
        let refused = limits.try_acquire(&bob, 5).await.unwrap();
        assert_eq!(refused.ruling.refused_by().unwrap().as_str(), "pace");
        assert_eq!(left(&bob).await, [3, 4, 2, 994]);
        permits.pop().unwrap().release().await.unwrap();
        assert_eq!(left(&ada).await, [4, 4, 1, 994]);
        drop(permits);
        let is_back = async || left(&ada).await[0] == 5;
        fleetwide_testkit::eventually(10 * SECOND, "all permits to be back", is_back).await;
    }
}

// Red without renewals of levels: they would be free after a lease.
#[tokio::test(start_paused = true)]
async fn permits_of_levels_are_renewed_while_they_are_held() {
    let clock = timed::TimerClock::new();
    let trips = timed::Trips::new(clock);
    let namespace = Namespace::new("shop").unwrap();
    let limits = with_permits(trips, &namespace).clock(Arc::new(clock)).build().unwrap();
    let permit = limits.try_acquire(&["t", "a"], 1).await.unwrap().permit.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let ruling = limits.peek(&["t", "a"], 1).await.unwrap();
    assert_eq!((ruling.levels[0].decision.remaining(), permit.is_lost()), (4, false));
    drop(permit);
    let is_back = async || {
        let ruling = limits.peek(&["t", "a"], 1).await.unwrap();
        ruling.levels[0].decision.remaining() == 5
    };
    fleetwide_testkit::eventually(10 * SECOND, "the permit to be back", is_back).await;
}

#[tokio::test]
async fn rung_takes_permits_and_cells_together_or_not_at_all() {
    let clock = SimClock::new();
    let namespace = Namespace::new("shop").unwrap();
    let limits = with_permits(Down, &namespace)
        .clock(Arc::new(clock.clone()))
        .on_unavailable(Unavailable::LocalShare { instances: 2 })
        .build()
        .unwrap();
    // Shares: two running, a pace of five, one of each route.
    let first = limits.try_acquire(&["t", "a"], 4).await.unwrap();
    assert!(first.ruling.is_allowed() && first.permit.is_some());
    let refused = limits.try_acquire(&["t", "a"], 1).await.unwrap();
    assert_eq!(refused.ruling.refused_by().unwrap().as_str(), "route");
    let refused = limits.try_acquire(&["t", "b"], 2).await.unwrap();
    assert_eq!(refused.ruling.refused_by().unwrap().as_str(), "pace");
    // Neither of them has kept a permit or a cell.
    let second = limits.try_acquire(&["t", "b"], 1).await.unwrap();
    assert!(second.permit.is_some());
    let refused = limits.try_acquire(&["t", "c"], 0).await.unwrap();
    assert_eq!(refused.ruling.refused_by().unwrap().as_str(), "running");
    drop(first);
    assert!(limits.try_acquire(&["t", "c"], 0).await.unwrap().permit.is_some());
}
