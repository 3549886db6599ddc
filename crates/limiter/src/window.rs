//! The sliding window: at most so many cells in any interval as long as the window.
//!
//! Time is cut into sub-windows of a 63rd of the window, rounded up, and spent cells are counted in
//! 64 of them: the one that is under way, and 63 whole ones before it, which are at least a window.
//! So a window never holds more than the maximum, and a refusal means that 64/63 of a window is
//! full.
//!
//! A clock that went back into an earlier sub-window is found by the time of the last write. All
//! that was spent then counts as spent now, so the key heals within a window and a sub-window.
//!
//! A state of another window keeps its sum: it counts as spent when it was written.

use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::algorithm::{Algorithm, Debit, Owed, Verbs, merge, once, script};
use crate::{Mark, Verdict, WindowQuota};

static CHECK: Script =
    script!("window", "check", ["window_check.lua", "window_peek.lua", "reply.lua"]);
static PEEK: Script = script!("window", "peek", ["window_peek.lua", "reply.lua"]);
static ONCE: Script = once!("window");
static BATCH: Script = script!("window", "batch", ["window_batch.lua"]);
static MERGE: Script = merge!("window");
static VERBS: Verbs = Verbs {
    at_most: script!(
        "window",
        "at_most",
        ["window_at_most.lua", "window_check.lua", "window_peek.lua", "reply.lua"]
    ),
    refund: script!("window", "refund", ["window_refund.lua"]),
    block: script!("window", "block", ["block.lua"]),
    reset: script!("window", "reset", ["reset.lua"]),
};

const SLOTS: u64 = 64;

/// What is kept of one key. It holds its parameters, so that others can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowState {
    /// When this was written.
    at_us: u64,
    /// A sub-window by the parameters it was written with.
    width_us: u64,
    /// Cells spent in the 64 sub-windows that end with the newest.
    sum: u32,
    /// Those of them that were spent in the newest, the one of `at_us`.
    current: u32,
    /// Index (time / width) of the oldest sub-window in which any were spent.
    oldest: u64,
    /// Cells spent in the oldest; 0 if that is the newest too.
    first: u32,
    /// Cells per sub-window, at index % 64; 0 for the newest.
    ring: [u32; SLOTS as usize],
}

impl WindowState {
    /// The state as the scripts store it.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(292);
        wire.extend(self.at_us.to_be_bytes());
        wire.extend(self.width_us.to_be_bytes());
        wire.extend(self.sum.to_be_bytes());
        wire.extend(self.current.to_be_bytes());
        wire.extend(self.oldest.to_be_bytes());
        wire.extend(self.first.to_be_bytes());
        wire.extend(self.ring.iter().flat_map(|cells| cells.to_be_bytes()));
        wire
    }

    /// All of `sum` spent at once.
    fn single(at_us: u64, width_us: u64, sum: u32) -> Self {
        let oldest = at_us / width_us;
        Self { at_us, width_us, sum, current: sum, oldest, first: 0, ring: [0; SLOTS as usize] }
    }

    fn newest(&self) -> u64 {
        self.at_us / self.width_us
    }

    /// When all that was spent has left the window.
    fn lapses_us(&self) -> u64 {
        (self.newest() + SLOTS) * self.width_us
    }

    fn count(&self, index: u64) -> u32 {
        if index == self.newest() { self.current } else { self.ring[slot(index)] }
    }

    /// Forgets the sub-windows that have left the window when `index` is the newest. The newest of
    /// this state has not.
    fn forget_before(&mut self, index: u64) {
        if self.oldest + SLOTS > index {
            return;
        }
        for gone in self.oldest..=index - SLOTS {
            self.sum -= self.ring[slot(gone)];
            self.ring[slot(gone)] = 0;
        }
        let newest = self.newest();
        let is_spent = |index: &u64| self.ring[slot(*index)] > 0;
        self.oldest = (index - SLOTS + 1..newest).find(is_spent).unwrap_or(newest);
        self.first = if self.oldest == newest { 0 } else { self.ring[slot(self.oldest)] };
    }

    fn spend(&mut self, cost: u32, now_us: u64) {
        let was = self.newest();
        if was != now_us / self.width_us {
            if self.oldest == was {
                self.first = self.current;
            }
            self.ring[slot(was)] = self.current;
            self.current = 0;
        }
        self.current += cost;
        self.sum += cost;
        self.at_us = now_us;
    }

    /// Spends `cost` cells in the past: at `at_us`, which is within the window.
    fn spend_at(&mut self, cost: u32, at_us: u64) {
        let place = at_us / self.width_us;
        if place > self.newest() {
            self.spend(cost, at_us);
            return;
        }
        self.sum += cost;
        if place == self.newest() {
            self.current += cost;
            return;
        }
        self.ring[slot(place)] += cost;
        if place <= self.oldest {
            (self.oldest, self.first) = (place, self.ring[slot(place)]);
        }
    }

    /// Takes `cost` cells out of the sub-window `place`, which holds as many.
    fn unspend(&mut self, place: u64, cost: u32) {
        let newest = self.newest();
        self.sum -= cost;
        if place == newest {
            self.current -= cost;
            return;
        }
        self.ring[slot(place)] -= cost;
        if place == self.oldest {
            let is_spent = |index: &u64| self.ring[slot(*index)] > 0;
            self.oldest = (place..newest).find(is_spent).unwrap_or(newest);
            self.first = if self.oldest == newest { 0 } else { self.ring[slot(self.oldest)] };
        }
    }

    /// Takes out the oldest `cost` cells, of which there are as many.
    fn unspend_oldest(&mut self, mut cost: u32) {
        while cost > 0 {
            let cells = self.count(self.oldest).min(cost);
            self.unspend(self.oldest, cells);
            cost -= cells;
        }
    }

    /// When so much has left the window that `cost` fits into `max`.
    fn fits_at_us(&self, max: u32, cost: u32) -> u64 {
        let mut left = self.sum;
        let mut index = self.oldest;
        loop {
            left -= self.count(index);
            // At the newest nothing is left, and no cost is above the maximum.
            if index == self.newest() || u64::from(left) + u64::from(cost) <= u64::from(max) {
                return (index + SLOTS) * self.width_us;
            }
            index += 1;
        }
    }
}

