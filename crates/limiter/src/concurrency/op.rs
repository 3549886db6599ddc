//! The atomic steps: acquire, renew, release, look.

use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

use super::ConcurrencyQuota;
use super::state::{ConcurrencyState, Grant, Standing};

const STANDING_LUA: &str = include_str!("../lua/concurrency.lua");
const ACQUIRE_LUA: &str = include_str!("../lua/concurrency_acquire.lua");
const RENEW_LUA: &str = include_str!("../lua/concurrency_renew.lua");
const RELEASE_LUA: &str = include_str!("../lua/concurrency_release.lua");
const LOOK_LUA: &str = include_str!("../lua/concurrency_look.lua");
pub(crate) static ACQUIRE: Script =
    Script::timed("limiter.concurrency_acquire", &[STANDING_LUA, ACQUIRE_LUA]);
pub(crate) static RENEW: Script =
    Script::timed("limiter.concurrency_renew", &[STANDING_LUA, RENEW_LUA]);
pub(crate) static RELEASE: Script =
    Script::timed("limiter.concurrency_release", &[STANDING_LUA, RELEASE_LUA]);
pub(crate) static LOOK: Script =
    Script::timed("limiter.concurrency_look", &[STANDING_LUA, LOOK_LUA]);

/// Takes a lease on one key, if there is room. Answers a [`Grant`].
///
/// An id that has a lease already keeps it, renewed: so a call can be repeated after its answer was
/// lost, and is counted once.
#[derive(Clone, Debug)]
pub struct Acquire {
    quota: ConcurrencyQuota,
    key: Key,
    id: u64,
    cost: u16,
}

impl Acquire {
    /// The step that takes `cost` of `key` for `id`, which nobody else uses. The cost is at least 1,
    /// and not above the quota's maximum.
    pub const fn new(quota: ConcurrencyQuota, key: Key, id: u64, cost: u16) -> Self {
        Self { quota, key, id, cost }
    }
}

impl AtomicOp for Acquire {
    type State = ConcurrencyState;
    type Reply = Grant;

    fn script(&self) -> &'static Script {
        &ACQUIRE
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.quota.max().into());
        to.uint(self.quota.lease_us());
        to.bytes(&self.id.to_be_bytes());
        to.uint(self.cost.into());
    }

    fn apply(
        &self,
        cells: &[Option<&ConcurrencyState>],
        now: ServerTime,
        out: &mut Effects<ConcurrencyState>,
    ) -> Grant {
        let mut standing = Standing::of(cells[0], now);
        let max = self.quota.max();
        let is_granted = standing.hold(self.quota, self.id, self.cost);
        let retry_after_us = if is_granted { 0 } else { standing.retry_after_us(max, self.cost) };
        let remaining = max.saturating_sub(standing.sum());
        write(standing, is_granted, now, out);
        Grant { is_granted, remaining, retry_after_us }
    }

    fn decode(&self, reply: Wire) -> Result<Grant, Malformed> {
        let [granted, remaining, retry_after] = reply.into_array()?;
        let is_granted = match granted.into_int()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed::new("0 or 1", "another integer")),
        };
        let remaining = u32::try_from(remaining.into_unsigned()?)
            .map_err(|_| Malformed::new("a count of permits", "a larger integer"))?;
        Ok(Grant { is_granted, remaining, retry_after_us: retry_after.into_unsigned()? })
    }
}

/// Renews the leases of one process on one key, and says of each whether it has one now.
///
/// A lease that the server does not have, because it restarted or answered nobody for too long, is
/// taken anew if there is room.
#[derive(Clone, Debug)]
pub struct Renew {
    quota: ConcurrencyQuota,
    key: Key,
    leases: Vec<(u64, u16)>,
}

impl Renew {
    /// The most leases of one step.
    pub const LEASES_MAX: usize = 64;

    /// The step that renews each `(id, cost)` on `key`: ids that differ, at most
    /// [`LEASES_MAX`](Self::LEASES_MAX) of them.
    pub const fn new(quota: ConcurrencyQuota, key: Key, leases: Vec<(u64, u16)>) -> Self {
        Self { quota, key, leases }
    }
}

