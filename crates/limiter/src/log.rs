//! The sliding log: at most so many cells in any interval as long as the window, and never fewer
//! than that would allow.
//!
//! The time of each cell is kept until it is a window old. That is exact where the sliding window
//! counts whole sub-windows, and it grows with the maximum, which is therefore small. The times are
//! packed into one string, the oldest first: 904 bytes for 128 cells, where a sorted set takes about
//! 4,000. They are in order, so what has left the window is found by halving.
//!
//! A clock that went back is found by the time of the last cell. Cells from the future count as
//! spent now, so the key heals within a window.
//!
//! A state of another window keeps its cells: they count as spent when it was written.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::algorithm::{Algorithm, Debit, Owed, Verbs, merge, once, script};
use crate::{LogQuota, Mark, Verdict};

static CHECK: Script = script!("log", "check", ["log_check.lua", "log_peek.lua", "reply.lua"]);
static PEEK: Script = script!("log", "peek", ["log_peek.lua", "reply.lua"]);
static ONCE: Script = once!("log");
static BATCH: Script = script!("log", "batch", ["log_batch.lua"]);
static MERGE: Script = merge!("log");
static VERBS: Verbs = Verbs {
    at_most: script!(
        "log",
        "at_most",
        ["log_at_most.lua", "log_check.lua", "log_peek.lua", "reply.lua"]
    ),
    refund: script!("log", "refund", ["log_refund.lua"]),
    block: script!("log", "block", ["block.lua"]),
    reset: script!("log", "reset", ["reset.lua"]),
};

/// What is kept of one key. It holds its parameters, so that others can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The window by the parameters it was written with.
    window_us: u64,
    /// When each cell was spent, the oldest first; at least one. The last is when this was written.
    times_us: Vec<u64>,
}

impl LogState {
    /// The state as the scripts store it.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = self.window_us.to_be_bytes().to_vec();
        // Seven bytes last until the year 4253.
        wire.extend(
            self.times_us.iter().flat_map(|time_us| time_us.to_be_bytes().into_iter().skip(1)),
        );
        wire
    }

    fn last_us(&self) -> u64 {
        self.times_us.last().copied().unwrap_or_default()
    }

    /// When the last cell has left the window.
    fn lapses_us(&self) -> u64 {
        self.last_us() + self.window_us
    }
}

impl Algorithm for LogQuota {
    type State = LogState;

    const PART: &'static str = "log";

    fn check_script() -> &'static Script {
        &CHECK
    }

    fn peek_script() -> &'static Script {
        &PEEK
    }

    fn once_script() -> &'static Script {
        &ONCE
    }

    fn batch_script() -> Option<&'static Script> {
        Some(&BATCH)
    }

    fn merge_script() -> Option<&'static Script> {
        Some(&MERGE)
    }

    fn verbs() -> &'static Verbs {
        &VERBS
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.window_us());
        to.uint(self.max().into());
    }

    fn cost_max(&self) -> u32 {
        self.max()
    }

    fn decide(
        &self,
        state: Option<&LogState>,
        now: ServerTime,
        cost: u32,
    ) -> (Verdict, Option<LogState>) {
        let standing = Standing::of(*self, state, now.as_micros());
        let verdict = standing.unchanged(cost);
        if !verdict.is_allowed {
            return (verdict, standing.moved);
        }
        if cost == 0 {
            return (verdict, None);
        }
        let (live, window_us) = (standing.live(), self.window_us());
        let mut times_us = Vec::with_capacity(live.len() + cost as usize);
        times_us.extend_from_slice(live);
        times_us.resize(live.len() + cost as usize, standing.now_us);
        let remaining = self.max() - times_us.len() as u32;
        let verdict = Verdict { remaining, reset_after_us: window_us, ..verdict };
        (verdict, Some(LogState { window_us, times_us }))
    }

    fn reanchor(&self, state: &LogState, now: ServerTime) -> Option<LogState> {
        Standing::of(*self, Some(state), now.as_micros()).moved
    }

    fn is_other(&self, state: &LogState) -> bool {
        state.window_us != self.window_us()
    }

    /// All or nothing: the cells of the call are of one moment, and leave the window together. Cells
    /// of one moment are alike, whichever call spent them.
    fn give_back(
        &self,
        state: &LogState,
        debit: &Debit,
        _since: u64,
        now: ServerTime,
    ) -> Option<(u64, Option<LogState>)> {
        let standing = Standing::of(*self, Some(state), now.as_micros());
        let (live, spent_us) = (standing.live(), debit.at.as_micros());
        let from = live.partition_point(|&time_us| time_us < spent_us);
        let upto = live.partition_point(|&time_us| time_us <= spent_us);
        let cost = debit.cost as usize;
        if cost == 0 || upto - from < cost {
            return None;
        }
        let times_us = [&live[..upto - cost], &live[upto..]].concat();
        let next = LogState { window_us: self.window_us(), times_us };
        Some((cost as u64, (!next.times_us.is_empty()).then_some(next)))
    }

    /// What the server knows of itself is a part of what the survivor knows; what is missing counts as
    /// spent when the survivor knows the last cell to have been. So do the cells that others have
    /// added before, as far as they are the same: of both numbers the larger, at the later of both
    /// times. They are known by their time, a window before the life that the merge has begun.
    fn owe(
        &self,
        state: Option<&LogState>,
        owed: &Owed,
        mark: &Mark,
        now: ServerTime,
    ) -> Option<(LogState, u64)> {
        let (now_us, window_us) = (now.as_micros(), self.window_us());
        let standing = Standing::of(*self, state, now_us);
        let live = standing.live();
        let mut added_us = mark.life.saturating_sub(window_us);
        let mut from = live.partition_point(|&time_us| time_us < added_us);
        let mut upto = live.partition_point(|&time_us| time_us <= added_us);
        if owed.is_newer_than(mark) {
            // Cells from before the reset are no part of what the survivor knows.
            (from, upto) = (0, live.len());
            added_us = live.last().map_or(added_us, |&last_us| last_us.max(added_us));
        }
        // The oldest stand for cells whose refund was lost: they are no part of it either.
        let refunded = owed.given_unknown_to(mark) as usize;
        let older = refunded.min(from);
        let newer = (refunded - older).min(live.len() - upto);
        let (own, added) = ([&live[older..from], &live[upto + newer..]].concat(), upto - from);
        let cells = owed.cells_since(mark).min(self.max()) as usize;
        let missing = cells.saturating_sub(own.len());
        let last_us = (now_us + owed.left_us).saturating_sub(window_us);
        let is_more = missing > added || missing > 0 && last_us > added_us;
        let is_undone = owed.is_newer_than(mark) && added > 0;
        if !(is_more || is_undone) {
            return None;
        }
        let at_us = last_us.max(added_us + 1).min(now_us);
        let mut times_us = own;
        let place = times_us.partition_point(|&time_us| time_us <= at_us);
        times_us.splice(place..place, std::iter::repeat_n(at_us, missing.max(added)));
        let begun = (mark.life + 1).max(at_us + window_us);
        Some((LogState { window_us, times_us }, begun))
    }

    fn peek(&self, state: Option<&LogState>, now: ServerTime, cost: u32) -> Verdict {
        Standing::of(*self, state, now.as_micros()).unchanged(cost)
    }

    fn lives(state: &LogState, now: ServerTime) -> Duration {
        Duration::from_micros(state.lapses_us().saturating_sub(now.as_micros()))
    }

    fn spent(&self, spent: u32, at: ServerTime) -> LogState {
        let times_us = vec![at.as_micros(); spent as usize];
        LogState { window_us: self.window_us(), times_us }
    }

    fn share(&self, instances: NonZeroU32) -> Self {
        Self::share(*self, instances)
    }
}

