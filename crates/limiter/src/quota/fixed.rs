//! The parameters of the fixed window.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{QuotaError, count, micros, share_of_window};

/// The parameters of the fixed window: at most `max` cells between one multiple of `window` and the
/// next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedQuota {
    max: u32,
    window_us: u64,
}

impl FixedQuota {
    /// `max` cells per `window`, which is rounded up to whole microseconds. Windows are counted from
    /// the Unix epoch, so a window of a day begins at midnight UTC.
    ///
    /// # Errors
    /// [`QuotaError`]: a maximum of 0 or above 2^32 - 1; a window below 1 ms or above 366 days.
    pub fn new(max: u64, window: Duration) -> Result<Self, QuotaError> {
        Ok(Self { max: count("the maximum", max)?, window_us: micros(window)? })
    }

    /// How many cells each window has.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// The window, in µs.
    pub const fn window_us(&self) -> u64 {
        self.window_us
    }

    /// When the window of `time_us` ends.
    pub(crate) const fn end_us(&self, time_us: u64) -> u64 {
        (time_us / self.window_us + 1) * self.window_us
    }

    /// What one of `instances` may spend alone.
    pub(crate) fn share(self, instances: NonZeroU32) -> Self {
        let (max, window_us) = share_of_window(self.max, self.window_us, instances);
        Self { max, window_us }
    }
}
