//! The scripts and their pure twins on the same histories: each reply and each state is equal.
//!
//! The executor in memory runs the pure half, a real Redis the script; both by one clock, which
//! stands still unless the history moves it, in either direction. Histories are short and many, and
//! are played abreast: one pipeline carries the same step of all.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ScriptClock,
    ServerTime, Wire,
};
use fleetwide_limiter::op::{AtMost, Batch, Block, Check, Delete, Peek, Refund, Reset};
use fleetwide_limiter::{
    Answer, BucketQuota, Debit, FixedQuota, GcraQuota, Held, LogQuota, WindowQuota,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{RedisServer, SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, Slow};

/// Of each algorithm; `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 20_000;
/// Histories that are played abreast.
const ABREAST: usize = 500;
/// Steps of each.
const STEPS: usize = 10;
/// How long a key must still live before a step that does not make it live longer: on the server, time
/// goes on while the simulated clock stands.
const LIFE_MIN: Duration = Duration::from_secs(120);

// The lines of the scripts that decide or write were broken once, one at a time (32 of them: a
// bound off by one, a slot left, a count not kept on rotation, a lapse or a re-anchoring left out),
// and 8 of the batches, where a refusal that is told again without a look, a rotation that is
// forgotten, or a standing that is not moved on are further ones; and 14 of the refunds, partial
// grants, blocks and prefaces of the token bucket, the fixed window and the log. Each time one of
// these is red, but for a ttl too short or needless: tests/footprint.rs sees that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcra_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<GcraQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<WindowQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<BucketQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_window_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<FixedQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<LogQuota>().await;
}

async fn play_all<A: Slow>() {
    let count = support::twin::histories(HISTORIES);
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let server = support::server().await;
    let mut both = Both::new(&server).await;
    for _ in 0..count.div_ceil(ABREAST) {
        play::<A>(&mut both, &mut rng).await;
        support::twin::no_key_is_immortal(&server).await;
    }
}

/// The two sides, and the clock that moves both.
struct Both {
    clock: SimClock,
    memory: MemExecutor,
    server: RedisExecutor,
}

impl Both {
    async fn new(server: &RedisServer) -> Self {
        let clock = SimClock::new();
        let memory = Memory::builder().clock(Arc::new(clock.clone())).build().executor().clone();
        let by_argument = ScriptClock::Argument;
        let redis = support::redis(server, |builder| {
            builder.clock(Arc::new(clock.clone())).script_clock(by_argument)
        });
        let server = redis.await.executor();
        Self { clock, memory, server }
    }

    /// Memory as new; the server is flushed.
    fn forget(&mut self) {
        let clock = Arc::new(self.clock.clone());
        self.memory = Memory::builder().clock(clock).build().executor().clone();
    }

    fn now(&self) -> u64 {
        self.clock.server_time().as_micros()
    }
}

/// One key with its quotas: two, as while a new one is rolled out.
struct History<A> {
    key: Key,
    quotas: [A; 2],
    /// What was spent, each with its quota.
    debits: Vec<(A, Debit)>,
}

async fn play<A: Slow>(both: &mut Both, rng: &mut Rng) {
    // From two minutes to half a year; a year in µs has 45 bits.
    let base_us = 120_000_000 << rng.random_range(0..17);
    let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
    let mut histories: Vec<History<A>> = (0..ABREAST)
        .map(|number| {
            let tag = namespace.tag("limiter", number.to_string().as_bytes());
            let key = tag.expect("a number is a name").part(A::PART);
            let quota = A::slow(rng, base_us);
            let other_us = base_us << rng.random_range(0..8);
            let other = if rng.random_ratio(1, 3) { A::slow(rng, other_us) } else { quota };
            History { key, quotas: [quota, other], debits: Vec::new() }
        })
        .collect();
    both.forget();
    // From 2005 to 2041.
    let start = (1 << 50) + rng.random_range(0..1 << 50);
    both.clock.set_server_time(ServerTime::from_micros(start));
    for step in 0..STEPS {
        move_clock(both, &histories, rng).await;
        let lives: HashMap<Key, Duration> = both.memory.keys_with_ttl().into_iter().collect();
        let next = |history| next_step(history, lives.get(&history.key).copied(), rng);
        let ops: Vec<Step<A>> = histories.iter().map(next).collect();
        let memory = both.memory.run_many(&ops).await;
        let server = both.server.run_many(&ops).await;
        let mut replies = Vec::with_capacity(ABREAST);
        for ((op, one), other) in ops.iter().zip(memory).zip(server) {
            let (one, other) = (one.expect("memory answers"), other.expect("the server answers"));
            assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {}", both.now());
            replies.push(one);
        }
        for ((history, op), reply) in histories.iter_mut().zip(&ops).zip(replies) {
            history.note(op, &reply);
        }
        // Most differences of state show in later replies; so some steps suffice.
        if step % 3 == 0 || step == STEPS - 1 {
            compare_states(both, &histories).await;
        }
    }
}

