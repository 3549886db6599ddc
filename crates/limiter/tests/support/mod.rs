//! Random quotas and histories for the tests of this crate.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::Duration;

use fleetwide_core_traits::{Either, ServerTime};
use fleetwide_limiter::{Algorithm, GcraQuota, Verdict, WindowQuota};
use fleetwide_mem_backend::MemExecutor;
use fleetwide_redis_backend::{Redis, RedisBuilder, RedisExecutor, RedisUrl};
use fleetwide_testkit::RedisServer;
pub(crate) use rand::rngs::StdRng as Rng;
use rand::{Rng as _, SeedableRng as _};

mod others;
pub(crate) mod twin;

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use others::{bucket, fixed, fixed_window_just_begun, log};

/// Plays histories with a seed of their own each, and says which one failed.
pub(crate) fn for_each_history(count: u32, play: impl Fn(&mut Rng)) {
    let seed = fleetwide_testkit::seed();
    let mut seeds = seed.rng();
    for number in 0..count {
        let own = seeds.random();
        let named = Named { number, own };
        play(&mut Rng::seed_from_u64(own));
        std::mem::forget(named);
    }
}

/// Says which history panicked.
struct Named {
    number: u32,
    own: u64,
}

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "a test runner shows it exactly when the test fails")]
    fn drop(&mut self) {
        eprintln!("history {} failed (its own seed: {})", self.number, self.own);
    }
}

/// A quota whose period is some thousands of µs, so that steps of single µs matter.
pub(crate) fn gcra(rng: &mut Rng) -> GcraQuota {
    loop {
        let max = rng.random_range(1..=2_000);
        let period = Duration::from_micros(rng.random_range(1_000..=9_000));
        if let Ok(quota) = GcraQuota::new(max, period, rng.random_range(1..=20)) {
            return quota;
        }
    }
}

/// The same for windows; few of them divide by 63.
pub(crate) fn window(rng: &mut Rng) -> WindowQuota {
    let period = Duration::from_micros(rng.random_range(1_000..=9_000));
    WindowQuota::new(rng.random_range(1..=20), period).expect("these numbers make a quota")
}

/// What the tests need to know about each algorithm.
pub(crate) trait Rules: Algorithm + Random {
    /// The stated time in which a clock that went back is healed.
    fn heals_us(&self) -> u64;

    /// How long until `cells` that were spent at once are back.
    fn heals_from_us(&self, cells: u64) -> u64;

    /// A time around which something changes.
    fn step_us(&self) -> u64;

    /// How long until something changes by the clock alone.
    fn edge_us(&self, _now: u64) -> u64 {
        self.step_us()
    }

    /// A time that is left of a debt around which it comes to mean something else.
    fn debt_edge_us(&self, _now: u64) -> u64 {
        self.step_us()
    }
}

impl Rules for GcraQuota {
    fn heals_us(&self) -> u64 {
        self.span_us()
    }

    fn heals_from_us(&self, cells: u64) -> u64 {
        self.interval_us() * cells
    }

    fn step_us(&self) -> u64 {
        self.interval_us()
    }
}

impl Rules for WindowQuota {
    fn heals_us(&self) -> u64 {
        self.width_us() * 64
    }

    fn heals_from_us(&self, _cells: u64) -> u64 {
        self.width_us() * 64
    }

    fn step_us(&self) -> u64 {
        self.width_us()
    }
}

/// One key, what the algorithm keeps of it, and what the oracle remembers.
pub(crate) struct Player<A: Algorithm> {
    pub(crate) quota: A,
    pub(crate) state: Option<A::State>,
    pub(crate) now: u64,
    /// How far the clock has gone forward in all, its steps back left out.
    pub(crate) forward: u64,
    /// Each admitted `(time, cost)`.
    pub(crate) admitted: Vec<(u64, u64)>,
    /// The same by `forward`.
    pub(crate) admitted_forward: Vec<(u64, u64)>,
}

impl<A: Rules> Player<A> {
    pub(crate) fn new(quota: A, rng: &mut Rng) -> Self {
        // Somewhere in a sub-window, not at its beginning.
        let now = 1_780_000_000_000_000 + rng.random_range(0..1_000_000);
        Self { quota, state: None, now, forward: 0, admitted: vec![], admitted_forward: vec![] }
    }

    /// Lets time go on, and returns it with a cost.
    pub(crate) fn next_call(&mut self, rng: &mut Rng) -> (u64, u32) {
        let by = self.step(rng);
        self.now += by;
        self.forward += by;
        (self.now, self.cost(rng))
    }

    /// The same on a clock that sometimes steps, either way.
    pub(crate) fn next_call_on_any_clock(&mut self, rng: &mut Rng) -> (u64, u32) {
        if rng.random_ratio(1, 6) {
            let far = if rng.random() { self.quota.step_us() * 3 } else { 1_000_000_000_000 };
            self.now -= rng.random_range(1..=far);
        }
        self.next_call(rng)
    }

    /// Changes the quota sometimes.
    pub(crate) fn maybe_change(&mut self, rng: &mut Rng) {
        if rng.random_ratio(1, 20) {
            self.quota = A::random(rng);
        }
    }

