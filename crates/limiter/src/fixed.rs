//! The fixed window: at most so many cells between one multiple of the window and the next.
//!
//! Windows begin at multiples of their length since the Unix epoch, by the server's clock, whenever
//! a key is first used; so nothing that a client does prolongs one. What is spent at the end of one
//! window and at the beginning of the next lies close together: an interval as long as the window
//! can hold twice the maximum, and never more.
//!
//! That also holds while the clock goes back. A count from the future is taken to be spent now, and
//! stays until a whole window has passed, to the end of the window of then: the key heals within two
//! windows. Otherwise a clock that steps back over a boundary, again and again, would begin a window
//! each time. For that, a key outlives its count by a window, but a minute at most.
//!
//! A state of another window keeps its count: it counts as spent when it was written.

use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::algorithm::{Algorithm, Debit, Owed, Verbs, merge, once, script};
use crate::{FixedQuota, Mark, Verdict};

static CHECK: Script =
    script!("fixed", "check", ["fixed_check.lua", "fixed_peek.lua", "reply.lua"]);
static PEEK: Script = script!("fixed", "peek", ["fixed_peek.lua", "reply.lua"]);
static ONCE: Script = once!("fixed");
static BATCH: Script = script!("fixed", "batch", ["fixed_batch.lua"]);
static MERGE: Script = merge!("fixed");
static VERBS: Verbs = Verbs {
    at_most: script!(
        "fixed",
        "at_most",
        ["fixed_at_most.lua", "fixed_check.lua", "fixed_peek.lua", "reply.lua"]
    ),
    refund: script!("fixed", "refund", ["fixed_refund.lua"]),
    block: script!("fixed", "block", ["block.lua"]),
    reset: script!("fixed", "reset", ["reset.lua"]),
};

/// Longer than clocks are set back by in ordinary operation. `lua/fixed_check.lua` has it too.
const KEPT_US_MAX: u64 = 60_000_000;

/// What is kept of one key. It holds its parameters, so that others can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedState {
    /// When this was written.
    at_us: u64,
    /// When it is over: the end of the window of `at_us`, or of the next one after the clock went
    /// back.
    ends_us: u64,
    /// The window by the parameters it was written with.
    window_us: u64,
    /// Cells spent in it.
    sum: u32,
}

impl FixedState {
    /// The state as the scripts store it.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(28);
        wire.extend([self.at_us, self.ends_us, self.window_us].map(u64::to_be_bytes).concat());
        wire.extend(self.sum.to_be_bytes());
        wire
    }

    /// Whether a clock that says `now_us` stands before the window in which this was written.
    fn is_ahead_of(&self, now_us: u64) -> bool {
        self.at_us / self.window_us > now_us / self.window_us
    }

    /// When nothing needs it any more, even if the clock goes back.
    fn kept_until_us(&self) -> u64 {
        self.ends_us + self.window_us.min(KEPT_US_MAX)
    }
}

impl FixedQuota {
    /// For how long a count is owed after its end by the survivor's clock, for the sake of a new
    /// primary whose clock is behind: there the window goes on, and would have the whole maximum once
    /// more. Below half a window, or it could not be told from the next one.
    pub(crate) fn slack_us(self) -> u64 {
        (self.window_us() / 2).min(KEPT_US_MAX)
    }

    /// When the window ends that is owed for `left_us`, the slack included: at the boundary that is
    /// nearest. A survivor knows the end as a time from now, later by its trips, and this server's
    /// clock is another one. Rounded up, what belongs to a window that is over here would count in
    /// the next one; rounded down, it would be lost where this clock is behind. Rounded to the
    /// nearest, it is neither, unless trips and clocks together are off by half a window.
    fn boundary_us(self, left_us: u64, now_us: u64) -> u64 {
        let window_us = self.window_us();
        let upto_us = now_us + left_us + (window_us / 2 - self.slack_us());
        // No count ends later than one that was found by a clock that had gone back.
        (upto_us / window_us * window_us).min((now_us + window_us).next_multiple_of(window_us))
    }
}

impl Algorithm for FixedQuota {
    type State = FixedState;

