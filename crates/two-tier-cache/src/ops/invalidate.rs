//! Removing one entry, or all of them.

use fleetwide_core_traits::log::{Append, LOG_LUA, LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::EntryKeys;

static INVALIDATE: Script =
    Script::untimed("cache_invalidate", &[LOG_LUA, include_str!("../lua/invalidate.lua")]);
static CLEAR: Script = Script::untimed("cache_clear", &[LOG_LUA, include_str!("../lua/clear.lua")]);

pub(super) fn invalidate_script() -> &'static Script {
    &INVALIDATE
}

pub(super) fn clear_script() -> &'static Script {
    &CLEAR
}

/// Removes a value and its lease, and appends to the log.
#[derive(Debug)]
pub(crate) struct Invalidate {
    keys: [Key; 4],
    append: Append,
}

impl Invalidate {
    pub(crate) fn new(keys: &EntryKeys, append: Append) -> Self {
        let EntryKeys { value, meta, lease, stream, .. } = keys.clone();
        Self { keys: [value, meta, lease, stream], append }
    }
}

impl AtomicOp for Invalidate {
    type State = LogCell;
    /// Where the log is, the invalidation included.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        invalidate_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        2
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Meta {
        if cells[0].is_some() {
            out.delete(0);
        }
        self.append.apply(1, self.append.open(cells[1]), out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}

/// Voids everything at once: values and leases stay where they are and count no longer.
#[derive(Debug)]
pub(crate) struct Clear {
    keys: [Key; 2],
    append: Append,
}

impl Clear {
    pub(crate) fn new(tag: &Tag, append: Append) -> Self {
        let (meta, stream) = Append::keys(tag);
        Self { keys: [meta, stream], append }
    }
}

impl AtomicOp for Clear {
    type State = LogCell;
    /// Where the log is, the clear included.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        clear_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Meta {
        let mut meta = self.append.open(cells[0]);
        meta.clear_seq = meta.at.seq + 1;
        self.append.apply(0, meta, out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}
