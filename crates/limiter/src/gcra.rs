//! GCRA, the leaky bucket as a meter: cells come back one by one at an even pace.
//!
//! All that is known of a key is one time, the *theoretical arrival time* (TAT): when all that was
//! spent will have been earned back. Spending moves it into the future, by one interval per cell,
//! and at most a whole burst away from now. In any interval of length d at most
//! `burst + d / interval` cells are spent.
//!
//! A clock that went back is found by the time of the last write. The debt of then is taken to be
//! the debt of now, so the key heals within `burst * interval`, and nothing is forgotten.
//!
//! A state of other parameters keeps its cells: they count as spent when it was written, and are
//! earned back by the new parameters since.

use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::algorithm::{Algorithm, Debit, Owed, Verbs, merge, once, script};
use crate::quota::SPAN_US_MAX;
use crate::{GcraQuota, Mark, Verdict};

static CHECK: Script = script!("gcra", "check", ["gcra_check.lua", "gcra_peek.lua", "reply.lua"]);
static PEEK: Script = script!("gcra", "peek", ["gcra_peek.lua", "reply.lua"]);
static ONCE: Script = once!("gcra");
static BATCH: Script = script!("gcra", "batch", ["gcra_batch.lua"]);
static MERGE: Script = merge!("gcra");
static VERBS: Verbs = Verbs {
    at_most: script!(
        "gcra",
        "at_most",
        ["gcra_at_most.lua", "gcra_check.lua", "gcra_peek.lua", "reply.lua"]
    ),
    refund: script!("gcra", "refund", ["gcra_refund.lua"]),
    block: script!("gcra", "block", ["block.lua"]),
    reset: script!("gcra", "reset", ["reset.lua"]),
};

/// What is kept of one key. It holds its parameters, so that others can read it.
#[allow(clippy::struct_field_names, reason = "times without their unit invite mistakes")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcraState {
    /// When all that was spent will be earned back.
    tat_us: u64,
    /// When this was written.
    at_us: u64,
    /// What one cell took by the parameters it was written with.
    interval_us: u64,
}

impl GcraState {
    /// The state as the scripts store it.
    pub fn to_wire(&self) -> Vec<u8> {
        [self.tat_us, self.at_us, self.interval_us].map(u64::to_be_bytes).concat()
    }
}

impl Algorithm for GcraQuota {
    type State = GcraState;

    const PART: &'static str = "gcra";

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
        to.uint(self.interval_us());
        to.uint(self.burst().into());
    }

    fn cost_max(&self) -> u32 {
        self.burst()
    }

    fn decide(
        &self,
        state: Option<&GcraState>,
        now: ServerTime,
        cost: u32,
    ) -> (Verdict, Option<GcraState>) {
        let standing = Standing::of(*self, state, now.as_micros());
        let verdict = standing.unchanged(cost);
        if !verdict.is_allowed {
            return (verdict, standing.moved);
        }
        if cost == 0 {
            return (verdict, None);
        }
        let debt_us = standing.debt_us() + standing.price_us(cost);
        let verdict =
            Verdict { remaining: standing.left(debt_us), reset_after_us: debt_us, ..verdict };
        let (at_us, interval_us) = (standing.now_us, self.interval_us());
        (verdict, Some(GcraState { tat_us: at_us + debt_us, at_us, interval_us }))
    }

    fn reanchor(&self, state: &GcraState, now: ServerTime) -> Option<GcraState> {
        Standing::of(*self, Some(state), now.as_micros()).moved
    }

    fn is_other(&self, state: &GcraState) -> bool {
        state.interval_us != self.interval_us()
    }

    /// What lies beyond the time of arrival after the call was spent later, and is not its to give.
    /// Each refund since then moved all that was spent by as much towards now, and the call's own
    /// part with it. Without these two bounds a refund gives back what time has given back already.
    fn give_back(
        &self,
        state: &GcraState,
        debit: &Debit,
        since: u64,
        now: ServerTime,
    ) -> Option<(u64, Option<GcraState>)> {
        let (now_us, interval_us) = (now.as_micros(), self.interval_us());
        let debt_us = state.tat_us.saturating_sub(now_us);
        let own_us = debit.upto.as_micros().saturating_sub(since).saturating_sub(now_us);
        let given_us = self.price(debit.cost).min(own_us).min(debt_us);
        let tat_us = state.tat_us - given_us;
        let next = GcraState { tat_us, at_us: now_us, interval_us };
        (given_us > 0).then_some((given_us, (given_us < debt_us).then_some(next)))
    }

    /// The later of two arrival times: each includes all that was spent before it.
    fn owe(
        &self,
        state: Option<&GcraState>,
        owed: &Owed,
        mark: &Mark,
        now: ServerTime,
    ) -> Option<(GcraState, u64)> {
        let (at_us, interval_us) = (now.as_micros(), self.interval_us());
        let debt_us = owed.left_us.saturating_sub(owed.given_since(mark)).min(self.span_us());
        let is_more = debt_us > Standing::of(*self, state, at_us).debt_us();
        let next = GcraState { tat_us: at_us + debt_us, at_us, interval_us };
        is_more.then_some((next, mark.next_life(now)))
    }

    fn price(&self, cost: u32) -> u64 {
        self.interval_us() * u64::from(cost)
    }

    fn peek(&self, state: Option<&GcraState>, now: ServerTime, cost: u32) -> Verdict {
        Standing::of(*self, state, now.as_micros()).unchanged(cost)
    }

    fn lives(state: &GcraState, now: ServerTime) -> Duration {
        Duration::from_micros(state.tat_us.saturating_sub(now.as_micros()))
    }

    fn spent(&self, spent: u32, at: ServerTime) -> GcraState {
        let (at_us, interval_us) = (at.as_micros(), self.interval_us());
        GcraState { tat_us: at_us + interval_us * u64::from(spent), at_us, interval_us }
    }

    fn share(&self, instances: NonZeroU32) -> Self {
        Self::share(*self, instances)
    }
}

