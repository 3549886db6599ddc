//! Guards on a key: while somebody updates its origin, nobody may fill it.

use std::time::Duration;

use fleetwide_core_traits::log::{Append, EntryId, Guard, LOG_LUA, LogCell, Meta};
use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

use super::EntryKeys;

pub(super) const GUARDS_LUA: &str = include_str!("../lua/guards.lua");

static GUARD: Script =
    Script::timed("cache_guard", &[LOG_LUA, GUARDS_LUA, include_str!("../lua/guard.lua")]);
static HOLD: Script = Script::timed("cache_hold", &[GUARDS_LUA, include_str!("../lua/hold.lua")]);

pub(super) fn guard_script() -> &'static Script {
    &GUARD
}

pub(super) fn hold_script() -> &'static Script {
    &HOLD
}

/// Guards that one key has; those beyond share a place.
const GUARDS_MAX: usize = 64;
/// The longest life of a guard. A deadline further off is from a clock that has gone back.
const LIFE_MAX: Duration = Duration::from_secs(60);
/// The token of those that share a place: nobody has it, so it can only run out.
const CROWD: EntryId = [0; 8];

/// The guards in a cell that have not run out.
pub(super) fn live_guards(cell: Option<&LogCell>, now: ServerTime) -> Vec<Guard> {
    let guards = cell.and_then(LogCell::as_guards).unwrap_or_default();
    let lives = |guard: &&Guard| guard.expires_at > now && guard.expires_at.since(now) <= LIFE_MAX;
    guards.iter().filter(lives).copied().collect()
}

/// The twin of `guards_set`.
fn set(
    cell: usize,
    mut guards: Vec<Guard>,
    own: Guard,
    now: ServerTime,
    out: &mut Effects<LogCell>,
) {
    if own.expires_at <= now {
        guards.retain(|guard| guard.token != own.token);
    } else if let Some(held) = guards.iter_mut().find(|guard| guard.token == own.token) {
        *held = own;
    } else if guards.len() < GUARDS_MAX {
        guards.push(own);
    } else if let Some(crowd) = guards.last_mut() {
        *crowd = Guard { token: CROWD, expires_at: crowd.expires_at.max(own.expires_at) };
    }
    match guards.iter().map(|guard| guard.expires_at.since(now)).max() {
        Some(ttl) => out.put(cell, LogCell::Guards(guards), ttl),
        None => out.delete(cell),
    }
}

/// Begins or ends a guard; in either case it removes the value and its lease, and appends to the
/// log.
#[derive(Debug)]
pub(crate) struct SetGuard {
    keys: [Key; 5],
    append: Append,
    token: EntryId,
    life: Duration,
}

impl SetGuard {
    /// A guard that lives for `life`, 60 s at most, unless it is held on to.
    pub(crate) fn begin(keys: &EntryKeys, append: Append, token: EntryId, life: Duration) -> Self {
        let EntryKeys { value, meta, guards, lease, stream, .. } = keys.clone();
        Self { keys: [value, meta, guards, lease, stream], append, token, life }
    }

    /// Ends it.
    pub(crate) fn end(keys: &EntryKeys, append: Append, token: EntryId) -> Self {
        Self::begin(keys, append, token, Duration::ZERO)
    }
}

impl AtomicOp for SetGuard {
    type State = LogCell;
    /// Where the log is, the invalidation included.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        guard_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        3
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
        to.bytes(&self.token);
        to.uint(self.life.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Meta {
        if cells[0].is_some() {
            out.delete(0);
        }
        let own = Guard { token: self.token, expires_at: now.plus(self.life) };
        set(2, live_guards(cells[2], now), own, now, out);
        self.append.apply(1, self.append.open(cells[1]), out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}

/// Lets a guard live on, also one that the server has lost.
#[derive(Debug)]
pub(crate) struct Hold {
    key: [Key; 1],
    token: EntryId,
    life: Duration,
}

impl Hold {
    pub(crate) fn new(keys: &EntryKeys, token: EntryId, life: Duration) -> Self {
        Self { key: [keys.guards.clone()], token, life }
    }
}

impl AtomicOp for Hold {
    type State = LogCell;
    type Reply = ();

    fn script(&self) -> &'static Script {
        hold_script()
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.token);
        to.uint(self.life.as_millis() as u64);
    }

    fn apply(&self, cells: &[Option<&LogCell>], now: ServerTime, out: &mut Effects<LogCell>) {
        let own = Guard { token: self.token, expires_at: now.plus(self.life) };
        set(0, live_guards(cells[0], now), own, now, out);
    }

    fn decode(&self, reply: Wire) -> Result<(), Malformed> {
        reply.into_int().map(drop)
    }
}
