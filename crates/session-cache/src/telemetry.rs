//! What a session cache counts, for all sessions together: a label for each would never end.
//!
//! | metric | kind | labels |
//! | --- | --- | --- |
//! | `fleetwide_sessions_active` | gauge | `sessions` |
//! | `fleetwide_sessions_ended_total` | counter | `sessions` |
//! | `fleetwide_session_hits_total` | counter | `sessions` |
//! | `fleetwide_session_misses_total` | counter | `sessions` |
//! | `fleetwide_session_evictions_total` | counter | `sessions` |
//! | `fleetwide_session_references_dangling_total` | counter | `sessions` |
//! | `fleetwide_session_ids_failed_total` | counter | `sessions` |
//! | `fleetwide_session_changes_lagged_total` | counter | `sessions` |
//!
//! The tiers below are counted as `fleetwide_cache_*` with the label `cache` = `sessions/NAME`.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, gauge};

/// A counter that can also be read here.
pub(crate) struct Count {
    here: AtomicU64,
    metric: Counter,
}

impl Count {
    fn new(metric: Counter) -> Self {
        Self { here: AtomicU64::new(0), metric }
    }

    pub(crate) fn add(&self) {
        self.add_many(1);
    }

    pub(crate) fn add_many(&self, many: u64) {
        self.here.fetch_add(many, Ordering::Relaxed);
        self.metric.increment(many);
    }

    pub(crate) fn read(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

pub(crate) struct Telemetry {
    pub(crate) active: Gauge,
    pub(crate) ended: Count,
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) evictions: Count,
    pub(crate) dangling: Count,
    pub(crate) ids_failed: Count,
    pub(crate) lagged: Count,
}

impl Telemetry {
    pub(crate) fn new(name: &str) -> Self {
        let name = || name.to_owned();
        Self {
            active: gauge!("fleetwide_sessions_active", "sessions" => name()),
            ended: Count::new(counter!("fleetwide_sessions_ended_total", "sessions" => name())),
            hits: Count::new(counter!("fleetwide_session_hits_total", "sessions" => name())),
            misses: Count::new(counter!("fleetwide_session_misses_total", "sessions" => name())),
            evictions: Count::new(
                counter!("fleetwide_session_evictions_total", "sessions" => name()),
            ),
            dangling: Count::new(
                counter!("fleetwide_session_references_dangling_total", "sessions" => name()),
            ),
            ids_failed: Count::new(
                counter!("fleetwide_session_ids_failed_total", "sessions" => name()),
            ),
            lagged: Count::new(
                counter!("fleetwide_session_changes_lagged_total", "sessions" => name()),
            ),
        }
    }
}

/// Counts since the cache was built, and sizes now, over all sessions that this process has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionsStats {
    /// Sessions that were used here within the ttl, at most as many as are tracked.
    pub active: u64,
    /// Sessions that were ended here.
    pub ended: u64,
    /// Reads that some tier answered.
    pub hits: u64,
    /// Reads that no tier answered, those that a loader answered included.
    pub misses: u64,
    /// Entries that left this process because their session had too many here.
    pub evictions: u64,
    /// Reads of references whose target was not there.
    pub dangling: u64,
    /// Entries that were stored without a short id, because the server gave none.
    pub ids_failed: u64,
    /// Changes that subscribers were too slow for.
    pub lagged: u64,
}

impl SessionsStats {
    /// Hits among all reads, 0 to 1; `None` before the first read.
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}