fn slot(index: u64) -> usize {
    (index % SLOTS) as usize
}

impl Algorithm for WindowQuota {
    type State = WindowState;

    const PART: &'static str = "window";

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
        to.uint(self.width_us());
        to.uint(self.max().into());
    }

    fn cost_max(&self) -> u32 {
        self.max()
    }

    fn decide(
        &self,
        state: Option<&WindowState>,
        now: ServerTime,
        cost: u32,
    ) -> (Verdict, Option<WindowState>) {
        let standing = Standing::of(*self, state, now.as_micros());
        let verdict = standing.unchanged(cost);
        if !verdict.is_allowed {
            return (verdict, standing.moved);
        }
        if cost == 0 {
            return (verdict, None);
        }
        let now_us = now.as_micros();
        let next = match standing.used {
            None => WindowState::single(now_us, self.width_us(), cost),
            Some(mut used) => {
                used.spend(cost, now_us);
                used
            }
        };
        let verdict = Verdict {
            remaining: self.max() - next.sum,
            reset_after_us: next.lapses_us() - now_us,
            ..verdict
        };
        (verdict, Some(next))
    }

    fn reanchor(&self, state: &WindowState, now: ServerTime) -> Option<WindowState> {
        Standing::of(*self, Some(state), now.as_micros()).moved
    }

    fn is_other(&self, state: &WindowState) -> bool {
        state.width_us != self.width_us()
    }

    /// All or nothing: out of the sub-window in which it was spent, while that is in the window.
    fn give_back(
        &self,
        state: &WindowState,
        debit: &Debit,
        _since: u64,
        now: ServerTime,
    ) -> Option<(u64, Option<WindowState>)> {
        let mut used = Standing::of(*self, Some(state), now.as_micros()).used?;
        let (width_us, cost) = (self.width_us(), debit.cost);
        let (index, place) = (now.as_micros() / width_us, debit.at.as_micros() / width_us);
        let is_counted = place + SLOTS > index && place <= used.newest();
        if cost == 0 || !is_counted || used.count(place) < cost {
            return None;
        }
        used.unspend(place, cost);
        Some((cost.into(), (used.sum > 0).then_some(used)))
    }

    /// What the server knows of itself is a part of what the survivor knows; what is missing counts as
    /// spent when the survivor knows the last cell to have been. So do the cells that others have
    /// added before, as far as they are the same: of both numbers the larger, at the later of both
    /// times. They are known by their sub-window, which leaves the window when the life of the merge
    /// says; others that were spent in it are taken for added.
    fn owe(
        &self,
        state: Option<&WindowState>,
        owed: &Owed,
        mark: &Mark,
        now: ServerTime,
    ) -> Option<(WindowState, u64)> {
        let (now_us, width_us) = (now.as_micros(), self.width_us());
        let index = now_us / width_us;
        let used = Standing::of(*self, state, now_us).used;
        let sum = used.as_ref().map_or(0, |used| used.sum);
        let newest = used.as_ref().map_or(0, WindowState::newest);
        let mut added_in = (mark.life / width_us).saturating_sub(SLOTS);
        let is_added = |_: &&WindowState| added_in + SLOTS > index && added_in <= newest;
        let mut added = used.as_ref().filter(is_added).map_or(0, |used| used.count(added_in));
        if owed.is_newer_than(mark) {
            // Cells from before the reset are no part of what the survivor knows.
            (added, added_in) = (sum, added_in.max(newest));
        }
        // The oldest stand for cells whose refund was lost: they are no part of it either.
        let refunded = owed.given_unknown_to(mark).min((sum - added).into()) as u32;
        let cells = owed.cells_since(mark).min(self.max());
        let missing = cells.saturating_sub(sum - added - refunded);
        let place = (now_us + owed.left_us).div_ceil(width_us).saturating_sub(SLOTS).min(index);
        let is_more = missing > added || missing > 0 && place > added_in;
        let is_undone = owed.is_newer_than(mark) && added > 0;
        if !(is_more || is_undone) {
            return None;
        }
        let place = place.max(added_in).min(index);
        let (at_us, missing) = (now_us.min((place + 1) * width_us - 1), missing.max(added));
        let life = (mark.life + 1).max((place + SLOTS) * width_us);
        let Some(mut used) = used.filter(|used| used.sum > added + refunded) else {
            return Some((WindowState::single(at_us, width_us, missing), life));
        };
        if added > 0 {
            used.unspend(added_in, added);
        }
        used.unspend_oldest(refunded);
        used.spend_at(missing, at_us);
        Some((used, life))
    }

    fn peek(&self, state: Option<&WindowState>, now: ServerTime, cost: u32) -> Verdict {
        Standing::of(*self, state, now.as_micros()).unchanged(cost)
    }

    fn lives(state: &WindowState, now: ServerTime) -> Duration {
        Duration::from_micros(state.lapses_us().saturating_sub(now.as_micros()))
    }

    fn spent(&self, spent: u32, at: ServerTime) -> WindowState {
        WindowState::single(at.as_micros(), self.width_us(), spent)
    }

    fn share(&self, instances: NonZeroU32) -> Self {
        Self::share(*self, instances)
    }
}

