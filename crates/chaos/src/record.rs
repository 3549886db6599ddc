//! What a node writes down: 32 bytes a record.
//!
//! Hits of the same version of a key in one process, of the same tier and freshness, are one
//! record for [`RUN_US_MAX`] at most: how many they were, and when the first and the last of them
//! began. Nothing is lost by that. What a read may return only tightens with time, so if any of
//! them was too old, the last one was.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use fleetwide::cache::{Freshness, Tier};

/// How long a run of equal hits may be, µs.
pub const RUN_US_MAX: u64 = 25_000;

/// Stands for all keys in the record of a clear.
pub const ALL_KEYS: u32 = u32::MAX;

/// The length of a record, bytes.
pub const RECORD_BYTES: usize = 32;

/// One thing that happened in a node. Times are µs since boot, the same for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Reads that returned the same.
    Hits {
        /// What was read.
        key: u32,
        /// The version that was returned.
        version: u64,
        /// Where it came from.
        tier: TierCode,
        /// What was said of its freshness.
        freshness: FreshnessCode,
        /// When the first of them began.
        first: u64,
        /// When the last of them began.
        last: u64,
        /// How many they were.
        count: u32,
    },
    /// A write that begins: the database has the version already.
    Writing {
        /// What is written.
        key: u32,
        /// The version that the database has given it.
        version: u64,
        /// When the cache was called.
        at: u64,
    },
    /// The same write, when the cache has returned.
    Written {
        /// What was written.
        key: u32,
        /// The version that the database has given it.
        version: u64,
        /// What the cache said.
        outcome: Outcome,
        /// When the cache was called.
        called: u64,
        /// When it returned.
        returned: u64,
    },
    /// A loader begins.
    Loading {
        /// What is loaded.
        key: u32,
        /// Its number in this process.
        load: u32,
        /// When.
        at: u64,
        /// Whether this process has had no answer of Redis lately.
        trouble: bool,
    },
    /// A loader has ended.
    Loaded {
        /// What was loaded.
        key: u32,
        /// Its number in this process.
        load: u32,
        /// When.
        at: u64,
        /// Whether this process has had no answer of Redis lately.
        trouble: bool,
    },
    /// The process did not run from `from` to `to`: it was frozen, or got no processor.
    Pause {
        /// When it was last seen to run.
        from: u64,
        /// When it ran again.
        to: u64,
    },
    /// A read returned something that was never in the database, or that it had ruled out.
    Nonsense {
        /// What was read.
        key: u32,
        /// When.
        at: u64,
    },
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done for everybody.
    Done,
    /// It was queued, or may have been done.
    Queued,
    /// The caller went away before it was done.
    Dropped,
}

macro_rules! code {
    ($(#[$doc:meta])* $name:ident { $($(#[$one:meta])* $variant:ident = $code:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$one])* $variant),* }

        impl $name {
            const fn code(self) -> u8 {
                match self { $(Self::$variant => $code),* }
            }

            fn from_code(code: u8) -> io::Result<Self> {
                match code {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(malformed()),
                }
            }
        }
    };
}

code! {
    /// Where a value came from.
    TierCode {
        /// The process.
        L1 = 1,
        /// Redis.
        L2 = 2,
        /// The database.
        Load = 3,
    }
}

code! {
    /// What the cache said of a value's freshness.
    FreshnessCode {
        /// It reflects every invalidation that returned Ok more than the staleness bound ago.
        Verified = 1,
        /// It may not.
        Unverified = 2,
        /// It does not.
        Stale = 3,
    }
}

impl From<Tier> for TierCode {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::L1 => Self::L1,
            Tier::L2 => Self::L2,
            // A tier that this crate does not know is judged like the origin: by time alone.
            _ => Self::Load,
        }
    }
}

impl From<Freshness> for FreshnessCode {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Verified => Self::Verified,
            Freshness::Stale => Self::Stale,
            _ => Self::Unverified,
        }
    }
}

impl Outcome {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 1,
            Self::Queued => 2,
            Self::Dropped => 3,
        }
    }

    fn from_code(code: u8) -> io::Result<Self> {
        match code {
            1 => Ok(Self::Done),
            2 => Ok(Self::Queued),
            3 => Ok(Self::Dropped),
            _ => Err(malformed()),
        }
    }
}

