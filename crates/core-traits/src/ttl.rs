//! How long something shared may live, parsed once.

use std::time::Duration;

/// A time to live: at least 1 ms, at most [`Ttl::MAX`], in whole milliseconds, rounded up.
///
/// Servers count milliseconds, and 0 would mean 'delete at once' to one command and 'for ever' to
/// another; neither can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

impl Ttl {
    /// Ten years: beyond it a ttl is a mistake, and server arithmetic would overflow somewhere.
    pub const MAX: Self = Self(10 * 365 * 24 * 3600 * 1000);

    /// Parses a duration.
    ///
    /// # Errors
    /// [`TtlError`] if it is zero or longer than [`Ttl::MAX`].
    pub const fn new(duration: Duration) -> Result<Self, TtlError> {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        if millis == 0 {
            Err(TtlError::Zero)
        } else if millis > Self::MAX.0 as u128 {
            Err(TtlError::TooLong)
        } else {
            Ok(Self(millis as u64))
        }
    }

    /// The nearest valid ttl: zero becomes 1 ms, too long becomes [`Ttl::MAX`].
    pub const fn clamped(duration: Duration) -> Self {
        match Self::new(duration) {
            Ok(ttl) => ttl,
            Err(TtlError::Zero) => Self(1),
            Err(TtlError::TooLong) => Self::MAX,
        }
    }

    /// Whole milliseconds, at least 1.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same as a [`Duration`].
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Why a duration is no [`Ttl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// Nothing can live for no time.
    #[error("a ttl must be longer than zero")]
    Zero,
    /// Longer than ten years.
    #[error("a ttl may be at most ten years")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_millisecond_is_never_rounded_to_nothing() {
        assert_eq!(Ttl::new(Duration::from_nanos(1)).unwrap().as_millis(), 1);
        assert_eq!(Ttl::new(Duration::from_micros(1_001)).unwrap().as_millis(), 2);
    }

    #[test]
    fn zero_and_huge_are_refused() {
        assert_eq!(Ttl::new(Duration::ZERO), Err(TtlError::Zero));
        assert_eq!(Ttl::new(Duration::MAX), Err(TtlError::TooLong));
        assert_eq!(Ttl::clamped(Duration::MAX), Ttl::MAX);
    }
}
