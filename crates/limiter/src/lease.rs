//! Leases: cells bought ahead from the fleet's count, and spent here without a trip.
//!
//! A lease is debited *before* any of it is used, by the same step as any other call, so the fleet's
//! count never has to be corrected upwards. What it costs is time: a cell can be used up to a
//! lifetime later than it was bought.
//!
//! A call takes cells that are in hand, or asks the fleet, exactly. Nobody waits for a lease: they are
//! bought in the background, the next one when half of the last is gone. What is not used is given
//! back by the rule of refunds.

pub(crate) mod purse;
pub(crate) mod shop;
pub(crate) mod table;

use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::{ConfigError, Quota};

/// Longer leases save no trips worth mentioning, and keep cells from others.
const LIFETIME_DEFAULT_MAX: Duration = Duration::from_secs(1);
/// As many leases as this last for a quota; so one instance takes it a small part at a time.
const LEASES_PER_QUOTA: u32 = 32;
/// About 18 MB if all of them have cells in hand.
const KEYS_MAX_DEFAULT: usize = 16_384;

/// How cells are bought ahead: [`LimiterBuilder::leased`](crate::LimiterBuilder::leased).
///
/// | option | default |
/// | --- | --- |
/// | [`cells_max`](Self::cells_max) | a 32nd of the quota |
/// | [`lifetime`](Self::lifetime) | an 8th of the quota's time, 1 s at most |
/// | [`keys_max`](Self::keys_max) | 16,384 keys |
///
/// The quota's time is the window, or for GCRA the time that earns back a burst.
///
/// # How much more
/// With l = `cells_max`, t = `lifetime` and n instances that lease, what is admitted
/// - by GCRA, in any interval of length d, is at most `burst + d * rate + min(n * l, t * rate)`;
/// - by the sliding window, in any window, is at most `max + min(n * l, max)`;
/// - in all, from the beginning on, is at most what the quota grants: nothing is made up, only used
///   later. What is given back unused counts as not granted.
///
/// A cell is used within t of the moment at which its lease was asked for, by this instance's clock.
/// After a reset or a block by another instance, what is in hand may still be used: until word of it
/// comes over the [bus](crate::LimiterBuilder::bus), or for t.
///
/// # How much less
/// Cells in the hands of one instance are not there for the others: n * l at most, for t at most.
/// Leases get smaller as the quota is used up (a quarter of what is left), so at the limit each call
/// is asked about, exactly.
///
/// A [change of the quota](crate::Limiter::set_quota) ends all leases, and the next ones are by the new
/// quota: `cells_max` and the defaults go by it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use fleetwide_limiter::Leasing;
///
/// let leasing = Leasing::new().cells_max(1_000).lifetime(Duration::from_millis(100));
/// # let _ = leasing;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it is for `LimiterBuilder::leased`"]
pub struct Leasing {
    cells_max: Option<u32>,
    lifetime: Option<Duration>,
    keys_max: Option<usize>,
}

impl Leasing {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many cells of a key an instance may have in hand, those on their way included.
    /// Default: a 32nd of the quota. How many it has goes by the demand. Below 2 nothing is leased.
    pub fn cells_max(self, cells_max: u32) -> Self {
        Self { cells_max: Some(cells_max), ..self }
    }

    /// Sets how long after its purchase a cell may be used. Default: an 8th of the quota's time, and
    /// 1 s at most. It must be at most half of the quota's time.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    /// Sets of how many keys cells are in hand. Default: 16,384. Of further keys, and of keys longer
    /// than 256 bytes, each call is asked about.
    pub fn keys_max(self, keys_max: usize) -> Self {
        Self { keys_max: Some(keys_max), ..self }
    }

    /// What it comes to with `quota`.
    pub(crate) fn terms(self, quota: Quota) -> Result<(Terms, usize), ConfigError> {
        let (max, whole_us) = match quota {
            Quota::Gcra(quota) => (quota.cost_max(), quota.span_us()),
            Quota::SlidingWindow(quota) => (quota.cost_max(), quota.window_us()),
            _ => return Err(ConfigError::NotLeasable),
        };
        let lifetime_max = Duration::from_micros(whole_us / 2);
        let lifetime_default = Duration::from_micros(whole_us / 8).min(LIFETIME_DEFAULT_MAX);
        let lifetime = self.lifetime.unwrap_or(lifetime_default);
        if lifetime > lifetime_max || lifetime.is_zero() && self.lifetime.is_some() {
            return Err(ConfigError::LeaseLifetime { lifetime, max: lifetime_max });
        }
        let cells_max = self.cells_max.unwrap_or(max / LEASES_PER_QUOTA).min(max);
        let keys_max = self.keys_max.unwrap_or(KEYS_MAX_DEFAULT);
        Ok((Terms { cells_max, lifetime }, keys_max))
    }
}

/// What all purses of a limiter have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// In hand and on their way.
    pub(crate) cells_max: u32,
    pub(crate) lifetime: Duration,
}
