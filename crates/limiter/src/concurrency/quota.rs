//! How many at once, checked once.

use std::time::Duration;

/// Each step rewrites the leases of a key, 17 bytes each: 17 KB at the most.
pub(super) const MAX_MAX: u32 = 1_024;
/// Below it, a pause of a process that nobody notices would cost it its permits.
const LEASE_MIN: Duration = Duration::from_millis(100);
/// So long does a process that was killed keep its permits, and an hour is no concurrency any more.
const LEASE_MAX: Duration = Duration::from_secs(3600);

/// How many permits of each key there are, and how long one is held without a sign of life.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use fleetwide_limiter::concurrency::ConcurrencyQuota;
///
/// let five_at_once = ConcurrencyQuota::new(5, Duration::from_secs(10))?;
/// assert_eq!(five_at_once.max(), 5);
/// # Ok::<(), fleetwide_limiter::concurrency::ConcurrencyQuotaError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyQuota {
    max: u32,
    lease_us: u64,
}

impl ConcurrencyQuota {
    /// `max` permits of each key. One whose process gives no sign of life for `lease` comes back.
    ///
    /// # Errors
    /// [`ConcurrencyQuotaError`]: a maximum of 0 or above 1,024; a lease below 100 ms or above 1 h.
    pub const fn new(max: u32, lease: Duration) -> Result<Self, ConcurrencyQuotaError> {
        if max == 0 {
            return Err(ConcurrencyQuotaError::Zero);
        }
        if max > MAX_MAX {
            return Err(ConcurrencyQuotaError::TooMany { max });
        }
        if lease.as_micros() < LEASE_MIN.as_micros() || lease.as_micros() > LEASE_MAX.as_micros() {
            return Err(ConcurrencyQuotaError::Lease(lease));
        }
        Ok(Self { max, lease_us: lease.as_micros() as u64 })
    }

    /// How many permits there are.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// How long a permit is held without a sign of life, in µs.
    pub const fn lease_us(&self) -> u64 {
        self.lease_us
    }

    /// The same as a duration.
    pub const fn lease(&self) -> Duration {
        Duration::from_micros(self.lease_us)
    }
}

/// Why numbers are no [`ConcurrencyQuota`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConcurrencyQuotaError {
    /// Nobody could ever get in.
    #[error("there must be at least 1 permit")]
    Zero,
    /// All leases of a key are one string, which each step rewrites.
    #[error("a key may have at most {MAX_MAX} permits, this is {max}")]
    TooMany {
        /// What was asked for.
        max: u32,
    },
    /// Too short to survive a pause, or so long that the permits of the dead are as good as gone.
    #[error("a lease must take from {LEASE_MIN:?} to {LEASE_MAX:?}, this is {0:?}")]
    Lease(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn numbers_that_make_no_quota_are_refused_with_the_reason() {
        let error = |max, lease| ConcurrencyQuota::new(max, lease).unwrap_err();
        assert_eq!(error(0, SECOND), ConcurrencyQuotaError::Zero);
        assert_eq!(error(1_025, SECOND), ConcurrencyQuotaError::TooMany { max: 1_025 });
        for lease in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(3_601)] {
            assert_eq!(error(1, lease), ConcurrencyQuotaError::Lease(lease));
        }
        assert!(ConcurrencyQuota::new(1_024, 3_600 * SECOND).is_ok());
        assert!(ConcurrencyQuota::new(1, SECOND / 10).is_ok());
    }
}
