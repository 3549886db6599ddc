//! Several levels in one step: the script and its pure twin on the same histories, of random mixes.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ServerTime,
    Wire,
};
use fleetwide_limiter::concurrency::ConcurrencyQuota;
use fleetwide_limiter::multi::op::{AllOrNone, Ask};
use fleetwide_limiter::multi::{LevelState, Rule};
use fleetwide_limiter::{BucketQuota, FixedQuota, GcraQuota, LogQuota, Quota, WindowQuota};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, Slow as _};

/// `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 2_000;
/// Histories that are played abreast.
const ABREAST: usize = 200;
/// Steps of each.
const STEPS: usize = 12;
/// What ends sooner is dropped on both sides: on the server, time goes on while the simulated clock
/// stands.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// Parts of keys, one for each kind.
const PARTS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

/// A level: its key, and its rules, of one kind: two, as while a new one is rolled out.
struct Level {
    key: Key,
    rules: [Rule; 2],
}

fn rule(kind: usize, base_us: u64, rng: &mut Rng) -> Rule {
    let rate = match kind {
        0 => Quota::Gcra(GcraQuota::slow(rng, base_us)),
        1 => Quota::SlidingWindow(WindowQuota::slow(rng, base_us)),
        2 => Quota::TokenBucket(BucketQuota::slow(rng, base_us)),
        3 => Quota::FixedWindow(FixedQuota::slow(rng, base_us)),
        4 => Quota::SlidingLog(LogQuota::slow(rng, base_us)),
        _ => {
            let lease = Duration::from_secs(rng.random_range(2_400..=3_600));
            let max = rng.random_range(1..=6);
            return Rule::AtOnce(ConcurrencyQuota::new(max, lease).expect("these make a quota"));
        }
    };
    Rule::Rate(rate)
}

/// A part of what there is at once: mostly such that some calls go through, and some do not.
fn cost(rule: &Rule, rng: &mut Rng) -> u32 {
    let (least, most) = match rule {
        Rule::Rate(Quota::TokenBucket(quota)) => (quota.cost_min(), quota.burst()),
        Rule::Rate(quota) => (1, quota.cost_max()),
        Rule::AtOnce(quota) => (1, quota.max()),
    };
    match rng.random_range(0..6) {
        0 => most,
        1 => rng.random_range(least..=most),
        2 if matches!(rule, Rule::Rate(_)) => 0,
        _ => most.div_ceil(rng.random_range(2..=6)).max(least),
    }
}

fn next_step(levels: &[Level], rng: &mut Rng) -> AllOrNone {
    let asks = levels.iter().map(|level| {
        let rule = level.rules[usize::from(rng.random_ratio(1, 5))];
        let ask = Ask { rule, cost: cost(&rule, rng), id: rng.random_range(0..6) };
        (level.key.clone(), ask)
    });
    // Some of the levels, in any order: others know of fewer, or list them differently.
    let mut asks: Vec<_> = asks.collect();
    if rng.random_ratio(1, 4) {
        asks.reverse();
        asks.truncate(rng.random_range(1..=asks.len()));
    }
    let is_peek = rng.random_ratio(1, 6);
    let step = if is_peek { AllOrNone::peek(asks) } else { AllOrNone::check(asks) };
    step.expect("a few levels under one tag")
}

// Red when a level is written although another one refuses, and when one that refuses is not
// re-anchored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_levels_in_lua_and_in_rust_decide_and_store_the_same() {
    let count = support::twin::histories(HISTORIES);
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build().executor().clone();
    let server = support::server().await;
    let redis = support::twin::redis_by(&clock, &server).await;
    let both = Both { clock, memory, redis };
    for _ in 0..count.div_ceil(ABREAST) {
        both.play(&mut rng).await;
        support::twin::no_key_is_immortal(&server).await;
    }
}

/// The two sides, and the clock that moves both.
struct Both {
    clock: SimClock,
    memory: MemExecutor,
    redis: RedisExecutor,
}

