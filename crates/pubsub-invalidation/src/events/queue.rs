//! What waits for one subscriber.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::Event;

/// A bounded queue that says, at the place where it happened, that something was dropped.
pub(super) struct Queue {
    inner: Mutex<Inner>,
}

struct Inner {
    events: VecDeque<Event>,
    capacity: usize,
    /// What happened since the queue was full. While there is any, everything goes in here, so
    /// that the order stays true.
    missed: Missed,
    waker: Option<Waker>,
    closed: bool,
}

/// What could not be queued, in a form that does not grow.
#[derive(Default)]
struct Missed {
    lagged: u64,
    reset: bool,
    gap: Option<(u64, u64)>,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        let (events, missed) = (VecDeque::new(), Missed::default());
        let inner = Inner { events, capacity, missed, waker: None, closed: false };
        Self { inner: Mutex::new(inner) }
    }

    /// Queues `event`, or counts it as missed. Returns whether it was queued.
    pub(super) fn push(&self, event: Event) -> bool {
        let (queued, waker) = {
            let mut inner = self.inner.lock();
            (inner.push(event), inner.waker.take())
        };
        // A waker is code of somebody else: it runs outside the lock.
        if let Some(waker) = waker {
            waker.wake();
        }
        queued
    }

    /// No more events come: the subscriber gets what is left, and then the end.
    pub(super) fn close(&self) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut inner = self.inner.lock();
        match inner.pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if inner.closed => Poll::Ready(None),
            None => {
                inner.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Inner {
    fn push(&mut self, event: Event) -> bool {
        // Half a queue of room, so that a slow subscriber gets runs of events and not, for each
        // one that it takes, one event and one notice.
        if self.events.len() <= self.capacity / 2 {
            self.report_missed();
        }
        if self.missed.is_empty() && self.events.len() < self.capacity {
            self.events.push_back(event);
            return true;
        }
        self.missed.add(&event);
        false
    }

    fn pop(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.report_missed();
        }
        self.events.pop_front()
    }

    fn report_missed(&mut self) {
        let missed = std::mem::take(&mut self.missed);
        self.events.extend((missed.lagged > 0).then_some(Event::Lagged(missed.lagged)));
        self.events.extend(missed.reset.then_some(Event::Reset));
        self.events.extend(missed.gap.map(|(first, last)| Event::Gap { first, last }));
    }
}

impl Missed {
    fn is_empty(&self) -> bool {
        self.lagged == 0 && !self.reset && self.gap.is_none()
    }

    fn add(&mut self, event: &Event) {
        match event {
            Event::Message(_) => self.lagged += 1,
            Event::Lagged(count) => self.lagged += count,
            // The numbers of a gap before it mean nothing any more.
            Event::Reset => (self.reset, self.gap) = (true, None),
            // Between two gaps of one history nothing was delivered, so they are one.
            Event::Gap { first, last } => {
                self.gap = Some((self.gap.map_or(*first, |(earlier, _)| earlier), *last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{EventId, Message};
    use super::*;
    use crate::topic::Topic;

    fn message(number: u64) -> Event {
        let id = EventId { source: [1; 8], number };
        let topic = Topic::new("t").unwrap();
        Event::Message(Message { topic, payload: Bytes::new(), id, stamp: None })
    }

    fn take(queue: &Queue, count: usize) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        let events = (0..count).map_while(|_| match queue.poll(&mut cx) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        });
        let names = events.map(|event| match event {
            Event::Message(message) => message.id.number.to_string(),
            Event::Gap { first, last } => format!("gap({first}-{last})"),
            Event::Reset => "reset".to_owned(),
            Event::Lagged(count) => format!("lagged({count})"),
        });
        names.collect::<Vec<_>>().join(" ")
    }

    fn push(queue: &Queue, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            queue.push(message(number));
        }
    }

    #[test]
    fn what_was_dropped_is_said_where_it_was_dropped() {
        let queue = Queue::new(4);
        push(&queue, 1..=6);
        assert_eq!(take(&queue, 2), "1 2");
        push(&queue, 7..=8);
        assert_eq!(take(&queue, 9), "3 4 lagged(2) 7 lagged(1)");
        push(&queue, 9..=9);
        assert_eq!(take(&queue, 9), "9");
    }

    #[test]
    fn gaps_and_resets_are_never_dropped_and_never_pile_up() {
        let queue = Queue::new(1);
        push(&queue, 1..=2);
        for gap in 0..1000 {
            queue.push(Event::Gap { first: 10 * gap, last: 10 * gap + 1 });
            queue.push(message(3));
        }
        assert_eq!(take(&queue, 9), "1 lagged(1001) gap(0-9991)");
        push(&queue, 1..=1);
        queue.push(Event::Gap { first: 2, last: 3 });
        queue.push(Event::Reset);
        queue.push(Event::Gap { first: 1, last: 4 });
        assert_eq!(take(&queue, 9), "1 reset gap(1-4)");
    }

    #[test]
    fn a_closed_queue_ends_after_its_last_event() {
        let queue = Queue::new(4);
        push(&queue, 1..=1);
        queue.close();
        assert_eq!(take(&queue, 9), "1");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(queue.poll(&mut cx), Poll::Ready(None)));
    }
}
