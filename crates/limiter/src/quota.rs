//! What may be spent, checked once.

use std::mem;
use std::num::NonZeroU32;
use std::time::Duration;

mod bucket;
mod fixed;
mod log;

pub use bucket::BucketQuota;
pub(crate) use bucket::Rate;
pub use fixed::FixedQuota;
pub use log::LogQuota;

/// Below it, a decision's own way to the server and back takes longer than the whole period.
const PERIOD_MIN_US: u64 = 1_000;
/// 366 days. Beyond it a period is a mistake, and the quota belongs into a database.
const PERIOD_MAX_US: u64 = 366 * 24 * 3600 * 1_000_000;
/// Ten years, as the longest ttl that a server is asked for (365 days each). It keeps sums of times
/// far below 2^53, the end of what scripts compute exactly. `lua/gcra.lua` has it too.
pub(crate) const SPAN_US_MAX: u64 = 10 * 365 * 24 * 3600 * 1_000_000;
/// 142 years, as the share of a vanishing part of a quota; sums of times stay below 2^53.
const SHARE_US_MAX: u64 = 1 << 52;
/// Sub-windows that cover a window whatever part of the newest is over.
const FULL_SUB_WINDOWS: u64 = 63;

/// How much each key may spend, and by which algorithm.
///
/// | algorithm | promises that in any interval | costs |
/// | --- | --- | --- |
/// | [`gcra`](Self::gcra) | of length d at most `burst + d * max / period` is spent | 80 bytes a key |
/// | [`token_bucket`](Self::token_bucket) | of length d at most `burst + d * max / period` is spent | 96 bytes a key |
/// | [`sliding_window`](Self::sliding_window) | of length `window` at most `max` is spent | 368 bytes a key |
/// | [`sliding_log`](Self::sliding_log) | of length `window` at most `max` is spent | 80 to 1,072 bytes a key |
/// | [`fixed_window`](Self::fixed_window) | from one multiple of `window` to the next at most `max` is spent, so twice that over a boundary | 80 bytes a key |
///
/// `docs/choosing-an-algorithm.md` compares them.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use fleetwide_limiter::Quota;
///
/// let minute = Duration::from_secs(60);
/// let steady = Quota::gcra(100, minute, 10)?;
/// let exact = Quota::sliding_window(100, minute)?;
/// assert_eq!((steady.cost_max(), exact.cost_max()), (10, 100));
/// # Ok::<(), fleetwide_limiter::QuotaError>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Cells come back one by one, at an even pace.
    Gcra(GcraQuota),
    /// Cells come back when they are a window old.
    SlidingWindow(WindowQuota),
    /// Tokens come back at an even pace, which need not be a whole number of µs each.
    TokenBucket(BucketQuota),
    /// All cells come back at the end of a window.
    FixedWindow(FixedQuota),
    /// Each cell comes back when it is a window old, exactly.
    SlidingLog(LogQuota),
}

impl Quota {
    /// `max` cells per `period` at an even pace, and up to `burst` at once after a rest.
    ///
    /// # Errors
    /// As [`GcraQuota::new`].
    pub fn gcra(max: u64, period: Duration, burst: u64) -> Result<Self, QuotaError> {
        GcraQuota::new(max, period, burst).map(Self::Gcra)
    }

    /// `max` cells in any interval as long as `window`.
    ///
    /// # Errors
    /// As [`WindowQuota::new`].
    pub fn sliding_window(max: u64, window: Duration) -> Result<Self, QuotaError> {
        WindowQuota::new(max, window).map(Self::SlidingWindow)
    }

    /// `max` tokens per `period` at an even pace, and up to `burst` at once after a rest.
    ///
    /// # Errors
    /// As [`BucketQuota::new`].
    pub fn token_bucket(max: u64, period: Duration, burst: u64) -> Result<Self, QuotaError> {
        BucketQuota::new(max, period, burst).map(Self::TokenBucket)
    }

    /// `max` cells from one multiple of `window` since the Unix epoch to the next.
    ///
    /// # Errors
    /// As [`FixedQuota::new`].
    pub fn fixed_window(max: u64, window: Duration) -> Result<Self, QuotaError> {
        FixedQuota::new(max, window).map(Self::FixedWindow)
    }

    /// `max` cells, at most 128, in any interval as long as `window`.
    ///
    /// # Errors
    /// As [`LogQuota::new`].
    pub fn sliding_log(max: u64, window: Duration) -> Result<Self, QuotaError> {
        LogQuota::new(max, window).map(Self::SlidingLog)
    }

