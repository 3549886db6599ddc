//! The parameters of the sliding log.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{QuotaError, count, micros, share_of_window};

/// The parameters of the sliding log: at most `max` cells in any interval as long as `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuota {
    max: u32,
    window_us: u64,
}

impl LogQuota {
    /// The largest maximum. A log keeps the time of each cell, and every call reads all of it.
    pub const MAX: u32 = 128;

    const JUDGE_MAX: u32 = 4_096;

    /// `max` cells in any interval as long as `window`, which is rounded up to whole microseconds.
    ///
    /// # Errors
    /// [`QuotaError`]: a maximum of 0 or above 128; a window below 1 ms or above 366 days.
    pub fn new(max: u64, window: Duration) -> Result<Self, QuotaError> {
        match count("the maximum", max)? {
            max @ ..=Self::MAX => Ok(Self { max, window_us: micros(window)? }),
            max => Err(QuotaError::LogTooLong { max }),
        }
    }

    /// The log by which others' decisions are judged, off their path; `None` if it is too long even
    /// for that: more than 4,096 cells, of 28 KB.
    pub(crate) const fn judge(max: u32, window_us: u64) -> Option<Self> {
        if max <= Self::JUDGE_MAX { Some(Self { max, window_us }) } else { None }
    }

    /// How many cells an unused key has.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// The window, in µs.
    pub const fn window_us(&self) -> u64 {
        self.window_us
    }

    /// What one of `instances` may spend alone.
    pub(crate) fn share(self, instances: NonZeroU32) -> Self {
        let (max, window_us) = share_of_window(self.max, self.window_us, instances);
        Self { max, window_us }
    }
}
