//! What came from an entry on?

use bytes::Bytes;
use fleetwide_core_traits::log::{LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::{keys, log_of};

pub(super) static REPLAY: Script =
    Script::untimed("log_replay", &[include_str!("../lua/replay.lua")]);

/// Reads one page of a log's entries, from a number on.
///
/// Reads only: a replica or a primary that is cut off answers it too, so it verifies nobody.
#[derive(Clone, Debug)]
pub struct Replay {
    keys: [Key; 2],
    from: u64,
    entries_max: u32,
}

/// What [`Replay`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the log is; `None` if there is no log.
    pub meta: Option<Meta>,
    /// Entries in wire form, in their order. An entry that was trimmed is left out.
    pub entries: Vec<Bytes>,
}

impl Replay {
    /// Entries of a page unless told otherwise: one round trip catches up with a short outage, and
    /// the server is not kept busy for longer than about a millisecond.
    pub const ENTRIES_MAX_DEFAULT: u32 = 256;

    /// A page ends with the entry that exceeds this. One entry is always far smaller, so a page
    /// holds at least two entries if there are two.
    pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

    /// A page of the log under `tag` that starts with entry number `from`.
    pub fn new(tag: &Tag, from: u64) -> Self {
        Self { keys: keys(tag), from, entries_max: Self::ENTRIES_MAX_DEFAULT }
    }

    /// Sets how many entries a page has, at least 2. Default: 256.
    #[must_use]
    pub fn entries_max(self, entries_max: u32) -> Self {
        Self { entries_max: entries_max.max(2), ..self }
    }

    fn cut<'a>(&self, entries: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for entry in entries.take(self.entries_max as usize) {
            page.push(entry.clone());
            bytes += entry.len();
            if bytes > Self::PAGE_BYTES_MAX {
                break;
            }
        }
        page
    }
}

impl AtomicOp for Replay {
    type State = LogCell;
    type Reply = Page;

    fn script(&self) -> &'static Script {
        &REPLAY
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.from);
        to.uint(self.entries_max.into());
        to.uint(Self::PAGE_BYTES_MAX as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        _out: &mut Effects<LogCell>,
    ) -> Page {
        match log_of(cells) {
            Some(log) => {
                Page { meta: Some(log.meta()), entries: self.cut(log.entries_from(self.from)) }
            }
            None => Page { meta: None, entries: Vec::new() },
        }
    }

    fn decode(&self, reply: Wire) -> Result<Page, Malformed> {
        let [meta, entries] = reply.into_array()?;
        let entries = entries.into_vec()?.into_iter().map(Wire::into_bytes);
        Ok(Page { meta: Meta::from_wire(meta)?, entries: entries.collect::<Result<_, _>>()? })
    }
}