impl Both {
    async fn play(&self, rng: &mut Rng) {
        let base_us = 120_000_000 << rng.random_range(0..14);
        let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
        let histories: Vec<Vec<Level>> = (0..ABREAST)
            .map(|number| {
                let tag = namespace.tag("limits", number.to_string().as_bytes());
                let tag = tag.expect("a number is a name");
                let level = |at: usize| {
                    let kind = rng.random_range(0..6);
                    let key = tag.named(PARTS[kind], &[b'a' + at as u8]).expect("a name");
                    let own = rule(kind, base_us, rng);
                    let other = if rng.random_ratio(1, 4) { rule(kind, base_us, rng) } else { own };
                    Level { key, rules: [own, other] }
                };
                (0..=number % AllOrNone::LEVELS_MAX).map(level).collect()
            })
            .collect();
        let keys: Vec<Key> = histories.iter().flatten().map(|level| level.key.clone()).collect();
        let start = (1 << 50) + rng.random_range(0..1 << 50);
        self.clock.set_server_time(ServerTime::from_micros(start));
        for step in 0..STEPS {
            self.move_clock(base_us, &keys, rng).await;
            let ops: Vec<AllOrNone> =
                histories.iter().map(|levels| next_step(levels, rng)).collect();
            let one = self.memory.run_many(&ops).await;
            let other = self.redis.run_many(&ops).await;
            let now = self.clock.server_time().as_micros();
            for ((op, one), other) in ops.iter().zip(one).zip(other) {
                let one = one.expect("memory answers");
                let other = other.expect("the server answers");
                assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {now}");
            }
            self.compare_states(&keys).await;
        }
    }

    async fn move_clock(&self, base_us: u64, keys: &[Key], rng: &mut Rng) {
        let by = match rng.random_range(0..6) {
            0 | 1 => rng.random_range(0..=3),
            2 => base_us,
            3 => rng.random_range(0..=base_us * 20),
            4 => rng.random_range(0..=3_600_000_000),
            _ => rng.random_range(0..=base_us),
        };
        let now = self.clock.server_time().as_micros() + by;
        self.clock.set_server_time(ServerTime::from_micros(now));
        if rng.random_ratio(1, 8) {
            // What has expired is gone on both sides before the clock goes back.
            self.compare_states(keys).await;
            let back = rng.random_range(0..=base_us * 4);
            self.clock.set_server_time(ServerTime::from_micros(now - back));
        }
    }

    /// States must be equal, but for those that are over in memory, which the server may have still.
    async fn compare_states(&self, keys: &[Key]) {
        let lives: HashMap<Key, Duration> = self.memory.keys_with_ttl().into_iter().collect();
        let reads: Vec<Raw> = keys.iter().map(|key| Raw(&GET, key.clone())).collect();
        let mut drops = Vec::new();
        for (key, stored) in keys.iter().zip(self.redis.run_many(&reads).await) {
            let stored = stored.expect("the server answers");
            let held = self.memory.peek_state::<LevelState>(key);
            if held.is_none() || lives.get(key).is_none_or(|lives| *lives < LIFE_MIN) {
                drops.push(Raw(&DEL, key.clone()));
            } else {
                let wire = held.as_ref().map(LevelState::to_wire);
                assert_eq!(wire.as_deref(), stored.as_deref(), "{key:?}: {held:?}");
            }
        }
        self.memory.run_many(&drops).await;
        self.redis.run_many(&drops).await;
    }
}

static GET: Script = Script::command("GET");
static DEL: Script = Script::command("DEL");

/// A command on what a key holds on the server; in memory, it empties the key.
struct Raw(&'static Script, Key);

impl AtomicOp for Raw {
    type State = LevelState;
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
        _: &[Option<&LevelState>],
        _: ServerTime,
        out: &mut Effects<LevelState>,
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
