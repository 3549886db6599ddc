//! What makes all that is remembered of a key void, without looking for it.
//!
//! Who asks about a key notes where its floor stands, and what is remembered of the answer is good
//! only while the floor stands there. So an answer that was on its way when its key was voided is
//! void when it arrives: no order of arrivals and no lock is needed for that. Keys share floors, so
//! now and then a key is asked about once more than it need be.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;

/// Two keys share a floor once in so many pairs.
const FLOORS: usize = 1_024;

/// The floors of all keys of one limiter.
#[derive(Debug)]
pub(crate) struct Floors {
    hasher: RandomState,
    floors: Box<[AtomicU64]>,
}

/// Where the floor of a key stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    floor: usize,
    height: u64,
}

impl Floors {
    pub(crate) fn new() -> Self {
        let floors = (0..FLOORS).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::default(), floors }
    }

    /// Where the floor of `key` stands now. Taken before a question about it is sent.
    pub(crate) fn stamp(&self, key: &[u8]) -> Stamp {
        let floor = self.floor(key);
        Stamp { floor, height: self.floors[floor].load(Ordering::Acquire) }
    }

    /// Whether what was asked under `stamp` still counts.
    pub(crate) fn holds(&self, stamp: Stamp) -> bool {
        self.floors[stamp.floor].load(Ordering::Acquire) == stamp.height
    }

    /// Voids what was asked about `key` so far.
    pub(crate) fn raise(&self, key: &[u8]) {
        self.floors[self.floor(key)].fetch_add(1, Ordering::AcqRel);
    }

    /// Voids what was asked about any key so far.
    pub(crate) fn raise_all(&self) {
        for floor in &self.floors {
            floor.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn floor(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize % FLOORS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_a_void_does_not_count_and_what_was_asked_after_it_does() {
        let floors = Floors::new();
        let [before, other] = [b"a", b"b"].map(|key| floors.stamp(key));
        floors.raise(b"a");
        assert!(!floors.holds(before) && floors.holds(floors.stamp(b"a")));
        // They share a floor once in 1,024 runs, as the hasher has a seed of its own.
        assert!(floors.holds(other) || other.floor == before.floor);
        floors.raise_all();
        assert!(!floors.holds(other));
    }
}
