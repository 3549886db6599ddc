//! The merge of what a survivor knows, in Lua and in Rust, on the same histories: each reply and each
//! state is equal. As `lua_twin.rs`, with resets, refunds, blocks, other quotas and a clock that goes
//! either way between the merges.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ScriptClock,
    ServerTime, Wire,
};
use fleetwide_limiter::op::{Block, Check, Delete, Merge, Refund, Reset};
use fleetwide_limiter::{
    Answer, BucketQuota, Debit, FixedQuota, GcraQuota, Held, LogQuota, Owed, WindowQuota,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{RedisServer, SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, Slow};

/// Of each algorithm; `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 5_000;
/// Histories that are played abreast.
const ABREAST: usize = 500;
/// Steps of each.
const STEPS: usize = 12;
/// How long a key must still live: on the server, time goes on while the simulated clock stands.
const LIFE_MIN: Duration = Duration::from_secs(120);

// Seen red: when a merge is written without a ttl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcra_merges_in_lua_and_in_rust_alike() {
    play_all::<GcraQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_merges_in_lua_and_in_rust_alike() {
    play_all::<WindowQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_merges_in_lua_and_in_rust_alike() {
    play_all::<BucketQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_merges_in_lua_and_in_rust_alike() {
    play_all::<FixedQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_merges_in_lua_and_in_rust_alike() {
    play_all::<LogQuota>().await;
}

async fn play_all<A: Slow>() {
    let count = support::twin::histories(HISTORIES);
    let mut rng = fleetwide_testkit::seed().rng();
    let server = support::server().await;
    let mut merged = 0;
    for _ in 0..count.div_ceil(ABREAST) {
        merged += play::<A>(&server, &mut rng).await;
        support::twin::no_key_is_immortal(&server).await;
    }
    assert!(merged > count, "{merged} merges in {count} histories changed anything");
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
        let redis = support::redis(server, |builder| {
            builder.clock(Arc::new(clock.clone())).script_clock(ScriptClock::Argument)
        });
        let server = redis.await.executor();
        Self { clock, memory, server }
    }

    fn now(&self) -> u64 {
        self.clock.server_time().as_micros()
    }

    async fn run<O: AtomicOp>(&self, ops: &[O]) -> Vec<(O::Reply, O::Reply)> {
        let memory = self.memory.run_many(ops).await;
        let server = self.server.run_many(ops).await;
        let both = memory.into_iter().zip(server);
        both.map(|(one, other)| (one.expect("memory"), other.expect("the server"))).collect()
    }

    /// Empties keys on both sides.
    async fn drop_keys<A: Slow>(&self, keys: impl Iterator<Item = Key>) {
        let drops: Vec<Delete<A>> = keys.map(Delete::new).collect();
        self.run(&drops).await;
    }
}

/// One key with its quotas: two, as while a new one is rolled out.
struct History<A> {
    key: Key,
    quotas: [A; 2],
    /// What was spent, each with its quota.
    debits: Vec<(A, Debit)>,
    /// What survivors may know: of this history or of one that was lost.
    generations: Vec<u64>,
    refunds: u64,
}

/// Plays some histories. How many merges have written anything.
async fn play<A: Slow>(server: &RedisServer, rng: &mut Rng) -> usize {
    let both = Both::new(server).await;
    let base_us = 120_000_000 << rng.random_range(0..17);
    let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
    let mut histories: Vec<History<A>> = (0..ABREAST)
        .map(|number| {
            let tag = namespace.tag("limiter", number.to_string().as_bytes());
            let key = tag.expect("a number is a name").part(A::PART);
            let quota = A::slow(rng, base_us);
            let other_us = base_us << rng.random_range(0..8);
            let other = if rng.random_ratio(1, 3) { A::slow(rng, other_us) } else { quota };
            History {
                key,
                quotas: [quota, other],
                debits: vec![],
                generations: vec![0],
                refunds: 0,
            }
        })
        .collect();
    let start = (1 << 50) + rng.random_range(0..1 << 50);
    both.clock.set_server_time(ServerTime::from_micros(start));
    let mut written = 0;
    for step in 0..STEPS {
        move_clock(&both, &histories, rng).await;
        let held = |history: &History<A>| both.memory.peek_state::<Held<A::State>>(&history.key);
        let before: Vec<_> = histories.iter().map(held).collect();
        let ops: Vec<Step<A>> =
            histories.iter().map(|history| next_step(history, both.now(), rng)).collect();
        let replies = both.run(&ops).await;
        for ((op, (one, other)), history) in ops.iter().zip(&replies).zip(&mut histories) {
            assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {}", both.now());
            history.note(op, one);
        }
        for ((op, before), history) in ops.iter().zip(before).zip(&histories) {
            written += usize::from(matches!(op, Step::Merge(_)) && held(history) != before);
        }
        let lives = both.memory.keys_with_ttl().into_iter();
        let short = lives.filter(|(_, lives)| *lives < LIFE_MIN).map(|(key, _)| key);
        both.drop_keys::<A>(short).await;
        compare_states(&both, &histories).await;
    }
    written
}

impl<A: Slow> History<A> {
    fn note(&mut self, op: &Step<A>, reply: &Reply) {
        match (op, reply) {
            (Step::Check(_, quota), Reply::Answer(answer)) if answer.granted > 0 => {
                let upto = answer.at.plus(Duration::from_micros(answer.verdict.reset_after_us));
                let Answer { at, granted: cost, mark, .. } = *answer;
                self.debits.push((*quota, Debit { cost, at, upto, mark }));
                self.refunds = mark.refunds;
            }
            (Step::Reset(_), Reply::Number(generation)) if *generation > 0 => {
                self.generations.push(*generation);
            }
            _ => {}
        }
    }
}

fn next_step<A: Slow>(history: &History<A>, now: u64, rng: &mut Rng) -> Step<A> {
    let quota = history.quotas[usize::from(rng.random_ratio(1, 3))];
    let key = || history.key.clone();
    let max = quota.cost_max();
    match rng.random_range(0..20) {
        0 => Step::Reset(Reset::new(quota, key())),
        1 => Step::Block(Block::new(quota, key(), LIFE_MIN * 2)),
        2..=5 if !history.debits.is_empty() => {
            let (of, debit) = history.debits[rng.random_range(0..history.debits.len())];
            Step::Refund(Refund::new(of, key(), debit))
        }
        6..=13 => {
            let owed = owed(history, quota, now, rng);
            Step::Merge(Merge::new(quota, key(), owed).expect("it has merges"))
        }
        _ => {
            let cost = if rng.random() { 1 } else { rng.random_range(1..=max) };
            Step::Check(Check::new(quota, key(), cost.max(quota.cost_min())), quota)
        }
    }
}

/// What a survivor of this history may know, or of one that went on elsewhere.
fn owed<A: Slow>(history: &History<A>, quota: A, now: u64, rng: &mut Rng) -> Owed {
    let heals_us = quota.heals_us();
    let left_us = match rng.random_range(0..9) {
        0 => 0,
        4 => quota.debt_edge_us(now) + rng.random_range(0..=2) - 1,
        1 => rng.random_range(1..=1_000),
        2 => heals_us * 2,
        3 => quota.step_us() * rng.random_range(0..=64),
        _ => rng.random_range(1..=heals_us),
    };
    let cells = match rng.random_range(0..6) {
        0 => 0,
        1 => u32::MAX,
        2 => quota.cost_max(),
        _ => rng.random_range(1..=quota.cost_max()),
    };
    let known = history.generations[rng.random_range(0..history.generations.len())];
    let last = history.generations.last().copied().unwrap_or_default();
    let generation = match rng.random_range(0..8) {
        0 => known,
        1 => last + rng.random_range(0..=1_000_000),
        _ => last,
    };
    let refunds = match rng.random_range(0..4) {
        0 => 0,
        1 => history.refunds + rng.random_range(0..=quota.step_us()),
        2 => rng.random_range(0..=history.refunds),
        _ => history.refunds,
    };
    Owed { left_us, cells, generation, refunds }
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
        // What has expired is gone on both sides before the clock goes back.
        let is_over = |history: &&History<A>| {
            both.memory.peek_state::<Held<A::State>>(&history.key).is_none()
        };
        let over = histories.iter().filter(is_over).map(|history| history.key.clone());
        both.drop_keys::<A>(over).await;
        both.clock.set_server_time(ServerTime::from_micros(now - back));
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

/// Any of the steps, so that one pipeline carries them mixed.
#[derive(Debug)]
enum Step<A: Slow> {
    Check(Check<A>, A),
    Refund(Refund<A>),
    Block(Block<A>),
    Reset(Reset<A>),
    Merge(Merge<A>),
}

#[derive(Debug, PartialEq)]
enum Reply {
    Answer(Answer),
    Number(u64),
}

/// Hands a call through to the step.
macro_rules! each {
    ($step:expr, $op:ident => $call:expr) => {
        match $step {
            Step::Check($op, _) => $call,
            Step::Refund($op) => $call,
            Step::Block($op) => $call,
            Step::Reset($op) => $call,
            Step::Merge($op) => $call,
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
            Self::Check(op, _) => Reply::Answer(op.apply(cells, now, out)),
            Self::Merge(op) => Reply::Answer(op.apply(cells, now, out)),
            Self::Refund(op) => Reply::Number(op.apply(cells, now, out)),
            Self::Block(op) => Reply::Number(op.apply(cells, now, out).as_micros() as u64),
            Self::Reset(op) => Reply::Number(op.apply(cells, now, out).map_or(0, |reset| reset.0)),
        }
    }

    fn decode(&self, reply: Wire) -> Result<Reply, Malformed> {
        Ok(match self {
            Self::Check(op, _) => Reply::Answer(op.decode(reply)?),
            Self::Merge(op) => Reply::Answer(op.decode(reply)?),
            Self::Refund(op) => Reply::Number(op.decode(reply)?),
            Self::Block(op) => Reply::Number(op.decode(reply)?.as_micros() as u64),
            Self::Reset(op) => Reply::Number(op.decode(reply)?.map_or(0, |reset| reset.0)),
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
