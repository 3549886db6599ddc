//! Time that stands still until the test moves it.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, MonoTime, ServerTime};
use parking_lot::Mutex;

/// A machine that has been up for a day, so that a test can look back without reaching boot.
const MONO_START: MonoTime = MonoTime::from_micros(86_400 * 1_000_000);
/// A server time of present size: 2026, in microseconds.
const SERVER_START: ServerTime = ServerTime::from_micros(1_780_000_000_000_000);

/// A [`Clock`] that is moved by hand. Clones share one time.
///
/// Two clocks with one server and different uptimes are two machines; the server's time may step
/// back, the machine's own never does.
#[derive(Debug, Clone)]
pub struct SimClock {
    now: Arc<Mutex<(MonoTime, ServerTime)>>,
}

impl SimClock {
    /// Returns a clock on a machine that has been up for a day, at some time of the year 2026.
    pub fn new() -> Self {
        Self::at(MONO_START, SERVER_START)
    }

    /// Returns a clock that reads these times.
    pub fn at(mono: MonoTime, server: ServerTime) -> Self {
        Self { now: Arc::new(Mutex::new((mono, server))) }
    }

    /// Lets time pass, for the machine and for the server.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        *now = (now.0.plus(by), now.1.plus(by));
    }

    /// Lets time pass for the machine alone, as when the server's clock runs slow.
    pub fn advance_mono(&self, by: Duration) {
        let mut now = self.now.lock();
        now.0 = now.0.plus(by);
    }

    /// Steps the server's clock forward.
    pub fn advance_server(&self, by: Duration) {
        let mut now = self.now.lock();
        now.1 = now.1.plus(by);
    }

    /// Steps the server's clock back, at most to the epoch.
    pub fn step_server_back(&self, by: Duration) {
        let mut now = self.now.lock();
        let back = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        now.1 = ServerTime::from_micros(now.1.as_micros().saturating_sub(back));
    }

    /// Sets the server's clock, forward or back.
    pub fn set_server_time(&self, time: ServerTime) {
        self.now.lock().1 = time;
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> MonoTime {
        self.now.lock().0
    }

    fn server_time(&self) -> ServerTime {
        self.now.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_passes_only_by_hand_and_for_all_clones() {
        let clock = SimClock::new();
        let clone = clock.clone();
        let (mono, server) = (clock.now(), clock.server_time());
        clock.advance(SECOND);
        assert_eq!(clone.now().since(mono), SECOND);
        assert_eq!(clone.server_time().since(server), SECOND);
        assert_eq!(clock.now(), clone.now());
    }

    #[test]
    fn server_steps_back_while_the_machine_goes_on() {
        let clock = SimClock::new();
        let (mono, server) = (clock.now(), clock.server_time());
        clock.advance_mono(SECOND);
        clock.step_server_back(SECOND);
        assert_eq!(clock.now().since(mono), SECOND);
        assert_eq!(server.since(clock.server_time()), SECOND);
        clock.step_server_back(Duration::MAX);
        assert_eq!(clock.server_time(), ServerTime::from_micros(0));
    }
}
