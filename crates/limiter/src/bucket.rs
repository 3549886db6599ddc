//! The token bucket: tokens are refilled at an even rate, and a call takes some out.
//!
//! It keeps the contract of GCRA: in any interval of length d at most `burst + d * rate` tokens are
//! taken. GCRA keeps one time and moves it by a whole number of µs per cell, so its rates are
//! rounded down to such numbers, and refused where that takes more than 1 %. Here the state is a
//! number of tokens and a fraction of one more, both integers, so 700,000 a second is just that; it
//! takes 16 bytes more per key, and some more arithmetic per call.
//!
//! What is kept is how many tokens are *missing*, because that says the same whatever the burst is:
//! after a change of burst, what was spent stays spent. A state of another rate keeps its tokens:
//! they were missing when it was written, and are earned back by the new rate since.
//!
//! A clock that went back is found by the time of the last write. What was missing then is taken to
//! be missing now, so the key heals in the time that fills an empty bucket.

use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::algorithm::{Algorithm, Debit, Owed, Verbs, merge, once, script};
use crate::quota::Rate;
use crate::{BucketQuota, Mark, Verdict};

static CHECK: Script =
    script!("bucket", "check", ["bucket_check.lua", "bucket_peek.lua", "reply.lua"]);
static PEEK: Script = script!("bucket", "peek", ["bucket_peek.lua", "reply.lua"]);
static ONCE: Script = once!("bucket");
static BATCH: Script = script!("bucket", "batch", ["bucket_batch.lua"]);
static MERGE: Script = merge!("bucket");
static VERBS: Verbs = Verbs {
    at_most: script!(
        "bucket",
        "at_most",
        ["bucket_at_most.lua", "bucket_check.lua", "bucket_peek.lua", "reply.lua"]
    ),
    refund: script!("bucket", "refund", ["bucket_refund.lua"]),
    block: script!("bucket", "block", ["block.lua"]),
    reset: script!("bucket", "reset", ["reset.lua"]),
};

/// What is kept of one key. It holds its parameters, so that others can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketState {
    /// Whole tokens that are not there; at least one.
    missing: u32,
    /// What is there of the next one, in parts of the rate.
    earned: u64,
    /// When this was written.
    at_us: u64,
    /// The rate it was written with.
    rate: Rate,
}

impl BucketState {
    /// The state as the scripts store it.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(32);
        wire.extend(self.at_us.to_be_bytes());
        wire.extend(self.missing.to_be_bytes());
        wire.extend((self.rate.gain as u32).to_be_bytes());
        wire.extend([self.rate.token, self.earned].map(u64::to_be_bytes).concat());
        wire
    }

    /// When the bucket is full again.
    fn lapses_us(&self) -> u64 {
        self.at_us + self.rate.time_us(self.missing.into(), self.earned)
    }
}

impl Algorithm for BucketQuota {
    type State = BucketState;

