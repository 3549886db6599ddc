//! A candidate beside the real quota, over both backends: it is judged exactly, and changes nothing.

#[path = "support/clocked.rs"]
mod clocked;
#[path = "support/road.rs"]
mod road;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clocked::{Backend, HOUR, backends};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, Executor, ExecutorExt, Key, Malformed, Namespace, Script,
    ServerTime, Wire,
};
use fleetwide_limiter::op::candidate_cell;
use fleetwide_limiter::{
    Agreement, Algorithm, BucketQuota, ConfigError, FixedQuota, GcraQuota, Leasing, Limiter,
    LogQuota, Opinion, PolicyName, Quota, Shadow, Source, Unavailable, Verdict, WindowQuota,
};
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::{SimClock, eventually, unique_namespace};
use futures_util::future::join_all;
use rand::Rng as _;
use road::Road;
use support::Rng;

/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);
/// Calls of one trace.
const CALLS: usize = 400;
/// Fewer than a report names, so that it names all that flip, exactly.
const NAMES: usize = 12;

/// `max` cells an hour, counted in each way.
fn quotas(max: u64) -> [Quota; 5] {
    [
        Quota::gcra(max, HOUR, max).unwrap(),
        Quota::sliding_window(max, HOUR).unwrap(),
        Quota::token_bucket(max, HOUR, max).unwrap(),
        Quota::fixed_window(max, HOUR).unwrap(),
        Quota::sliding_log(max, HOUR).unwrap(),
    ]
}

/// A candidate that is tried on every key.
fn on_all(candidate: Quota) -> Shadow {
    Shadow::new(candidate).share_of_keys(1.0)
}

/// What is kept of one key by one quota, decided apart from any limiter.
#[expect(clippy::large_enum_variant, reason = "there are a few dozen")]
enum Alone {
    Gcra(GcraQuota, Option<<GcraQuota as Algorithm>::State>),
    Window(WindowQuota, Option<<WindowQuota as Algorithm>::State>),
    Bucket(BucketQuota, Option<<BucketQuota as Algorithm>::State>),
    Fixed(FixedQuota, Option<<FixedQuota as Algorithm>::State>),
    Log(LogQuota, Option<<LogQuota as Algorithm>::State>),
}

impl Alone {
    fn new(quota: Quota) -> Self {
        match quota {
            Quota::Gcra(quota) => Self::Gcra(quota, None),
            Quota::SlidingWindow(quota) => Self::Window(quota, None),
            Quota::TokenBucket(quota) => Self::Bucket(quota, None),
            Quota::FixedWindow(quota) => Self::Fixed(quota, None),
            Quota::SlidingLog(quota) => Self::Log(quota, None),
            _ => unreachable!("there are five"),
        }
    }

    /// `None`: never.
    fn decide(&mut self, now: ServerTime, cost: u32) -> Option<Verdict> {
        match self {
            Self::Gcra(quota, state) => decide(*quota, state, now, cost),
            Self::Window(quota, state) => decide(*quota, state, now, cost),
            Self::Bucket(quota, state) => decide(*quota, state, now, cost),
            Self::Fixed(quota, state) => decide(*quota, state, now, cost),
            Self::Log(quota, state) => decide(*quota, state, now, cost),
        }
    }
}

fn decide<A: Algorithm>(
    quota: A,
    state: &mut Option<A::State>,
    now: ServerTime,
    cost: u32,
) -> Option<Verdict> {
    if cost > quota.cost_max() {
        return None;
    }
    let (verdict, next) = quota.decide(state.as_ref(), now, cost);
    *state = next.or(state.take());
    Some(verdict)
}

/// What a report must say, worked out offline.
#[derive(Default)]
struct Oracle {
    keys: HashMap<usize, [Alone; 2]>,
    agreement: Agreement,
    flips: HashMap<usize, [u64; 2]>,
    first: Option<(usize, u32, u64, [Option<Verdict>; 2])>,
}