impl<A: Slow> History<A> {
    fn note(&mut self, op: &Step<A>, (answers, _): &Reply) {
        let (Step::Check(_, quota) | Step::AtMost(_, quota) | Step::Batch(_, quota)) = op else {
            return;
        };
        for answer in answers.iter().filter(|answer| answer.granted > 0) {
            let upto = answer.at.plus(Duration::from_micros(answer.verdict.reset_after_us));
            let (cost, mark) = (answer.granted, answer.mark);
            self.debits.push((*quota, Debit { cost, at: answer.at, upto, mark }));
        }
    }
}

fn next_step<A: Slow>(history: &History<A>, lives: Option<Duration>, rng: &mut Rng) -> Step<A> {
    let quota = history.quotas[usize::from(rng.random_ratio(1, 3))];
    let key = || history.key.clone();
    let max = quota.cost_max();
    let cost = match rng.random_range(0..8) {
        0 => 0,
        1 => max,
        2 => rng.random_range(1..=max),
        3 => max.div_ceil(rng.random_range(2..=4)),
        _ => 1.min(max),
    };
    let cost = if cost == 0 { 0 } else { cost.max(quota.cost_min()) };
    let lives_on = lives.is_none_or(|lives| lives >= LIFE_MIN);
    match rng.random_range(0..60) {
        0 if lives_on => Step::Reset(Reset::new(quota, key())),
        0 => Step::Delete(Delete::new(key())),
        1 if lives_on => {
            let longest = LIFE_MIN.as_micros() as u64 + quota.step_us() * 100;
            let micros = rng.random_range(LIFE_MIN.as_micros() as u64..=longest);
            Step::Block(Block::new(quota, key(), Duration::from_micros(micros)))
        }
        // Also twice: it is the caller who must not.
        2..=16 if lives_on && !history.debits.is_empty() => {
            let (of, debit) = history.debits[rng.random_range(0..history.debits.len())];
            let quota = if rng.random_ratio(1, 10) { quota } else { of };
            Step::Refund(Refund::new(quota, key(), debit))
        }
        17..=20 => Step::Peek(Peek::new(quota, key(), cost)),
        21..=30 => Step::Batch(batch(history, quota, cost, rng), quota),
        31..=35 => Step::AtMost(AtMost::new(quota, key(), cost.max(quota.cost_min())), quota),
        _ => Step::Check(Check::new(quota, key(), cost), quota),
    }
}

/// Mostly the same cost again, as a crowd asks; sometimes others, also 0, in any order.
fn batch<A: Slow>(history: &History<A>, quota: A, cost: u32, rng: &mut Rng) -> Batch<A> {
    let max = quota.cost_max();
    let costs = (0..rng.random_range(1..=12)).map(|_| match rng.random_range(0..8) {
        0 => 0,
        1 => rng.random_range(quota.cost_min()..=max),
        2 => max.div_ceil(rng.random_range(2..=8)).max(quota.cost_min()),
        _ => cost,
    });
    Batch::new(quota, history.key.clone(), costs.collect()).expect("a few costs")
}

/// Lets time stand, pass or step, mostly to where a cell or a sub-window of some key comes or goes.
async fn move_clock<A: Slow>(both: &Both, histories: &[History<A>], rng: &mut Rng) {
    let quota = histories[rng.random_range(0..histories.len())].quotas[0];
    let step = quota.step_us();
    let by = match rng.random_range(0..8) {
        0 | 1 => 0,
        2 => quota.edge_us(both.now()),
        3 => step * 64,
        4 => rng.random_range(0..=step * 70),
        _ => rng.random_range(0..=step * 4),
    };
    let now = both.now() + by + rng.random_range(0..=2);
    let back = match rng.random_range(0..10) {
        0 => rng.random_range(0..=step),
        1 => rng.random_range(0..=step * 100),
        _ => 0,
    };
    both.clock.set_server_time(ServerTime::from_micros(now));
    if back > 0 {
        drop_expired(both, histories).await;
        both.clock.set_server_time(ServerTime::from_micros(now - back.min(now / 2)));
    }
}

