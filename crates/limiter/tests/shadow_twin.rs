//! A quota and its candidate in one step: the script and its pure twin on the same histories, of
//! random pairs.

mod support;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Clock, Effects, ExecutorExt, Key, Malformed, Namespace, Script, ServerTime,
    Wire,
};
use fleetwide_limiter::op::{Shadowed, candidate_cell, cell};
use fleetwide_limiter::{
    Algorithm, BucketQuota, FixedQuota, GcraQuota, Held, LogQuota, PolicyName, Quota, WindowQuota,
};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{SimClock, unique_namespace};
use rand::Rng as _;
use support::{Rng, Slow};

/// Of each algorithm. `FLEETWIDE_HISTORIES` sets another number, for the long run.
const HISTORIES: usize = 1_000;
/// Histories that are played abreast.
const ABREAST: usize = 200;
/// Steps of each.
const STEPS: usize = 12;
/// What ends sooner is dropped on both sides: on the server, time goes on while the simulated clock
/// stands.
const LIFE_MIN: Duration = Duration::from_secs(60);

/// A key with its quotas and its candidates: two of each, as while new ones are rolled out.
struct Pair<A> {
    keys: [Key; 2],
    quotas: [A; 2],
    candidates: [Quota; 2],
}

impl<A: Slow> Pair<A> {
    fn new(namespace: &Namespace, number: usize, base_us: u64, rng: &mut Rng) -> Self {
        let policy = PolicyName::new("pair").expect("a plain name");
        let name = number.to_string();
        let kind = number % 5;
        let (own, candidate) = (A::slow(rng, base_us), quota(kind, base_us, rng));
        let other = if rng.random_ratio(1, 4) { A::slow(rng, base_us) } else { own };
        let others = if rng.random_ratio(1, 4) { quota(kind, base_us, rng) } else { candidate };
        let key = cell::<A>(namespace, &policy, name.as_bytes());
        let beside = candidate_cell::<A>(namespace, &policy, name.as_bytes(), &candidate);
        Self {
            keys: [key, beside].map(|key| key.expect("a number is a name")),
            quotas: [own, other],
            candidates: [candidate, others],
        }
    }

    fn next_step(&self, rng: &mut Rng) -> Shadowed<A> {
        let quota = self.quotas[usize::from(rng.random_ratio(1, 5))];
        let candidate = self.candidates[usize::from(rng.random_ratio(1, 5))];
        let count = if rng.random() { 1 } else { rng.random_range(2..=9) };
        let costs = (0..count).map(|_| cost(quota, candidate, rng)).collect();
        Shadowed::new(quota, candidate, self.keys.clone(), costs).expect("a few costs")
    }
}

fn quota(kind: usize, base_us: u64, rng: &mut Rng) -> Quota {
    match kind {
        0 => Quota::Gcra(GcraQuota::slow(rng, base_us)),
        1 => Quota::SlidingWindow(WindowQuota::slow(rng, base_us)),
        2 => Quota::TokenBucket(BucketQuota::slow(rng, base_us)),
        3 => Quota::FixedWindow(FixedQuota::slow(rng, base_us)),
        _ => Quota::SlidingLog(LogQuota::slow(rng, base_us)),
    }
}

/// Such as the one or the other has mostly, or neither; and nothing that would be back within minutes.
fn cost<A: Algorithm>(quota: A, candidate: Quota, rng: &mut Rng) -> u32 {
    let least = |quota: Quota| match quota {
        Quota::TokenBucket(quota) => quota.cost_min(),
        _ => 1,
    };
    let (own_max, other_max) = (quota.cost_max(), candidate.cost_max());
    let least = least(quota.into()).max(least(candidate)).min(own_max);
    let most = if rng.random() { own_max } else { own_max.min(other_max) }.max(least);
    match rng.random_range(0..5) {
        0 => most,
        1 => rng.random_range(least..=most),
        _ => most.div_ceil(rng.random_range(2..=6)).max(least),
    }
}

