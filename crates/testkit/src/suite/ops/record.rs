//! A step that appends to a log, with the functions that all such steps share.

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LOG_LUA, LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Channel, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

/// Appends one entry to a log and answers where the log is then.
#[derive(Clone, Debug)]
pub struct Record {
    keys: [Key; 2],
    append: Append,
}

impl Record {
    /// An entry for the log under `tag`. `fresh` names the history, if one begins.
    ///
    /// # Panics
    /// If `body` is larger than an entry may be.
    pub fn new(tag: &Tag, fresh: u64, id: u64, number: u64, body: Bytes) -> Self {
        let (meta, stream) = Append::keys(tag);
        let fresh = Epoch(fresh.to_be_bytes());
        let append = Append::new(tag, fresh, id.to_be_bytes(), *b"suite\0\0\0", number, body);
        Self { keys: [meta, stream], append: append.expect("the bodies of tests are small") }
    }

    /// Sets how many entries the log keeps.
    #[must_use]
    pub fn entries_max(self, entries_max: u32) -> Self {
        Self { append: self.append.entries_max(entries_max), ..self }
    }

    /// Where the entry is published.
    pub fn channel(&self) -> &Channel {
        self.append.channel()
    }
}

// KEYS[1] string  meta;  KEYS[2] stream  entries;  ARGV those of `Append`;  returns the meta
static RECORD: Script = Script::untimed(
    "suite.record",
    &[
        LOG_LUA,
        "local log = log_open(KEYS[1], KEYS[2], ARGV[2])
         log_append(KEYS[1], KEYS[2], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
         return log_pack(log)",
    ],
);

impl AtomicOp for Record {
    type State = LogCell;
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        &RECORD
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The stream belongs to the meta.
    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
    }

    fn apply(&self, cells: &[Option<&LogCell>], _: ServerTime, out: &mut Effects<LogCell>) -> Meta {
        self.append.apply(0, self.append.open(cells[0]), out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::from_wire(reply)?.ok_or(Malformed::new("a meta string", "something else"))
    }
}
