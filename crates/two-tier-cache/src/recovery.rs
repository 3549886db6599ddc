//! Writes that did not reach the server: which keys are to be invalidated when it is back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// A bounded set of keys, never values: what is repeated later is an invalidation, because the
/// value may be old by then. When it overflows, everything is to be cleared.
pub(crate) struct Recovery {
    max: usize,
    /// Whether anything waits: lets reads skip the lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each key with the number of its last write.
    keys: HashMap<Bytes, u64>,
    /// The number of the write that made it overflow.
    overflow: Option<u64>,
    written: u64,
    running: bool,
}

/// What is to be repeated, with the number of the write that asked for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Keys(Vec<(Bytes, u64)>),
    Everything(u64),
}

impl Recovery {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, any: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Queues a key. Returns whether somebody must start to repeat what is due.
    #[must_use]
    pub(crate) fn queue(&self, key: &Bytes) -> bool {
        let mut state = self.state.lock();
        state.written += 1;
        let written = state.written;
        if state.overflow.is_some() {
            state.overflow = Some(written);
        } else if state.keys.len() >= self.max && !state.keys.contains_key(key) {
            state.keys = HashMap::new();
            state.overflow = Some(written);
        } else {
            state.keys.insert(key.clone(), written);
        }
        self.start(&mut state)
    }

    /// Queues everything.
    #[must_use]
    pub(crate) fn queue_all(&self) -> bool {
        let mut state = self.state.lock();
        state.written += 1;
        state.keys = HashMap::new();
        state.overflow = Some(state.written);
        self.start(&mut state)
    }

    /// Whether what L2 has for `key` must not be used.
    pub(crate) fn blocks(&self, key: &[u8]) -> bool {
        self.any.load(Ordering::Acquire) && {
            let state = self.state.lock();
            state.overflow.is_some() || state.keys.contains_key(key)
        }
    }

    /// What is due, at most `max` keys of it; `None` when all is done, and then whoever repeats
    /// must stop.
    pub(crate) fn due(&self, max: usize) -> Option<Due> {
        let mut state = self.state.lock();
        if let Some(written) = state.overflow {
            return Some(Due::Everything(written));
        }
        if state.keys.is_empty() {
            state.running = false;
            self.any.store(false, Ordering::Release);
            return None;
        }
        let keys = state.keys.iter().take(max).map(|(key, at)| (key.clone(), *at)).collect();
        Some(Due::Keys(keys))
    }

    /// The write of `key` with this number was repeated.
    pub(crate) fn done(&self, key: &[u8], written: u64) {
        let mut state = self.state.lock();
        // A later write of the key is still to be repeated.
        if state.keys.get(key) == Some(&written) {
            state.keys.remove(key);
        }
    }

    /// Everything up to this number was repeated.
    pub(crate) fn done_all(&self, written: u64) {
        let mut state = self.state.lock();
        if state.overflow == Some(written) {
            state.overflow = None;
        }
    }

    /// How many keys wait; the limit when everything does.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        if state.overflow.is_some() { self.max } else { state.keys.len() }
    }

    fn start(&self, state: &mut State) -> bool {
        self.any.store(true, Ordering::Release);
        !std::mem::replace(&mut state.running, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn a_key_is_blocked_until_its_last_write_was_repeated() {
        let recovery = Recovery::new(10);
        assert!(recovery.queue(&key("a")));
        assert!(!recovery.queue(&key("a")), "one repeats already");
        recovery.done(b"a", 1);
        assert!(recovery.blocks(b"a") && !recovery.blocks(b"b"));
        assert_eq!(recovery.due(9), Some(Due::Keys(vec![(key("a"), 2)])));
        recovery.done(b"a", 2);
        assert!(!recovery.blocks(b"a"));
        assert_eq!(recovery.due(9), None);
        assert!(recovery.queue(&key("b")), "whoever repeated has stopped");
    }

    #[test]
    fn an_overflow_becomes_a_clear_and_takes_no_memory() {
        let recovery = Recovery::new(2);
        for name in ["a", "b", "c", "d"] {
            let _start = recovery.queue(&key(name));
        }
        assert!(recovery.blocks(b"anything"));
        assert_eq!(recovery.due(9), Some(Due::Everything(4)));
        let _start = recovery.queue(&key("e"));
        recovery.done_all(4);
        assert_eq!(recovery.due(9), Some(Due::Everything(5)), "written while it was repeated");
        recovery.done_all(5);
        assert_eq!(recovery.due(9), None);
    }
}
