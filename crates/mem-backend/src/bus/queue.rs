//! What one subscriber has not read yet.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use fleetwide_core_traits::Signal;
use parking_lot::Mutex;

/// A bounded queue of signals with one reader.
#[derive(Debug, Default)]
pub(super) struct Queue {
    unread: Mutex<Unread>,
}

#[derive(Debug, Default)]
struct Unread {
    signals: VecDeque<Signal>,
    /// How many of the signals are messages. Only they are bounded: there is at most one
    /// [`Signal::Lagged`] between two of them.
    messages: usize,
    waker: Option<Waker>,
    closed: bool,
}

impl Queue {
    /// Adds a message, or counts it as dropped if there are `max` already. Returns whom to wake.
    pub(super) fn message(&self, payload: Bytes, max: usize) -> Option<Waker> {
        let mut unread = self.unread.lock();
        if unread.messages < max {
            unread.messages += 1;
            unread.signals.push_back(Signal::Message(payload));
        } else if let Some(Signal::Lagged(dropped)) = unread.signals.back_mut() {
            *dropped += 1;
        } else {
            unread.signals.push_back(Signal::Lagged(1));
        }
        unread.waker.take()
    }

    /// Adds a signal that is no message. Returns whom to wake.
    pub(super) fn signal(&self, signal: Signal) -> Option<Waker> {
        let mut unread = self.unread.lock();
        unread.signals.push_back(signal);
        unread.waker.take()
    }

    /// Ends the queue after what it holds. Returns whom to wake.
    pub(super) fn close(&self) -> Option<Waker> {
        let mut unread = self.unread.lock();
        unread.closed = true;
        unread.waker.take()
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Signal>> {
        let mut unread = self.unread.lock();
        match unread.signals.pop_front() {
            Some(signal) => {
                if matches!(signal, Signal::Message(_)) {
                    unread.messages -= 1;
                }
                Poll::Ready(Some(signal))
            }
            None if unread.closed => Poll::Ready(None),
            None => {
                match &mut unread.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}
