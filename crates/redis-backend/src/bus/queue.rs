//! What one subscriber has yet to hear: bounded, and honest about what did not fit.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use fleetwide_core_traits::Signal;
use parking_lot::Mutex;

pub(crate) struct Queue {
    messages_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    signals: VecDeque<Signal>,
    /// How many of `signals` are messages. Only these are bounded: the others are never dropped.
    messages: usize,
    /// Messages dropped since the last one that fitted.
    missed: u64,
    waker: Option<Waker>,
    /// The bus is gone: nothing more will come.
    closed: bool,
    /// The subscriber is gone: nobody will listen.
    left: bool,
}

impl Queue {
    pub(super) fn new(messages_max: usize) -> Self {
        Self { messages_max, waiting: Mutex::default() }
    }

    pub(super) fn push(&self, signal: Signal) {
        let waker = {
            let mut waiting = self.waiting.lock();
            if waiting.left {
                return;
            }
            waiting.push(signal, self.messages_max);
            waiting.waker.take()
        };
        wake(waker);
    }

    pub(super) fn message(&self, payload: &Bytes) {
        self.push(Signal::Message(payload.clone()));
    }

    pub(super) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Option<Signal>> {
        let mut waiting = self.waiting.lock();
        if let Some(signal) = waiting.pop() {
            return Poll::Ready(Some(signal));
        }
        if waiting.closed {
            return Poll::Ready(None);
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The bus ends.
    pub(super) fn close(&self) {
        let waker = {
            let mut waiting = self.waiting.lock();
            waiting.closed = true;
            waiting.waker.take()
        };
        wake(waker);
    }

    /// The subscriber ends.
    pub(super) fn leave(&self) {
        let mut waiting = self.waiting.lock();
        waiting.left = true;
        waiting.signals = VecDeque::new();
    }

    pub(super) fn has_left(&self) -> bool {
        self.waiting.lock().left
    }
}

impl Waiting {
    fn push(&mut self, signal: Signal, messages_max: usize) {
        if matches!(signal, Signal::Message(_)) {
            if self.messages >= messages_max {
                self.missed += 1;
                return;
            }
            self.messages += 1;
        } else if self.repeats(&signal) {
            return;
        }
        // What was missed was missed here, before whatever comes now.
        self.flush_missed();
        self.signals.push_back(signal);
    }

    /// A connection that comes and goes must not fill the queue of a subscriber that does not
    /// look: `Lost Ready Lost` says no more than `Lost`.
    fn repeats(&mut self, signal: &Signal) -> bool {
        if self.missed > 0 || *signal != Signal::Lost {
            return false;
        }
        let mut last = self.signals.iter().rev();
        if last.next() == Some(&Signal::Ready) && last.next() == Some(&Signal::Lost) {
            self.signals.pop_back();
            return true;
        }
        false
    }

    fn pop(&mut self) -> Option<Signal> {
        if self.signals.is_empty() {
            self.flush_missed();
        }
        let signal = self.signals.pop_front()?;
        if matches!(signal, Signal::Message(_)) {
            self.messages -= 1;
        }
        Some(signal)
    }

    fn flush_missed(&mut self) {
        if self.missed > 0 {
            self.signals.push_back(Signal::Lagged(std::mem::take(&mut self.missed)));
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a history on a queue for two messages: `r`eady, `l`ost, a digit for a message, and
    /// `.` for a pop. Says what was popped, then what is left.
    fn play(history: &str) -> String {
        let queue = Queue::new(2);
        let mut heard = String::new();
        let mut pop = |queue: &Queue| match queue.waiting.lock().pop() {
            None => false,
            Some(signal) => {
                match signal {
                    Signal::Ready => heard.push('r'),
                    Signal::Lost => heard.push('l'),
                    Signal::Lagged(count) => heard.extend(format!("({count})").chars()),
                    Signal::Message(payload) => heard.push(char::from(payload[0])),
                    other => panic!("{other:?}"),
                }
                true
            }
        };
        for step in history.chars() {
            match step {
                'r' => queue.push(Signal::Ready),
                'l' => queue.push(Signal::Lost),
                '.' => drop(pop(&queue)),
                digit => queue.message(&Bytes::from(digit.to_string())),
            }
        }
        while pop(&queue) {}
        heard
    }

    #[test]
    fn missed_messages_are_counted_in_their_place() {
        assert_eq!(play("r12"), "r12");
        assert_eq!(play("r1234"), "r12(2)");
        assert_eq!(play("r1234..5"), "r12(2)5");
        assert_eq!(play("r123l"), "r12(1)l");
        assert_eq!(play("r123lr"), "r12(1)lr");
    }

    #[test]
    fn connection_that_comes_and_goes_takes_no_room() {
        assert_eq!(play("rlrlrlr"), "rlr");
        assert_eq!(play("r1lrlr2"), "r1lr2");
        assert_eq!(play("r1l2rl"), "r1l2rl");
    }
}