    const PART: &'static str = "bucket";

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
        to.uint(self.parts().gain);
        to.uint(self.parts().token);
        to.uint(self.burst().into());
    }

    fn cost_max(&self) -> u32 {
        self.burst()
    }

    fn decide(
        &self,
        state: Option<&BucketState>,
        now: ServerTime,
        cost: u32,
    ) -> (Verdict, Option<BucketState>) {
        let standing = Standing::of(*self, state, now.as_micros());
        let verdict = standing.unchanged(cost);
        if !verdict.is_allowed {
            return (verdict, standing.moved);
        }
        if cost == 0 {
            return (verdict, None);
        }
        let (missing, earned) = (standing.missing + cost, standing.earned);
        let next = BucketState { missing, earned, at_us: standing.now_us, rate: self.parts() };
        let reset_after_us = next.lapses_us() - standing.now_us;
        (Verdict { remaining: self.burst() - missing, reset_after_us, ..verdict }, Some(next))
    }

    fn reanchor(&self, state: &BucketState, now: ServerTime) -> Option<BucketState> {
        Standing::of(*self, Some(state), now.as_micros()).moved
    }

    fn is_other(&self, state: &BucketState) -> bool {
        state.rate != self.parts()
    }

    /// The bounds of GCRA, in parts of a token. What is missing beyond the time at which the bucket
    /// would have been full after the call was taken later. That time, and what was given back since,
    /// are rounded up to µs, so the part of the last µs is taken for one part of a token: exact if
    /// the rate has one part per µs, and otherwise less than a µs too little.
    fn give_back(
        &self,
        state: &BucketState,
        debit: &Debit,
        since: u64,
        now: ServerTime,
    ) -> Option<(u64, Option<BucketState>)> {
        let (now_us, rate) = (now.as_micros(), self.parts());
        let Standing { missing, earned, .. } = Standing::of(*self, Some(state), now_us);
        let own_us = debit.upto.as_micros().saturating_sub(since).saturating_sub(now_us);
        if missing == 0 || own_us == 0 || debit.cost == 0 {
            return None;
        }
        let debt_us = rate.time_us(missing.into(), earned);
        let given_us = self.price(debit.cost).min(own_us).min(debt_us);
        let (tokens, parts) = match rate.earns(own_us - 1, 1) {
            (tokens, _) if tokens >= debit.cost.into() => (debit.cost.into(), 0),
            own => own,
        };
        let mut next = BucketState { missing, earned: earned + parts, at_us: now_us, rate };
        let mut given = tokens;
        if next.earned >= rate.token {
            next.earned -= rate.token;
            given += 1;
        }
        next.missing = u64::from(missing).saturating_sub(given) as u32;
        Some((given_us, (next.missing > 0).then_some(next)))
    }

    /// The larger of two deficits: each includes all that was taken before it. What is left to earn
    /// says how large the survivor's is now: too much by its trips, and by what a µs earns, as it was
    /// rounded up. So it is cut to the tokens that were missing at the survivor's last answer.
    fn owe(
        &self,
        state: Option<&BucketState>,
        owed: &Owed,
        mark: &Mark,
        now: ServerTime,
    ) -> Option<(BucketState, u64)> {
        let (at_us, rate) = (now.as_micros(), self.parts());
        let known = Standing::of(*self, state, at_us);
        let left_us = owed.left_us.saturating_sub(owed.given_since(mark)).min(self.span_us());
        let most = owed.cells.min(self.burst());
        let (missing, earned) = match rate.earns(left_us, 0) {
            (tokens, _) if tokens >= most.into() => (most, 0),
            (tokens, 0) => (tokens as u32, 0),
            (tokens, parts) => (tokens as u32 + 1, rate.token - parts),
        };
        let is_more = missing > known.missing || missing == known.missing && earned < known.earned;
        let next = BucketState { missing, earned, at_us, rate };
        is_more.then_some((next, mark.next_life(now)))
    }

    fn price(&self, cost: u32) -> u64 {
        match cost {
            0 => 0,
            _ => self.parts().time_us(cost.into(), 0),
        }
    }

    fn peek(&self, state: Option<&BucketState>, now: ServerTime, cost: u32) -> Verdict {
        Standing::of(*self, state, now.as_micros()).unchanged(cost)
    }

    fn lives(state: &BucketState, now: ServerTime) -> Duration {
        Duration::from_micros(state.lapses_us().saturating_sub(now.as_micros()))
    }

    fn spent(&self, spent: u32, at: ServerTime) -> BucketState {
        BucketState { missing: spent, earned: 0, at_us: at.as_micros(), rate: self.parts() }
    }

    fn share(&self, instances: NonZeroU32) -> Self {
        Self::share(*self, instances)
    }
}

/// Where a key stands now, by the quota of now.
struct Standing {
    quota: BucketQuota,
    now_us: u64,
    missing: u32,
    /// What is there of the next token; 0 if none is missing.
    earned: u64,
    /// When the stored state is over, by the rate it was written with.
    lapses_us: u64,
    /// What must be written even if nothing is spent: the stored state is from the future.
    moved: Option<BucketState>,
}

impl Standing {
    fn of(quota: BucketQuota, state: Option<&BucketState>, now_us: u64) -> Self {
        let full = Self { quota, now_us, missing: 0, earned: 0, lapses_us: now_us, moved: None };
        let Some(&stored) = state else { return full };
        let mut held = stored;
        let mut moved = None;
        if held.at_us > now_us {
            // The clock went back. What was missing is missing still, as of now. Without this a key
            // would stay refused for as long as the clock went back.
            held.at_us = now_us;
            moved = Some(held);
        }
        let lapses_us = held.lapses_us();
        if lapses_us <= now_us {
            return full;
        }
        if held.rate != quota.parts() {
            // The part of a token is given up: it is one of another rate.
            held.earned = 0;
        }
        let (tokens, earned) = quota.parts().earns(now_us - held.at_us, held.earned);
        match u64::from(held.missing).checked_sub(tokens) {
            None | Some(0) => full,
            Some(missing) => Self { missing: missing as u32, earned, lapses_us, moved, ..full },
        }
    }

    /// The answer if nothing is spent.
    fn unchanged(&self, cost: u32) -> Verdict {
        let until_us = |tokens: u64| match tokens {
            0 => 0,
            _ => self.quota.parts().time_us(tokens, self.earned).min(self.lapses_us - self.now_us),
        };
        let burst = self.quota.burst();
        let needed = match cost {
            0 => 0,
            _ => (u64::from(self.missing) + u64::from(cost)).saturating_sub(burst.into()),
        };
        Verdict {
            is_allowed: needed == 0,
            remaining: burst.saturating_sub(self.missing),
            retry_after_us: until_us(needed),
            reset_after_us: until_us(self.missing.into()),
        }
    }
}
