//! Leases: the scripts and their pure twins on the same histories, and both against an oracle.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ServerTime,
    Wire,
};
use fleetwide_limiter::concurrency::op::{Acquire, Look, Release, Renew};
use fleetwide_limiter::concurrency::{ConcurrencyQuota, ConcurrencyState};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, for_each_history};

/// `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 5_000;
/// Histories that are played abreast.
const ABREAST: usize = 500;
/// Steps of each.
const STEPS: usize = 14;
/// 40 to 60 minutes: no key expires by the real clock while a simulated one stands still.
const LEASE_US: std::ops::RangeInclusive<u64> = 2_400_000_000..=3_600_000_000;

fn quota(rng: &mut Rng) -> ConcurrencyQuota {
    let max = if rng.random_ratio(1, 8) { 1_024 } else { rng.random_range(1..=12) };
    let lease = Duration::from_micros(rng.random_range(LEASE_US));
    ConcurrencyQuota::new(max, lease).expect("these numbers make a quota")
}

/// Mostly small and close together, so that bytes of one id are found in other fields.
fn id(rng: &mut Rng) -> u64 {
    match rng.random_range(0..3) {
        0 => rng.random_range(0..3) << 8,
        1 => rng.random_range(0..4),
        _ => u64::MAX - rng.random_range(0..3),
    }
}