/// What has expired is gone on both sides before the clock goes back, as it would be from a server
/// whose keys expire by the same clock.
async fn drop_expired<A: Slow>(both: &Both, histories: &[History<A>]) {
    let is_over =
        |history: &&History<A>| both.memory.peek_state::<Held<A::State>>(&history.key).is_none();
    let over = histories.iter().filter(is_over);
    let resets: Vec<Delete<A>> = over.map(|history| Delete::new(history.key.clone())).collect();
    for done in both.memory.run_many(&resets).await {
        done.expect("memory answers");
    }
    for done in both.server.run_many(&resets).await {
        done.expect("the server answers");
    }
}

async fn compare_states<A: Slow>(both: &Both, histories: &[History<A>]) {
    let now = both.now();
    let reads: Vec<Raw> = histories.iter().map(|history| Raw(history.key.clone())).collect();
    for (Raw(key), stored) in reads.iter().zip(both.server.run_many(&reads).await) {
        let stored = stored.expect("the server answers");
        let stored = stored.as_deref().filter(|stored| !is_over::<A>(stored, now));
        let held = both.memory.peek_state::<Held<A::State>>(key);
        let wire = held.as_ref().map(|held| held.to_wire(A::to_wire));
        assert_eq!(wire.as_deref(), stored, "{key:?} at {now}: memory holds {held:?}");
    }
}

/// Whether a stored value says nothing any more.
fn is_over<A: Slow>(stored: &[u8], now: u64) -> bool {
    let Some(preface) = stored.strip_prefix(&[1]) else { return A::is_over(stored, now) };
    let (preface, state) = preface.split_at(48);
    let until = |at: usize| u64::from_be_bytes(preface[at..at + 8].try_into().expect("8 bytes"));
    until(32).max(until(40)) <= now && (state.is_empty() || A::is_over(state, now))
}

/// Any of the verbs, so that one pipeline carries them mixed; those that spend with their quota.
#[derive(Debug)]
enum Step<A: Slow> {
    Check(Check<A>, A),
    AtMost(AtMost<A>, A),
    Batch(Batch<A>, A),
    Peek(Peek<A>),
    Refund(Refund<A>),
    Block(Block<A>),
    Reset(Reset<A>),
    Delete(Delete<A>),
}

/// What was answered to each cost, and the number that other verbs answer.
type Reply = (Vec<Answer>, u64);

/// Hands a call through to the verb.
macro_rules! each {
    ($step:expr, $op:ident => $call:expr) => {
        match $step {
            Step::Check($op, _) => $call,
            Step::AtMost($op, _) => $call,
            Step::Batch($op, _) => $call,
            Step::Peek($op) => $call,
            Step::Refund($op) => $call,
            Step::Block($op) => $call,
            Step::Reset($op) => $call,
            Step::Delete($op) => $call,
        }
    };
}

impl<A: Slow> AtomicOp for Step<A> {
    type State = Held<A::State>;
    type Reply = Reply;

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
    ) -> Reply {
        match self {
            Self::Check(op, _) => (vec![op.apply(cells, now, out)], 0),
            Self::AtMost(op, _) => (vec![op.apply(cells, now, out)], 0),
            Self::Batch(op, _) => (op.apply(cells, now, out), 0),
            Self::Peek(op) => (vec![op.apply(cells, now, out)], 0),
            Self::Refund(op) => (vec![], op.apply(cells, now, out)),
            Self::Block(op) => (vec![], op.apply(cells, now, out).as_micros() as u64),
            Self::Reset(op) => (vec![], number(op.apply(cells, now, out))),
            Self::Delete(op) => {
                op.apply(cells, now, out);
                (vec![], 0)
            }
        }
    }

    fn decode(&self, reply: Wire) -> Result<Reply, Malformed> {
        Ok(match self {
            Self::Check(op, _) => (vec![op.decode(reply)?], 0),
            Self::AtMost(op, _) => (vec![op.decode(reply)?], 0),
            Self::Batch(op, _) => (op.decode(reply)?, 0),
            Self::Peek(op) => (vec![op.decode(reply)?], 0),
            Self::Refund(op) => (vec![], op.decode(reply)?),
            Self::Block(op) => (vec![], op.decode(reply)?.as_micros() as u64),
            Self::Reset(op) => (vec![], number(op.decode(reply)?)),
            Self::Delete(op) => {
                op.decode(reply)?;
                (vec![], 0)
            }
        })
    }
}

/// Two numbers in one, for comparing them.
fn number(reset: Option<(u64, Duration)>) -> u64 {
    reset.map_or(0, |(generation, kept)| generation ^ (kept.as_micros() as u64).rotate_left(32))
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
