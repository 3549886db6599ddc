//! Writes that did not reach the server: which keys are to be invalidated when it is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::ledger::{Ledger, Place, Use};

/// What waits to be invalidated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Key(Bytes),
    Tag(Bytes),
    Everything,
}

impl Target {
    /// Bytes of the key or tag.
    fn len(&self) -> usize {
        match self {
            Self::Key(name) | Self::Tag(name) => name.len(),
            Self::Everything => 0,
        }
    }

    /// The bytes of the key, if it is one.
    pub(crate) const fn wire(&self) -> Option<&Bytes> {
        match self {
            Self::Key(wire) => Some(wire),
            Self::Tag(_) | Self::Everything => None,
        }
    }
}

/// A bounded set of keys and tags, never values: what is repeated later is an invalidation, because the
/// value may be old by then. When there is no room for one more, everything is to be cleared.
pub(crate) struct Recovery {
    ledger: Arc<Ledger>,
    /// Whether anything waits: lets reads skip the lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each target with the number of its last write, and what it takes.
    targets: HashMap<Target, (u64, Place)>,
    /// The number of the write that made it overflow.
    overflow: Option<u64>,
    written: u64,
    running: bool,
}

impl Recovery {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        let (any, state) = (AtomicBool::new(false), Mutex::default());
        Self { ledger: Arc::clone(ledger), any, state }
    }

    /// Queues a target. Returns whether somebody must start to repeat what is due.
    #[must_use]
    pub(crate) fn queue(&self, target: &Target) -> bool {
        let mut state = self.state.lock();
        state.written += 1;
        let written = state.written;
        if !state.takes(target, written, &self.ledger) {
            // Gives all places back.
            state.targets = HashMap::new();
            state.overflow = Some(written);
        }
        self.start(&mut state)
    }

    /// Whether what L2 has for `target` must not be used.
    pub(crate) fn blocks(&self, target: &Target) -> bool {
        self.any.load(Ordering::Acquire) && {
            let state = self.state.lock();
            state.overflow.is_some() || state.targets.contains_key(target)
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// What is due, at most `max` targets of it, each with the number of the write that asked for
    /// it; `None` when all is done.
    pub(crate) fn due(&self, max: usize) -> Option<Vec<(Target, u64)>> {
        let state = self.state.lock();
        if let Some(written) = state.overflow {
            return Some(vec![(Target::Everything, written)]);
        }
        let targets = state.targets.iter().take(max).map(|(target, (at, _))| (target.clone(), *at));
        (!state.targets.is_empty()).then(|| targets.collect())
    }

    /// Whoever repeats may end, because nothing is left: then it has stopped. In one step with the
    /// look, so that a write which is queued meanwhile either is seen here or starts somebody.
    #[must_use]
    pub(crate) fn rest(&self) -> bool {
        let mut state = self.state.lock();
        if state.overflow.is_some() || !state.targets.is_empty() {
            return false;
        }
        state.running = false;
        self.any.store(false, Ordering::Release);
        true
    }

    /// Whoever repeats was stopped. What is left waits for the next write that fails.
    pub(crate) fn stopped(&self) {
        let mut state = self.state.lock();
        state.running = false;
        let any = state.overflow.is_some() || !state.targets.is_empty();
        self.any.store(any, Ordering::Release);
    }

    /// The write of `target` with this number was repeated.
    pub(crate) fn done(&self, target: &Target, written: u64) {
        let mut state = self.state.lock();
        // A later write of the same is still to be repeated.
        if *target == Target::Everything && state.overflow == Some(written) {
            state.overflow = None;
        }
        if state.targets.get(target).is_some_and(|(last, _)| *last == written) {
            state.targets.remove(target);
        }
        if state.targets.is_empty() {
            // The table of an outage that is over.
            state.targets = HashMap::new();
        }
    }

    /// How many targets wait; one when everything does.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        if state.overflow.is_some() { 1 } else { state.targets.len() }
    }

    fn start(&self, state: &mut State) -> bool {
        self.any.store(true, Ordering::Release);
        !std::mem::replace(&mut state.running, true)
    }
}