impl AtomicOp for Renew {
    type State = ConcurrencyState;
    type Reply = Vec<bool>;

    fn script(&self) -> &'static Script {
        &RENEW
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.quota.max().into());
        to.uint(self.quota.lease_us());
        let mut packed = Vec::with_capacity(10 * self.leases.len());
        for (id, cost) in &self.leases {
            packed.extend(cost.to_be_bytes());
            packed.extend(id.to_be_bytes());
        }
        to.bytes(&packed);
    }

    fn apply(
        &self,
        cells: &[Option<&ConcurrencyState>],
        now: ServerTime,
        out: &mut Effects<ConcurrencyState>,
    ) -> Vec<bool> {
        let mut standing = Standing::of(cells[0], now);
        let held: Vec<bool> =
            self.leases.iter().map(|&(id, cost)| standing.hold(self.quota, id, cost)).collect();
        write(standing, held.contains(&true), now, out);
        held
    }

    fn decode(&self, reply: Wire) -> Result<Vec<bool>, Malformed> {
        let reply = reply.into_bytes()?;
        if reply.len() != self.leases.len() {
            return Err(Malformed::new("an answer for each lease", "another number of them"));
        }
        let held = |answer: &u8| match answer {
            b'0' => Ok(false),
            b'1' => Ok(true),
            _ => Err(Malformed::new("0 or 1", "another byte")),
        };
        reply.iter().map(held).collect()
    }
}

/// Gives leases of one key back, and says how many of them there were. It may be repeated.
#[derive(Clone, Debug)]
pub struct Release {
    key: Key,
    ids: Vec<u64>,
}

impl Release {
    /// The most leases of one step.
    pub const LEASES_MAX: usize = 64;

    /// The step that gives back what `ids` hold of `key`; at most
    /// [`LEASES_MAX`](Self::LEASES_MAX) of them.
    pub const fn new(key: Key, ids: Vec<u64>) -> Self {
        Self { key, ids }
    }
}

impl AtomicOp for Release {
    type State = ConcurrencyState;
    type Reply = u64;

    fn script(&self) -> &'static Script {
        &RELEASE
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        let packed: Vec<u8> = self.ids.iter().flat_map(|id| id.to_be_bytes()).collect();
        to.bytes(&packed);
    }

    fn apply(
        &self,
        cells: &[Option<&ConcurrencyState>],
        now: ServerTime,
        out: &mut Effects<ConcurrencyState>,
    ) -> u64 {
        let mut standing = Standing::of(cells[0], now);
        let count = self.ids.iter().filter(|&&id| standing.release(id).is_some()).count();
        write(standing, count > 0, now, out);
        count as u64
    }

    fn decode(&self, reply: Wire) -> Result<u64, Malformed> {
        reply.into_unsigned()
    }
}

/// Says how much of one key is held, and changes nothing.
#[derive(Clone, Debug)]
pub struct Look {
    key: Key,
}

impl Look {
    /// The step that looks at `key`.
    pub const fn new(key: Key) -> Self {
        Self { key }
    }
}

impl AtomicOp for Look {
    type State = ConcurrencyState;
    type Reply = u32;

    fn script(&self) -> &'static Script {
        &LOOK
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&ConcurrencyState>],
        now: ServerTime,
        _out: &mut Effects<ConcurrencyState>,
    ) -> u32 {
        Standing::of(cells[0], now).sum()
    }

    fn decode(&self, reply: Wire) -> Result<u32, Malformed> {
        u32::try_from(reply.into_unsigned()?)
            .map_err(|_| Malformed::new("a count of permits", "a larger integer"))
    }
}

/// Writes what changed; a refusal writes only what the clock made necessary.
fn write(
    standing: Standing,
    is_changed: bool,
    now: ServerTime,
    out: &mut Effects<ConcurrencyState>,
) {
    if !is_changed && !standing.is_moved() {
        return;
    }
    match standing.into_state() {
        None => out.delete(0),
        Some(state) => {
            let ttl = state.lives(now);
            out.put(0, state, ttl);
        }
    }
}
