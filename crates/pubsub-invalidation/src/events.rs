//! Events: published by one instance, delivered to the subscribers of all.

mod builder;
mod hub;
mod outbound;
mod queue;
mod seen;
mod telemetry;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fleetwide_core_traits::log::Stamp;
use fleetwide_core_traits::{BackendError, Bus, Executor, Tag};
use tokio_util::sync::DropGuard;

pub use builder::EventsBuilder;
pub use hub::Subscription;

use crate::envelope::Envelope;
use crate::error::PublishError;
use crate::log::Log;
use crate::topic::{Pattern, Topic};
use hub::Hub;
use outbound::{Appender, Outbound, Outgoing};
use telemetry::Telemetry;

/// An event bus of the fleet. Cheap to clone; it ends with the last clone.
///
/// For each subscriber, every event that [`publish`](Self::publish) accepted is delivered, or lies
/// inside an [`Event::Gap`], [`Event::Reset`] or [`Event::Lagged`]. Events of one publisher that
/// waits for each call come in their order.
///
/// While the server is away, events reach the subscribers of this process at once, wait in a
/// bounded queue of this process, and are published in their order when the server is back. What
/// still waits when the process ends was never published: see [`flushed`](Self::flushed).
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    hub: Arc<Hub>,
    appender: Arc<dyn Appender>,
    outbound: Arc<Outbound>,
    telemetry: Telemetry,
    source: [u8; 8],
    last_number: AtomicU64,
    payload_bytes_max: usize,
    _stop: DropGuard,
}

/// Something that a [`Subscription`] says.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An event of a topic that the pattern selects.
    Message(Message),
    /// The entries from number `first` to number `last`, of any topic, could not be read any more.
    Gap {
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// The server has lost events, or told another history: any number of events may be missing.
    /// Numbers start again.
    Reset,
    /// This subscriber was too slow, and so many messages for it were dropped here.
    Lagged(u64),
}

/// An event that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub topic: Topic,
    /// What it says.
    pub payload: Bytes,
    /// Its name.
    pub id: EventId,
    /// Its place in the log. `None` if it was delivered inside the process that published it,
    /// because the server was away.
    pub stamp: Option<Stamp>,
}

/// The name of an event, the same however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The bus instance that published it, drawn at random when it starts.
    pub source: [u8; 8],
    /// That instance's own number for it.
    pub number: u64,
}

/// That an event was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its name.
    pub id: EventId,
    /// Its place in the log. `None` if it waits for the server.
    pub stamp: Option<Stamp>,
}

impl Events {
    /// Options of the bus under `tag`, whose scripts `executor` runs and whose messages `bus`
    /// brings.
    pub fn builder<E, B>(executor: E, bus: B, tag: Tag) -> EventsBuilder<E, B>
    where
        E: Executor + Clone,
        B: Bus,
    {
        EventsBuilder::new(executor, bus, tag)
    }

    /// Publishes `payload` under `topic`.
    ///
    /// The receipt has a stamp when the server has the event. Without one the server is away: the
    /// event was delivered in this process, and waits to be published. Once one event waits, all
    /// later ones wait behind it, so they keep their order. Subscribers of this process get the
    /// event once, like those of all others.
    ///
    /// # Errors
    /// [`PublishError`]. The event was not accepted and will not be sent again; that it never
    /// arrived is certain unless [`may_have_happened`](PublishError::may_have_happened).
    ///
    /// # Cancel safety
    /// A dropped call may or may not have published the event.
    pub async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let event = self.inner.event(topic, payload.into());
        let event = event.inspect_err(|_| self.inner.telemetry.refused())?;
        self.inner.publish(event).await
    }

    /// Subscribes to the topics that `pattern` selects, from now on.
    ///
    /// 'Now' is the place that the log is followed to; before [`begun`](Log::begun) it is the
    /// place where following begins.
    pub fn subscribe(&self, pattern: Pattern) -> Subscription {
        self.inner.hub.subscribe(pattern)
    }

    /// How many events wait for the server.
    pub fn waiting(&self) -> usize {
        *self.inner.outbound.count().borrow()
    }

    /// Waits until no event waits for the server. Call it, with a timeout, before the process ends.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flushed(&self) {
        let mut count = self.inner.outbound.count();
        // The sender lives in `self`, so the wait can only end well.
        let _ = count.wait_for(|waiting| *waiting == 0).await;
    }

    /// The log below: where it is, and how following it goes.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// The source of the events that are published here.
    pub fn source(&self) -> [u8; 8] {
        self.inner.source
    }
}

impl Inner {
    fn event(&self, topic: &str, payload: Bytes) -> Result<(Outgoing, Envelope), PublishError> {
        let topic = Topic::new(topic)?;
        if payload.len() > self.payload_bytes_max {
            let (len, max) = (payload.len(), self.payload_bytes_max);
            return Err(PublishError::TooLarge { len, max });
        }
        let envelope = Envelope { topic, payload };
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let id = EventId { source: self.source, number };
        Ok((Outgoing { id, body: envelope.to_body() }, envelope))
    }

    async fn publish(&self, event: (Outgoing, Envelope)) -> Result<Receipt, PublishError> {
        if !self.outbound.is_empty() {
            return self.queue(event, None);
        }
        // Without a baseline, nobody can say whether the entry will come back by the log.
        let followed = self.hub.is_followed();
        match self.appender.append(&event.0).await {
            Ok(meta) => {
                self.telemetry.published();
                let (Outgoing { id, .. }, envelope) = event;
                if !followed {
                    self.hub.deliver(id, envelope, Some(meta.at));
                }
                Ok(Receipt { id, stamp: Some(meta.at) })
            }
            Err(error) if error.is_retryable() => self.queue(event, Some(error)),
            Err(error) => {
                self.telemetry.refused();
                Err(PublishError::Backend(error))
            }
        }
    }

    /// The server is away: delivers here, and keeps the event for later. If it has arrived after
    /// all, the second one is recognised by its id.
    fn queue(
        &self,
        (outgoing, envelope): (Outgoing, Envelope),
        error: Option<BackendError>,
    ) -> Result<Receipt, PublishError> {
        let (id, first) = (outgoing.id, self.outbound.is_empty());
        if !self.outbound.add(outgoing) {
            self.telemetry.refused();
            return Err(match error {
                Some(error) if error.may_have_happened() => PublishError::Backend(error),
                _ => PublishError::Full { max: self.outbound.max() },
            });
        }
        self.telemetry.queued(first, error.as_ref());
        self.hub.deliver(id, envelope, None);
        Ok(Receipt { id, stamp: None })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let waiting = *self.outbound.count().borrow();
        if waiting > 0 {
            self.telemetry.abandoned(waiting);
        }
        self.hub.close();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("log", self.log())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
