//! The clocks of a world: one time, as each machine and the server see it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fleetwide_core_traits::{Clock, MonoTime, ServerTime};
use parking_lot::Mutex;

/// 2026, µs.
const WALL_START: u64 = 1_780_000_000_000_000;
/// Between the boots of two machines, µs: what one calls an hour ago is before the other's boot.
const BOOT_DISTANCE: u64 = 7_777_777_777;

/// The time of a world. Cheap to clone: all clones are one time.
#[derive(Clone, Debug, Default)]
pub struct WorldTime {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    nanos: AtomicU64,
    /// The last moment that was handed out by `moment`.
    last: AtomicU64,
    server_ahead: AtomicI64,
    machines_ahead: Mutex<HashMap<u64, Arc<AtomicI64>>>,
}

/// One machine's, or the server's, view of the time.
struct Machine {
    shared: Arc<Shared>,
    /// µs since its boot at the beginning of the world.
    uptime: u64,
    wall_ahead: Ahead,
}

enum Ahead {
    Server,
    Own(Arc<AtomicI64>),
}

impl WorldTime {
    /// The beginning of time.
    pub fn new() -> Self {
        Self::default()
    }

    /// ns since the beginning.
    pub fn nanos(&self) -> u64 {
        self.shared.nanos.load(Relaxed)
    }

    /// The same for a [`Recorder`](crate::Recorder): never the same moment twice, so that what
    /// happened one after the other within one step is recorded so.
    pub fn moment(&self) -> u64 {
        let now = self.nanos();
        let next = |last: u64| Some(now.max(last + 1));
        let before = self.shared.last.fetch_update(Relaxed, Relaxed, next).unwrap_or_default();
        now.max(before + 1)
    }

    /// The clock of the server's machine, to be handed to what runs the server's commands.
    pub fn server(&self) -> Arc<dyn Clock> {
        let shared = Arc::clone(&self.shared);
        Arc::new(Machine { shared, uptime: BOOT_DISTANCE, wall_ahead: Ahead::Server })
    }

    pub(super) fn advance(&self, by: Duration) {
        self.shared.nanos.fetch_add(by.as_nanos() as u64, Relaxed);
    }

    pub(super) fn machine(&self, number: u64) -> impl Clock {
        let shared = Arc::clone(&self.shared);
        let uptime = BOOT_DISTANCE * (number + 2);
        let ahead = Arc::clone(shared.machines_ahead.lock().entry(number).or_default());
        Machine { shared, uptime, wall_ahead: Ahead::Own(ahead) }
    }

    pub(super) fn step_server(&self, by_us: i64) {
        self.shared.server_ahead.fetch_add(by_us, Relaxed);
    }

    pub(super) fn step_machine(&self, number: u64, by_us: i64) {
        self.shared.machines_ahead.lock().entry(number).or_default().fetch_add(by_us, Relaxed);
    }
}

impl Clock for Machine {
    fn now(&self) -> MonoTime {
        MonoTime::from_micros(self.uptime + self.shared.nanos.load(Relaxed) / 1_000)
    }

    fn server_time(&self) -> ServerTime {
        let wall = WALL_START + self.shared.nanos.load(Relaxed) / 1_000;
        let ahead = match &self.wall_ahead {
            Ahead::Server => &self.shared.server_ahead,
            Ahead::Own(ahead) => ahead,
        };
        ServerTime::from_micros(wall.saturating_add_signed(ahead.load(Relaxed)))
    }
}