/// The two sides, and the clock that moves both.
struct Both {
    clock: SimClock,
    memory: MemExecutor,
    redis: RedisExecutor,
}

// Seen red: when the script has the candidate decide on the real key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_in_lua_and_in_rust_decide_and_store_the_same() {
    let count = support::twin::histories(HISTORIES);
    let seed = fleetwide_testkit::seed();
    let mut rng = seed.rng();
    let clock = SimClock::new();
    let memory = Memory::builder().clock(Arc::new(clock.clone())).build().executor().clone();
    let server = support::server().await;
    let redis = support::twin::redis_by(&clock, &server).await;
    let both = Both { clock, memory, redis };
    for _ in 0..count.div_ceil(ABREAST) {
        both.play::<GcraQuota>(&mut rng).await;
        both.play::<WindowQuota>(&mut rng).await;
        both.play::<BucketQuota>(&mut rng).await;
        both.play::<FixedQuota>(&mut rng).await;
        both.play::<LogQuota>(&mut rng).await;
        support::twin::no_key_is_immortal(&server).await;
    }
}

impl Both {
    async fn play<A: Slow>(&self, rng: &mut Rng) {
        let base_us = 120_000_000 << rng.random_range(0..14);
        let namespace = Namespace::new(&unique_namespace()).expect("the testkit's names are right");
        let pairs: Vec<Pair<A>> =
            (0..ABREAST).map(|number| Pair::new(&namespace, number, base_us, rng)).collect();
        let keys: Vec<Key> = pairs.iter().flat_map(|pair| pair.keys.clone()).collect();
        let start = (1 << 50) + rng.random_range(0..1 << 50);
        self.clock.set_server_time(ServerTime::from_micros(start));
        for step in 0..STEPS {
            self.move_clock::<A>(base_us, &keys, rng).await;
            let ops: Vec<Shadowed<A>> = pairs.iter().map(|pair| pair.next_step(rng)).collect();
            let one = self.memory.run_many(&ops).await;
            let other = self.redis.run_many(&ops).await;
            let now = self.clock.server_time().as_micros();
            for ((op, one), other) in ops.iter().zip(one).zip(other) {
                let one = one.expect("memory answers");
                let other = other.expect("the server answers");
                assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {now}");
            }
            self.compare_states::<A>(&keys).await;
        }
    }

    async fn move_clock<A: Slow>(&self, base_us: u64, keys: &[Key], rng: &mut Rng) {
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
            self.compare_states::<A>(keys).await;
            let back = rng.random_range(0..=base_us * 4);
            self.clock.set_server_time(ServerTime::from_micros(now - back));
        }
    }

    /// States must be equal, but for those that are over in memory, which the server may have still.
    async fn compare_states<A: Slow>(&self, keys: &[Key]) {
        let lives: HashMap<Key, Duration> = self.memory.keys_with_ttl().into_iter().collect();
        let reads: Vec<Raw<A>> = keys.iter().map(|key| Raw::new(&GET, key)).collect();
        let mut drops = Vec::new();
        for (key, stored) in keys.iter().zip(self.redis.run_many(&reads).await) {
            let stored = stored.expect("the server answers");
            let held = self.memory.peek_state::<Held<A::State>>(key);
            if held.is_none() || lives.get(key).is_none_or(|lives| *lives < LIFE_MIN) {
                drops.push(Raw::<A>::new(&DEL, key));
            } else {
                let wire = held.as_ref().map(|held| held.to_wire(A::to_wire));
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
struct Raw<A> {
    script: &'static Script,
    key: Key,
    algorithm: PhantomData<A>,
}

impl<A> Raw<A> {
    fn new(script: &'static Script, key: &Key) -> Self {
        Self { script, key: key.clone(), algorithm: PhantomData }
    }
}

impl<A: Algorithm> AtomicOp for Raw<A> {
    type State = Held<A::State>;
    type Reply = Option<Bytes>;

    fn script(&self) -> &'static Script {
        self.script
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        _: &[Option<&Held<A::State>>],
        _: ServerTime,
        out: &mut Effects<Held<A::State>>,
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
