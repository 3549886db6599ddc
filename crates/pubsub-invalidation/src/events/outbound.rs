//! Events that wait for the server, and the task that sends them when it is back.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, Meta};
use fleetwide_core_traits::{BackendError, Executor, ExecutorExt, Tag};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::EventId;
use super::telemetry::Telemetry;
use crate::backoff::Backoff;
use crate::ops::Publish;

/// The first wait after a failed try. The heartbeat finds the server's return, too, and wakes the
/// task; this only keeps a server that refuses from being asked all the time.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// One event on its way to the log, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) id: EventId,
    pub(super) body: Bytes,
}

/// Appends events to the log. A trait object, so that [`Events`](super::Events) does not carry the
/// type of its backend into everything that holds it.
pub(super) trait Appender: Send + Sync {
    fn append(
        &self,
        event: &Outgoing,
    ) -> Pin<Box<dyn Future<Output = Result<Meta, BackendError>> + Send + '_>>;
}

/// An executor and the log that it appends to.
pub(super) struct LogAppender<E> {
    pub(super) executor: E,
    pub(super) tag: Tag,
    pub(super) entries_max: u32,
}

impl<E: Executor> Appender for LogAppender<E> {
    fn append(
        &self,
        event: &Outgoing,
    ) -> Pin<Box<dyn Future<Output = Result<Meta, BackendError>> + Send + '_>> {
        let Outgoing { id, body } = event.clone();
        Box::pin(async move {
            // Every try is another entry with a name of its own; the event's id stays.
            let (fresh, entry) = (Epoch(rand::random()), rand::random());
            let append = Append::new(&self.tag, fresh, entry, id.source, id.number, body)
                .expect("the size of a payload was checked against what an entry can hold");
            let append = append.entries_max(self.entries_max);
            self.executor.run(&Publish::new(&self.tag, append)).await
        })
    }
}

/// A bounded queue of events that could not be sent, oldest first.
pub(super) struct Outbound {
    waiting: Mutex<VecDeque<Outgoing>>,
    max: usize,
    count: watch::Sender<usize>,
    /// Something waits, or the server has answered.
    alive: Arc<Notify>,
    telemetry: Telemetry,
}

impl Outbound {
    pub(super) fn new(max: usize, alive: Arc<Notify>, telemetry: Telemetry) -> Self {
        let (waiting, count) = (Mutex::default(), watch::Sender::new(0));
        Self { waiting, max, count, alive, telemetry }
    }

    /// How many events wait, to wait for changes.
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Adds `event` behind all others, unless there is no room.
    pub(super) fn add(&self, event: Outgoing) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.max {
            return false;
        }
        waiting.push_back(event);
        self.counted(waiting.len());
        drop(waiting);
        self.alive.notify_one();
        true
    }

    /// Sends what waits, in order, until told to stop. Nothing is given up: what was taken in is
    /// tried until the server has it.
    pub(super) async fn run(self: Arc<Self>, appender: Arc<dyn Appender>, stop: CancellationToken) {
        stop.run_until_cancelled_owned(async move {
            let mut backoff = Backoff::new(FIRST_WAIT);
            loop {
                let first = self.waiting.lock().front().cloned();
                let Some(event) = first else {
                    self.alive.notified().await;
                    continue;
                };
                match appender.append(&event).await {
                    Ok(_) => {
                        backoff.reset();
                        self.sent();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "an event still waits");
                        tokio::select! {
                            () = sleep(backoff.next()) => {}
                            () = self.alive.notified() => {}
                        }
                    }
                }
            }
        })
        .await;
    }

    fn sent(&self) {
        // Only the task above removes, so the first is still the one that was sent.
        let mut waiting = self.waiting.lock();
        waiting.pop_front();
        self.telemetry.published();
        self.counted(waiting.len());
    }

    fn counted(&self, waiting: usize) {
        self.telemetry.waiting(waiting);
        self.count.send_replace(waiting);
    }
}
