//! The step that every write to a log ends with; the twin of `log.lua`.

use bytes::Bytes;

use super::{
    CHANNEL_PART, ENTRY_TAIL_BYTES, Entry, EntryId, Epoch, LOG_TTL, LogCell, META_PART, Meta,
    STREAM_PART, Stamp,
};
use crate::{ArgSink, Channel, Effects, Key, Tag};

/// What an op needs to append one entry to a log.
///
/// It writes its part of the arguments ([`args`](Self::args): `ARGV[1]` to `ARGV[6]`) and applies
/// its part of the step ([`open`](Self::open), then [`apply`](Self::apply)). The ids in it are
/// drawn by the caller, so that the op stays pure.
#[derive(Clone, Debug)]
pub struct Append {
    channel: Channel,
    fresh: Epoch,
    id: EntryId,
    source: [u8; 8],
    number: u64,
    body: Bytes,
    entries_max: u32,
}

/// Why an entry cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Larger than [`Append::BODY_BYTES_MAX`].
    #[error("an entry may have {max} bytes, this one has {0}", max = Append::BODY_BYTES_MAX)]
    TooLarge(usize),
}

impl Append {
    /// Bytes that the body of an entry may have.
    pub const BODY_BYTES_MAX: usize = 256 * 1024;

    /// Entries that a log keeps for replay unless told otherwise: about a minute of a busy cache,
    /// and less than 1 MiB when they are invalidations.
    pub const ENTRIES_MAX_DEFAULT: u32 = 4096;

    /// How many of the script's arguments [`args`](Self::args) writes.
    pub const ARGS: usize = 6;

    /// An entry for the log under `tag`.
    ///
    /// `fresh` names the history if one has to begin, `id` the entry; both are random. `source` and
    /// `number` name the entry for its writer, also when it is sent again.
    ///
    /// # Errors
    /// [`AppendError`] if `body` is too large.
    pub fn new(
        tag: &Tag,
        fresh: Epoch,
        id: EntryId,
        source: [u8; 8],
        number: u64,
        body: Bytes,
    ) -> Result<Self, AppendError> {
        if body.len() > Self::BODY_BYTES_MAX {
            return Err(AppendError::TooLarge(body.len()));
        }
        let channel = tag.channel(CHANNEL_PART);
        let entries_max = Self::ENTRIES_MAX_DEFAULT;
        Ok(Self { channel, fresh, id, source, number, body, entries_max })
    }

    /// Sets how many entries the log keeps for replay. Default: 4096.
    #[must_use]
    pub fn entries_max(self, entries_max: u32) -> Self {
        Self { entries_max: entries_max.max(1), ..self }
    }

    /// The keys of the log under `tag`: its meta, which is a cell, and its stream, which is not.
    pub fn keys(tag: &Tag) -> (Key, Key) {
        (tag.part(META_PART), tag.part(STREAM_PART))
    }

    /// Writes `channel, fresh epoch, entry id, tail, entries kept, ttl in ms`.
    pub fn args(&self, to: &mut dyn ArgSink) {
        let mut tail = Vec::with_capacity(ENTRY_TAIL_BYTES + self.body.len());
        tail.extend(self.source);
        tail.extend(self.number.to_be_bytes());
        tail.extend_from_slice(&self.body);
        to.bytes(self.channel.as_bytes());
        to.bytes(&self.fresh.0);
        to.bytes(&self.id);
        to.bytes(&tail);
        to.uint(self.entries_max.into());
        to.uint(LOG_TTL.as_millis() as u64);
    }

    /// Where the log is; twin of `log_open`.
    pub fn open(&self, cell: Option<&LogCell>) -> Meta {
        match cell {
            Some(LogCell::Log(log)) => log.meta(),
            _ => Meta { at: Stamp { epoch: self.fresh, seq: 0 }, ..Meta::default() },
        }
    }

    /// Appends to the log in `cell`, which is at `meta`, and returns where it is then; twin of
    /// `log_append`. A caller that clears sets `meta.clear_seq` before.
    pub fn apply(&self, cell: usize, meta: Meta, out: &mut Effects<LogCell>) -> Meta {
        let stamp = Stamp { seq: meta.at.seq + 1, ..meta.at };
        let entry = Entry {
            stamp,
            id: self.id,
            previous: meta.last,
            source: self.source,
            number: self.number,
            body: self.body.clone(),
        }
        .to_wire();
        let meta = Meta { at: stamp, last: self.id, clear_seq: meta.clear_seq };
        let (kept, max) = (entry.clone(), self.entries_max as usize);
        out.update(cell, LOG_TTL, LogCell::start_log, move |cell| {
            if let LogCell::Log(log) = cell {
                log.push(meta, kept, max);
            }
        });
        out.publish(self.channel.clone(), entry);
        meta
    }

    /// The channel that it publishes on.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}
