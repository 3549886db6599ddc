//! Storing what was loaded.

use bytes::Bytes;
use fleetwide_core_traits::log::{EntryId, LogCell, LogState, Stored, StoredValue};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Ttl, Wire,
};

use super::state::{live_lease, live_value, save, usable};
use super::{EntryKeys, Wake};

static FILL: Script = Script::timed(
    "cache_fill",
    &[include_str!("../lua/value.lua"), include_str!("../lua/fill.lua")],
);

pub(super) fn script() -> &'static Script {
    &FILL
}

/// Stores a value only if the lease is still the loader's and nothing was cleared since: what an
/// invalidation removed can never come back.
#[derive(Debug)]
pub(crate) struct Fill {
    keys: [Key; 3],
    token: EntryId,
    envelope: Bytes,
    ttl: Ttl,
    wake: Wake,
}

impl Fill {
    pub(crate) fn new(
        keys: &EntryKeys,
        token: EntryId,
        envelope: Bytes,
        ttl: Ttl,
        wake: Wake,
    ) -> Self {
        let EntryKeys { value, meta, lease, .. } = keys.clone();
        Self { keys: [value, meta, lease], token, envelope, ttl, wake }
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
        2
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.token);
        to.bytes(&self.envelope);
        to.uint(self.ttl.as_millis());
        self.wake.args(to);
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
        let meta = cells[1].and_then(LogCell::as_log).map(LogState::meta);
        let fresh = meta.is_some_and(|meta| usable(held.stamp, &meta));
        let value = if fresh {
            Some(StoredValue {
                stamp: held.stamp,
                stored_at: now,
                expires_at: now.plus(self.ttl.as_duration()),
                envelope: self.envelope.clone(),
            })
        } else {
            live_value(cells[0], now).cloned()
        };
        let next = Stored { value, lease: None };
        save(next, now, out);
        self.wake.publish_if(held.awaited, out);
        fresh
    }

    fn decode(&self, reply: Wire) -> Result<bool, Malformed> {
        Ok(reply.into_int()? == 1)
    }
}