impl Oracle {
    fn call(&mut self, pair: [Quota; 2], name: usize, now: u64, cost: u32) -> bool {
        let sides = self.keys.entry(name).or_insert_with(|| pair.map(Alone::new));
        let time = ServerTime::from_micros(now);
        let verdicts = [0, 1].map(|side: usize| sides[side].decide(time, cost));
        let [real, other] =
            verdicts.map(|verdict| verdict.is_some_and(|verdict| verdict.is_allowed));
        match (real, other) {
            (true, true) => self.agreement.both_allow += 1,
            (false, false) => self.agreement.both_deny += 1,
            (true, false) => self.agreement.only_real_allows += 1,
            (false, true) => self.agreement.only_candidate_allows += 1,
        }
        if real != other {
            self.flips.entry(name).or_default()[usize::from(other)] += 1;
            self.first.get_or_insert((name, cost, now, verdicts));
        }
        real
    }

    /// Names with their flips, the most frequent first.
    fn flipping(&self) -> Vec<(String, u64, u64)> {
        let flip = |(name, [real, other]): (&usize, &[u64; 2])| (name.to_string(), *real, *other);
        let mut flipping: Vec<_> = self.flips.iter().map(flip).collect();
        flipping.sort_by(|a, b| (b.1 + b.2).cmp(&(a.1 + a.2)).then_with(|| a.0.cmp(&b.0)));
        flipping
    }
}

fn assert_is(opinion: Opinion, verdict: Option<Verdict>) {
    let verdict = verdict.unwrap_or(Verdict { retry_after_us: u64::MAX, ..Verdict::default() });
    let retry = match verdict.retry_after_us {
        u64::MAX => Duration::MAX,
        us => Duration::from_micros(us),
    };
    assert_eq!(
        (opinion.is_allowed, opinion.remaining, opinion.retry_after, opinion.reset_after),
        (
            verdict.is_allowed,
            verdict.remaining,
            retry,
            Duration::from_micros(verdict.reset_after_us)
        )
    );
}

async fn replay(backend: &Backend, name: &str, pair: [Quota; 2], rng: &mut Rng) -> Agreement {
    let [quota, candidate] = pair;
    let shadow = on_all(candidate).show_keys(true);
    let limiter = backend.options(name, quota).shadow(shadow).build().unwrap();
    let mut oracle = Oracle::default();
    for _ in 0..CALLS {
        let step = match rng.random_range(0..4) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(rng.random_range(0..=3)),
            2 => Duration::from_secs(rng.random_range(0..=900)),
            _ => Duration::from_secs(rng.random_range(0..=60)),
        };
        backend.clock.advance(step);
        // The lower the number, the busier the key.
        let name = rng.random_range(0..NAMES) * rng.random_range(0..NAMES) / NAMES;
        let cost = rng.random_range(1..=quota.cost_max().min(6));
        let now = backend.clock.server_time().as_micros();
        let decision = limiter.check_cost(name.to_string(), cost.into()).await.unwrap();
        assert_eq!(decision.source(), Source::Shared);
        assert_eq!(decision.is_allowed(), oracle.call(pair, name, now, cost), "the real answer");
    }
    let report = limiter.shadow_report().unwrap();
    assert_eq!((report.agreement, report.candidate), (oracle.agreement, candidate), "{pair:?}");
    assert_eq!((report.unjudged, report.failed), (0, 0));
    let flip = |one: &fleetwide_limiter::FlippingKey| {
        assert_eq!(one.over, 0);
        (one.key.clone(), one.only_real_allows, one.only_candidate_allows)
    };
    assert_eq!(report.flipping.iter().map(flip).collect::<Vec<_>>(), oracle.flipping());
    match (report.first_divergence, oracle.first) {
        (None, None) => {}
        (Some(first), Some((name, cost, now, [real, candidate]))) => {
            assert_eq!(
                (first.key, first.cost, first.at.as_micros()),
                (name.to_string(), cost, now)
            );
            assert_is(first.real, real);
            assert_is(first.candidate, candidate);
        }
        (found, expected) => panic!("{found:?}, and the oracle says {expected:?}"),
    }
    report.agreement
}

