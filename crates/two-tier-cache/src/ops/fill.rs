//! Storing what was loaded.

use bytes::Bytes;
use fleetwide_core_traits::log::{
    EntryId, LOG_LUA, LOG_TTL, LogCell, LogState, Meta, Stamp, Stored, StoredValue,
};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Ttl, Wire,
};

use super::state::{live_lease, live_values, save, usable};
use super::tags::{self, TAGS_LUA};
use super::variants::beside;
use super::{EntryKeys, Wake};

static FILL: Script = Script::timed(
    "cache_fill",
    &[LOG_LUA, include_str!("../lua/value.lua"), TAGS_LUA, include_str!("../lua/fill.lua")],
);

pub(super) fn script() -> &'static Script {
    &FILL
}

/// Stores a value only if the lease is still the loader's and nothing was cleared since: what an
/// invalidation removed can never come back.
#[derive(Debug)]
pub(crate) struct Fill {
    keys: [Key; 4],
    token: EntryId,
    envelope: Bytes,
    ttl: Ttl,
    wake: Wake,
    tags: Vec<Bytes>,
}

impl Fill {
    pub(crate) fn new(
        keys: &EntryKeys,
        token: EntryId,
        envelope: Bytes,
        ttl: Ttl,
        wake: Wake,
        tags: Vec<Bytes>,
    ) -> Self {
        let EntryKeys { value, meta, tags: hash, lease, .. } = keys.clone();
        Self { keys: [value, meta, hash, lease], token, envelope, ttl, wake, tags }
    }
}

impl Fill {
    fn value(&self, stamp: Stamp, now: ServerTime) -> StoredValue {
        let (envelope, expires_at) = (self.envelope.clone(), now.plus(self.ttl.as_duration()));
        StoredValue { stamp, stored_at: now, expires_at, envelope }
    }

    /// Whether nothing has voided the value since `stamp`.
    fn is_fresh(
        &self,
        stamp: Stamp,
        meta: &mut Meta,
        tags_cell: Option<&LogCell>,
        out: &mut Effects<LogCell>,
    ) -> bool {
        let before = *meta;
        let mut unbumped = true;
        if !self.tags.is_empty() {
            let tags = tags::open(tags_cell, meta);
            unbumped = tags::unbumped(&tags, &self.tags, stamp.seq);
            out.put(2, LogCell::Tags(tags), LOG_TTL);
            if *meta != before {
                let clear_seq = meta.clear_seq;
                out.update(1, LOG_TTL, LogCell::start_log, move |cell| {
                    if let LogCell::Log(log) = cell {
                        log.clear_at(clear_seq);
                    }
                });
            }
        }
        usable(stamp, meta) && unbumped
    }
}

impl AtomicOp for Fill {
    type State = LogCell;
    /// Whether it was stored.
    type Reply = bool;

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
        to.bytes(&self.token);
        to.bytes(&self.envelope);
        to.uint(self.ttl.as_millis());
        self.wake.args(to);
        to.uint(LOG_TTL.as_millis() as u64);
        for tag in &self.tags {
            to.bytes(tag);
        }
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> bool {
        let Some(held) = live_lease(cells[0], now).filter(|lease| lease.token == self.token) else {
            return false;
        };
        let log = cells[1].and_then(LogCell::as_log);
        let mut meta = log.map(LogState::meta);
        let fresh =
            meta.as_mut().is_some_and(|meta| self.is_fresh(held.stamp, meta, cells[2], out));
        let there = live_values(cells[0], now).cloned();
        let values = match meta.filter(|_| fresh) {
            Some(meta) => beside(self.value(held.stamp, now), there, &meta),
            None => there.collect(),
        };
        let next = Stored { values, lease: None };
        save(next, now, out);
        self.wake.publish_if(held.awaited, out);
        fresh
    }

    fn decode(&self, reply: Wire) -> Result<bool, Malformed> {
        Ok(reply.into_int()? == 1)
    }
}
