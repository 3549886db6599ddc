//! What the cells under a log's tag hold in memory.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{EntryId, Epoch, Incoming, Meta, Roll, Stamp};
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
    /// Who follows the log.
    Roll(Roll),
    /// Who updates the origin of a cached entry; the oldest first.
    Guards(Vec<Guard>),
    /// How the instances that share a cache lay it out.
    Layout(LayoutRecord),
}

/// How the instances that share a cache lay it out, and until when one of them is known to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRecord {
    /// The layout, as text.
    pub layout: Bytes,
    /// Until when those who use it count as alive.
    pub alive_until: ServerTime,
}

/// When tags were last bumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagBumps {
    /// The history that the numbers belong to.
    pub epoch: Epoch,
    /// The last number up to which bumps may be missing here: nothing older has a say.
    pub floor: u64,
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
    /// The value in each schema that somebody stored it in, the latest first; usually one.
    pub values: Vec<StoredValue>,
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

/// A time in which a key may not be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Chosen by its owner.
    pub token: EntryId,
    /// When it ends by itself.
    pub expires_at: ServerTime,
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

    /// A roll that nobody has signed.
    pub fn start_roll() -> Self {
        Self::Roll(Roll::default())
    }

    /// The log, if it is one.
    pub const fn as_log(&self) -> Option<&LogState> {
        match self {
            Self::Log(log) => Some(log),
            _ => None,
        }
    }

    /// The cached entry, if it is one.
    pub const fn as_stored(&self) -> Option<&Stored> {
        match self {
            Self::Stored(stored) => Some(stored),
            _ => None,
        }
    }

    /// The tags, if it holds those.
    pub const fn as_tags(&self) -> Option<&TagBumps> {
        match self {
            Self::Tags(tags) => Some(tags),
            _ => None,
        }
    }

    /// The guards, if it holds those.
    pub fn as_guards(&self) -> Option<&[Guard]> {
        match self {
            Self::Guards(guards) => Some(guards),
            _ => None,
        }
    }

    /// The layout, if it holds that.
    pub const fn as_layout(&self) -> Option<&LayoutRecord> {
        match self {
            Self::Layout(record) => Some(record),
            _ => None,
        }
    }

    /// Who follows the log, if it holds that.
    pub const fn as_roll(&self) -> Option<&Roll> {
        match self {
            Self::Roll(roll) => Some(roll),
            _ => None,
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

    /// The name of entry `seq`, if it is the last or is still kept.
    pub fn entry_id(&self, seq: u64) -> Option<EntryId> {
        if seq == self.meta.at.seq {
            return Some(self.meta.last);
        }
        let kept = self.entries_from(seq).next()?;
        match Incoming::read(kept) {
            Ok(Incoming::Entry(entry)) if entry.stamp.seq == seq => Some(entry.id),
            _ => None,
        }
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
