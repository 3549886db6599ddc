//! Removing several entries in one step, with one entry in the log for all of them.

use fleetwide_core_traits::log::{Append, LOG_LUA, LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Wire,
};

use super::value_key;

static INVALIDATE_MANY: Script = Script::untimed(
    "cache_invalidate_many",
    &[LOG_LUA, include_str!("../lua/invalidate_many.lua")],
);

pub(super) fn script() -> &'static Script {
    &INVALIDATE_MANY
}

/// Removes values and their leases, and appends one entry that names all their keys.
#[derive(Debug)]
pub(crate) struct InvalidateMany {
    /// Meta, values, leases, stream: the first `1 + values` are cells.
    keys: Vec<Key>,
    values: usize,
    append: Append,
}

impl InvalidateMany {
    pub(crate) fn new<'a>(
        tag: &Tag,
        names: impl Iterator<Item = &'a [u8]> + Clone,
        append: Append,
    ) -> Result<Self, KeyError> {
        let (meta, stream) = Append::keys(tag);
        let mut keys = vec![meta];
        for name in names.clone() {
            keys.push(value_key(tag, name)?);
        }
        let values = keys.len() - 1;
        for name in names {
            keys.push(tag.named("l", name)?);
        }
        keys.push(stream);
        Ok(Self { keys, values, append })
    }
}

impl AtomicOp for InvalidateMany {
    type State = LogCell;
    /// Where the log is, the invalidation included.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1 + self.values
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
        for (at, _held) in cells.iter().enumerate().skip(1).filter(|(_, cell)| cell.is_some()) {
            out.delete(at);
        }
        self.append.apply(0, self.append.open(cells[0]), out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}