    /// The most that one call can spend: what an unused key has.
    pub const fn cost_max(&self) -> u32 {
        match self {
            Self::Gcra(quota) => quota.burst(),
            Self::SlidingWindow(quota) => quota.max(),
            Self::TokenBucket(quota) => quota.burst(),
            Self::FixedWindow(quota) => quota.max(),
            Self::SlidingLog(quota) => quota.max(),
        }
    }

    /// Whether both count the same way, and so on the same keys.
    pub(crate) fn is_of_algorithm_of(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }
}

/// Each algorithm's parameters are a quota, and a quota is those of one of them.
macro_rules! into_quota {
    ($($parameters:ident => $variant:ident),+) => {
        $(impl From<$parameters> for Quota {
            fn from(quota: $parameters) -> Self {
                Self::$variant(quota)
            }
        }

        impl TryFrom<Quota> for $parameters {
            /// The quota, of another algorithm.
            type Error = Quota;

            fn try_from(quota: Quota) -> Result<Self, Quota> {
                match quota {
                    Quota::$variant(parameters) => Ok(parameters),
                    other => Err(other),
                }
            }
        })+
    };
}

into_quota!(
    GcraQuota => Gcra,
    WindowQuota => SlidingWindow,
    BucketQuota => TokenBucket,
    FixedQuota => FixedWindow,
    LogQuota => SlidingLog
);

/// The parameters of GCRA: one cell comes back per `interval`, up to `burst` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcraQuota {
    interval_us: u64,
    burst: u32,
}

impl GcraQuota {
    /// `max` cells per `period`, and up to `burst` at once. The interval of one cell is rounded up
    /// to whole microseconds, so the rate is never above the one that was asked for.
    ///
    /// # Errors
    /// [`QuotaError`]: a number of 0 or above 2^32 - 1; a period below 1 ms or above 366 days; a
    /// rate so fine that rounding would take more than 1 % of it; a burst that would take more than
    /// ten years to earn back.
    pub fn new(max: u64, period: Duration, burst: u64) -> Result<Self, QuotaError> {
        let max = count("the maximum", max)?;
        let burst = count("the burst", burst)?;
        let period_us = micros(period)?;
        let interval_us = period_us.div_ceil(u64::from(max));
        // Whole microseconds cannot express 700,000 per second: it would silently be 500,000.
        let (asked, given) =
            (u128::from(period_us) * 100, u128::from(interval_us) * u128::from(max));
        if given * 100 > asked + asked / 100 {
            return Err(QuotaError::TooFine { interval_us });
        }
        if u128::from(interval_us) * u128::from(burst) > u128::from(SPAN_US_MAX) {
            return Err(QuotaError::TooSlow);
        }
        Ok(Self { interval_us, burst })
    }

    /// How long it takes until one spent cell is back, in µs.
    pub const fn interval_us(&self) -> u64 {
        self.interval_us
    }

    /// How many cells an unused key has.
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// How long it takes until all cells of a used-up key are back, in µs.
    pub const fn span_us(&self) -> u64 {
        self.interval_us * self.burst as u64
    }

    /// What one of `instances` may spend alone: its share of the rate and of the burst, of which it
    /// has at least one cell, or it could not do anything.
    pub(crate) fn share(self, instances: NonZeroU32) -> Self {
        let interval_us = self.interval_us.saturating_mul(instances.get().into());
        let interval_us = interval_us.min(SHARE_US_MAX);
        Self { interval_us, burst: (self.burst / instances).max(1) }
    }
}

/// The parameters of the sliding window: at most `max` cells in any 64 sub-windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowQuota {
    max: u32,
    window_us: u64,
}

impl WindowQuota {
    /// `max` cells in any interval as long as `window`, which is rounded up to whole microseconds.
    ///
    /// # Errors
    /// [`QuotaError`]: a maximum of 0 or above 2^32 - 1; a window below 1 ms or above 366 days.
    pub fn new(max: u64, window: Duration) -> Result<Self, QuotaError> {
        Ok(Self { max: count("the maximum", max)?, window_us: micros(window)? })
    }

    /// How many cells an unused key has.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// The window, in µs.
    pub const fn window_us(&self) -> u64 {
        self.window_us
    }

    /// A sub-window, in µs: 63 of them are at least a window, so 64 cover every window that ends in
    /// the newest.
    pub const fn width_us(&self) -> u64 {
        self.window_us.div_ceil(FULL_SUB_WINDOWS)
    }

    /// What one of `instances` may spend alone. A fleet larger than the maximum has one cell each
    /// in a window that is longer in proportion.
    pub(crate) fn share(self, instances: NonZeroU32) -> Self {
        let (max, window_us) = share_of_window(self.max, self.window_us, instances);
        Self { max, window_us }
    }
}