// Seen red: when the candidate spends only what the real quota allows, and when the first divergence is
// passed over for a later one.
#[tokio::test]
async fn report_of_a_trace_is_exactly_what_an_offline_oracle_says() {
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let mut sum = [0; 4];
    for backend in backends().await {
        for (way, quota) in quotas(10).into_iter().enumerate() {
            let max = rng.random_range(3..=16);
            for (other, candidate) in quotas(max).into_iter().enumerate() {
                let name = format!("q{way}-{other}");
                let met = replay(&backend, &name, [quota, candidate], &mut rng).await;
                let Agreement { both_allow, both_deny, only_real_allows, only_candidate_allows } =
                    met;
                let met = [both_allow, both_deny, only_real_allows, only_candidate_allows];
                sum.iter_mut().zip(met).for_each(|(sum, met)| *sum += met);
            }
        }
    }
    assert!(sum.iter().all(|count| *count > 100), "the traces meet all four: {sum:?}");
}

// Seen red: with a deny cache the second refusal is remembered, and with leases cells are in hand.
#[tokio::test]
async fn each_call_is_a_trip_and_its_answer_is_that_of_a_limiter_without_a_shadow() {
    for backend in backends().await {
        let quota = Quota::sliding_window(100, HOUR).unwrap();
        let shadow = on_all(Quota::gcra(10, HOUR, 5).unwrap());
        let plain = backend.options("plain", quota).deny_cache(Duration::ZERO).build().unwrap();
        let shadowed = backend
            .options("shadowed", quota)
            .deny_cache(HOUR)
            .leased(Leasing::new().cells_max(50))
            .shadow(shadow);
        let shadowed = shadowed.build().unwrap();
        backend.trips();
        for _ in 0..130 {
            let answer = shadowed.check("ada").await.unwrap();
            assert_eq!(backend.trips(), 1, "one trip for both");
            assert_eq!(answer, plain.check("ada").await.unwrap());
            backend.trips();
            backend.clock.advance(Duration::from_millis(7));
        }
        let report = shadowed.shadow_report().unwrap();
        assert_eq!(report.agreement.judged(), 130);
        assert_eq!((report.agreement.both_allow, report.agreement.only_real_allows), (5, 95));
        assert!(plain.shadow_report().is_none());
    }
}

// Seen red: when the candidate is tried on all keys; when the share decides by anything but the name;
// with a deny cache or leases for the keys on which it is tried, and without them for the others.
#[tokio::test]
async fn other_keys_than_those_of_the_share_are_as_without_a_candidate() {
    const KEYS: usize = 400;
    for backend in backends().await {
        let quota = Quota::sliding_window(50, HOUR).unwrap();
        let limiter = || {
            let options = backend.options("api", quota).deny_cache(HOUR);
            let leased = options.leased(Leasing::new().cells_max(10));
            leased.shadow(Shadow::new(Quota::gcra(10, HOUR, 5).unwrap())).build().unwrap()
        };
        let (one, other) = (limiter(), limiter());
        let judged = |limiter: &Limiter<_>| limiter.shadow_report().unwrap().agreement.judged();
        let mut tried = 0;
        for number in 0..KEYS {
            let name = format!("tenant-{number}");
            let (before, elsewhere) = (judged(&one), judged(&other));
            let _ = one.check(&name).await.unwrap();
            let is_tried = judged(&one) > before;
            tried += usize::from(is_tried);
            let _ = other.check(&name).await.unwrap();
            assert_eq!(judged(&other) > elsewhere, is_tried, "they agree on {name}");
            if number >= 40 {
                continue;
            }
            let ahead = async || one.check(&name).await.unwrap().source() == Source::Leased;
            if is_tried {
                for _ in 0..20 {
                    assert!(!ahead().await, "{name} has cells in hand");
                    tokio::task::yield_now().await;
                }
            } else {
                eventually(SOON, "cells in hand", ahead).await;
            }
            limiter_is_full(&one, &name, is_tried).await;
        }
        assert!((KEYS * 15 / 100..KEYS * 35 / 100).contains(&tried), "{tried} of {KEYS}");
        assert!((one.shadow_report().unwrap().share - 0.25).abs() < f64::EPSILON);
        let none = backend.options("none", quota).shadow(on_all(quota).share_of_keys(1.1));
        assert_eq!(none.build().err(), Some(ConfigError::SampledShare));
    }
}