/// A record as it lies in a file: kind 1, code 1, code 1, zero 1, key 4, number 8, time 8, span 4,
/// count 4, little-endian.
#[derive(Default)]
struct Row {
    kind: u8,
    codes: [u8; 2],
    key: u32,
    number: u64,
    at: u64,
    span: u32,
    count: u32,
}

impl Record {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let span = |from: u64, to: u64| u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        let row = match self {
            Self::Hits { key, version, tier, freshness, first, last, count } => Row {
                kind: 1,
                codes: [tier.code(), freshness.code()],
                key,
                number: version,
                at: first,
                span: span(first, last),
                count,
            },
            Self::Writing { key, version, at } => {
                Row { kind: 2, key, number: version, at, ..Row::default() }
            }
            Self::Written { key, version, outcome, called, returned } => Row {
                kind: 3,
                codes: [outcome.code(), 0],
                key,
                number: version,
                at: called,
                span: span(called, returned),
                count: 0,
            },
            Self::Loading { key, load, at, trouble } => {
                Row { kind: 4, codes: [trouble.into(), 0], key, at, count: load, ..Row::default() }
            }
            Self::Loaded { key, load, at, trouble } => {
                Row { kind: 5, codes: [trouble.into(), 0], key, at, count: load, ..Row::default() }
            }
            Self::Pause { from, to } => {
                Row { kind: 6, at: from, span: span(from, to), ..Row::default() }
            }
            Self::Nonsense { key, at } => Row { kind: 7, key, at, ..Row::default() },
        };
        row.to_bytes()
    }

    /// The record of these bytes.
    ///
    /// # Errors
    /// If they are none.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> io::Result<Self> {
        let Row { kind, codes, key, number, at, span, count } = Row::from_bytes(bytes);
        let end = at.saturating_add(span.into());
        Ok(match kind {
            1 => Self::Hits {
                key,
                version: number,
                tier: TierCode::from_code(codes[0])?,
                freshness: FreshnessCode::from_code(codes[1])?,
                first: at,
                last: end,
                count,
            },
            2 => Self::Writing { key, version: number, at },
            3 => Self::Written {
                key,
                version: number,
                outcome: Outcome::from_code(codes[0])?,
                called: at,
                returned: end,
            },
            4 => Self::Loading { key, load: count, at, trouble: codes[0] != 0 },
            5 => Self::Loaded { key, load: count, at, trouble: codes[0] != 0 },
            6 => Self::Pause { from: at, to: end },
            7 => Self::Nonsense { key, at },
            _ => return Err(malformed()),
        })
    }
}

impl Row {
    fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = self.kind;
        bytes[1..3].copy_from_slice(&self.codes);
        bytes[4..8].copy_from_slice(&self.key.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.at.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.span.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        fn part<const N: usize>(bytes: &[u8; RECORD_BYTES], from: usize) -> [u8; N] {
            std::array::from_fn(|index| bytes[from + index])
        }
        Self {
            kind: bytes[0],
            codes: part(bytes, 1),
            key: u32::from_le_bytes(part(bytes, 4)),
            number: u64::from_le_bytes(part(bytes, 8)),
            at: u64::from_le_bytes(part(bytes, 16)),
            span: u32::from_le_bytes(part(bytes, 24)),
            count: u32::from_le_bytes(part(bytes, 28)),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no record of a node")
}

/// Hands each record of a file to `take`, in the order in which they were written. A last one that
/// was cut off, because its process was killed, is left out.
///
/// # Errors
/// The operating system's error, or that the file holds something else.
pub fn read(path: &Path, mut take: impl FnMut(Record)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut bytes = [0; RECORD_BYTES];
    loop {
        match file.read_exact(&mut bytes) {
            Ok(()) => take(Record::from_bytes(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_comes_back_as_it_was() {
        let (key, version, count) = (7, 1 << 40, 99);
        let (tier, freshness) = (TierCode::L2, FreshnessCode::Unverified);
        let outcome = Outcome::Queued;
        for record in [
            Record::Hits { key, version, tier, freshness, first: 5, last: 9, count },
            Record::Writing { key, version, at: 3 },
            Record::Written { key, version, outcome, called: 1 << 50, returned: (1 << 50) + 7 },
            Record::Loading { key, load: 3, at: 8, trouble: true },
            Record::Loaded { key, load: 3, at: 8, trouble: false },
            Record::Pause { from: 3, to: 4_000_000 },
            Record::Nonsense { key, at: 8 },
        ] {
            assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
        }
        assert!(Record::from_bytes(&[0; RECORD_BYTES]).is_err());
    }
}
