//! Appending an event.

use fleetwide_core_traits::log::{Append, LOG_LUA, LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::keys;

pub(super) static PUBLISH: Script =
    Script::untimed("log_publish", &[LOG_LUA, include_str!("../lua/publish.lua")]);

/// Appends one event to a log.
#[derive(Clone, Debug)]
pub struct Publish {
    keys: [Key; 2],
    append: Append,
}

impl Publish {
    /// Appends `append` to the log under `tag`, which `append` was made for.
    pub fn new(tag: &Tag, append: Append) -> Self {
        Self { keys: keys(tag), append }
    }
}

impl AtomicOp for Publish {
    type State = LogCell;
    /// Where the log is then: at the new entry.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        &PUBLISH
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
        let meta = self.append.open(cells.first().copied().flatten());
        self.append.apply(0, meta, out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}
