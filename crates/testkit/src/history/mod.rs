//! What a cache was asked and what it answered, for a checker to judge afterwards.
//!
//! A [`Recorder`] takes operations from any number of threads, in memory or into a file; a
//! [`History`] reads them back, from one recorder or from the files of many processes of one
//! machine, whose monotonic clock they share.
//!
//! # What is recorded
//! Keys, tags, sessions and versions are numbers that the test chooses. A **version** names a value
//! of one key; the test puts it into the value and reads it out again. Either of two ways works,
//! and the second sees more:
//! - the origin numbers its writes, and a load finds the number of the last write;
//! - each load draws a new number, so that even two equal values can be told apart.
//!
//! A **process** is one cache instance. A restarted process is another one, because it forgets.
//! A remembered absence is a version like any other. Loads are recorded all or not at all.
//!
//! # File format
//! The bytes `FWHIST1\n`, then events one after the other: a kind byte, then numbers in LEB128, in
//! the order of the fields. Moments are ns of the machine's clock, each written as the zigzag
//! difference to the last moment in the file; an optional number is 0, or the number plus 1; a list
//! is its length, then its members. A read takes 15 bytes or so. The end of a file may be missing:
//! its writer may have been killed.

mod recorder;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use recorder::{Client, LoadSpan, OriginSpan, ReadSpan, Recorder, WriteSpan};

/// The number of a cache instance.
pub type Process = u32;

/// A stretch of time in which something happened, ns of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Before it happened.
    pub start: u64,
    /// After it happened.
    pub end: u64,
}

/// Names a write in all processes, and stands for the token that it returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// What a write voids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// What is kept for one key.
    Key(u64),
    /// What carries one tag.
    Tag(u64),
    /// Everything.
    Everything,
}

/// What a write answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is done.
    Ok,
    /// It was not sent, and will be repeated as an invalidation.
    Queued,
    /// It may be done, and will be repeated as an invalidation.
    Unknown,
    /// There is no answer: its caller left, or was killed. It may be done, now or later.
    Dropped,
}

/// Where a read found its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FoundIn {
    /// In the process.
    L1,
    /// On the shared server.
    L2,
    /// At the origin.
    Load,
}

/// What a read said about its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It reflects all writes up to the staleness bound ago.
    Verified,
    /// Nothing is promised but the process's own writes.
    Unverified,
    /// It is out of date by its age, and the caller allowed that.
    Stale,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which value.
    pub version: u64,
    /// Where.
    pub tier: FoundIn,
    /// With which mark.
    pub mark: Mark,
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// When.
    pub at: Span,
    /// In which cache instance.
    pub process: Process,
    /// By which client.
    pub session: u32,
    /// Of which key.
    pub key: u64,
    /// What it found, if anything.
    pub seen: Option<Seen>,
    /// Which write it had to reflect.
    pub at_least: Option<WriteId>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A read of the cache.
    Read(Read),
    /// From some moment in the span on, the origin has `version` of `key`, and nothing older.
    Origin {
        /// When.
        at: Span,
        /// Of which key.
        key: u64,
        /// Larger than those before.
        version: u64,
    },
    /// A loader ran.
    Load {
        /// From its first step to the moment it had the value.
        at: Span,
        /// For which cache instance.
        process: Process,
        /// Of which key.
        key: u64,
        /// What it found.
        version: u64,
        /// What the value was told to carry.
        tags: Vec<u64>,
        /// Whether it may overlap others: it was made for a read that no other load can serve, one
        /// with a token, or one that leaves L2 out.
        alone: bool,
    },
    /// A write of the cache was begun. It is recorded before it is sent.
    Begun {
        /// When.
        start: u64,
        /// Its name.
        write: WriteId,
        /// In which cache instance.
        process: Process,
        /// By which client.
        session: u32,
        /// What it voids.
        target: Target,
        /// The version that it puts in the place, if it is a put.
        version: Option<u64>,
        /// What the value carries, if it is a put.
        tags: Vec<u64>,
    },
    /// A write of the cache has answered.
    Ended {
        /// When.
        end: u64,
        /// Its name.
        write: WriteId,
        /// What it answered.
        outcome: Outcome,
    },
    /// The shared server did not answer a process in time, or the process stood still.
    Outage {
        /// When.
        at: Span,
        /// Which process; `None` means all.
        process: Option<Process>,
    },
    /// The server lost writes that it had confirmed, and showed an older state again.
    Loss {
        /// From the moment of the loss until every process that survived has had the time to find
        /// out and to say so.
        at: Span,
    },
    /// A process died, with all that only it knew.
    Crash {
        /// When.
        at: u64,
        /// Which.
        process: Process,
    },
    /// From here on all is well, and every write that was queued has been repeated.
    Settled {
        /// When.
        at: u64,
    },
}

/// Recorded events, still in their compact form.
#[derive(Clone, Debug, Default)]
pub struct History {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Bytes(Arc<[u8]>),
    File(Arc<Path>),
}

impl History {
    /// The events in `bytes`, in the file format.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { parts: vec![Part::Bytes(bytes.into())] }
    }

    /// The events in files, one for each process. They are read as often as somebody looks, and
    /// never held in memory as a whole.
    pub fn from_files(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        let part = |path: &Path| Part::File(path.into());
        Self { parts: paths.into_iter().map(|path| part(path.as_ref())).collect() }
    }

    /// The events of a list, as for a test of a checker.
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut encoder = wire::Encoder::default();
        let mut bytes = wire::MAGIC.to_vec();
        for event in events {
            encoder.write(event, &mut bytes);
        }
        Self::from_bytes(bytes)
    }

    /// Both histories as one. Their moments must be of one clock.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// Tells `each` all events. Those of one part come in the order of their recording.
    ///
    /// # Errors
    /// If a file cannot be read, or holds something that is no history.
    pub fn for_each(&self, mut each: impl FnMut(Event)) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => wire::decode(&mut &bytes[..], &mut each)?,
                Part::File(path) => {
                    let file = std::fs::File::open(path)?;
                    wire::decode(&mut io::BufReader::with_capacity(1 << 16, file), &mut each)?;
                }
            }
        }
        Ok(())
    }

    /// All events, for a test that wants to look at them.
    ///
    /// # Errors
    /// As for [`for_each`](Self::for_each).
    pub fn events(&self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        self.for_each(|event| events.push(event))?;
        Ok(events)
    }
}