/// Why numbers are no [`Quota`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// Nothing could ever be spent. To shut a door, do not open it.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Counters have 32 bits.
    #[error("{0} may be at most 4294967295")]
    TooLarge(&'static str),
    /// A period shorter than a decision.
    #[error("a period must be at least 1 ms")]
    PeriodTooShort,
    /// A period longer than a year.
    #[error("a period may be at most 366 days")]
    PeriodTooLong,
    /// One cell takes a fraction of a microsecond, or so few that rounding them up would take more
    /// than 1 % of the rate.
    #[error(
        "the rate is too fine: one cell would come back every {interval_us} µs, rounded up, which \
         is more than 1 % slower; choose a period that is a whole number of µs per cell"
    )]
    TooFine {
        /// The rounded interval.
        interval_us: u64,
    },
    /// More cells than a log may keep the times of.
    #[error(
        "a sliding log takes at most 128 cells, this is {max}: above it take the sliding window, \
         which counts them in 64 parts of the window"
    )]
    LogTooLong {
        /// The maximum that was asked for.
        max: u32,
    },
    /// It would take more than ten years until a used-up key is as good as new.
    #[error("a burst must be earned back within ten years")]
    TooSlow,
}

fn count(what: &'static str, cells: u64) -> Result<u32, QuotaError> {
    match u32::try_from(cells) {
        Ok(0) => Err(QuotaError::Zero(what)),
        Ok(cells) => Ok(cells),
        Err(_) => Err(QuotaError::TooLarge(what)),
    }
}

/// What one of `instances` may spend of `max` cells per window, and in which window: a fleet larger
/// than the maximum has one cell each in a window that is longer in proportion.
fn share_of_window(max: u32, window_us: u64, instances: NonZeroU32) -> (u32, u64) {
    match max / instances {
        0 => {
            let stretch = u64::from(instances.get().div_ceil(max));
            (1, window_us.saturating_mul(stretch).min(SHARE_US_MAX))
        }
        share => (share, window_us),
    }
}

