//! The vocabulary of a sequenced log: what invalidations and events are ordered by.
//!
//! A log lives under one [`Tag`](crate::Tag): a *meta* string (where the log is now), a capped
//! stream (its last entries) and a channel (its entries as they come). Every write to what the
//! log covers is one script that does the write, raises the sequence number, appends an entry
//! and publishes it. So whoever holds a [`Stamp`] knows exactly which writes it reflects.
//!
//! The cache writes such scripts; `pubsub-invalidation` follows logs. They meet here.

mod append;
mod meta;
mod roll;
mod state;

pub use append::{Append, AppendError};
pub use meta::{Epoch, META_BYTES, Meta, Stamp};
pub use roll::{Applied, Applying, Behind, FollowerId, Followers, Roll, Sign, WaitError};
pub use state::{Guard, LayoutRecord, Lease, LogCell, LogState, Stored, StoredValue, TagBumps};

use bytes::Bytes;

use crate::{Malformed, MonoTime, ServerTime};

/// Lua functions for scripts that read or append to a log; the twin of [`Append`].
pub const LOG_LUA: &str = include_str!("log.lua");

/// How long a log without any reader or writer keeps its place; then a new history begins.
///
/// Every beat of a follower renews it.
pub const LOG_TTL: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// The version of what this module writes: meta, entries, signals and the order of the scripts' steps.
///
/// It is raised when an instance of the version before could no longer follow the log, or write to
/// it. What instances of one log must agree on is the business of whoever owns the log.
pub const LOG_VERSION: u32 = 1;

/// Part of a log's tag that names its meta key.
pub const META_PART: &str = "meta";
/// Part of a log's tag that names its stream.
pub const STREAM_PART: &str = "stream";
/// Part of a log's tag that names who follows it.
pub const ROLL_PART: &str = "roll";
/// Part of a log's tag that names its channel.
pub const CHANNEL_PART: &str = "log";

/// A random name of an entry. Two histories that have the same number for an entry have different
/// ids for it, so a follower can tell them apart.
pub type EntryId = [u8; 8];

/// One entry of a log, as a follower sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub stamp: Stamp,
    /// Its name.
    pub id: EntryId,
    /// The name of the entry before it; zero for the first.
    pub previous: EntryId,
    /// Which writer appended it.
    pub source: [u8; 8],
    /// The writer's own number for it. A retried append has the same number.
    pub number: u64,
    /// What it says.
    pub body: Bytes,
}

/// First byte of an entry on the wire.
const ENTRY: u8 = 1;
/// First byte of a signal on the wire.
const SIGNAL: u8 = 2;
/// First byte of a nudge on the wire.
const NUDGE: u8 = 3;
/// Bytes of an entry before its tail: the part that the script writes.
const ENTRY_HEAD_BYTES: usize = 33;
/// Bytes of source and number.
const ENTRY_TAIL_BYTES: usize = 16;

/// What came in on a log's channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// An entry.
    Entry(Entry),
    /// Something that is published beside the log, without a number: a hint that may be lost.
    Signal(Bytes),
    /// Somebody waits to hear how far the followers have come: a beat would say it.
    Nudge,
}

impl Incoming {
    /// Reads what was published on a log's channel or stands in its stream.
    ///
    /// # Errors
    /// [`Malformed`] for anything else. Never panics.
    pub fn read(payload: &Bytes) -> Result<Self, Malformed> {
        match payload.first() {
            Some(&SIGNAL) => Ok(Self::Signal(payload.slice(1..))),
            Some(&NUDGE) => Ok(Self::Nudge),
            Some(&ENTRY) if payload.len() >= ENTRY_HEAD_BYTES + ENTRY_TAIL_BYTES => {
                Ok(Self::Entry(Entry {
                    stamp: Stamp { epoch: Epoch(array(payload, 1)), seq: number(payload, 9) },
                    id: array(payload, 17),
                    previous: array(payload, 25),
                    source: array(payload, 33),
                    number: number(payload, 41),
                    body: payload.slice(ENTRY_HEAD_BYTES + ENTRY_TAIL_BYTES..),
                }))
            }
            _ => Err(Malformed::new("an entry of a log", "something else")),
        }
    }

    /// The wire form of a nudge.
    pub const fn nudge() -> Bytes {
        Bytes::from_static(&[NUDGE])
    }

    /// The wire form of a signal.
    pub fn signal(body: &[u8]) -> Bytes {
        let mut payload = Vec::with_capacity(body.len() + 1);
        payload.push(SIGNAL);
        payload.extend_from_slice(body);
        Bytes::from(payload)
    }
}

