//! The scripts and their pure twins on the same histories: each reply and each state is equal.
//!
//! The executor in memory runs the pure half, a real Redis the script; both by one clock, which
//! stands still unless the history moves it, in either direction. Histories are short and many, and
//! are played abreast: one pipeline carries the same step of all.

mod support;

use std::env;
use std::sync::Arc;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ScriptClock,
    ServerTime, Wire,
};
use fleetwide_limiter::op::{Check, Peek, Reset};
use fleetwide_limiter::{GcraQuota, Verdict, WindowQuota};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{RedisServer, SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, Slow};

/// Of each algorithm; `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 50_000;
/// Histories that are played abreast.
const ABREAST: usize = 500;
/// Steps of each.
const STEPS: usize = 10;

// The lines of the scripts that decide or write were broken once, one at a time (32 of them: a
// bound off by one, a slot left, a count not kept on rotation, a lapse or a re-anchoring left out).
// Each time one of these is red, but for a ttl too short or needless: tests/footprint.rs sees that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcra_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<GcraQuota>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_in_lua_and_in_rust_decide_and_store_the_same() {
    play_all::<WindowQuota>().await;
}

async fn play_all<A: Slow>() {
    let count = match env::var("FLEETWIDE_HISTORIES") {
        Ok(text) => text.parse().expect("FLEETWIDE_HISTORIES is a number"),
        Err(_) => HISTORIES,
    };
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let server = support::server().await;
    let both = Both::new(&server).await;
    for _ in 0..count.div_ceil(ABREAST) {
        play::<A>(&both, &mut rng).await;
        assert_all_keys_expire(&server).await;
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

    fn now(&self) -> u64 {
        self.clock.server_time().as_micros()
    }
}

/// One key with its quotas: two, as while a new one is rolled out.
struct History<A> {
    key: Key,
    quotas: [A; 2],
}

async fn play<A: Slow>(both: &Both, rng: &mut Rng) {
    // From two minutes to half a year; a year in µs has 45 bits.
    let base_us = 120_000_000 << rng.random_range(0..17);
    let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
    let histories: Vec<History<A>> = (0..ABREAST)
        .map(|number| {
            let tag = namespace.tag("limiter", number.to_string().as_bytes());
            let key = tag.expect("a number is a name").part(A::PART);
            let quota = A::slow(rng, base_us);
            let other_us = base_us << rng.random_range(0..8);
            let other = if rng.random_ratio(1, 3) { A::slow(rng, other_us) } else { quota };
            History { key, quotas: [quota, other] }
        })
        .collect();
    // From 2005 to 2041.
    let start = (1 << 50) + rng.random_range(0..1 << 50);
    both.clock.set_server_time(ServerTime::from_micros(start));
    for step in 0..STEPS {
        move_clock(both, &histories, rng).await;
        let ops: Vec<Step<A>> = histories.iter().map(|history| next_step(history, rng)).collect();
        let memory = both.memory.run_many(&ops).await;
        let server = both.server.run_many(&ops).await;
        for ((op, one), other) in ops.iter().zip(memory).zip(server) {
            let (one, other) = (one.expect("memory answers"), other.expect("the server answers"));
            assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {}", both.now());
        }
        // Most differences of state show in later replies; so some steps suffice.
        if step % 3 == 0 || step == STEPS - 1 {
            compare_states(both, &histories).await;
        }
    }
}

fn next_step<A: Slow>(history: &History<A>, rng: &mut Rng) -> Step<A> {
    let quota = history.quotas[usize::from(rng.random_ratio(1, 3))];
    let max = quota.cost_max();
    let cost = match rng.random_range(0..8) {
        0 => 0,
        1 => max,
        2 => rng.random_range(1..=max),
        3 => max.div_ceil(rng.random_range(2..=4)),
        _ => 1.min(max),
    };
    match rng.random_range(0..40) {
        0 => Step::Reset(Reset::new(history.key.clone())),
        1..=4 => Step::Peek(Peek::new(quota, history.key.clone(), cost)),
        _ => Step::Check(Check::new(quota, history.key.clone(), cost)),
    }
}

/// Lets time stand, pass or step, mostly to where a cell or a sub-window of some key comes or goes.
async fn move_clock<A: Slow>(both: &Both, histories: &[History<A>], rng: &mut Rng) {
    let quota = histories[rng.random_range(0..histories.len())].quotas[0];
    let step = quota.step_us();
    let by = match rng.random_range(0..8) {
        0 | 1 => 0,
        2 => step,
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
        both.clock.set_server_time(ServerTime::from_micros(now - back));
    }
}

/// What has expired is gone on both sides before the clock goes back, as it would be from a server
/// whose keys expire by the same clock.
async fn drop_expired<A: Slow>(both: &Both, histories: &[History<A>]) {
    let is_over =
        |history: &&History<A>| both.memory.peek_state::<A::State>(&history.key).is_none();
    let over = histories.iter().filter(is_over);
    let resets: Vec<Reset<A>> = over.map(|history| Reset::new(history.key.clone())).collect();
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
        let stored = stored.as_deref().filter(|stored| !A::is_over(stored, now));
        let held = both.memory.peek_state::<A::State>(key);
        let wire = held.as_ref().map(A::to_wire);
        assert_eq!(wire.as_deref(), stored, "{key:?} at {now}: memory holds {held:?}");
    }
}

/// A key without a ttl would stay for ever.
async fn assert_all_keys_expire(server: &RedisServer) {
    let count_and_flush = "local immortal = 0 \
        for _, key in ipairs(redis.call('KEYS', '*')) do \
          if redis.call('PTTL', key) < 0 then immortal = immortal + 1 end \
        end \
        redis.call('FLUSHALL') \
        return immortal";
    let reply = server.admin(&["EVAL", count_and_flush, "0"]).await.expect("a script of our own");
    assert_eq!(reply.as_integer(), Some(0), "keys without a ttl");
}

/// Any of the verbs, so that one pipeline carries them mixed.
#[derive(Debug)]
enum Step<A: Slow> {
    Check(Check<A>),
    Peek(Peek<A>),
    Reset(Reset<A>),
}

/// Hands a call through to the verb.
macro_rules! each {
    ($step:expr, $op:ident => $call:expr) => {
        match $step {
            Step::Check($op) => $call,
            Step::Peek($op) => $call,
            Step::Reset($op) => $call,
        }
    };
}

impl<A: Slow> AtomicOp for Step<A> {
    type State = A::State;
    type Reply = Option<Verdict>;

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
        cells: &[Option<&A::State>],
        now: ServerTime,
        out: &mut Effects<A::State>,
    ) -> Option<Verdict> {
        match self {
            Self::Check(op) => Some(op.apply(cells, now, out)),
            Self::Peek(op) => Some(op.apply(cells, now, out)),
            Self::Reset(op) => {
                op.apply(cells, now, out);
                None
            }
        }
    }

    fn decode(&self, reply: Wire) -> Result<Option<Verdict>, Malformed> {
        match self {
            Self::Check(op) => op.decode(reply).map(Some),
            Self::Peek(op) => op.decode(reply).map(Some),
            Self::Reset(op) => op.decode(reply).map(|()| None),
        }
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
