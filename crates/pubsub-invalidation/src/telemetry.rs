//! What a log says about itself: metrics, and one log line per transition.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::Tag;
use fleetwide_core_traits::log::{Begin, Epoch, Stamp};
use metrics::{Counter, Gauge, counter, gauge};

use crate::sequence::Divergence;

/// The handles of one log's metrics, all with the label `log`; the crate page lists them.
#[derive(Clone)]
pub(crate) struct Telemetry {
    log: Arc<str>,
    by_message: Counter,
    by_replay: Counter,
    duplicates: Counter,
    unreadable: Counter,
    replays: Counter,
    gaps: Counter,
    resets: Counter,
    raised: Counter,
    failures: Counter,
    lag: Gauge,
    verified_age: Gauge,
}

impl Telemetry {
    pub(crate) fn new(tag: &Tag) -> Self {
        let log: Arc<str> = String::from_utf8_lossy(tag.as_bytes()).into();
        let label = || log.to_string();
        Self {
            by_message: counter!("fleetwide_log_entries_total", "log" => label(), "way" => "message"),
            by_replay: counter!("fleetwide_log_entries_total", "log" => label(), "way" => "replay"),
            duplicates: counter!("fleetwide_log_duplicates_total", "log" => label()),
            unreadable: counter!("fleetwide_log_unreadable_total", "log" => label()),
            replays: counter!("fleetwide_log_replays_total", "log" => label()),
            gaps: counter!("fleetwide_log_gaps_total", "log" => label()),
            resets: counter!("fleetwide_log_resets_total", "log" => label()),
            raised: counter!("fleetwide_log_epochs_raised_total", "log" => label()),
            failures: counter!("fleetwide_log_failures_total", "log" => label()),
            lag: gauge!("fleetwide_log_lag_entries", "log" => label()),
            verified_age: gauge!("fleetwide_log_verified_age_seconds", "log" => label()),
            log,
        }
    }

    pub(crate) fn log(&self) -> &str {
        &self.log
    }

    pub(crate) fn applied_by_message(&self) {
        self.by_message.increment(1);
    }

    pub(crate) fn applied_by_replay(&self) {
        self.by_replay.increment(1);
    }

    pub(crate) fn duplicate(&self) {
        self.duplicates.increment(1);
    }

    pub(crate) fn unreadable(&self) {
        self.unreadable.increment(1);
    }

    pub(crate) fn replayed(&self) {
        self.replays.increment(1);
    }

    pub(crate) fn failed(&self) {
        self.failures.increment(1);
    }

    pub(crate) fn lag(&self, entries: u64) {
        self.lag.set(entries as f64);
    }

    pub(crate) fn verified_age(&self, age: Duration) {
        self.verified_age.set(age.as_secs_f64());
    }

    pub(crate) fn gap(&self, after: u64, at: Stamp) {
        self.gaps.increment(1);
        tracing::warn!(log = %self.log, epoch = %at.epoch, after, until = at.seq,
            "entries were trimmed before they could be read");
    }

    pub(crate) fn diverged(&self, why: Divergence, followed: Option<Stamp>, found: Stamp) {
        tracing::warn!(log = %self.log, why = why.name(), ?followed, ?found,
            "the server tells another history");
    }

    pub(crate) fn epoch_raised(&self, epoch: Epoch) {
        self.raised.increment(1);
        tracing::warn!(log = %self.log, %epoch, "ended the history that diverged");
    }

    pub(crate) fn begun(&self, at: Stamp, why: Begin) {
        if why == Begin::Reset {
            self.resets.increment(1);
        }
        tracing::info!(log = %self.log, epoch = %at.epoch, seq = at.seq, ?why, "a history begins");
    }
}
