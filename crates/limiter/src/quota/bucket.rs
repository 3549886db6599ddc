//! The parameters of the token bucket.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{QuotaError, SPAN_US_MAX, count, micros};

/// Scripts multiply the two numbers of a rate, and compute exactly below 2^53.
const PRODUCT_MAX: u128 = 1 << 52;

/// The parameters of the token bucket: it holds `burst` tokens, and is refilled at a rate that is a
/// fraction, so a token need not take a whole number of microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketQuota {
    rate: Rate,
    burst: u32,
}

/// `gain` parts per µs, of which `token` are a token; in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// At most 2^32 - 1.
    pub(crate) gain: u64,
    /// At least 1.
    pub(crate) token: u64,
}

impl BucketQuota {
    /// `max` tokens per `period` at an even pace, and up to `burst` at once. The rate is exact if its
    /// two numbers in lowest terms, tokens and µs, have a product of at most 2^52; that is nearly
    /// always. Otherwise it is the best one below that has: less than one part in a million lower.
    ///
    /// # Errors
    /// [`QuotaError`]: a number of 0 or above 2^32 - 1; a period below 1 ms or above 366 days; a
    /// burst that would take more than ten years to earn back.
    pub fn new(max: u64, period: Duration, burst: u64) -> Result<Self, QuotaError> {
        let max = count("the maximum", max)?;
        let burst = count("the burst", burst)?;
        let rate = Rate::at_most(max.into(), micros(period)?.into());
        let quota = Self { rate, burst };
        if quota.span_us() > SPAN_US_MAX {
            return Err(QuotaError::TooSlow);
        }
        Ok(quota)
    }

    /// How many tokens a full bucket has.
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// The rate as a fraction: so many tokens in so many µs.
    pub const fn rate(&self) -> (u64, u64) {
        (self.rate.gain, self.rate.token)
    }

    /// How long it takes until an empty bucket is full, in µs.
    pub const fn span_us(&self) -> u64 {
        self.rate.time_us(self.burst as u64, 0)
    }

    pub(crate) const fn parts(&self) -> Rate {
        self.rate
    }

    /// What one of `instances` may spend alone: its share of the rate and of the burst, of which it
    /// has at least one token, or it could not do anything.
    pub(crate) fn share(self, instances: NonZeroU32) -> Self {
        let token = u128::from(self.rate.token) * u128::from(instances.get());
        Self {
            rate: Rate::at_most(self.rate.gain.into(), token),
            burst: (self.burst / instances).max(1),
        }
    }
}

impl Rate {
    /// The time in which `tokens` are earned, of which `earned` parts are there, less than a token.
    /// At least one token. A time that does not fit is as good as never.
    pub(crate) const fn time_us(self, tokens: u64, earned: u64) -> u64 {
        // Whole rounds of `gain` tokens first, so that the products stay small.
        let rounds = (tokens - 1) / self.gain;
        let rest = tokens - rounds * self.gain;
        let rest_us = (rest * self.token - earned).div_ceil(self.gain);
        rounds.saturating_mul(self.token).saturating_add(rest_us)
    }

    /// What `time_us` earns on top of `earned` parts: tokens, and parts of the next one.
    pub(crate) const fn earns(self, time_us: u64, earned: u64) -> (u64, u64) {
        let rounds = time_us / self.token;
        let parts = time_us % self.token * self.gain + earned;
        let tokens = rounds.saturating_mul(self.gain).saturating_add(parts / self.token);
        (tokens, parts % self.token)
    }

    /// The largest rate that is not above `gain / token` and whose numbers have a product of at most
    /// [`PRODUCT_MAX`]; if all of them are above, the smallest rate there is.
    ///
    /// It walks the Stern-Brocot tree, where each fraction between two neighbours is at least as
    /// long as their sum, taking all steps to one side at once (Graham, Knuth, Patashnik: Concrete
    /// Mathematics, 4.5).
    fn at_most(gain: u128, token: u128) -> Self {
        let divisor = gcd(gain, token);
        let (gain, token) = (gain / divisor, token / divisor);
        if gain * token <= PRODUCT_MAX {
            return Self { gain: gain as u64, token: token as u64 };
        }
        // low <= gain / token < high, both as (gain, token).
        let (mut low, mut high) = ((0, 1), (1, 0));
        loop {
            // How far each is off, so that its neighbour can be moved up to it.
            let above_low = gain * low.1 - token * low.0;
            let below_high = token * high.0 - gain * high.1;
            let steps = fitting_steps(low, high, above_low / below_high);
            low = (low.0 + steps * high.0, low.1 + steps * high.1);
            if steps < above_low / below_high {
                break;
            }
            let above_low = gain * low.1 - token * low.0;
            let steps = fitting_steps(high, low, (below_high - 1) / above_low);
            high = (high.0 + steps * low.0, high.1 + steps * low.1);
            if fitting_steps(low, high, 1) == 0 {
                break;
            }
        }
        match low {
            (0, _) => Self { gain: 1, token: PRODUCT_MAX as u64 },
            (gain, token) => Self { gain: gain as u64, token: token as u64 },
        }
    }
}

/// How often `step` can be added to `from`, at most `most` times, before the product is too large.
fn fitting_steps(from: (u128, u128), step: (u128, u128), most: u128) -> u128 {
    let fits = |steps: u128| {
        let (gain, token) = (from.0 + steps * step.0, from.1 + steps * step.1);
        gain.checked_mul(token).is_some_and(|product| product <= PRODUCT_MAX)
    };
    let (mut good, mut bad) = (0, most + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) { good = middle } else { bad = middle }
    }
    good
}

const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