impl State {
    /// Whether the target is queued by itself: not if everything is to be cleared, or will be because
    /// there is no room for it.
    fn takes(&mut self, target: &Target, written: u64, ledger: &Arc<Ledger>) -> bool {
        if self.overflow.is_some() || *target == Target::Everything {
            return false;
        }
        if let Some((last, _)) = self.targets.get_mut(target) {
            *last = written;
            return true;
        }
        let Some(place) = ledger.place(Use::Write, target.len()) else { return false };
        self.targets.insert(target.clone(), (written, place));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A queue with room for so many targets of one byte.
    fn queue(targets: u64) -> Recovery {
        Recovery::new(&Ledger::new(targets * Use::Write.bytes(1)))
    }

    fn key(name: &'static str) -> Target {
        Target::Key(Bytes::from_static(name.as_bytes()))
    }

    #[test]
    fn a_key_is_blocked_until_its_last_write_was_repeated() {
        let recovery = queue(10);
        assert!(recovery.queue(&key("a")));
        assert!(!recovery.queue(&key("a")), "one repeats already");
        recovery.done(&key("a"), 1);
        assert!(recovery.blocks(&key("a")) && !recovery.blocks(&key("b")));
        assert_eq!(recovery.due(9), Some(vec![(key("a"), 2)]));
        recovery.done(&key("a"), 2);
        assert!(!recovery.blocks(&key("a")));
        assert_eq!(recovery.due(9), None);
        recovery.stopped();
        assert!(recovery.is_idle());
        assert!(recovery.queue(&key("b")), "whoever repeated has stopped");
    }

    /// Red when the look and the stop are two steps: nobody repeats what comes in between.
    #[test]
    fn what_is_queued_while_the_last_look_finds_nothing_is_repeated_all_the_same() {
        let recovery = queue(10);
        assert!(recovery.queue(&key("a")));
        recovery.done(&key("a"), 1);
        assert_eq!(recovery.due(9), None);
        assert!(!recovery.queue(&key("b")), "one repeats still");
        assert!(!recovery.rest(), "and goes on");
        recovery.done(&key("b"), 2);
        assert!(recovery.rest() && recovery.is_idle());
        assert!(recovery.queue(&key("c")), "whoever repeated has stopped");
    }

    #[test]
    fn what_is_left_when_repeating_stopped_is_still_blocked_and_taken_up_again() {
        let recovery = queue(10);
        let _start = recovery.queue(&key("a"));
        recovery.stopped();
        assert!(recovery.blocks(&key("a")));
        assert!(recovery.queue(&key("b")), "the next write that fails starts again");
        assert_eq!(recovery.due(9).unwrap().len(), 2);
    }

    #[test]
    fn an_overflow_becomes_a_clear_and_takes_no_memory() {
        let recovery = queue(2);
        for name in ["a", "b", "c", "d"] {
            let _start = recovery.queue(&key(name));
        }
        assert_eq!(recovery.ledger.queue_bytes(), 0);
        assert!(recovery.blocks(&key("anything")));
        assert_eq!(recovery.due(9), Some(vec![(Target::Everything, 4)]));
        let _start = recovery.queue(&key("e"));
        recovery.done(&Target::Everything, 4);
        let due = recovery.due(9);
        assert_eq!(due, Some(vec![(Target::Everything, 5)]), "written while it was repeated");
        recovery.done(&Target::Everything, 5);
        assert_eq!(recovery.due(9), None);
    }

    /// Bytes and not their number: one long key takes the room of many.
    #[test]
    fn a_long_key_takes_the_room_of_many() {
        let recovery = queue(20);
        let long = Target::Key(Bytes::from(vec![b'k'; 19 * Use::Write.bytes(1) as usize]));
        let _start = recovery.queue(&long);
        assert_eq!(recovery.len(), 1);
        let _start = recovery.queue(&key("a"));
        assert_eq!(
            (recovery.len(), recovery.due(9).unwrap()[0].0.clone()),
            (1, Target::Everything)
        );
    }

    /// Flights that fill all they may leave room for writes. Red when all is theirs.
    #[test]
    fn a_crowd_of_flights_does_not_turn_a_write_into_a_clear() {
        let ledger = Ledger::new(40 * Use::Lookup.bytes(1));
        let flights: Vec<_> = std::iter::from_fn(|| ledger.place(Use::Lookup, 1)).collect();
        assert!(!flights.is_empty());
        let recovery = Recovery::new(&ledger);
        let _start = recovery.queue(&key("a"));
        assert_eq!(recovery.due(9), Some(vec![(key("a"), 1)]));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Queue(u8),
        QueueAll,
        DoneOldest,
        DoneAll,
        Stopped,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..12_u8).prop_map(Step::Queue),
            1 => Just(Step::QueueAll),
            3 => Just(Step::DoneOldest),
            2 => Just(Step::DoneAll),
            1 => Just(Step::Stopped),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// An overflow gives all places back, and a second write of a key draws none.
        #[test]
        fn the_ledger_has_what_is_queued_and_nothing_else(steps in steps()) {
            let recovery = queue(10);
            let done = |max| {
                for (target, written) in recovery.due(max).unwrap_or_default() {
                    recovery.done(&target, written);
                }
            };
            for step in steps {
                match step {
                    Step::Queue(name) => drop(recovery.queue(&Target::Key(vec![name].into()))),
                    Step::QueueAll => drop(recovery.queue(&Target::Everything)),
                    Step::DoneOldest => done(1),
                    Step::DoneAll => done(usize::MAX),
                    Step::Stopped => recovery.stopped(),
                }
                let targets = recovery.state.lock().targets.len() as u64;
                prop_assert_eq!(recovery.ledger.queue_bytes(), targets * Use::Write.bytes(1));
                prop_assert_eq!(recovery.ledger.flight_bytes(), 0);
            }
            done(usize::MAX);
            prop_assert_eq!((recovery.len(), recovery.ledger.queue_bytes()), (0, 0));
        }
    }
}
