//! Writing a value through.

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, LOG_LUA, LOG_TTL, LogCell, Meta, Stored, StoredValue};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Ttl, Wire,
};

use super::EntryKeys;
use super::state::save;
use super::tags::{self, TAGS_LUA};

static PUT: Script = Script::timed(
    "cache_put",
    &[LOG_LUA, include_str!("../lua/value.lua"), TAGS_LUA, include_str!("../lua/put.lua")],
);

pub(super) fn script() -> &'static Script {
    &PUT
}

/// Stores a value whatever was there, takes the lease away, and appends to the log.
#[derive(Debug)]
pub(crate) struct Put {
    keys: [Key; 5],
    append: Append,
    envelope: Bytes,
    ttl: Ttl,
    tagged: bool,
    until: Option<ServerTime>,
}

/// The answer to [`Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutDone {
    /// Whether the value is in L2. If not, the server had no room or the put came too late, and the
    /// old value is gone.
    pub(crate) stored: bool,
    /// Where the log is, the put included.
    pub(crate) meta: Meta,
}

impl Put {
    pub(crate) fn new(
        keys: &EntryKeys,
        append: Append,
        envelope: Bytes,
        ttl: Ttl,
        tagged: bool,
        until: Option<ServerTime>,
    ) -> Self {
        let EntryKeys { value, meta, tags, lease, stream, .. } = keys.clone();
        Self { keys: [value, meta, tags, lease, stream], append, envelope, ttl, tagged, until }
    }
}

impl AtomicOp for Put {
    type State = LogCell;
    type Reply = PutDone;

    fn script(&self) -> &'static Script {
        script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        3
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
        to.bytes(&self.envelope);
        to.uint(self.ttl.as_millis());
        to.uint(self.tagged.into());
        to.uint(self.until.map_or(0, ServerTime::as_micros));
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> PutDone {
        let mut meta = self.append.open(cells[1]);
        if self.tagged {
            let tags = tags::open(cells[2], &mut meta);
            out.put(2, LogCell::Tags(tags), LOG_TTL);
        }
        let meta = self.append.apply(1, meta, out);
        let stored = self.until.is_none_or(|until| now <= until);
        let values = stored.then(|| StoredValue {
            stamp: meta.at,
            stored_at: now,
            expires_at: now.plus(self.ttl.as_duration()),
            envelope: self.envelope.clone(),
        });
        save(Stored { values: values.into_iter().collect(), lease: None }, now, out);
        PutDone { stored, meta }
    }

    fn decode(&self, reply: Wire) -> Result<PutDone, Malformed> {
        let [stored, meta] = reply.into_array()?;
        Ok(PutDone { stored: stored.into_int()? == 1, meta: Meta::read(&meta.into_bytes()?)? })
    }
}
