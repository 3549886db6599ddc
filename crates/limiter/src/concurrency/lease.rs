//! One lease as its holder's process knows it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{Key, MonoTime};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::ConcurrencyQuota;
use crate::op::Form;

/// Timers stop while a machine is suspended, and its clock does not: it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(1);
/// A lease of the rung, which nobody can take away.
const NEVER: u64 = u64::MAX;

/// Where permits are counted.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) key: Key,
    pub(crate) quota: ConcurrencyQuota,
    pub(crate) form: Form,
}

#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) spot: Spot,
    pub(crate) id: u64,
    pub(crate) cost: u16,
    /// Until when it counts as held, by the clock of this process.
    until_us: AtomicU64,
    is_gone: AtomicBool,
    lost: Notify,
}

impl Lease {
    pub(crate) fn new(spot: Spot, id: u64, cost: u16, until: MonoTime) -> Self {
        Self {
            spot,
            id,
            cost,
            until_us: AtomicU64::new(until.as_micros()),
            is_gone: AtomicBool::new(false),
            lost: Notify::new(),
        }
    }

    /// One that the rung gave: it is held until it is given back.
    pub(crate) fn of_rung(spot: Spot, id: u64, cost: u16) -> Self {
        Self::new(spot, id, cost, MonoTime::from_micros(NEVER))
    }

    pub(crate) fn is_lost(&self, now: MonoTime) -> bool {
        now >= self.until()
    }

    /// Ends when it is lost, and never if it is one of the rung.
    pub(crate) async fn lost(&self, now: impl Fn() -> MonoTime) {
        loop {
            let now = now();
            if self.is_lost(now) {
                return;
            }
            let left = self.until().since(now).clamp(LOOK_EVERY_MIN, LOOK_EVERY);
            // A word that comes between the look and here is kept for the next wait.
            tokio::select! {
                () = self.lost.notified() => {}
                () = sleep(left) => {}
            }
        }
    }

    pub(crate) fn renewed(&self, asked_at: MonoTime) {
        let until = super::keeper::held_until(self.spot.quota, asked_at);
        self.change(|held| held.max(until.as_micros()));
    }

    /// Others have its place.
    pub(crate) fn lose(&self) {
        self.change(|held| if held == NEVER { NEVER } else { 0 });
        self.lost.notify_one();
    }

    pub(crate) fn let_go(&self) {
        self.is_gone.store(true, Ordering::Release);
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    fn until(&self) -> MonoTime {
        MonoTime::from_micros(self.until_us.load(Ordering::Acquire))
    }

    /// What was lost is not found again.
    fn change(&self, next: impl Fn(u64) -> u64) {
        let next = |held| (held != 0).then(|| next(held));
        let _ = self.until_us.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}
