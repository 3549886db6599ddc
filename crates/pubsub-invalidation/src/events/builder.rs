//! Options of an event bus.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fleetwide_core_traits::log::Append;
use fleetwide_core_traits::{Bus, Clock, Executor, Tag};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::outbound::{LogAppender, Outbound};
use super::telemetry::Telemetry;
use super::{Events, Inner};
use crate::builder::LogBuilder;
use crate::envelope::OVERHEAD_MAX;
use crate::log::Log;

/// Room for any reasonable notice; what is larger belongs into a store, and its name into the event.
const PAYLOAD_BYTES_MAX_DEFAULT: usize = 64 * 1024;
/// A subscriber that is this far behind is better told than waited for.
const QUEUE_MAX_DEFAULT: usize = 1024;
/// Half of the numbers that subscribers remember of one source, so that what was queued is still
/// recognised when it arrives.
const OUTBOUND_MAX: usize = (super::seen::NUMBERS / 2) as usize;

/// Options of an [`Events`]. Setters never fail.
#[must_use = "a builder does nothing until `start`"]
pub struct EventsBuilder<E, B> {
    executor: E,
    tag: Tag,
    log: LogBuilder<E, B>,
    entries_max: u32,
    payload_bytes_max: usize,
    queue_max: usize,
    outbound_max: usize,
}

impl<E: Executor + Clone, B: Bus> EventsBuilder<E, B> {
    pub(super) fn new(executor: E, bus: B, tag: Tag) -> Self {
        Self {
            log: Log::builder(executor.clone(), bus, tag.clone()),
            executor,
            tag,
            entries_max: Append::ENTRIES_MAX_DEFAULT,
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT,
            queue_max: QUEUE_MAX_DEFAULT,
            outbound_max: OUTBOUND_MAX,
        }
    }

    /// Sets how often the log is read over the command path. Default: 200 ms.
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        Self { log: self.log.heartbeat(heartbeat), ..self }
    }

    /// Sets the clock that dates the proofs that nothing is missing. Default: the system's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { log: self.log.clock(clock), ..self }
    }

    /// Sets how many events the server keeps for subscribers that were away. Default: 4096.
    ///
    /// All instances of a bus should keep the same number: whoever publishes trims to its own.
    pub fn entries_max(self, entries_max: u32) -> Self {
        Self { entries_max, ..self }
    }

    /// Sets how large a payload may be. Default: 64 KiB; at most what an entry of a log can hold,
    /// which is about 256 KiB.
    pub fn payload_bytes_max(self, payload_bytes_max: usize) -> Self {
        let possible = Append::BODY_BYTES_MAX - OVERHEAD_MAX;
        Self { payload_bytes_max: payload_bytes_max.min(possible), ..self }
    }

    /// Sets how many events wait for a slow subscriber before it loses some. Default: 1024; at
    /// least 1.
    pub fn queue_max(self, queue_max: usize) -> Self {
        Self { queue_max: queue_max.max(1), ..self }
    }

    /// Sets how many events wait for a server that is away before more are refused. Default and
    /// maximum: 1024.
    pub fn outbound_max(self, outbound_max: usize) -> Self {
        Self { outbound_max: outbound_max.min(OUTBOUND_MAX), ..self }
    }

    /// Starts the bus. Returns at once, also when the server is away.
    ///
    /// # Panics
    /// If called outside a Tokio runtime with a time driver.
    pub fn start(self) -> Events {
        let source = rand::random();
        let telemetry = Telemetry::new(&self.tag);
        let alive = Arc::new(Notify::new());
        let hub = Hub::new(source, telemetry.clone(), self.queue_max, alive.clone());
        let hub = Arc::new(hub);
        let outbound = Arc::new(Outbound::new(self.outbound_max, alive, telemetry.clone()));
        let appender = Arc::new(LogAppender {
            executor: self.executor,
            tag: self.tag,
            entries_max: self.entries_max,
        });
        let stop = CancellationToken::new();
        tokio::spawn(outbound.clone().run(appender.clone(), stop.clone()));
        let inner = Inner {
            log: self.log.follower(hub.clone()).start(),
            hub,
            appender,
            outbound,
            telemetry,
            source,
            last_number: AtomicU64::new(0),
            payload_bytes_max: self.payload_bytes_max,
            _stop: stop.drop_guard(),
        };
        Events { inner: Arc::new(inner) }
    }
}
