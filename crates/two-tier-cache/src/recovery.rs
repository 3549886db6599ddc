//! Writes that did not reach the server: which keys are to be invalidated when it is back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// What waits to be invalidated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Key(Bytes),
    Tag(Bytes),
    Everything,
}

impl Target {
    /// The bytes of the key, if it is one.
    pub(crate) const fn wire(&self) -> Option<&Bytes> {
        match self {
            Self::Key(wire) => Some(wire),
            Self::Tag(_) | Self::Everything => None,
        }
    }
}

/// A bounded set of keys and tags, never values: what is repeated later is an invalidation, because the
/// value may be old by then. When it overflows, everything is to be cleared.
pub(crate) struct Recovery {
    max: usize,
    /// Whether anything waits: lets reads skip the lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each target with the number of its last write.
    targets: HashMap<Target, u64>,
    /// The number of the write that made it overflow.
    overflow: Option<u64>,
    written: u64,
    running: bool,
}

impl Recovery {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, any: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Queues a target. Returns whether somebody must start to repeat what is due.
    #[must_use]
    pub(crate) fn queue(&self, target: &Target) -> bool {
        let mut state = self.state.lock();
        state.written += 1;
        let written = state.written;
        let full = state.targets.len() >= self.max && !state.targets.contains_key(target);
        if state.overflow.is_some() {
            state.overflow = Some(written);
        } else if full || *target == Target::Everything {
            state.targets = HashMap::new();
            state.overflow = Some(written);
        } else {
            state.targets.insert(target.clone(), written);
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
        let targets = state.targets.iter().take(max).map(|(target, at)| (target.clone(), *at));
        (!state.targets.is_empty()).then(|| targets.collect())
    }

    /// Whoever repeats has stopped. What is left waits for the next write that fails.
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
        if state.targets.get(target) == Some(&written) {
            state.targets.remove(target);
        }
    }

    /// How many targets wait; the limit when everything does.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        if state.overflow.is_some() { self.max } else { state.targets.len() }
    }

    fn start(&self, state: &mut State) -> bool {
        self.any.store(true, Ordering::Release);
        !std::mem::replace(&mut state.running, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> Target {
        Target::Key(Bytes::from_static(name.as_bytes()))
    }

    #[test]
    fn a_key_is_blocked_until_its_last_write_was_repeated() {
        let recovery = Recovery::new(10);
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

    #[test]
    fn what_is_left_when_repeating_stopped_is_still_blocked_and_taken_up_again() {
        let recovery = Recovery::new(10);
        let _start = recovery.queue(&key("a"));
        recovery.stopped();
        assert!(recovery.blocks(&key("a")));
        assert!(recovery.queue(&key("b")), "the next write that fails starts again");
        assert_eq!(recovery.due(9).unwrap().len(), 2);
    }

    #[test]
    fn an_overflow_becomes_a_clear_and_takes_no_memory() {
        let recovery = Recovery::new(2);
        for name in ["a", "b", "c", "d"] {
            let _start = recovery.queue(&key(name));
        }
        assert!(recovery.blocks(&key("anything")));
        assert_eq!(recovery.due(9), Some(vec![(Target::Everything, 4)]));
        let _start = recovery.queue(&key("e"));
        recovery.done(&Target::Everything, 4);
        let due = recovery.due(9);
        assert_eq!(due, Some(vec![(Target::Everything, 5)]), "written while it was repeated");
        recovery.done(&Target::Everything, 5);
        assert_eq!(recovery.due(9), None);
    }
}
