//! Time as a value. No other crate asks the operating system for it.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Microseconds since this machine booted, time spent in suspend included.
///
/// Ages and deadlines are measured with it: it never steps, and a machine that slept knows that
/// what it holds is old. It means nothing on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The reading `micros` µs after boot.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this reading; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This reading moved `by` into the future; stops at the largest value.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This reading moved `by` into the past; stops at boot.
    #[must_use]
    pub const fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }
}

/// Microseconds since the Unix epoch by the clock of the server that executes a step.
///
/// It is the only clock that instances share, so every decision about shared state uses it. It can
/// step back (a new primary, an adjusted clock): states say how they heal from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTime(u64);

impl ServerTime {
    /// The largest time that scripts can hold exactly: Lua numbers are doubles.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The time `micros` µs after the Unix epoch, at most [`MAX`](Self::MAX).
    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 { Self::MAX } else { Self(micros) }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this one; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This time moved `by` into the future; stops at [`MAX`](Self::MAX).
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(micros(by)))
    }
}

const fn micros(duration: Duration) -> u64 {
    let micros = duration.as_micros();
    if micros > u64::MAX as u128 { u64::MAX } else { micros as u64 }
}

/// Where time comes from. Tests hand in one that they move by hand.
pub trait Clock: Send + Sync + 'static {
    /// Time since boot on this machine, suspend included.
    fn now(&self) -> MonoTime;

    /// The time by which an executor in this process decides.
    fn server_time(&self) -> ServerTime;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> MonoTime {
        // `std::time::Instant` stops while the machine is suspended; a lease or a freshness bound
        // must not.
        #[cfg(target_os = "linux")]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: ClockId = ClockId::Monotonic;
        MonoTime(to_micros(clock_gettime(CLOCK)))
    }

    fn server_time(&self) -> ServerTime {
        ServerTime::from_micros(to_micros(clock_gettime(ClockId::Realtime)))
    }
}

#[allow(clippy::cast_lossless, reason = "the fields of Timespec differ in width by platform")]
fn to_micros(time: Timespec) -> u64 {
    // A clock before 1970 is a broken clock; it reads as the epoch rather than as a far future.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(time.tv_nsec as u64 / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_time_never_leaves_the_range_that_scripts_hold_exactly() {
        assert_eq!(ServerTime::from_micros(u64::MAX), ServerTime::MAX);
        assert_eq!(ServerTime::MAX.plus(Duration::MAX), ServerTime::MAX);
    }

    #[test]
    fn a_clock_that_went_back_measures_zero() {
        let (early, late) = (MonoTime::from_micros(5), MonoTime::from_micros(9));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.since(early), Duration::from_micros(4));
    }

    #[test]
    fn the_system_clock_advances() {
        let first = SystemClock.now();
        while SystemClock.now() == first {}
        assert!(SystemClock.now() > first);
        assert!(SystemClock.server_time() > ServerTime::from_micros(1_600_000_000_000_000));
    }
}