/// Uses up what is left, and asks twice more.
async fn limiter_is_full<E: Executor>(limiter: &Limiter<E>, name: &str, is_tried: bool) {
    while limiter.check(name).await.unwrap().is_allowed() {}
    let refused = limiter.check(name).await.unwrap();
    assert!(!refused.is_allowed());
    assert_eq!(refused.source() == Source::Remembered, !is_tried, "{name}");
}

// Seen red: when the batch carries the real costs alone.
#[tokio::test]
async fn calls_that_share_a_trip_are_judged_each() {
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build();
    let road = Road::new(memory.executor().clone());
    let namespace = Namespace::new(&unique_namespace()).unwrap();
    let quota = Quota::sliding_window(30, HOUR).unwrap();
    let limiter = Limiter::builder(road.clone(), &namespace, "test", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(30))
        .shadow(on_all(Quota::fixed_window(20, 24 * HOUR).unwrap()))
        .build()
        .unwrap();
    let calls = join_all((0..50).map(|_| limiter.check("ada")));
    road.open_for(2);
    let allowed = calls.await.into_iter().filter(|one| one.as_ref().unwrap().is_allowed()).count();
    assert_eq!((allowed, road.close()), (30, 2), "the first, and all others together");
    let Agreement { both_allow, both_deny, only_real_allows, only_candidate_allows } =
        limiter.shadow_report().unwrap().agreement;
    assert_eq!((both_allow, only_real_allows), (20, 10));
    assert_eq!((both_deny, only_candidate_allows), (20, 0));
}

// Seen red: without the refund, the reset or the block on the candidate's key.
#[tokio::test]
async fn refunds_resets_and_blocks_are_made_on_the_candidate_as_well() {
    for backend in backends().await {
        for (way, candidate) in quotas(5).into_iter().enumerate() {
            for (real_way, quota) in quotas(100).into_iter().enumerate() {
                let name = format!("v{way}-{real_way}");
                let limiter =
                    backend.options(&name, quota).shadow(on_all(candidate)).build().unwrap();
                let flips = || limiter.shadow_report().unwrap().agreement.only_real_allows;
                let grant = limiter.check_with_receipt("ada", 5).await.unwrap();
                let refused = limiter.check("ada").await.unwrap();
                assert_eq!((refused.remaining(), flips()), (94, 1), "it is used up");
                let _ = limiter.refund(grant.receipt.unwrap()).await.unwrap();
                let _ = limiter.check_cost("ada", 5).await.unwrap();
                assert_eq!(flips(), 1, "{candidate:?} has its cells back");
                limiter.reset("ada").await.unwrap();
                let _ = limiter.check_cost("ada", 5).await.unwrap();
                assert_eq!(flips(), 1, "{candidate:?} is reset");
                limiter.reset("ada").await.unwrap();
                limiter.block("ada", HOUR).await.unwrap();
                assert!(!limiter.check("ada").await.unwrap().is_allowed());
                let report = limiter.shadow_report().unwrap();
                assert_eq!(report.agreement.both_deny, 1, "{candidate:?} is blocked too");
            }
        }
    }
}

/// A value of another kind.
struct Foreign(Key);

static HSET_IT: Script =
    Script::untimed("foreign", &["return redis.call('HSET', KEYS[1], 'a', 'b')"]);

impl AtomicOp for Foreign {
    type State = &'static str;
    type Reply = ();

    fn script(&self) -> &'static Script {
        &HSET_IT
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.0)
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(&self, _: &[Option<&Self::State>], _: ServerTime, out: &mut Effects<Self::State>) {
        out.put(0, "foreign", HOUR);
    }

    fn decode(&self, reply: Wire) -> Result<(), Malformed> {
        reply.into_int().map(drop)
    }
}

