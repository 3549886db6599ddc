//! Token bucket, fixed window and sliding log: random quotas, and what tests need to know of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetwide_limiter::{BucketQuota, FixedQuota, LogQuota, Quota};
use rand::Rng as _;

use super::{BASE_US_MAX, Random, Rng, Rules, Slow, number};

/// Any rate, also such as take a fraction of a µs per token, or no whole number of them.
pub(crate) fn bucket(rng: &mut Rng) -> BucketQuota {
    let max = match rng.random_range(0..4) {
        0 => rng.random_range(1..=50_000),
        _ => rng.random_range(1..=2_000),
    };
    let period = Duration::from_micros(rng.random_range(1_000..=9_000));
    BucketQuota::new(max, period, rng.random_range(1..=20)).expect("these numbers make a quota")
}

/// A window of some thousands of µs.
pub(crate) fn fixed(rng: &mut Rng) -> FixedQuota {
    let period = Duration::from_micros(rng.random_range(1_000..=9_000));
    FixedQuota::new(rng.random_range(1..=20), period).expect("these numbers make a quota")
}

/// The same for logs.
pub(crate) fn log(rng: &mut Rng) -> LogQuota {
    let period = Duration::from_micros(rng.random_range(1_000..=9_000));
    LogQuota::new(rng.random_range(1..=20), period).expect("these numbers make a quota")
}

/// A fixed window of an hour, or up to a minute longer, that will not end while a test runs.
pub(crate) fn fixed_window_just_begun(max: u64) -> Quota {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
    let hour = Duration::from_secs(3600);
    (0..60_000)
        .map(|more| hour + Duration::from_millis(more))
        .find(|window| now.as_millis() % window.as_millis() < 60_000)
        .map(|window| Quota::fixed_window(max, window).expect("these numbers make a quota"))
        .expect("one in sixty has just begun")
}

/// How long the rate takes for `tokens`, rounded up.
fn earn_us(quota: &BucketQuota, tokens: u64) -> u64 {
    let (gain, token) = quota.rate();
    let parts = u128::from(tokens) * u128::from(token);
    parts.div_ceil(gain.into()).try_into().expect("less than ten years")
}

impl Rules for BucketQuota {
    fn heals_us(&self) -> u64 {
        self.span_us()
    }

    fn heals_from_us(&self, cells: u64) -> u64 {
        earn_us(self, cells)
    }

    fn step_us(&self) -> u64 {
        earn_us(self, 1)
    }
}

impl Rules for FixedQuota {
    fn heals_us(&self) -> u64 {
        self.window_us() * 2
    }

    fn heals_from_us(&self, _cells: u64) -> u64 {
        self.window_us()
    }

    fn step_us(&self) -> u64 {
        self.window_us()
    }

    fn edge_us(&self, now: u64) -> u64 {
        self.window_us() - now % self.window_us()
    }

    /// Half a window beyond the next end, with what such a debt is longer by.
    fn debt_edge_us(&self, now: u64) -> u64 {
        let window = self.window_us();
        self.edge_us(now) + window.div_ceil(2) + (window / 2).min(60_000_000)
    }
}

impl Rules for LogQuota {
    fn heals_us(&self) -> u64 {
        self.window_us()
    }

    fn heals_from_us(&self, _cells: u64) -> u64 {
        self.window_us()
    }

    fn step_us(&self) -> u64 {
        self.window_us().div_ceil(3)
    }
}

impl Random for BucketQuota {
    fn random(rng: &mut Rng) -> Self {
        bucket(rng)
    }
}

impl Random for FixedQuota {
    fn random(rng: &mut Rng) -> Self {
        fixed(rng)
    }
}

impl Random for LogQuota {
    fn random(rng: &mut Rng) -> Self {
        log(rng)
    }
}

impl Slow for BucketQuota {
    fn slow(rng: &mut Rng, base_us: u64) -> Self {
        // Fast, with a burst that takes hours all the same; or a token in minutes to months.
        if rng.random_ratio(1, 3) {
            let max = rng.random_range(100_000..=2_000_000);
            let period = Duration::from_micros(rng.random_range(900_000..=1_100_000));
            let burst = rng.random_range(1 << 30..=u64::from(u32::MAX));
            return Self::new(max, period, burst).expect("these numbers make a quota");
        }
        let base_us = base_us.min(BASE_US_MAX);
        let max = rng.random_range(1..=(30_000_000_000_000 / base_us).clamp(1, 5_000));
        let period = Duration::from_micros((base_us + rng.random_range(0..=base_us / 2)) * max);
        let most = (150_000_000_000_000 / base_us).min(u64::from(u32::MAX));
        let few = rng.random::<bool>();
        let burst = rng.random_range(1..=if few { most.min(20) } else { most });
        let period = period.min(Duration::from_secs(366 * 24 * 3600));
        Self::new(max, period, burst).expect("these numbers make a quota")
    }

    /// What takes two minutes to earn.
    fn cost_min(&self) -> u32 {
        let (gain, token) = self.rate();
        (120_000_000 * gain).div_ceil(token).max(1) as u32
    }

    fn is_over(stored: &[u8], now: u64) -> bool {
        let half = |at: usize| {
            u64::from(u32::from_be_bytes(stored[at..at + 4].try_into().expect("four bytes")))
        };
        let (missing, gain) = (u128::from(half(8)), half(12));
        let (at, token, earned) = (number(stored, 0), number(stored, 16), number(stored, 24));
        let parts = missing * u128::from(token) - u128::from(earned);
        u128::from(at) + parts.div_ceil(gain.into()) <= now.into()
    }

    fn to_wire(state: &Self::State) -> Vec<u8> {
        state.to_wire()
    }
}

impl Slow for FixedQuota {
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
        // A key outlives its count by a window, but a minute at most.
        number(stored, 8) + number(stored, 16).min(60_000_000) <= now
    }

    fn to_wire(state: &Self::State) -> Vec<u8> {
        state.to_wire()
    }
}

impl Slow for LogQuota {
    fn slow(rng: &mut Rng, base_us: u64) -> Self {
        let most = if rng.random() { 20 } else { Self::MAX };
        let max = rng.random_range(1..=most.into());
        let base_us = base_us.min(BASE_US_MAX);
        let window = Duration::from_micros(base_us + rng.random_range(0..=base_us / 2));
        Self::new(max, window).expect("these numbers make a quota")
    }

    fn is_over(stored: &[u8], now: u64) -> bool {
        // The last time has seven bytes, so the one before it is cut off.
        let last = number(stored, stored.len() - 8) % (1 << 56);
        last + number(stored, 0) <= now
    }

    fn to_wire(state: &Self::State) -> Vec<u8> {
        state.to_wire()
    }
}