/// Rounds up, because a longer period never allows more.
fn micros(period: Duration) -> Result<u64, QuotaError> {
    match u64::try_from(period.as_nanos().div_ceil(1_000)) {
        Ok(..PERIOD_MIN_US) => Err(QuotaError::PeriodTooShort),
        Ok(micros @ ..=PERIOD_MAX_US) => Ok(micros),
        _ => Err(QuotaError::PeriodTooLong),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn share_of(quota: WindowQuota, instances: u32) -> WindowQuota {
        quota.share(NonZeroU32::new(instances).unwrap())
    }

    #[test]
    fn numbers_that_make_no_quota_are_refused_with_the_reason() {
        let gcra = |max, period, burst| Quota::gcra(max, period, burst).unwrap_err();
        assert_eq!(gcra(0, SECOND, 1), QuotaError::Zero("the maximum"));
        assert_eq!(gcra(1, SECOND, 0), QuotaError::Zero("the burst"));
        assert_eq!(gcra(1 << 32, SECOND, 1), QuotaError::TooLarge("the maximum"));
        assert_eq!(gcra(1, SECOND, u64::MAX), QuotaError::TooLarge("the burst"));
        assert_eq!(gcra(1, Duration::ZERO, 1), QuotaError::PeriodTooShort);
        assert_eq!(gcra(1, Duration::from_micros(999), 1), QuotaError::PeriodTooShort);
        assert_eq!(gcra(1, Duration::MAX, 1), QuotaError::PeriodTooLong);
        assert_eq!(gcra(1, YEAR, 11), QuotaError::TooSlow);
        let window = |max, window| Quota::sliding_window(max, window).unwrap_err();
        assert_eq!(window(0, SECOND), QuotaError::Zero("the maximum"));
        assert_eq!(window(u64::MAX, SECOND), QuotaError::TooLarge("the maximum"));
        assert_eq!(window(1, Duration::from_nanos(1)), QuotaError::PeriodTooShort);
        assert_eq!(window(1, 2 * YEAR), QuotaError::PeriodTooLong);
    }

    #[test]
    fn rate_that_whole_microseconds_cannot_express_is_refused() {
        assert!(Quota::gcra(1_000_000, SECOND, 1).is_ok());
        assert!(Quota::gcra(500_000, SECOND, 1).is_ok());
        assert_eq!(Quota::gcra(700_000, SECOND, 1), Err(QuotaError::TooFine { interval_us: 2 }));
        assert_eq!(Quota::gcra(2_000_000, SECOND, 1), Err(QuotaError::TooFine { interval_us: 1 }));
    }

    #[test]
    fn largest_quotas_are_taken() {
        assert!(Quota::gcra(u64::from(u32::MAX), YEAR, u64::from(u32::MAX)).is_ok());
        assert!(Quota::gcra(1, YEAR, 10).is_ok());
        assert!(Quota::sliding_window(u64::from(u32::MAX), YEAR).is_ok());
        assert!(Quota::sliding_window(1, Duration::from_millis(1)).is_ok());
    }

    #[test]
    fn log_takes_no_more_cells_than_it_can_keep_and_says_what_to_take_instead() {
        assert!(Quota::sliding_log(128, SECOND).is_ok());
        let error = Quota::sliding_log(129, SECOND).unwrap_err();
        assert_eq!(error, QuotaError::LogTooLong { max: 129 });
        assert!(error.to_string().contains("the sliding window"), "{error}");
        assert_eq!(Quota::sliding_log(1 << 32, SECOND), Err(QuotaError::TooLarge("the maximum")));
        assert_eq!(Quota::sliding_log(0, SECOND), Err(QuotaError::Zero("the maximum")));
        assert_eq!(Quota::fixed_window(0, SECOND), Err(QuotaError::Zero("the maximum")));
        assert_eq!(Quota::fixed_window(1, Duration::ZERO), Err(QuotaError::PeriodTooShort));
    }

    #[test]
    fn bucket_takes_rates_that_gcra_must_refuse() {
        let rate = |max, period| BucketQuota::new(max, period, 1).unwrap().rate();
        assert_eq!(rate(700_000, SECOND), (7, 10));
        assert_eq!(rate(u32::MAX.into(), Duration::from_millis(1)), (858_993_459, 200));
        assert_eq!(rate(100, 60 * SECOND), (1, 600_000));
        let bucket = |max, period, burst| Quota::token_bucket(max, period, burst).unwrap_err();
        assert_eq!(bucket(0, SECOND, 1), QuotaError::Zero("the maximum"));
        assert_eq!(bucket(1, SECOND, 1 << 32), QuotaError::TooLarge("the burst"));
        assert_eq!(bucket(1, YEAR, 11), QuotaError::TooSlow);
    }

    #[test]
    fn fleet_larger_than_the_maximum_shares_a_longer_window() {
        let five = WindowQuota::new(5, SECOND).unwrap();
        assert_eq!(share_of(five, 2), WindowQuota { max: 2, window_us: 1_000_000 });
        assert_eq!(share_of(five, 12), WindowQuota { max: 1, window_us: 3_000_000 });
        assert_eq!(
            share_of(five, u32::MAX),
            WindowQuota { max: 1, window_us: 858_993_459_000_000 }
        );
    }

    proptest! {
        #[test]
        fn rate_is_never_above_the_one_asked_for(max in 1u64..2_000_000, period_us in 1_000u64..1 << 40) {
            if let Ok(quota) = GcraQuota::new(max, Duration::from_micros(period_us), 1) {
                prop_assert!(quota.interval_us() * max >= period_us);
                prop_assert!(quota.interval_us() * max <= period_us + period_us / 100 + 1);
            }
        }

        #[test]
        fn rate_of_a_bucket_is_never_above_the_one_asked_for_and_hardly_below(
            max in 1u64..1 << 32, period_us in 1_000u64..=PERIOD_MAX_US, instances in 1u32..100_000,
        ) {
            let period = Duration::from_micros(period_us);
            let quota = BucketQuota::new(max, period, 1).unwrap();
            let share = quota.share(NonZeroU32::new(instances).unwrap());
            let (max, period) = (u128::from(max), u128::from(period_us));
            for (quota, instances) in [(quota, 1), (share, u128::from(instances))] {
                let (gain, token) = quota.rate();
                prop_assert!(u128::from(gain) * u128::from(token) <= 1 << 52);
                let (given, asked) = (u128::from(gain) * period, max * u128::from(token));
                // The share is of a rate that may be rounded already.
                prop_assert!(given * instances <= asked);
                prop_assert!(asked - given * instances <= 2 * asked / 1_000_000);
            }
        }

        #[test]
        fn shares_together_are_never_more_than_the_whole(
            max in 1u64..1_000, instances in 1u32..2_000, window_us in 1_000u64..1 << 40,
        ) {
            let whole = WindowQuota::new(max, Duration::from_micros(window_us)).unwrap();
            let share = share_of(whole, instances);
            // Compared as rates: share.max / share.window * instances <= max / window.
            let together = u128::from(share.max) * u128::from(instances) * u128::from(window_us);
            prop_assert!(together <= u128::from(max) * u128::from(share.window_us));
        }

        #[test]
        fn sub_windows_cover_the_window(window_us in 1_000u64..=PERIOD_MAX_US) {
            let quota = WindowQuota::new(1, Duration::from_micros(window_us)).unwrap();
            prop_assert!(quota.width_us() * 63 >= window_us);
            prop_assert!(quota.width_us() * 63 < window_us + 63);
        }
    }
}
