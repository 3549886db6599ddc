//! One clock for all processes of the run.

use fleetwide_core_traits::{Clock, SystemClock};

/// Microseconds since this machine booted: the same in every process on it.
pub(crate) fn now_us() -> u64 {
    SystemClock.now().as_micros()
}