/// Some ids that differ.
fn ids(rng: &mut Rng) -> Vec<u64> {
    let mut ids: Vec<u64> = (0..rng.random_range(1..=5)).map(|_| id(rng)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn cost(quota: ConcurrencyQuota, rng: &mut Rng) -> u16 {
    if rng.random() { 1 } else { rng.random_range(1..=quota.max() as u16) }
}

/// Two processes with quotas of their own, as while a new one is rolled out.
struct History {
    key: Key,
    quotas: [ConcurrencyQuota; 2],
}

fn next_step(history: &History, rng: &mut Rng) -> Step {
    let (key, quota) = (history.key.clone(), history.quotas[usize::from(rng.random_ratio(1, 4))]);
    match rng.random_range(0..12) {
        0 => Step::Look(Look::new(key)),
        1 | 2 => Step::Release(Release::new(key, ids(rng))),
        3 | 4 => {
            let leases = ids(rng).into_iter().map(|id| (id, cost(quota, rng))).collect();
            Step::Renew(Renew::new(quota, key, leases))
        }
        _ => Step::Acquire(Acquire::new(quota, key, id(rng), cost(quota, rng))),
    }
}

/// Lets time stand, pass or step, mostly to about when a lease ends.
fn next_time(now: u64, quota: ConcurrencyQuota, rng: &mut Rng) -> u64 {
    match rng.random_range(0..12) {
        0..=3 => now + rng.random_range(0..=3),
        4..=6 => now + quota.lease_us() - rng.random_range(0..=3),
        7..=9 => now + rng.random_range(0..=quota.lease_us()),
        10 => now - rng.random_range(0..=quota.lease_us() * 2),
        _ => now + quota.lease_us() * 2,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_in_lua_and_in_rust_decide_and_store_the_same() {
    let count = support::twin::histories(HISTORIES);
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build().executor().clone();
    let server = support::server().await;
    let redis = support::twin::redis_by(&clock, &server).await;
    for _ in 0..count.div_ceil(ABREAST) {
        play(&clock, &memory, &redis, &mut rng).await;
        support::twin::no_key_is_immortal(&server).await;
    }
}

async fn play(clock: &SimClock, memory: &MemExecutor, redis: &RedisExecutor, rng: &mut Rng) {
    let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
    let histories: Vec<History> = (0..ABREAST)
        .map(|number| {
            let tag = namespace.tag("limiter", number.to_string().as_bytes());
            let key = tag.expect("a number is a name").part("concurrency");
            let own = quota(rng);
            let other = if rng.random_ratio(1, 3) { quota(rng) } else { own };
            History { key, quotas: [own, other] }
        })
        .collect();
    clock.set_server_time(ServerTime::from_micros((1 << 50) + rng.random_range(0..1 << 50)));
    for step in 0..STEPS {
        let quota = histories[rng.random_range(0..ABREAST)].quotas[0];
        let now = clock.server_time().as_micros();
        let next = next_time(now, quota, rng);
        if next < now {
            // What has expired is gone on both sides before the clock goes back.
            compare_states(memory, redis, &histories, now).await;
        }
        clock.set_server_time(ServerTime::from_micros(next));
        let ops: Vec<Step> = histories.iter().map(|history| next_step(history, rng)).collect();
        let one = memory.run_many(&ops).await;
        let other = redis.run_many(&ops).await;
        for ((op, one), other) in ops.iter().zip(one).zip(other) {
            let (one, other) = (one.expect("memory answers"), other.expect("the server answers"));
            assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {next}");
        }
        compare_states(memory, redis, &histories, next).await;
    }
}

/// States must be equal, but for those that end within a minute: a server drops them by the real
/// clock, while the simulated one stands still. They are dropped on both sides.
async fn compare_states(
    memory: &MemExecutor,
    redis: &RedisExecutor,
    histories: &[History],
    now: u64,
) {
    let reads: Vec<Raw> = histories.iter().map(|history| Raw(&GET, history.key.clone())).collect();
    let mut drops = Vec::new();
    for (Raw(_, key), stored) in reads.iter().zip(redis.run_many(&reads).await) {
        let stored = stored.expect("the server answers");
        let held = memory.peek_state::<ConcurrencyState>(key);
        let wire = held.as_ref().map(ConcurrencyState::to_wire);
        if wire.as_deref().is_none_or(|wire| last_ends(wire) < now + 60_000_000) {
            drops.push(Raw(&DEL, key.clone()));
        } else {
            assert_eq!(wire.as_deref(), stored.as_deref(), "{key:?} at {now}: {held:?}");
        }
    }
    memory.run_many(&drops).await;
    redis.run_many(&drops).await;
}

/// When the last lease ends: seven bytes, with the last of what comes before them cut off.
fn last_ends(stored: &[u8]) -> u64 {
    let at = stored.len() - 18;
    u64::from_be_bytes(stored[at..at + 8].try_into().expect("eight bytes")) % (1 << 56)
}

/// Any of the verbs, so that one pipeline carries them mixed.
#[derive(Debug)]
enum Step {
    Acquire(Acquire),
    Renew(Renew),
    Release(Release),
    Look(Look),
}

/// Hands a call through to the verb.
macro_rules! each {
    ($step:expr, $op:ident => $call:expr) => {
        match $step {
            Step::Acquire($op) => $call,
            Step::Renew($op) => $call,
            Step::Release($op) => $call,
            Step::Look($op) => $call,
        }
    };
}

impl AtomicOp for Step {
    type State = ConcurrencyState;
    /// As text, because each verb answers something else.
    type Reply = String;

    fn script(&self) -> &'static Script {
        each!(self, op => op.script())
    }

    fn keys(&self) -> &[Key] {
        each!(self, op => op.keys())
    }

    fn args(&self, to: &mut dyn ArgSink) {
        each!(self, op => op.args(to));
    }

    fn apply(
        &self,
        cells: &[Option<&ConcurrencyState>],
        now: ServerTime,
        out: &mut Effects<ConcurrencyState>,
    ) -> String {
        each!(self, op => format!("{:?}", op.apply(cells, now, out)))
    }

    fn decode(&self, reply: Wire) -> Result<String, Malformed> {
        each!(self, op => op.decode(reply).map(|reply| format!("{reply:?}")))
    }
}

static GET: Script = Script::command("GET");
static DEL: Script = Script::command("DEL");

/// A command on what a key holds on the server; in memory, it empties the key.
struct Raw(&'static Script, Key);

impl AtomicOp for Raw {
    type State = ConcurrencyState;
    type Reply = Option<Bytes>;

    fn script(&self) -> &'static Script {
        self.0
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.1)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        _: &[Option<&ConcurrencyState>],
        _: ServerTime,
        out: &mut Effects<ConcurrencyState>,
    ) -> Option<Bytes> {
        out.delete(0);
        None
    }

    fn decode(&self, reply: Wire) -> Result<Option<Bytes>, Malformed> {
        match reply {
            Wire::Int(_) => Ok(None),
            other => other.into_optional_bytes(),
        }
    }
}

/// What the oracle knows: when each lease ends by its own reckoning, and what it costs.
type Held = HashMap<u64, (u64, u16)>;

struct Oracle {
    quota: ConcurrencyQuota,
    state: Option<ConcurrencyState>,
    held: Held,
}

impl Oracle {
    fn run<O: AtomicOp<State = ConcurrencyState>>(&mut self, op: &O, now: u64) -> O::Reply {
        use fleetwide_core_traits::Write;
        let mut out = Effects::new();
        let reply = op.apply(&[self.state.as_ref()], ServerTime::from_micros(now), &mut out);
        for (_, write) in out.writes() {
            match write {
                Write::Put(state, _) => self.state = Some(state.clone()),
                _ => self.state = None,
            }
        }
        reply
    }

    fn sum(&self, now: u64) -> u32 {
        let live = self.held.values().filter(|(ends, _)| *ends > now);
        live.map(|(_, cost)| u32::from(*cost)).sum()
    }
}

// Red with one permit more, with a lease that counts when it has ended, and when a renewal or a
// release does not find its lease.
#[test]
fn live_leases_are_never_more_than_the_maximum_and_a_refusal_says_when_it_fits() {
    let key = Namespace::new("test").unwrap().tag("limiter", b"a").unwrap().key();
    for_each_history(1_000, |rng| {
        let quota =
            ConcurrencyQuota::new(rng.random_range(1..=12), Duration::from_secs(1)).unwrap();
        let mut oracle = Oracle { quota, state: None, held: Held::new() };
        let mut now = 1_780_000_000_000_000;
        for _ in 0..80 {
            now += match rng.random_range(0..4) {
                0 => 0,
                1 => quota.lease_us() / rng.random_range(1..=4),
                _ => rng.random_range(0..=quota.lease_us() / 3),
            };
            step(&mut oracle, &key, now, rng);
            let sum = oracle.sum(now);
            assert!(sum <= quota.max(), "{sum} of {} at {now}", quota.max());
            assert_eq!(oracle.run(&Look::new(key.clone()), now), sum);
        }
    });
}

fn step(oracle: &mut Oracle, key: &Key, now: u64, rng: &mut Rng) {
    let quota = oracle.quota;
    let live = |held: &Held, id: u64| held.get(&id).is_some_and(|(ends, _)| *ends > now);
    match rng.random_range(0..6) {
        0 => {
            let id = id(rng);
            let was = u64::from(live(&oracle.held, id));
            assert_eq!(oracle.run(&Release::new(key.clone(), vec![id]), now), was);
            oracle.held.remove(&id);
        }
        1 => {
            let leases: Vec<_> = ids(rng).into_iter().map(|id| (id, 1)).collect();
            let held = oracle.run(&Renew::new(quota, key.clone(), leases.clone()), now);
            for ((id, mut cost), is_held) in leases.into_iter().zip(held) {
                let was_live = live(&oracle.held, id);
                if was_live {
                    cost = oracle.held[&id].1;
                }
                let fits = was_live || oracle.sum(now) < quota.max();
                assert_eq!(is_held, fits, "renewal of {id}");
                if is_held {
                    oracle.held.insert(id, (now + quota.lease_us(), cost));
                }
            }
        }
        _ => {
            let (id, cost) = (id(rng), cost(quota, rng));
            let was_live = live(&oracle.held, id);
            let fits = was_live || oracle.sum(now) + u32::from(cost) <= quota.max();
            let acquire = Acquire::new(quota, key.clone(), id, cost);
            let grant = oracle.run(&acquire, now);
            assert_eq!(grant.is_granted, fits, "{id} of cost {cost} at {now}");
            if fits {
                let cost = if was_live { oracle.held[&id].1 } else { cost };
                oracle.held.insert(id, (now + quota.lease_us(), cost));
            } else {
                // The first moment at which it fits, if nobody renews.
                let at = now + grant.retry_after_us;
                assert!(oracle.sum(at) + u32::from(cost) <= quota.max(), "too short");
                assert!(oracle.sum(at - 1) + u32::from(cost) > quota.max(), "too long");
            }
        }
    }
}

// Red without the case for the future in `Standing::of`: the permit would be gone for a year.
#[test]
fn clock_that_goes_back_keeps_a_dead_holder_for_a_lease_and_not_longer() {
    let key = Namespace::new("test").unwrap().tag("limiter", b"a").unwrap().key();
    let quota = ConcurrencyQuota::new(1, Duration::from_secs(1)).unwrap();
    let mut oracle = Oracle { quota, state: None, held: Held::new() };
    let now = 1_780_000_000_000_000;
    assert!(oracle.run(&Acquire::new(quota, key.clone(), 1, 1), now).is_granted);
    let back = now - 366 * 24 * 3_600_000_000;
    let grant = oracle.run(&Acquire::new(quota, key.clone(), 2, 1), back);
    assert_eq!((grant.is_granted, grant.retry_after_us), (false, 1_000_000));
    let grant = oracle.run(&Acquire::new(quota, key.clone(), 2, 1), back + 999_999);
    assert_eq!((grant.is_granted, grant.retry_after_us), (false, 1));
    assert!(oracle.run(&Acquire::new(quota, key, 2, 1), back + 1_000_000).is_granted);
}

#[test]
fn refusal_and_release_of_nothing_write_nothing() {
    let key = Namespace::new("test").unwrap().tag("limiter", b"a").unwrap().key();
    let quota = ConcurrencyQuota::new(1, Duration::from_secs(1)).unwrap();
    let mut oracle = Oracle { quota, state: None, held: Held::new() };
    let now = ServerTime::from_micros(1_780_000_000_000_000);
    assert!(oracle.run(&Acquire::new(quota, key.clone(), 1, 1), now.as_micros()).is_granted);
    let cells = [oracle.state.as_ref()];
    let mut out = Effects::new();
    assert!(!Acquire::new(quota, key.clone(), 2, 1).apply(&cells, now, &mut out).is_granted);
    assert_eq!(Renew::new(quota, key.clone(), vec![(2, 1)]).apply(&cells, now, &mut out), [false]);
    assert_eq!(Release::new(key.clone(), vec![2]).apply(&cells, now, &mut out), 0);
    assert_eq!(Look::new(key).apply(&cells, now, &mut out), 1);
    assert!(out.writes().is_empty());
}
