//! Agreeing on how a cache is laid out.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, LOG_TTL, LayoutRecord, LogCell};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

static LAYOUT: Script = Script::timed("cache_layout", &[include_str!("../lua/layout.lua")]);

pub(super) fn script() -> &'static Script {
    &LAYOUT
}

/// Part of a cache's tag that names the record.
const LAYOUT_PART: &str = "layout";

/// How long a sign of life counts: as long an instance may be paused before others take its cache
/// for theirs.
pub(crate) const SIGN_LIFE: Duration = Duration::from_secs(60);

/// A day longer than the log: what L2 holds is void when the log is gone, so the record is there for as
/// long as there is anything to be misread.
const RECORD_TTL: Duration = LOG_TTL.saturating_add(Duration::from_secs(24 * 3600));

/// The key of the record.
pub(crate) fn layout_key(tag: &Tag) -> Key {
    tag.part(LAYOUT_PART)
}

/// Writes down how this instance lays out the cache, unless others are there who do it otherwise.
/// If they were there, and none of them lives, what they have left is void from here on.
#[derive(Clone, Debug)]
pub(crate) struct Agree {
    keys: [Key; 3],
    layout: Bytes,
}

impl Agree {
    pub(crate) fn new(tag: &Tag, layout: Bytes) -> Self {
        let (meta, stream) = Append::keys(tag);
        Self { keys: [layout_key(tag), meta, stream], layout }
    }

    /// Where it is written down.
    pub(crate) const fn key(&self) -> &Key {
        &self.keys[0]
    }

    fn record(layout: &Bytes, now: ServerTime) -> LogCell {
        let (layout, alive_until) = (layout.clone(), now.plus(SIGN_LIFE));
        LogCell::Layout(LayoutRecord { layout, alive_until })
    }
}

impl AtomicOp for Agree {
    type State = LogCell;
    /// The layout of those who are there already, if it is another.
    type Reply = Option<Bytes>;

    fn script(&self) -> &'static Script {
        script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        2
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.layout);
        to.uint(SIGN_LIFE.as_millis() as u64);
        to.uint(RECORD_TTL.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Option<Bytes> {
        let there = cells[0].and_then(LogCell::as_layout);
        if let Some(there) = there.filter(|there| there.layout != self.layout) {
            if there.alive_until > now.plus(SIGN_LIFE) {
                out.put(0, Self::record(&there.layout, now), RECORD_TTL);
            }
            if there.alive_until > now {
                return Some(there.layout.clone());
            }
            if cells[1].is_some() {
                out.delete(1);
            }
        }
        out.put(0, Self::record(&self.layout, now), RECORD_TTL);
        None
    }

    fn decode(&self, reply: Wire) -> Result<Option<Bytes>, Malformed> {
        reply.into_optional_bytes()
    }
}
