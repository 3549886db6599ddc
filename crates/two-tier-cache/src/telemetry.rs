//! What a cache counts.
//!
//! | metric | kind | labels |
//! | --- | --- | --- |
//! | `fleetwide_cache_hits_total` | counter | `cache`, `tier` = `l1`, `l2` |
//! | `fleetwide_cache_negative_hits_total` | counter | `cache` |
//! | `fleetwide_cache_stale_hits_total` | counter | `cache`, `why` = `refresh`, `error`, `asked_for` |
//! | `fleetwide_cache_early_refreshes_total` | counter | `cache` |
//! | `fleetwide_cache_misses_total` | counter | `cache` |
//! | `fleetwide_cache_loads_total` | counter | `cache`, `outcome` = `ok`, `error`, `panic`, `cancelled` |
//! | `fleetwide_cache_loads_absent_total` | counter | `cache`: the origin had no value |
//! | `fleetwide_cache_loads_not_modified_total` | counter | `cache`: the loader kept the value |
//! | `fleetwide_cache_load_timeouts_total` | counter | `cache`: callers who waited too long |
//! | `fleetwide_cache_load_seconds` | histogram | `cache` |
//! | `fleetwide_cache_writes_total` | counter | `cache`, `outcome` = `ok`, `queued`, `unknown` |
//! | `fleetwide_cache_fills_total` | counter | `cache`, `outcome` = `stored`, `refused`, `failed` |
//! | `fleetwide_cache_l2_errors_total` | counter | `cache` |
//! | `fleetwide_cache_undecodable_total` | counter | `cache` |
//! | `fleetwide_cache_other_schema_total` | counter | `cache` |
//! | `fleetwide_cache_unopened_total` | counter | `cache` |
//! | `fleetwide_cache_invalidations_applied_total` | counter | `cache` |
//! | `fleetwide_cache_resets_total` | counter | `cache` |
//! | `fleetwide_cache_verified_age_seconds` | gauge | `cache` |
//! | `fleetwide_cache_bytes` | gauge | `cache`, `part` = `l1`, `flights`, `queue` |
//!
//! What is counted of hits that are read again stands in `sampler.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::entry::Freshness;
use crate::ledger::Ledger;

/// A counter that can also be read here.
pub(crate) struct Count {
    here: AtomicU64,
    metric: Counter,
}

impl Count {
    pub(crate) fn new(metric: Counter) -> Self {
        Self { here: AtomicU64::new(0), metric }
    }

    pub(crate) fn add(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.metric.increment(1);
    }

