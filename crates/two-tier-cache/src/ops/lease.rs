//! The right to load a key: taken, renewed, given back.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{
    CHANNEL_PART, EntryId, Epoch, Incoming, LOG_LUA, LOG_TTL, LogCell, LogState, Meta, Stamp,
    StoredValue,
};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Channel, Effects, Envelope, Key, Malformed, Script, ServerTime, Tag, Wire,
    log,
};

use super::EntryKeys;
use super::guard::{GUARDS_LUA, live_guards};
use super::state::{live_lease, live_values, parts, save, usable};
use super::variants::read_variant;

const VALUE_LUA: &str = include_str!("../lua/value.lua");

static LEASE: Script = Script::timed(
    "cache_lease",
    &[LOG_LUA, VALUE_LUA, GUARDS_LUA, include_str!("../lua/lease.lua")],
);
static RENEW: Script = Script::timed("cache_renew", &[VALUE_LUA, include_str!("../lua/renew.lua")]);
static RELEASE: Script =
    Script::timed("cache_release", &[VALUE_LUA, include_str!("../lua/release.lua")]);

pub(super) fn lease_script() -> &'static Script {
    &LEASE
}

pub(super) fn renew_script() -> &'static Script {
    &RENEW
}

pub(super) fn release_script() -> &'static Script {
    &RELEASE
}

/// Asks for the value, and for the right to load it if there is none.
#[derive(Debug)]
pub(crate) struct Lease {
    keys: [Key; 5],
    token: EntryId,
    length: Duration,
    fresh: Epoch,
    ignored: Option<ServerTime>,
    schema: u32,
}

/// The answer to [`Lease`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leased {
    /// There is a value after all.
    Value(Meta, StoredValue),
    /// The caller loads. What it loads reflects everything up to this meta.
    Granted(Meta),
    /// Somebody else loads, for this long at most unless it renews.
    Held(Duration),
    /// Somebody updates the origin: the caller loads, and nobody may keep what it loads.
    Guarded,
}

impl Lease {
    /// `token` and `fresh` are random; `length` is at most [`LEASE_MAX`](super::LEASE_MAX).
    /// `schema` is the one that the caller understands.
    pub(crate) fn new(
        keys: &EntryKeys,
        token: EntryId,
        length: Duration,
        fresh: Epoch,
        schema: u32,
    ) -> Self {
        let EntryKeys { value, meta, guards, lease, stream, .. } = keys.clone();
        let keys = [value, meta, guards, lease, stream];
        Self { keys, token, length, fresh, ignored: None, schema }
    }

    /// Asks to load although there is a value, if it is the one that was stored at this time: the
    /// caller has seen it and cannot use it, or wants to renew it.
    pub(crate) fn ignore(&mut self, stored_at: Option<ServerTime>) {
        self.ignored = stored_at;
    }
}

impl AtomicOp for Lease {
    type State = LogCell;
    type Reply = Leased;

