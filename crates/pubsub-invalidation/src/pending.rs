//! Entries that came before the one they follow.

use std::collections::BTreeMap;

use fleetwide_core_traits::log::Entry;

/// Enough for what arrives during one replay; the rest is replayed again.
const ENTRIES_MAX: usize = 1024;
/// Bounds what large entries take.
const BYTES_MAX: usize = 1024 * 1024;

/// Keeps entries that came too early, so that a replay does not have to fetch them once more.
///
/// Under steady traffic there is no moment without messages on their way: a follower that forgot
/// them would find the next hole each time that it has filled one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
}

impl Pending {
    /// Keeps `entry`, unless there is no room for it or its number is taken. Those that are due
    /// first stay.
    pub(crate) fn keep(&mut self, entry: Entry) {
        if self.entries.contains_key(&entry.stamp.seq) {
            return;
        }
        self.bytes += entry.body.len();
        self.entries.insert(entry.stamp.seq, entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((_, last)) = self.entries.pop_last() else { break };
            self.bytes -= last.body.len();
        }
    }

    pub(crate) fn take(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        self.bytes -= entry.body.len();
        Some(entry)
    }

    pub(crate) fn forget_up_to(&mut self, seq: u64) {
        while let Some(first) = self.entries.first_entry().filter(|first| *first.key() <= seq) {
            self.bytes -= first.remove().body.len();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetwide_core_traits::log::Stamp;

    use super::*;

    fn entry(seq: u64, bytes: usize) -> Entry {
        Entry {
            stamp: Stamp { seq, ..Stamp::default() },
            id: [1; 8],
            previous: [0; 8],
            source: [0; 8],
            number: seq,
            body: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn those_that_are_due_first_stay_when_there_is_no_room() {
        let mut pending = Pending::default();
        for seq in (1..=2 * ENTRIES_MAX as u64).rev() {
            pending.keep(entry(seq, 1));
        }
        assert_eq!(pending.entries.len(), ENTRIES_MAX);
        assert!(pending.take(1).is_some() && pending.take(ENTRIES_MAX as u64 + 1).is_none());
    }

    #[test]
    fn bytes_are_bounded_and_counted() {
        let mut pending = Pending::default();
        for seq in 1..=9 {
            pending.keep(entry(seq, BYTES_MAX / 4));
            pending.keep(entry(seq, BYTES_MAX / 4));
        }
        assert_eq!((pending.entries.len(), pending.bytes), (4, BYTES_MAX));
        pending.forget_up_to(3);
        assert!(pending.take(4).is_some());
        assert_eq!((pending.is_empty(), pending.bytes), (true, 0));
    }
}
