//! Decisions judged by an exact count: the script and its pure twin on the same histories.

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
use fleetwide_limiter::op::{Admitted, Judge, Made, judged_cells};
use fleetwide_limiter::{
    Algorithm, BucketQuota, FixedQuota, GcraQuota, LogQuota, PolicyName, Quota,
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

struct Judged<A> {
    keys: [Key; 2],
    quotas: [A; 2],
}

impl<A: Slow> Judged<A> {
    fn new(namespace: &Namespace, number: usize, base_us: u64, rng: &mut Rng) -> Self {
        let policy = PolicyName::new("judged").expect("a plain name");
        let keys = judged_cells::<A>(namespace, &policy, number.to_string().as_bytes());
        let own = A::slow(rng, base_us);
        let other = if rng.random_ratio(1, 4) { A::slow(rng, base_us) } else { own };
        Self { keys: keys.expect("a number is a name"), quotas: [own, other] }
    }

    fn next_step(&self, rng: &mut Rng) -> Judge<A> {
        let quota = self.quotas[usize::from(rng.random_ratio(1, 5))];
        let count = rng.random_range(1..=Judge::<A>::DECISIONS_MAX);
        let decisions = (0..count).map(|_| made(quota, rng)).collect();
        Judge::new(quota, self.keys.clone(), decisions).expect("a few decisions")
    }
}

/// Of the last 30 s, in any order.
fn made<A: Slow>(quota: A, rng: &mut Rng) -> Made {
    let (least, most) = (quota.cost_min(), quota.cost_max());
    let cost = match rng.random_range(0..4) {
        0 => most,
        1 => rng.random_range(least..=most),
        _ => most.div_ceil(rng.random_range(2..=6)).max(least),
    };
    let age_us = match rng.random_range(0..3) {
        0 => 0,
        1 => rng.random_range(0..=3),
        _ => rng.random_range(0..=30_000_000),
    };
    Made { age_us, cost, is_allowed: rng.random_ratio(2, 3) }
}

/// The two sides, and the clock that moves both.
struct Both {
    clock: SimClock,
    memory: MemExecutor,
    redis: RedisExecutor,
}

// Seen red: when the script dates decisions by now, and when what was admitted expires before decisions
// that are as old are judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judging_in_lua_and_in_rust_says_and_stores_the_same() {
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
        let all: Vec<Judged<A>> =
            (0..ABREAST).map(|number| Judged::new(&namespace, number, base_us, rng)).collect();
        let start = (1 << 50) + rng.random_range(0..1 << 50);
        self.clock.set_server_time(ServerTime::from_micros(start));
        for step in 0..STEPS {
            self.move_clock(&all, base_us, rng).await;
            let ops: Vec<Judge<A>> = all.iter().map(|judged| judged.next_step(rng)).collect();
            let one = self.memory.run_many(&ops).await;
            let other = self.redis.run_many(&ops).await;
            let now = self.clock.server_time().as_micros();
            for ((op, one), other) in ops.iter().zip(one).zip(other) {
                let one = one.expect("memory answers");
                let other = other.expect("the server answers");
                assert_eq!(one, other, "replies differ at step {step} ({op:?}), at {now}");
            }
            self.compare_states(&all).await;
        }
    }

    async fn move_clock<A: Slow>(&self, all: &[Judged<A>], base_us: u64, rng: &mut Rng) {
        let by = match rng.random_range(0..5) {
            0 => rng.random_range(0..=3),
            1 => base_us,
            2 => rng.random_range(0..=base_us * 20),
            _ => rng.random_range(0..=base_us),
        };
        let now = self.clock.server_time().as_micros() + by;
        self.clock.set_server_time(ServerTime::from_micros(now));
        if rng.random_ratio(1, 8) {
            // What has expired is gone on both sides before the clock goes back.
            self.compare_states(all).await;
            let back = rng.random_range(0..=base_us * 4);
            self.clock.set_server_time(ServerTime::from_micros(now - back));
        }
    }

    /// States must be equal, but for those that are over in memory, which the server may have still.
    async fn compare_states<A: Slow>(&self, all: &[Judged<A>]) {
        let lives: HashMap<Key, Duration> = self.memory.keys_with_ttl().into_iter().collect();
        let keys = |place: usize| all.iter().map(move |judged| &judged.keys[place]);
        let read = |place| keys(place).map(|key| Raw::<A>::new(&GET, key)).collect::<Vec<_>>();
        let [stored, dates] = [read(0), read(1)];
        let stored = self.redis.run_many(&stored).await;
        let dates = self.redis.run_many(&dates).await;
        let mut drops = Vec::new();
        for ((judged, stored), date) in all.iter().zip(stored).zip(dates) {
            let key = &judged.keys[0];
            let admitted = self.memory.peek_state::<Admitted<A::State>>(key);
            // A minute of it is for decisions that are as old.
            if lives.get(key).is_none_or(|lives| *lives < 2 * LIFE_MIN) {
                drops.extend(judged.keys.iter().map(|key| Raw::<A>::new(&DEL, key)));
                continue;
            }
            let admitted = admitted.expect("it lives");
            let wire = admitted.held.as_ref().map(|held| held.to_wire(A::to_wire));
            let stored = stored.expect("the server answers");
            assert_eq!(wire.as_deref(), stored.as_deref(), "{key:?}: {admitted:?}");
            let date = date.expect("the server answers");
            assert_eq!(date.as_deref(), Some(&admitted.last_us.to_be_bytes()[..]), "{key:?}");
        }
        self.memory.run_many(&drops).await;
        self.redis.run_many(&drops).await;
    }
}

#[test]
fn step_takes_what_can_be_judged_and_no_more() {
    let quota = GcraQuota::new(1, Duration::from_secs(1), 10).unwrap();
    let policy = PolicyName::new("api").unwrap();
    let namespace = Namespace::new("shop").unwrap();
    let keys = judged_cells::<GcraQuota>(&namespace, &policy, b"ada").unwrap();
    let judge = |cost, count| {
        let made = Made { age_us: 0, cost, is_allowed: true };
        Judge::new(quota, keys.clone(), vec![made; count])
    };
    assert!(judge(10, 16).is_some());
    assert!(judge(11, 1).is_none() && judge(0, 1).is_none());
    assert!(judge(1, 17).is_none() && judge(1, 0).is_none());
    let window = |max| Quota::sliding_window(max, Duration::from_secs(60)).unwrap();
    assert!(fleetwide_limiter::op::exact(window(4_096)).is_some());
    assert!(fleetwide_limiter::op::exact(window(4_097)).is_none());
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
    type State = Admitted<A::State>;
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
        _: &[Option<&Self::State>],
        _: ServerTime,
        out: &mut Effects<Self::State>,
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