impl Entry {
    /// The wire form; the twin of what `log_append` builds.
    pub fn to_wire(&self) -> Bytes {
        let mut payload = Vec::with_capacity(ENTRY_HEAD_BYTES + ENTRY_TAIL_BYTES + self.body.len());
        payload.push(ENTRY);
        payload.extend(self.stamp.epoch.0);
        payload.extend(self.stamp.seq.to_be_bytes());
        payload.extend(self.id);
        payload.extend(self.previous);
        payload.extend(self.source);
        payload.extend(self.number.to_be_bytes());
        payload.extend_from_slice(&self.body);
        Bytes::from(payload)
    }
}

/// Eight bytes at `at`; zeros if the caller did not check the length.
fn array(bytes: &[u8], at: usize) -> [u8; 8] {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).unwrap_or_default()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// What is told about a log, in its order, inside the receive loop.
///
/// All methods are called by one task and must not wait: slow work belongs behind a queue.
pub trait Follower: Send + Sync + 'static {
    /// A history begins here, and the follower knows everything up to `at`.
    ///
    /// Whatever it kept from before `at` may be wrong: see [`Begin`].
    fn begin(&self, at: Stamp, why: Begin);

    /// The next entry. Entries of a history come in order and exactly once.
    fn apply(&self, entry: &Entry);

    /// Everything that was in the log at `as_of` has been applied; the log was at `at` then.
    fn verified(&self, at: Stamp, as_of: MonoTime) {
        let _ = (at, as_of);
    }

    /// The furthest entry that the log is known to have, from an answer to a write of this process:
    /// the log's place and that entry's name. It may be ahead of what was applied.
    ///
    /// A log that does not reach it any more, or has another entry there, has lost it. Default: none.
    fn known(&self) -> Option<Meta> {
        None
    }

    /// A reading of the server's clock: it showed `server` at some moment between `sent` and now.
    fn server_clock(&self, sent: MonoTime, server: ServerTime) {
        let _ = (sent, server);
    }

    /// Time passes. Called after each thing that happens, and at least once per heartbeat, also
    /// while the server is away. There is no default: a follower around another one has to pass it
    /// on.
    fn tick(&self);

    /// Something was published beside the log.
    fn signal(&self, body: &[u8]) {
        let _ = body;
    }
}

/// Why a history begins for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begin {
    /// It has just started to follow.
    First,
    /// Entries up to the beginning were trimmed before it could read them: same history, with a
    /// hole after this number.
    Gap {
        /// The last entry that was applied.
        after: u64,
    },
    /// The history that it followed is not the one that the server has now.
    Reset,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_reads_as_it_was_written(epoch: [u8; 8], seq: u64, id: [u8; 8], previous: [u8; 8], source: [u8; 8], number: u64, body: Vec<u8>) {
            let stamp = Stamp { epoch: Epoch(epoch), seq };
            let entry = Entry { stamp, id, previous, source, number, body: Bytes::from(body) };
            prop_assert_eq!(Incoming::read(&entry.to_wire()), Ok(Incoming::Entry(entry)));
        }

        #[test]
        fn any_payload_reads_without_a_panic(payload: Vec<u8>) {
            let _ = Incoming::read(&Bytes::from(payload));
        }
    }

    /// Golden bytes: what version 1 published or left in a stream must be read for ever.
    #[test]
    fn an_entry_and_a_signal_of_version_1_read_as_they_were_written() {
        let golden =
            b"\x01epoch-01\0\0\0\0\0\0\x02\x01entry-aaentry-bbinstance\0\0\0\0\0\0\0\x07body";
        let entry = Entry {
            stamp: Stamp { epoch: Epoch(*b"epoch-01"), seq: 513 },
            id: *b"entry-aa",
            previous: *b"entry-bb",
            source: *b"instance",
            number: 7,
            body: Bytes::from_static(b"body"),
        };
        assert_eq!(&entry.to_wire()[..], golden);
        assert_eq!(Incoming::read(&Bytes::from_static(golden)), Ok(Incoming::Entry(entry)));
        let signal = Bytes::from_static(b"\x02wake");
        assert_eq!(Incoming::signal(b"wake"), signal);
        assert_eq!(Incoming::read(&signal), Ok(Incoming::Signal(Bytes::from_static(b"wake"))));
    }

    #[test]
    fn a_signal_reads_as_it_was_written() {
        let read = Incoming::read(&Incoming::signal(b"wake"));
        assert_eq!(read, Ok(Incoming::Signal(Bytes::from_static(b"wake"))));
        assert_eq!(Incoming::read(&Incoming::nudge()), Ok(Incoming::Nudge));
    }
}
