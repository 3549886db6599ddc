//! Checks that are made once per request: the scripts and their pure twins on the same histories.
//!
//! As `tests/lua_twin.rs`, with retries: few requests, asked again and again, between other calls.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ServerTime,
    Wire,
};
use fleetwide_limiter::op::{Block, Check, Delete, Once, Reset, cell, id_cell};
use fleetwide_limiter::{
    Answer, BucketQuota, FixedQuota, GcraQuota, Held, LogQuota, PolicyName, WindowQuota,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, Slow};

/// Of each algorithm; `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 2_000;
/// Histories that are played abreast.
const ABREAST: usize = 250;
/// Steps of each.
const STEPS: usize = 14;
/// Requests of each.
const IDS: usize = 3;

// Red when the script forgets the horizon, or the mark, or remembers nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcra_answers_a_request_once_in_lua_as_in_rust() {
    play_all::<GcraQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_answers_a_request_once_in_lua_as_in_rust() {
    play_all::<WindowQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_answers_a_request_once_in_lua_as_in_rust() {
    play_all::<BucketQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_window_answers_a_request_once_in_lua_as_in_rust() {
    play_all::<FixedQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_answers_a_request_once_in_lua_as_in_rust() {
    play_all::<LogQuota>().await;
}

async fn play_all<A: Slow>() {
    let count = support::twin::histories(HISTORIES);
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let clock = SimClock::new();
    let server = support::server().await;
    let redis = support::twin::redis_by(&clock, &server).await;
    for _ in 0..count.div_ceil(ABREAST) {
        play::<A>(&clock, &redis, &mut rng).await;
        support::twin::no_key_is_immortal(&server).await;
    }
}

/// One key with its quotas, and the keys of its requests.
struct History<A> {
    key: Key,
    ids: Vec<Key>,
    quotas: [A; 2],
}

async fn play<A: Slow>(clock: &SimClock, redis: &RedisExecutor, rng: &mut Rng) {
    let base_us = 120_000_000 << rng.random_range(0..12);
    let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
    let policy = PolicyName::new("test").expect("a name");
    let histories: Vec<History<A>> = (0..ABREAST)
        .map(|number| {
            let user = number.to_string();
            let key = cell::<A>(&namespace, &policy, user.as_bytes()).expect("a name");
            let id = |id: usize| {
                id_cell::<A>(&namespace, &policy, user.as_bytes(), &[b'i', id as u8])
                    .expect("a name")
            };
            let quota = A::slow(rng, base_us);
            let other = if rng.random_ratio(1, 4) { A::slow(rng, base_us * 2) } else { quota };
            History { key, ids: (0..IDS).map(id).collect(), quotas: [quota, other] }
        })
        .collect();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build().executor().clone();
    clock.set_server_time(ServerTime::from_micros((1 << 50) + rng.random_range(0..1 << 50)));
    for step in 0..STEPS {
        move_clock(clock, &memory, redis, &histories, rng).await;
        let ops: Vec<Step<A>> = histories.iter().map(|history| next_step(history, rng)).collect();
        let one = memory.run_many(&ops).await;
        let other = redis.run_many(&ops).await;
        let now = clock.server_time().as_micros();
        for ((op, one), other) in ops.iter().zip(one).zip(other) {
            let (one, other) = (one.expect("memory answers"), other.expect("the server answers"));
            assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {now}");
        }
        if step % 3 == 0 || step == STEPS - 1 {
            compare_states(&memory, redis, &histories, now).await;
        }
    }
}

fn next_step<A: Slow>(history: &History<A>, rng: &mut Rng) -> Step<A> {
    let quota = history.quotas[usize::from(rng.random_ratio(1, 4))];
    let key = || history.key.clone();
    let max = quota.cost_max();
    let cost = if rng.random_ratio(2, 3) { max.div_ceil(3) } else { rng.random_range(1..=max) };
    let cost = cost.max(quota.cost_min());
    match rng.random_range(0..24) {
        0 => Step::Reset(Reset::new(quota, key())),
        1 => Step::Block(Block::new(quota, key(), Duration::from_secs(3600))),
        2..=6 => Step::Check(Check::new(quota, key(), cost)),
        7 => Step::Once(Once::new(quota, key(), history.ids[0].clone(), 0)),
        _ => {
            let id = history.ids[rng.random_range(0..IDS)].clone();
            Step::Once(Once::new(quota, key(), id, cost))
        }
    }
}

/// Mostly within the horizon of a request, and to just before and just after its end.
async fn move_clock<A: Slow>(
    clock: &SimClock,
    memory: &MemExecutor,
    redis: &RedisExecutor,
    histories: &[History<A>],
    rng: &mut Rng,
) {
    let horizon = Once::<A>::HORIZON.as_micros() as u64;
    let now = clock.server_time().as_micros();
    let by = match rng.random_range(0..8) {
        0..=3 => rng.random_range(0..=horizon / 8),
        4 => horizon,
        5 => horizon - 1,
        _ => 0,
    };
    clock.set_server_time(ServerTime::from_micros(now + by));
    if rng.random_ratio(1, 8) {
        // What has expired is gone on both sides before the clock goes back.
        let now = now + by;
        let keys = histories.iter().flat_map(|history| history.ids.iter().chain([&history.key]));
        let over = keys.filter(|key| memory.peek_state::<Held<A::State>>(key).is_none());
        let deletes: Vec<Delete<A>> = over.map(|key| Delete::new(key.clone())).collect();
        for done in
            memory.run_many(&deletes).await.into_iter().chain(redis.run_many(&deletes).await)
        {
            done.expect("both answer");
        }
        clock.set_server_time(ServerTime::from_micros(now - rng.random_range(0..horizon * 2)));
    }
}

async fn compare_states<A: Slow>(
    memory: &MemExecutor,
    redis: &RedisExecutor,
    histories: &[History<A>],
    now: u64,
) {
    let horizon = Once::<A>::HORIZON.as_micros() as u64;
    for (keys, is_request) in [(0, false), (IDS, true)] {
        let reads: Vec<Raw> = histories
            .iter()
            .flat_map(|history| match keys {
                0 => vec![Raw(history.key.clone())],
                _ => history.ids.iter().cloned().map(Raw).collect(),
            })
            .collect();
        for (Raw(key), stored) in reads.iter().zip(redis.run_many(&reads).await) {
            let stored = stored.expect("the server answers");
            let is_over = |stored: &[u8]| {
                if is_request {
                    number(stored, 0) + horizon <= now
                } else {
                    is_over::<A>(stored, now)
                }
            };
            let stored = stored.as_deref().filter(|stored| !is_over(stored));
            let held = memory.peek_state::<Held<A::State>>(key);
            let wire = held.as_ref().map(|held| held.to_wire(A::to_wire));
            assert_eq!(wire.as_deref(), stored, "{key:?} at {now}: memory holds {held:?}");
        }
    }
}

/// Whether a stored value says nothing any more.
fn is_over<A: Slow>(stored: &[u8], now: u64) -> bool {
    let Some(preface) = stored.strip_prefix(&[1]) else { return A::is_over(stored, now) };
    let (preface, state) = preface.split_at(48);
    number(preface, 32).max(number(preface, 40)) <= now
        && (state.is_empty() || A::is_over(state, now))
}

fn number(stored: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(stored[at..at + 8].try_into().expect("eight bytes"))
}

/// Any of the verbs, so that one pipeline carries them mixed.
#[derive(Debug)]
enum Step<A: Slow> {
    Check(Check<A>),
    Once(Once<A>),
    Block(Block<A>),
    Reset(Reset<A>),
}

/// Hands a call through to the verb.
macro_rules! each {
    ($step:expr, $op:ident => $call:expr) => {
        match $step {
            Step::Check($op) => $call,
            Step::Once($op) => $call,
            Step::Block($op) => $call,
            Step::Reset($op) => $call,
        }
    };
}

impl<A: Slow> AtomicOp for Step<A> {
    type State = Held<A::State>;
    type Reply = Option<Answer>;

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
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Option<Answer> {
        match self {
            Self::Check(op) => Some(op.apply(cells, now, out)),
            Self::Once(op) => Some(op.apply(cells, now, out)),
            Self::Block(op) => {
                op.apply(cells, now, out);
                None
            }
            Self::Reset(op) => {
                op.apply(cells, now, out);
                None
            }
        }
    }

    fn decode(&self, reply: Wire) -> Result<Option<Answer>, Malformed> {
        Ok(match self {
            Self::Check(op) => Some(op.decode(reply)?),
            Self::Once(op) => Some(op.decode(reply)?),
            Self::Block(op) => op.decode(reply).map(|_| None)?,
            Self::Reset(op) => op.decode(reply).map(|_| None)?,
        })
    }
}

/// What a key holds on the server.
struct Raw(Key);

static GET: Script = Script::command("GET");

impl AtomicOp for Raw {
    type State = ();
    type Reply = Option<Bytes>;

    fn script(&self) -> &'static Script {
        &GET
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.0)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(&self, _: &[Option<&()>], _: ServerTime, _: &mut Effects<()>) -> Option<Bytes> {
        None
    }

    fn decode(&self, reply: Wire) -> Result<Option<Bytes>, Malformed> {
        reply.into_optional_bytes()
    }
}