/// Where a key stands now, by the quota of now.
struct Standing {
    quota: GcraQuota,
    now_us: u64,
    /// Never before `now_us`.
    tat_us: u64,
    /// When the stored state is over, by the parameters it was written with.
    lapses_us: u64,
    /// What must be written even if nothing is spent: the stored state is from the future.
    moved: Option<GcraState>,
}

impl Standing {
    fn of(quota: GcraQuota, state: Option<&GcraState>, now_us: u64) -> Self {
        let unused = Self { quota, now_us, tat_us: now_us, lapses_us: now_us, moved: None };
        let Some(&stored) = state else { return unused };
        let mut held = stored;
        let mut moved = None;
        if held.at_us > now_us {
            // The clock went back. What was spent stays spent, as of now. Without this a key would
            // stay refused for as long as the clock went back.
            held.tat_us = held.tat_us - held.at_us + now_us;
            held.at_us = now_us;
            moved = Some(held);
        }
        if held.tat_us <= now_us {
            return unused;
        }
        let mut tat_us = held.tat_us;
        if held.interval_us != quota.interval_us() {
            let spent = (held.tat_us - held.at_us).div_ceil(held.interval_us);
            let debt_us = spent.saturating_mul(quota.interval_us()).min(SPAN_US_MAX);
            tat_us = (held.at_us + debt_us).max(now_us);
        }
        Self { quota, now_us, tat_us, lapses_us: held.tat_us, moved }
    }

    fn debt_us(&self) -> u64 {
        self.tat_us - self.now_us
    }

    fn price_us(&self, cost: u32) -> u64 {
        self.quota.interval_us() * u64::from(cost)
    }

    /// Cells that are left beside a debt.
    fn left(&self, debt_us: u64) -> u32 {
        (self.quota.span_us().saturating_sub(debt_us) / self.quota.interval_us()) as u32
    }

    /// The answer if nothing is spent.
    fn unchanged(&self, cost: u32) -> Verdict {
        let until_lapse_us = self.lapses_us - self.now_us;
        let needed_us = self.debt_us() + self.price_us(cost);
        let wait_us = match cost {
            0 => 0,
            _ => needed_us.saturating_sub(self.quota.span_us()),
        };
        Verdict {
            is_allowed: wait_us == 0,
            remaining: self.left(self.debt_us()),
            retry_after_us: wait_us.min(until_lapse_us),
            reset_after_us: self.debt_us().min(until_lapse_us),
        }
    }
}