// Seen red: without the `pcall` in the script, and without the second try in memory, the rung answers.
#[tokio::test]
async fn foreign_value_in_the_candidates_key_changes_no_answer() {
    for (at, backend) in backends().await.into_iter().enumerate() {
        let ten = Quota::sliding_window(10, HOUR).unwrap();
        let five = Quota::gcra(5, HOUR, 5).unwrap();
        let limiter = backend.options("api", ten).shadow(on_all(five)).build().unwrap();
        let policy = PolicyName::new("api").unwrap();
        let key = candidate_cell::<WindowQuota>(backend.namespace(), &policy, b"ada", &five);
        backend.executor().run(&Foreign(key.unwrap())).await.unwrap();
        for left in (0..10).rev() {
            let decision = limiter.check("ada").await.unwrap();
            assert_eq!((decision.source(), decision.remaining()), (Source::Shared, left));
        }
        let report = limiter.shadow_report().unwrap();
        assert_eq!((report.agreement.judged(), report.failed, report.unjudged), (0, 10, 10));
        // The reset takes away whatever is there; in memory no step of ours can.
        if at == 0 {
            continue;
        }
        limiter.reset("ada").await.unwrap();
        assert!(limiter.check("ada").await.unwrap().is_allowed());
        assert_eq!(limiter.shadow_report().unwrap().agreement.both_allow, 1);
    }
}

// Seen red: without the second try, the whole step is refused for the candidate's cell.
#[tokio::test]
async fn candidate_without_room_in_memory_changes_no_answer() {
    let memory = Memory::builder().cells_max(1).build();
    let namespace = Namespace::new(&unique_namespace()).unwrap();
    let ten = Quota::sliding_window(10, HOUR).unwrap();
    let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", ten)
        .on_unavailable(Unavailable::Deny)
        .shadow(on_all(ten))
        .build()
        .unwrap();
    for left in (0..10).rev() {
        let decision = limiter.check("ada").await.unwrap();
        assert_eq!((decision.source(), decision.remaining()), (Source::Shared, left));
    }
    let report = limiter.shadow_report().unwrap();
    assert_eq!((report.agreement.judged(), report.failed), (0, 10));
}

#[tokio::test]
async fn call_that_the_candidate_does_not_see_is_counted_as_unjudged() {
    let backend = Backend::memory();
    let ten = Quota::sliding_window(10, HOUR).unwrap();
    let limiter = backend.options("api", ten).shadow(on_all(ten)).build().unwrap();
    let unjudged = || limiter.shadow_report().unwrap().unjudged;
    let _ = limiter.check_at_most("ada", 2).await.unwrap();
    assert_eq!(unjudged(), 1);
    let _ = limiter.check_idempotent("ada", 1, "order-4711").await.unwrap();
    assert_eq!(unjudged(), 2);
    let _ = limiter.until_ready("ada", 1, Duration::ZERO).await.unwrap();
    assert_eq!(unjudged(), 3);
    let twenty = Quota::sliding_window(20, HOUR).unwrap();
    let _ = limiter.check_with_quota("ada", 1, twenty).await.unwrap();
    assert_eq!(unjudged(), 4);
    assert_eq!(limiter.shadow_report().unwrap().agreement, Agreement::default());
    let _ = limiter.check_with_quota("ada", 1, ten).await.unwrap();
    let _ = limiter.peek("ada").await.unwrap();
    assert_eq!((unjudged(), limiter.shadow_report().unwrap().agreement.both_allow), (4, 1));
}

// Seen red: when names are shown unasked.
#[tokio::test]
async fn report_names_no_key_unless_it_is_told_to() {
    let backend = Backend::memory();
    let ten = Quota::sliding_window(10, HOUR).unwrap();
    let five = Quota::sliding_window(5, HOUR).unwrap();
    for is_showing in [false, true] {
        let shadow = on_all(five).show_keys(is_showing);
        let name = format!("api-{is_showing}");
        let limiter = backend.options(&name, ten).shadow(shadow).build().unwrap();
        let _ = limiter.check_cost("ada:203.0.113.7", 6).await.unwrap();
        let report = limiter.shadow_report().unwrap();
        let first = report.first_divergence.clone().unwrap();
        assert_eq!((report.flipping.len(), &report.flipping[0].key), (1, &first.key));
        assert_eq!(first.candidate.retry_after, Duration::MAX, "6 of 5 are never there");
        let said = format!("{report:?}");
        if is_showing {
            assert_eq!(first.key, "ada%3a203.0.113.7");
        } else {
            assert!(!said.contains("ada") && first.key.len() == 16, "{said}");
        }
    }
}