/// Where a key stands now, by the quota of now.
struct Standing<'a> {
    quota: LogQuota,
    now_us: u64,
    times_us: Cow<'a, [u64]>,
    /// How many of them have left the window.
    gone: usize,
    /// When the stored state is over, by the window it was written with.
    lapses_us: u64,
    /// What must be written even if nothing is spent: the stored state is from the future.
    moved: Option<LogState>,
}

impl<'a> Standing<'a> {
    fn of(quota: LogQuota, state: Option<&'a LogState>, now_us: u64) -> Self {
        let (times_us, lapses_us) = (Cow::Borrowed([].as_slice()), now_us);
        let unused = Self { quota, now_us, times_us, gone: 0, lapses_us, moved: None };
        let Some(held) = state else { return unused };
        let mut times_us = Cow::Borrowed(held.times_us.as_slice());
        let mut moved = None;
        if held.last_us() > now_us {
            // The clock went back. What was spent stays spent, as of now. Without this a key would
            // stay refused for as long as the clock went back.
            let earlier: Vec<u64> = held.times_us.iter().map(|&at_us| at_us.min(now_us)).collect();
            times_us = Cow::Owned(earlier.clone());
            moved = Some(LogState { window_us: held.window_us, times_us: earlier });
        }
        let last_us = held.last_us().min(now_us);
        let lapses_us = last_us + held.window_us;
        if lapses_us <= now_us {
            return unused;
        }
        if held.window_us != quota.window_us() {
            times_us.to_mut().fill(last_us);
        }
        let gone = times_us.partition_point(|time_us| time_us + quota.window_us() <= now_us);
        Self { times_us, gone, lapses_us, moved, ..unused }
    }

    fn live(&self) -> &[u64] {
        &self.times_us[self.gone..]
    }

    /// The answer if nothing is spent.
    fn unchanged(&self, cost: u32) -> Verdict {
        let (live, max) = (self.live(), self.quota.max() as usize);
        // The cell must leave the window, and with it those before it.
        let until_gone_us =
            |index: usize| (live[index] + self.quota.window_us()).min(self.lapses_us) - self.now_us;
        let too_many = match cost {
            0 => 0,
            _ => (live.len() + cost as usize).saturating_sub(max),
        };
        Verdict {
            is_allowed: too_many == 0,
            remaining: max.saturating_sub(live.len()) as u32,
            retry_after_us: too_many.checked_sub(1).map_or(0, until_gone_us),
            reset_after_us: live.len().checked_sub(1).map_or(0, until_gone_us),
        }
    }
}
