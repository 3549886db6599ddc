//! Hands the events of a log to the subscribers of this process.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fleetwide_core_traits::MonoTime;
use fleetwide_core_traits::log::{Begin, Entry, Follower, Stamp};
use futures_core::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::queue::Queue;
use super::seen::Seen;
use super::telemetry::Telemetry;
use super::{Event, EventId, Message};
use crate::envelope::Envelope;
use crate::topic::Pattern;

/// The follower of an event log.
///
/// Its lock is held for a lookup only. Events go into the subscribers' queues, and what subscribers
/// do with them happens on their own tasks.
pub(super) struct Hub {
    state: Mutex<State>,
    telemetry: Telemetry,
    queue_max: usize,
    /// Told whenever the server has answered, so that what waits can be sent.
    alive: Arc<Notify>,
}

struct State {
    seen: Seen,
    followed: bool,
    /// Shared with whoever delivers at the moment, and replaced when it changes.
    subscribers: Arc<Vec<Arc<Subscriber>>>,
}

struct Subscriber {
    pattern: Pattern,
    queue: Queue,
}

impl Hub {
    pub(super) fn new(
        source: [u8; 8],
        telemetry: Telemetry,
        queue_max: usize,
        alive: Arc<Notify>,
    ) -> Self {
        let (seen, subscribers) = (Seen::new(source), Arc::default());
        let state = State { seen, followed: false, subscribers };
        Self { state: Mutex::new(state), telemetry, queue_max, alive }
    }

    pub(super) fn subscribe(self: &Arc<Self>, pattern: Pattern) -> Subscription {
        let subscriber = Arc::new(Subscriber { pattern, queue: Queue::new(self.queue_max) });
        let mut state = self.state.lock();
        Arc::make_mut(&mut state.subscribers).push(subscriber.clone());
        self.telemetry.subscribers(state.subscribers.len());
        Subscription { hub: self.clone(), subscriber }
    }

    /// Whether the log is followed, so that what is appended from now on comes back by it.
    pub(super) fn is_followed(&self) -> bool {
        self.state.lock().followed
    }

    /// Delivers an event to the subscribers of its topic, unless it came before.
    pub(super) fn deliver(&self, id: EventId, envelope: Envelope, stamp: Option<Stamp>) {
        let subscribers = {
            let mut state = self.state.lock();
            if !state.seen.is_first(id.source, id.number) {
                self.telemetry.duplicate();
                return;
            }
            state.subscribers.clone()
        };
        let Envelope { topic, payload } = envelope;
        let message = Message { topic, payload, id, stamp };
        for subscriber in subscribers.iter() {
            if subscriber.pattern.selects(&message.topic) {
                self.push(subscriber, Event::Message(message.clone()));
            }
        }
    }

    /// The last handle is gone: subscribers get what is left, and then the end.
    pub(super) fn close(&self) {
        let subscribers = self.state.lock().subscribers.clone();
        subscribers.iter().for_each(|subscriber| subscriber.queue.close());
    }

    fn tell_all(&self, event: &Event) {
        let subscribers = self.state.lock().subscribers.clone();
        subscribers.iter().for_each(|subscriber| self.push(subscriber, event.clone()));
    }

    fn push(&self, subscriber: &Subscriber, event: Event) {
        if subscriber.queue.push(event) {
            self.telemetry.delivered();
        } else {
            self.telemetry.lagged();
        }
    }

    fn unsubscribe(&self, leaving: &Arc<Subscriber>) {
        let mut state = self.state.lock();
        Arc::make_mut(&mut state.subscribers).retain(|other| !Arc::ptr_eq(other, leaving));
        self.telemetry.subscribers(state.subscribers.len());
    }
}

impl Follower for Hub {
    fn begin(&self, at: Stamp, why: Begin) {
        self.state.lock().followed = true;
        match why {
            // A subscriber expects nothing from before it subscribed.
            Begin::First => {}
            Begin::Gap { after } => self.tell_all(&Event::Gap { first: after + 1, last: at.seq }),
            // A reason that this version does not know is at least as bad as a reset.
            _ => self.tell_all(&Event::Reset),
        }
    }

    fn apply(&self, entry: &Entry) {
        let id = EventId { source: entry.source, number: entry.number };
        match Envelope::read(&entry.body) {
            Ok(envelope) => self.deliver(id, envelope, Some(entry.stamp)),
            Err(why) => {
                // Nobody can know whose topic it was, so everybody has missed something.
                self.telemetry.unreadable(entry.stamp, why);
                self.tell_all(&Event::Gap { first: entry.stamp.seq, last: entry.stamp.seq });
            }
        }
    }

    fn verified(&self, _at: Stamp, _as_of: MonoTime) {
        self.alive.notify_one();
    }

    fn tick(&self) {}
}

/// The events of the topics that a pattern selects, in the order of the log.
///
/// A [`Stream`] that ends when the last [`Events`](super::Events) is gone. Dropping it
/// unsubscribes.
pub struct Subscription {
    hub: Arc<Hub>,
    subscriber: Arc<Subscriber>,
}

impl Subscription {
    /// Waits for the next event; `None` when the last [`Events`](super::Events) is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.subscriber.queue.poll(cx)).await
    }

    /// What it selects.
    pub fn pattern(&self) -> &Pattern {
        &self.subscriber.pattern
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.subscriber.queue.poll(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.unsubscribe(&self.subscriber);
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("pattern", self.pattern()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::Namespace;

    use super::*;

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let tag = Namespace::new("test").unwrap().tag("events", b"hub").unwrap();
        let hub = Arc::new(Hub::new([1; 8], Telemetry::new(&tag), 4, Arc::default()));
        let kept = hub.subscribe(Pattern::all());
        drop(hub.subscribe(Pattern::all()));
        let subscribers = hub.state.lock().subscribers.clone();
        assert_eq!(subscribers.len(), 1);
        assert!(Arc::ptr_eq(&subscribers[0], &kept.subscriber));
    }
}