    pub(crate) fn read(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

pub(crate) struct Telemetry {
    pub(crate) hits_l1: Count,
    pub(crate) hits_l2: Count,
    pub(crate) hits_absent: Count,
    pub(crate) stale_while_loading: Count,
    pub(crate) stale_on_error: Count,
    pub(crate) stale_on_demand: Count,
    pub(crate) refreshes_early: Count,
    pub(crate) misses: Count,
    pub(crate) loads_ok: Count,
    pub(crate) loads_failed: Count,
    pub(crate) loads_panicked: Count,
    pub(crate) loads_cancelled: Count,
    pub(crate) loads_timed_out: Count,
    pub(crate) loads_absent: Count,
    pub(crate) loads_not_modified: Count,
    pub(crate) load_seconds: Histogram,
    pub(crate) writes_ok: Count,
    pub(crate) writes_queued: Count,
    pub(crate) writes_unknown: Count,
    pub(crate) fills_stored: Count,
    pub(crate) fills_refused: Count,
    pub(crate) fills_failed: Count,
    pub(crate) l2_errors: Count,
    pub(crate) undecodable: Count,
    pub(crate) other_schema: Count,
    pub(crate) unopened: Count,
    pub(crate) applied: Count,
    pub(crate) resets: Count,
    verified_age: Gauge,
    l1_bytes: Gauge,
    flight_bytes: Gauge,
    queue_bytes: Gauge,
}

impl Telemetry {
    pub(crate) fn new(cache: &str) -> Self {
        let name = || cache.to_owned();
        let hits = |tier| {
            Count::new(counter!("fleetwide_cache_hits_total", "cache" => name(), "tier" => tier))
        };
        let stale = |why| {
            Count::new(
                counter!("fleetwide_cache_stale_hits_total", "cache" => name(), "why" => why),
            )
        };
        let loads = |outcome| {
            Count::new(
                counter!("fleetwide_cache_loads_total", "cache" => name(), "outcome" => outcome),
            )
        };
        let writes = |outcome| {
            Count::new(
                counter!("fleetwide_cache_writes_total", "cache" => name(), "outcome" => outcome),
            )
        };
        let fills = |outcome| {
            Count::new(
                counter!("fleetwide_cache_fills_total", "cache" => name(), "outcome" => outcome),
            )
        };
        let bytes = |part| gauge!("fleetwide_cache_bytes", "cache" => name(), "part" => part);
        Self {
            hits_l1: hits("l1"),
            hits_l2: hits("l2"),
            hits_absent: Count::new(
                counter!("fleetwide_cache_negative_hits_total", "cache" => name()),
            ),
            stale_while_loading: stale("refresh"),
            stale_on_error: stale("error"),
            stale_on_demand: stale("asked_for"),
            refreshes_early: Count::new(
                counter!("fleetwide_cache_early_refreshes_total", "cache" => name()),
            ),
            misses: Count::new(counter!("fleetwide_cache_misses_total", "cache" => name())),
            loads_ok: loads("ok"),
            loads_failed: loads("error"),
            loads_panicked: loads("panic"),
            loads_cancelled: loads("cancelled"),
            loads_timed_out: Count::new(
                counter!("fleetwide_cache_load_timeouts_total", "cache" => name()),
            ),
            loads_absent: Count::new(
                counter!("fleetwide_cache_loads_absent_total", "cache" => name()),
            ),
            loads_not_modified: Count::new(
                counter!("fleetwide_cache_loads_not_modified_total", "cache" => name()),
            ),
            load_seconds: histogram!("fleetwide_cache_load_seconds", "cache" => name()),
            writes_ok: writes("ok"),
            writes_queued: writes("queued"),
            writes_unknown: writes("unknown"),
            fills_stored: fills("stored"),
            fills_refused: fills("refused"),
            fills_failed: fills("failed"),
            l2_errors: Count::new(counter!("fleetwide_cache_l2_errors_total", "cache" => name())),
            undecodable: Count::new(
                counter!("fleetwide_cache_undecodable_total", "cache" => name()),
            ),
            unopened: Count::new(counter!("fleetwide_cache_unopened_total", "cache" => name())),
            other_schema: Count::new(
                counter!("fleetwide_cache_other_schema_total", "cache" => name()),
            ),
            applied: Count::new(
                counter!("fleetwide_cache_invalidations_applied_total", "cache" => name()),
            ),
            resets: Count::new(counter!("fleetwide_cache_resets_total", "cache" => name())),
            verified_age: gauge!("fleetwide_cache_verified_age_seconds", "cache" => name()),
            l1_bytes: bytes("l1"),
            flight_bytes: bytes("flights"),
            queue_bytes: bytes("queue"),
        }
    }

    /// A read was answered by this process.
    pub(crate) fn hit_in_l1(&self, freshness: Freshness) {
        match freshness {
            // While the origin is left alone after a failure.
            Freshness::Stale => self.stale_on_error.add(),
            Freshness::Verified | Freshness::Unverified => self.hits_l1.add(),
        }
    }

    pub(crate) fn verified_age(&self, age: Duration) {
        self.verified_age.set(age.as_secs_f64());
    }

    pub(crate) fn bytes(&self, l1: u64, ledger: &Ledger) {
        self.l1_bytes.set(l1 as f64);
        self.flight_bytes.set(ledger.flight_bytes() as f64);
        self.queue_bytes.set(ledger.queue_bytes() as f64);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            hits_l1: self.hits_l1.read(),
            hits_l2: self.hits_l2.read(),
            hits_absent: self.hits_absent.read(),
            hits_stale: self.stale_while_loading.read()
                + self.stale_on_error.read()
                + self.stale_on_demand.read(),
            early_refreshes: self.refreshes_early.read(),
            misses: self.misses.read(),
            loads: self.loads_ok.read() + self.loads_failed.read() + self.loads_panicked.read(),
            load_errors: self.loads_failed.read() + self.loads_panicked.read(),
            writes: self.writes_ok.read(),
            writes_queued: self.writes_queued.read() + self.writes_unknown.read(),
            fills_stored: self.fills_stored.read(),
            fills_refused: self.fills_refused.read(),
            l2_errors: self.l2_errors.read(),
            undecodable: self.undecodable.read(),
            other_schema: self.other_schema.read(),
            unopened: self.unopened.read(),
            invalidations_applied: self.applied.read(),
            resets: self.resets.read(),
            ..Stats::default()
        }
    }
}

/// Counts since the cache was built, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads that this process answered.
    pub hits_l1: u64,
    /// Reads that the shared tier answered.
    pub hits_l2: u64,
    /// Reads that were answered by what says that the origin has no value.
    pub hits_absent: u64,
    /// Reads that were answered by a value whose time was over.
    pub hits_stale: u64,
    /// Loads that were begun to renew a value before its end.
    pub early_refreshes: u64,
    /// Reads that no tier answered.
    pub misses: u64,
    /// Loaders that ran to an end.
    pub loads: u64,
    /// Those of them that failed or panicked.
    pub load_errors: u64,
    /// Writes that returned Ok.
    pub writes: u64,
    /// Writes that were queued.
    pub writes_queued: u64,
    /// Loaded values that the shared tier took.
    pub fills_stored: u64,
    /// Loaded values that it refused, because they may have been older than an invalidation.
    pub fills_refused: u64,
    /// Calls to the shared tier that failed.
    pub l2_errors: u64,
    /// Values in the shared tier that this build could not decode.
    pub undecodable: u64,
    /// Reads of the shared tier that found a value in other schemas only, which is a miss.
    pub other_schema: u64,
    /// Values in the shared tier that are not what a seal with these keys has written.
    pub unopened: u64,
    /// Entries of the log that were applied.
    pub invalidations_applied: u64,
    /// How often L1 was voided, because the history of the log broke.
    pub resets: u64,
    /// How long ago it was last proved that no invalidation is missing: since the cache was built, if
    /// it never was. Zero for a cache that is alone.
    pub verified_age: Duration,
    /// Entries in L1.
    pub l1_entries: u64,
    /// Bytes in L1.
    pub l1_bytes: u64,
    /// Bytes of reads and loads under way: see
    /// [`pending_bytes_max`](crate::CacheBuilder::pending_bytes_max).
    pub flight_bytes: u64,
    /// Bytes of what waits to be invalidated, out of the same budget.
    pub queue_bytes: u64,
    /// Loads under way.
    pub loads_under_way: u64,
    /// Reads of the shared tier under way.
    pub reads_under_way: u64,
    /// Hits of L1 that were read again: see [`sample`](crate::CacheBuilder::sample).
    pub sampled: u64,
    /// Those of them that were out of date.
    pub sampled_stale: u64,
    /// Keys whose load by another instance is waited for.
    pub waiting: u64,
    /// Keys and tags that wait to be invalidated; 1 if everything does.
    pub queued: u64,
    /// Whether the shared tier is not used because others lay out the cache in another way: see
    /// [`check_layout`](crate::Cache::check_layout).
    pub layout_differs: bool,
}
