//! What the cells under a log's tag hold in memory.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{EntryId, Epoch, Meta, Stamp};
use crate::ServerTime;

/// A cell under a log's tag: the log itself, or an entry of the cache that it covers.
///
/// They are one type because one step touches both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogCell {
    /// Meta and stream.
    Log(LogState),
    /// A cached value and its lease.
    Stored(Stored),
    /// The tags that were bumped.
    Tags(TagBumps),
}

/// When tags were last bumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagBumps {
    /// The history that the numbers belong to.
    pub epoch: Epoch,
    /// Each tag with the number of its last bump.
    pub bumps: BTreeMap<Bytes, u64>,
}

/// A log in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    meta: Meta,
    entries: VecDeque<Bytes>,
}

/// A cached value and the lease on loading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The value, if there is one.
    pub value: Option<StoredValue>,
    /// Who loads it, if somebody does.
    pub lease: Option<Lease>,
}

/// A value in L2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredValue {
    /// Which writes it reflects.
    pub stamp: Stamp,
    /// When it was stored.
    pub stored_at: ServerTime,
    /// When it expires.
    pub expires_at: ServerTime,
    /// The envelope.
    pub envelope: Bytes,
}

/// The right to load a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Chosen by the owner.
    pub token: EntryId,
    /// Where the log was when it was granted.
    pub stamp: Stamp,
    /// When it ends by itself.
    pub expires_at: ServerTime,
    /// Whether somebody waits for the value.
    pub awaited: bool,
}

impl LogCell {
    /// A log that nothing was appended to yet.
    pub fn start_log() -> Self {
        Self::Log(LogState::default())
    }

    /// An entry without value and lease.
    pub fn start_stored() -> Self {
        Self::Stored(Stored::default())
    }

    /// The log, if it is one.
    pub const fn as_log(&self) -> Option<&LogState> {
        match self {
            Self::Log(log) => Some(log),
            Self::Stored(_) | Self::Tags(_) => None,
        }
    }

    /// The cached entry, if it is one.
    pub const fn as_stored(&self) -> Option<&Stored> {
        match self {
            Self::Stored(stored) => Some(stored),
            Self::Log(_) | Self::Tags(_) => None,
        }
    }

    /// The tags, if it holds those.
    pub const fn as_tags(&self) -> Option<&TagBumps> {
        match self {
            Self::Tags(tags) => Some(tags),
            Self::Log(_) | Self::Stored(_) => None,
        }
    }
}

impl LogState {
    /// A log that has just begun at `meta`, without entries.
    pub const fn begun(meta: Meta) -> Self {
        Self { meta, entries: VecDeque::new() }
    }

    /// Where it is.
    pub const fn meta(&self) -> Meta {
        self.meta
    }

    /// The entries from number `seq` on, in wire form, as far as they are kept.
    pub fn entries_from(&self, seq: u64) -> impl Iterator<Item = &Bytes> {
        let first = self.meta.at.seq + 1 - self.entries.len() as u64;
        let skip = seq.saturating_sub(first).min(self.entries.len() as u64);
        self.entries.range(skip as usize..)
    }

    /// Voids what is older than number `seq`, without an entry.
    pub fn clear_at(&mut self, seq: u64) {
        self.meta.clear_seq = self.meta.clear_seq.max(seq);
    }

    /// Takes over `meta` and its last entry. Entries of another history are dropped.
    pub fn push(&mut self, meta: Meta, entry: Bytes, entries_max: usize) {
        if meta.at.epoch != self.meta.at.epoch || meta.at.seq != self.meta.at.seq + 1 {
            self.entries.clear();
        }
        self.meta = meta;
        self.entries.push_back(entry);
        while self.entries.len() > entries_max {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(count: u64, max: usize) -> LogState {
        let mut log = LogState::default();
        for seq in 1..=count {
            let at = Stamp { epoch: Epoch::default(), seq };
            log.push(Meta { at, ..Meta::default() }, Bytes::from(seq.to_string()), max);
        }
        log
    }

    fn from(log: &LogState, seq: u64) -> String {
        let entries: Vec<_> = log
            .entries_from(seq)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect();
        entries.join(" ")
    }

    #[test]
    fn entries_are_read_from_a_number_on() {
        let log = log_of(5, 3);
        assert_eq!(from(&log, 4), "4 5");
        assert_eq!(from(&log, 1), "3 4 5");
        assert_eq!(from(&log, 6), "");
    }

    #[test]
    fn another_history_drops_the_entries() {
        let mut log = log_of(2, 9);
        let at = Stamp { epoch: Epoch([1; 8]), seq: 1 };
        log.push(Meta { at, ..Meta::default() }, Bytes::from_static(b"new"), 9);
        assert_eq!(from(&log, 0), "new");
    }
}