/// Where a key stands now, by the quota of now.
struct Standing {
    max: u32,
    now_us: u64,
    /// What is still in the window, if anything is; in sub-windows of the quota of now.
    used: Option<WindowState>,
    /// When the stored state is over, by the parameters it was written with.
    lapses_us: u64,
    /// What must be written even if nothing is spent: the stored state is from the future.
    moved: Option<WindowState>,
}

impl Standing {
    fn of(quota: WindowQuota, state: Option<&WindowState>, now_us: u64) -> Self {
        let (max, index) = (quota.max(), now_us / quota.width_us());
        let unused = Self { max, now_us, used: None, lapses_us: now_us, moved: None };
        let Some(&stored) = state else { return unused };
        let mut held = stored;
        let mut moved = None;
        let is_other = held.width_us != quota.width_us();
        if held.at_us > now_us && (is_other || held.newest() > now_us / held.width_us) {
            // The clock went back. What was spent stays spent, as of now. Without this a key would
            // stay refused for as long as the clock went back. Within one sub-window nothing needs
            // to be done, unless the sub-windows of now are others.
            held = WindowState::single(now_us, held.width_us, held.sum);
            moved = Some(held);
        }
        let lapses_us = held.lapses_us();
        if lapses_us <= now_us {
            return unused;
        }
        if is_other {
            held = WindowState::single(held.at_us, quota.width_us(), held.sum);
            if held.lapses_us() <= now_us {
                return unused;
            }
        }
        held.forget_before(index);
        Self { max, now_us, used: Some(held), lapses_us, moved }
    }

    /// The answer if nothing is spent.
    fn unchanged(&self, cost: u32) -> Verdict {
        let until = |time_us: u64| time_us.min(self.lapses_us) - self.now_us;
        let sum = self.used.as_ref().map_or(0, |used| used.sum);
        let is_allowed = cost == 0 || u64::from(sum) + u64::from(cost) <= u64::from(self.max);
        let retry_after_us = match &self.used {
            Some(used) if !is_allowed => until(used.fits_at_us(self.max, cost)),
            _ => 0,
        };
        Verdict {
            is_allowed,
            remaining: self.max.saturating_sub(sum),
            retry_after_us,
            reset_after_us: self.used.as_ref().map_or(0, |used| until(used.lapses_us())),
        }
    }
}
