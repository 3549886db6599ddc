//! What an event bus says about itself.

use std::sync::Arc;

use fleetwide_core_traits::log::Stamp;
use fleetwide_core_traits::{BackendError, Tag};
use metrics::{Counter, Gauge, counter, gauge};

use crate::envelope::EnvelopeError;

/// The handles of one bus's metrics, all with the label `log`; the crate page lists them.
#[derive(Clone)]
pub(super) struct Telemetry {
    log: Arc<str>,
    published: Counter,
    queued: Counter,
    refused: Counter,
    delivered: Counter,
    lagged: Counter,
    duplicates: Counter,
    unreadable: Counter,
    waiting: Gauge,
    subscribers: Gauge,
}

impl Telemetry {
    pub(super) fn new(tag: &Tag) -> Self {
        let log: Arc<str> = String::from_utf8_lossy(tag.as_bytes()).into();
        let label = || log.to_string();
        Self {
            published: counter!("fleetwide_events_published_total", "log" => label()),
            queued: counter!("fleetwide_events_queued_total", "log" => label()),
            refused: counter!("fleetwide_events_refused_total", "log" => label()),
            delivered: counter!("fleetwide_events_delivered_total", "log" => label()),
            lagged: counter!("fleetwide_events_lagged_total", "log" => label()),
            duplicates: counter!("fleetwide_events_duplicates_total", "log" => label()),
            unreadable: counter!("fleetwide_events_unreadable_total", "log" => label()),
            waiting: gauge!("fleetwide_events_waiting", "log" => label()),
            subscribers: gauge!("fleetwide_events_subscribers", "log" => label()),
            log,
        }
    }

    pub(super) fn published(&self) {
        self.published.increment(1);
    }

    pub(super) fn refused(&self) {
        self.refused.increment(1);
    }

    pub(super) fn delivered(&self) {
        self.delivered.increment(1);
    }

    pub(super) fn lagged(&self) {
        self.lagged.increment(1);
    }

    pub(super) fn duplicate(&self) {
        self.duplicates.increment(1);
    }

    pub(super) fn waiting(&self, events: usize) {
        self.waiting.set(events as f64);
    }

    pub(super) fn subscribers(&self, subscribers: usize) {
        self.subscribers.set(subscribers as f64);
    }

    pub(super) fn unreadable(&self, at: Stamp, why: EnvelopeError) {
        self.unreadable.increment(1);
        tracing::warn!(log = %self.log, ?at, ?why, "an entry is no event of a known version");
    }

    /// The first event that has to wait is worth a line; those behind it are not.
    pub(super) fn queued(&self, first: bool, error: Option<&BackendError>) {
        self.queued.increment(1);
        if first {
            let error = error.map(ToString::to_string);
            tracing::warn!(log = %self.log, error, "events wait for the server");
        }
    }

    pub(super) fn abandoned(&self, events: usize) {
        tracing::error!(log = %self.log, events, "events were never published");
    }
}