    const PART: &'static str = "fixed";

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
        state: Option<&FixedState>,
        now: ServerTime,
        cost: u32,
    ) -> (Verdict, Option<FixedState>) {
        let standing = Standing::of(*self, state, now.as_micros());
        let verdict = standing.unchanged(cost);
        if !verdict.is_allowed {
            return (verdict, standing.moved);
        }
        if cost == 0 {
            return (verdict, None);
        }
        let (at_us, window_us, ends_us) = (standing.now_us, self.window_us(), standing.ends_us);
        let next = FixedState { at_us, ends_us, window_us, sum: standing.sum + cost };
        let remaining = self.max() - next.sum;
        (Verdict { remaining, reset_after_us: ends_us - at_us, ..verdict }, Some(next))
    }

    fn reanchor(&self, state: &FixedState, now: ServerTime) -> Option<FixedState> {
        Standing::of(*self, Some(state), now.as_micros()).moved
    }

    fn is_other(&self, state: &FixedState) -> bool {
        state.window_us != self.window_us()
    }

    /// All or nothing, while the window that counts it is under way. No two counts of one life end at
    /// the same time.
    fn give_back(
        &self,
        state: &FixedState,
        debit: &Debit,
        _since: u64,
        now: ServerTime,
    ) -> Option<(u64, Option<FixedState>)> {
        let Standing { now_us, sum, ends_us, .. } =
            Standing::of(*self, Some(state), now.as_micros());
        let cost = debit.cost;
        if cost == 0 || sum < cost || debit.upto.as_micros() != ends_us {
            return None;
        }
        let (window_us, sum) = (self.window_us(), sum - cost);
        let next = FixedState { at_us: now_us, ends_us, window_us, sum };
        Some((cost.into(), (sum > 0).then_some(next)))
    }

    /// The larger of two counts, to the later of two ends: what the server knows is a part of what the
    /// survivor knows, and a key has one count at a time. So nothing is written for a window that is
    /// over by this server's clock.
    fn owe(
        &self,
        state: Option<&FixedState>,
        owed: &Owed,
        mark: &Mark,
        now: ServerTime,
    ) -> Option<(FixedState, u64)> {
        let (at_us, window_us) = (now.as_micros(), self.window_us());
        let known = Standing::of(*self, state, at_us);
        let cells = owed.cells_since(mark).min(self.max());
        let upto_us = self.boundary_us(owed.left_us, at_us);
        if cells == 0 || upto_us <= at_us || cells <= known.sum && upto_us <= known.lapses_us {
            return None;
        }
        let (sum, ends_us) = (cells.max(known.sum), upto_us.max(known.ends_us));
        Some((FixedState { at_us, ends_us, window_us, sum }, mark.next_life(now)))
    }

    fn peek(&self, state: Option<&FixedState>, now: ServerTime, cost: u32) -> Verdict {
        Standing::of(*self, state, now.as_micros()).unchanged(cost)
    }

    fn lives(state: &FixedState, now: ServerTime) -> Duration {
        Duration::from_micros(state.kept_until_us().saturating_sub(now.as_micros()))
    }

    fn spent(&self, spent: u32, at: ServerTime) -> FixedState {
        let (at_us, window_us) = (at.as_micros(), self.window_us());
        FixedState { at_us, ends_us: self.end_us(at_us), window_us, sum: spent }
    }

    fn share(&self, instances: NonZeroU32) -> Self {
        Self::share(*self, instances)
    }
}

/// Where a key stands now, by the quota of now.
struct Standing {
    max: u32,
    now_us: u64,
    /// Cells spent in the window that is under way.
    sum: u32,
    /// When that window ends.
    ends_us: u64,
    /// When the count is over; before `ends_us` if it was written by the parameters of a shorter
    /// window, and now if nothing is spent.
    lapses_us: u64,
    /// What must be written even if nothing is spent: the stored state is from the future.
    moved: Option<FixedState>,
}

impl Standing {
    fn of(quota: FixedQuota, state: Option<&FixedState>, now_us: u64) -> Self {
        let (max, ends_us) = (quota.max(), quota.end_us(now_us));
        let unused = Self { max, now_us, sum: 0, ends_us, lapses_us: now_us, moved: None };
        let Some(&stored) = state else { return unused };
        let mut held = stored;
        let mut moved = None;
        let is_other = held.window_us != quota.window_us();
        if held.is_ahead_of(now_us) || (is_other && held.at_us > now_us) {
            // The clock went back. What was spent stays spent, for a whole window from now at least.
            // Within one window nothing needs to be done, unless the windows of now are others.
            held.at_us = now_us;
            held.ends_us = (now_us + held.window_us).next_multiple_of(held.window_us);
            moved = Some(held);
        }
        let mut ends_us = held.ends_us;
        if is_other {
            ends_us = quota.end_us(held.at_us);
        }
        let lapses_us = ends_us.min(held.ends_us);
        if lapses_us <= now_us {
            return unused;
        }
        Self { max, now_us, sum: held.sum, ends_us, lapses_us, moved }
    }

    /// The answer if nothing is spent.
    fn unchanged(&self, cost: u32) -> Verdict {
        let until_lapse_us = self.lapses_us - self.now_us;
        let is_allowed = cost == 0 || u64::from(self.sum) + u64::from(cost) <= self.max.into();
        Verdict {
            is_allowed,
            remaining: self.max.saturating_sub(self.sum),
            retry_after_us: if is_allowed { 0 } else { until_lapse_us },
            reset_after_us: until_lapse_us,
        }
    }
}