    pub(crate) fn check(&mut self, now: u64, cost: u32) -> Verdict {
        let time = ServerTime::from_micros(now);
        let (verdict, next) = self.quota.decide(self.state.as_ref(), time, cost);
        if verdict.is_allowed && cost > 0 {
            self.admitted.push((now, cost.into()));
            self.admitted_forward.push((self.forward, cost.into()));
        }
        self.state = next.or(self.state.take());
        verdict
    }

    pub(crate) fn peek(&self, now: u64, cost: u32) -> Verdict {
        self.quota.peek(self.state.as_ref(), ServerTime::from_micros(now), cost)
    }

    fn cost(&self, rng: &mut Rng) -> u32 {
        let max = self.quota.cost_max();
        if rng.random_ratio(3, 4) { 1 } else { rng.random_range(1..=max) }
    }

    /// Mostly none, one, or so many µs that a cell or a sub-window comes or goes just then.
    fn step(&self, rng: &mut Rng) -> u64 {
        let step = self.quota.step_us();
        match rng.random_range(0..8) {
            0 | 1 => 0,
            2 => rng.random_range(0..=3),
            3 => self.quota.edge_us(self.now) + step * rng.random_range(0..=2),
            4 => step * rng.random_range(1..=3) - 1,
            5 => step * 64 - rng.random_range(0..=2),
            6 => rng.random_range(0..=step * 40),
            _ => rng.random_range(0..=step),
        }
    }
}

/// A random quota of one algorithm.
pub(crate) trait Random {
    fn random(rng: &mut Rng) -> Self;
}

impl Random for GcraQuota {
    fn random(rng: &mut Rng) -> Self {
        gcra(rng)
    }
}

impl Random for WindowQuota {
    fn random(rng: &mut Rng) -> Self {
        window(rng)
    }
}

/// Half as long again is a year, the longest period that a quota takes.
const BASE_US_MAX: u64 = 20_000_000_000_000;

/// Numbers as tests on a real server need them: there keys expire by the real clock, which must not
/// happen while a simulated one goes on.
pub(crate) trait Slow: Rules + Random {
    /// A quota under which no key expires within minutes.
    fn slow(rng: &mut Rng, base_us: u64) -> Self;

    /// The least that may be spent at once, or the key would expire while its test runs.
    fn cost_min(&self) -> u32 {
        1
    }

    /// Whether a stored state says nothing any more.
    fn is_over(stored: &[u8], now: u64) -> bool;

    /// A state as the scripts store it.
    fn to_wire(state: &Self::State) -> Vec<u8>;
}

impl Slow for GcraQuota {
    fn slow(rng: &mut Rng, base_us: u64) -> Self {
        let base_us = base_us.min(BASE_US_MAX);
        // Up to five years to earn all back, so that a change of quota can reach the ten.
        let most = (150_000_000_000_000 / base_us).min(u64::from(u32::MAX));
        let few = rng.random::<bool>();
        let burst = rng.random_range(1..=if few { most.min(20) } else { most });
        let interval = Duration::from_micros(base_us + rng.random_range(0..=base_us / 2));
        Self::new(1, interval, burst).expect("these numbers make a quota")
    }

    fn is_over(stored: &[u8], now: u64) -> bool {
        number(stored, 0) <= now
    }

    fn to_wire(state: &Self::State) -> Vec<u8> {
        state.to_wire()
    }
}

impl Slow for WindowQuota {
    fn slow(rng: &mut Rng, base_us: u64) -> Self {
        let max = match rng.random_range(0..4) {
            0 => rng.random_range(1..=u64::from(u32::MAX)),
            _ => rng.random_range(1..=20),
        };
        let base_us = base_us.min(BASE_US_MAX);
        let window = Duration::from_micros(base_us + rng.random_range(0..=base_us / 2));
        Self::new(max, window).expect("these numbers make a quota")
    }

    fn is_over(stored: &[u8], now: u64) -> bool {
        let (at, width) = (number(stored, 0), number(stored, 8));
        (at / width + 64) * width <= now
    }

    fn to_wire(state: &Self::State) -> Vec<u8> {
        state.to_wire()
    }
}

/// Eight bytes of a stored state.
fn number(stored: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(stored[at..at + 8].try_into().expect("eight bytes"))
}

/// Either backend, so that one test runs over both.
pub(crate) type AnyExecutor = Either<MemExecutor, RedisExecutor>;

/// A server of this test's own.
pub(crate) async fn server() -> RedisServer {
    RedisServer::start().await.expect("a Redis server for this test")
}

/// A handle on it that waits longer than any busy machine needs.
pub(crate) async fn redis(
    server: &RedisServer,
    options: impl FnOnce(RedisBuilder) -> RedisBuilder,
) -> Redis {
    let patient = Duration::from_secs(30);
    let url = RedisUrl::parse(&server.url()).expect("the testkit's URLs are right");
    let builder = Redis::builder(url);
    let builder = builder.command_timeout(patient).total_timeout(patient);
    let redis = options(builder).build().expect("these options fit");
    redis.ready(patient).await.expect("the server is there");
    redis
}