    fn script(&self) -> &'static Script {
        lease_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        3
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.token);
        to.uint(self.length.as_millis() as u64);
        to.bytes(&self.fresh.0);
        to.uint(LOG_TTL.as_millis() as u64);
        to.uint(self.ignored.map_or(0, ServerTime::as_micros));
        to.bytes(&self.schema.to_be_bytes());
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Leased {
        let begun = Meta { at: Stamp { epoch: self.fresh, seq: 0 }, ..Meta::default() };
        let meta = cells[1].and_then(LogCell::as_log).map_or(begun, LogState::meta);
        if cells[1].is_none() {
            out.put(1, LogCell::Log(LogState::begun(begun)), LOG_TTL);
        }
        let value = live_values(cells[0], now)
            .find(|value| Envelope::schema_of(&value.envelope) == self.schema)
            .filter(|value| usable(value.stamp, &meta));
        if let Some(value) = value.filter(|value| self.ignored != Some(value.stored_at)) {
            return Leased::Value(meta, value.clone());
        }
        if !live_guards(cells[2], now).is_empty() {
            return Leased::Guarded;
        }
        let mut next = parts(cells[0], now);
        if let Some(held) = next.lease.filter(|lease| usable(lease.stamp, &meta)) {
            let left = held.expires_at.since(now).as_micros().div_ceil(1000) as u64;
            if !held.awaited {
                next.lease = Some(log::Lease { awaited: true, ..held });
                save(next, now, out);
            }
            return Leased::Held(Duration::from_millis(left));
        }
        let expires_at = now.plus(self.length);
        let granted = log::Lease { token: self.token, stamp: meta.at, expires_at, awaited: false };
        next.lease = Some(granted);
        save(next, now, out);
        Leased::Granted(meta)
    }

    fn decode(&self, reply: Wire) -> Result<Leased, Malformed> {
        let mut parts = reply.into_vec()?.into_iter();
        let mut next = || parts.next().ok_or(Malformed::new("a lease", "a shorter array"));
        let kind = next()?.into_int()?;
        let meta = Meta::read(&next()?.into_bytes()?)?;
        match kind {
            0 => Ok(Leased::Value(meta, read_variant(&next()?.into_bytes()?)?)),
            1 => Ok(Leased::Granted(meta)),
            2 => Ok(Leased::Held(Duration::from_millis(next()?.into_unsigned()?))),
            3 => Ok(Leased::Guarded),
            _ => Err(Malformed::new("a lease", "another kind of answer")),
        }
    }
}

/// Lengthens a lease.
#[derive(Debug)]
pub(crate) struct Renew {
    keys: [Key; 2],
    token: EntryId,
    length: Duration,
}

impl Renew {
    pub(crate) fn new(keys: &EntryKeys, token: EntryId, length: Duration) -> Self {
        Self { keys: [keys.value.clone(), keys.lease.clone()], token, length }
    }
}

impl AtomicOp for Renew {
    type State = LogCell;
    /// Whether it is still held.
    type Reply = bool;

    fn script(&self) -> &'static Script {
        renew_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.token);
        to.uint(self.length.as_millis() as u64);
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
        let mut next = parts(cells[0], now);
        next.lease = Some(log::Lease { expires_at: now.plus(self.length), ..held });
        save(next, now, out);
        true
    }

    fn decode(&self, reply: Wire) -> Result<bool, Malformed> {
        Ok(reply.into_int()? == 1)
    }
}

/// Gives a lease back without a value.
#[derive(Debug)]
pub(crate) struct Release {
    keys: [Key; 2],
    token: EntryId,
    wake: Wake,
}

impl Release {
    pub(crate) fn new(keys: &EntryKeys, token: EntryId, wake: Wake) -> Self {
        Self { keys: [keys.value.clone(), keys.lease.clone()], token, wake }
    }
}

impl AtomicOp for Release {
    type State = LogCell;
    /// Whether it was held.
    type Reply = bool;

    fn script(&self) -> &'static Script {
        release_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.token);
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
        let mut next = parts(cells[0], now);
        next.lease = None;
        save(next, now, out);
        self.wake.publish_if(held.awaited, out);
        true
    }

    fn decode(&self, reply: Wire) -> Result<bool, Malformed> {
        Ok(reply.into_int()? == 1)
    }
}

/// Tells those who wait for a key that there is something to look at.
#[derive(Clone, Debug)]
pub(crate) struct Wake {
    channel: Channel,
    signal: Bytes,
}

impl Wake {
    pub(crate) fn new(tag: &Tag, key: &[u8]) -> Self {
        Self { channel: tag.channel(CHANNEL_PART), signal: Incoming::signal(key) }
    }

    pub(super) fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(self.channel.as_bytes());
        to.bytes(&self.signal);
    }

    pub(super) fn publish_if(&self, awaited: bool, out: &mut Effects<LogCell>) {
        if awaited {
            out.publish(self.channel.clone(), self.signal.clone());
        }
    }
}
