//! How many cells there are, over all shards, and how many there may be.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use fleetwide_core_traits::{BackendError, ServerTime};

pub(super) struct Room {
    cells: AtomicUsize,
    cells_max: usize,
    /// µs of the last sweep of all shards.
    swept_at: AtomicU64,
    /// Whether the last new cell was refused, so that the log says it once.
    refusing: AtomicBool,
}

impl Room {
    pub(super) fn new(cells_max: usize) -> Self {
        Self {
            cells: AtomicUsize::new(0),
            cells_max,
            swept_at: AtomicU64::new(u64::MAX),
            refusing: AtomicBool::new(false),
        }
    }

    pub(super) fn cells(&self) -> usize {
        self.cells.load(Relaxed)
    }

    pub(super) fn cells_max(&self) -> usize {
        self.cells_max
    }

    /// Takes room for `count` more cells, or for none.
    pub(super) fn take(&self, count: usize) -> Result<(), BackendError> {
        let fits = |cells: usize| cells.checked_add(count).filter(|&sum| sum <= self.cells_max);
        match self.cells.fetch_update(Relaxed, Relaxed, fits) {
            Ok(before) => {
                self.note_room(before + count);
                Ok(())
            }
            Err(_) => Err(BackendError::Full { limit: self.cells_max }),
        }
    }

    pub(super) fn give_back(&self, count: usize) {
        self.cells.fetch_sub(count, Relaxed);
    }

    /// Whether a full table should be swept now.
    ///
    /// A flood of new keys must not turn into one sweep for each of them, so sweeps keep a distance
    /// that grows with their cost: one takes a few ns per cell, and 100 ns per cell lie between two.
    pub(super) fn may_sweep(&self, now: ServerTime) -> bool {
        let now_us = now.as_micros();
        let distance_us = self.cells_max as u64 / 10;
        // A clock that went back must not put the next sweep off.
        let is_due = |last: u64| now_us < last || now_us - last > distance_us;
        self.swept_at.fetch_update(Relaxed, Relaxed, |last| is_due(last).then_some(now_us)).is_ok()
    }

    pub(super) fn note_full(&self) {
        if !self.refusing.swap(true, Relaxed) {
            let limit = self.cells_max;
            tracing::warn!(limit, "the table of cells is full: steps that need a new one fail");
        }
    }

    /// Some distance between the two marks, so that a table at its limit does not fill the log.
    fn note_room(&self, cells: usize) {
        if self.refusing.load(Relaxed)
            && cells <= self.cells_max - self.cells_max / 10
            && self.refusing.swap(false, Relaxed)
        {
            tracing::info!(cells, "the table of cells has room again");
        }
    }
}
