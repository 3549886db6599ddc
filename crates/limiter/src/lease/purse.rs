//! The cells of one key that are in hand: what a call takes, and when to buy how many.
//!
//! Pure: the time is an argument, and nothing is sent.

use std::collections::VecDeque;

use fleetwide_core_traits::MonoTime;

use super::Terms;
use crate::floors::{Floors, Stamp};
use crate::receipt::Receipt;

/// What a key begins with.
const SIZE_FIRST: u32 = 8;
/// A lease of one cell is a call that is exact anyway.
const SIZE_MIN: u32 = 2;
/// A lease is at most this part of what is left for the fleet. So the leases of several instances
/// get smaller and smaller towards the limit, and there each call is exact.
const PART_OF_REST: u32 = 4;
/// A lease that is half used within this part of its lifetime was too small.
const FAST_PART: u32 = 4;

/// The cells of one key.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    /// The oldest first.
    lots: VecDeque<Lot>,
    /// What the next purchase asks for, if there is as much left.
    size: u32,
    is_buying: bool,
    bought_at: MonoTime,
    called_at: MonoTime,
    /// What the fleet last said of the key.
    rest: Rest,
}

/// Cells that were bought at once.
#[derive(Debug)]
pub(crate) struct Lot {
    left: u32,
    bought: u32,
    good_until: MonoTime,
    stamp: Stamp,
    receipt: Receipt,
}

/// What the fleet's count said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rest {
    pub(crate) left: u32,
    pub(crate) reset_at: MonoTime,
}

/// What became of a call.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// What is left if the call is allowed: in hand, and for the fleet as it said last. `None`: the
    /// fleet must be asked.
    pub(crate) allowed: Option<Rest>,
    /// So many cells are to be bought now.
    pub(crate) buy: Option<u32>,
    /// Whether the key has a purse, which somebody must sweep.
    pub(crate) is_kept: bool,
}

impl Lot {
    /// Cells that the fleet has granted for `receipt`, to a question of `asked_at`.
    pub(crate) fn new(receipt: Receipt, stamp: Stamp, asked_at: MonoTime, terms: &Terms) -> Self {
        let bought = receipt.cost();
        // From the question on: so it is over, at the latest, a lifetime after it was debited.
        let good_until = asked_at.plus(terms.lifetime);
        Self { left: bought, bought, good_until, stamp, receipt }
    }

    fn is_good(&self, now: MonoTime, floors: &Floors) -> bool {
        now < self.good_until && floors.holds(self.stamp)
    }

    /// The receipt for what was not used.
    pub(crate) fn into_rest(self) -> Option<Receipt> {
        self.receipt.for_part(self.left)
    }
}

impl Purse {
    /// The purse of a key that is called for the first time, at `now`.
    pub(crate) fn new(now: MonoTime) -> Self {
        Self { size: SIZE_FIRST, called_at: now, ..Self::default() }
    }

    /// Takes `cost` cells, all or none. What is no longer good goes to `gone`.
    pub(crate) fn take(
        &mut self,
        cost: u32,
        now: MonoTime,
        terms: &Terms,
        floors: &Floors,
        gone: &mut Vec<Receipt>,
    ) -> Taken {
        self.drop_gone(now, floors, gone);
        let is_busy = now.since(self.called_at) < terms.lifetime;
        self.called_at = now;
        let held = self.held();
        let mut allowed = None;
        let mut left = held;
        if held >= cost {
            self.spend(cost);
            left -= cost;
            allowed = Some(Rest { left: self.rest.left.saturating_add(left), ..self.rest });
        }
        let buy = if is_busy { self.wants(left, now, terms) } else { None };
        Taken { allowed, buy, is_kept: true }
    }

    /// What the fleet said of the key in an exact answer.
    pub(crate) fn learn(&mut self, rest: Rest) {
        self.rest = rest;
    }

    /// A purchase is over. What cannot be used is handed back.
    pub(crate) fn bought(&mut self, lot: Option<Lot>, rest: Rest, now: MonoTime) {
        self.is_buying = false;
        self.rest = rest;
        self.bought_at = now;
        self.lots.extend(lot);
    }

    /// Gives up what is over, and all if nobody has called for half a lifetime. Whether the purse is
    /// still needed.
    pub(crate) fn sweep(
        &mut self,
        now: MonoTime,
        terms: &Terms,
        floors: &Floors,
        gone: &mut Vec<Receipt>,
    ) -> bool {
        self.drop_gone(now, floors, gone);
        let idle = now.since(self.called_at);
        if idle >= terms.lifetime / 2 {
            self.empty(gone);
        }
        !self.lots.is_empty() || self.is_buying || idle < 2 * terms.lifetime
    }

    /// Gives up all.
    pub(crate) fn empty(&mut self, gone: &mut Vec<Receipt>) {
        gone.extend(self.lots.drain(..).filter_map(Lot::into_rest));
        self.size = SIZE_FIRST;
    }

    /// Cells in hand.
    pub(crate) fn held(&self) -> u32 {
        self.lots.iter().map(|lot| lot.left).sum()
    }

    fn spend(&mut self, mut cost: u32) {
        while let Some(lot) = self.lots.front_mut() {
            let part = cost.min(lot.left);
            lot.left -= part;
            cost -= part;
            if lot.left > 0 {
                break;
            }
            self.lots.pop_front();
        }
    }

    fn drop_gone(&mut self, now: MonoTime, floors: &Floors, gone: &mut Vec<Receipt>) {
        while self.lots.front().is_some_and(|lot| !lot.is_good(now, floors))
            && let Some(lot) = self.lots.pop_front()
        {
            if lot.left > lot.bought / 2 {
                self.size = (self.size / 2).max(SIZE_MIN);
            }
            gone.extend(lot.into_rest());
        }
    }

    /// How many cells to buy, if it is time.
    fn wants(&mut self, held: u32, now: MonoTime, terms: &Terms) -> Option<u32> {
        if self.is_buying || held > self.size / 2 {
            return None;
        }
        let mut size = self.size;
        if now.since(self.bought_at) < terms.lifetime / FAST_PART {
            size = size.saturating_mul(2);
        }
        let size = size.min(terms.cells_max);
        let want =
            size.min(self.rest.left / PART_OF_REST).min(terms.cells_max.saturating_sub(held));
        if want < SIZE_MIN {
            return None;
        }
        (self.size, self.is_buying) = (size, true);
        Some(want)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: Terms = Terms { cells_max: 1_000, lifetime: Duration::from_secs(1) };

    /// What a purse that has used up its cells buys when the fleet has so many left.
    fn bought_of(left: u32) -> Option<u32> {
        let now = MonoTime::from_micros(1);
        let mut purse = Purse { size: 100, ..Purse::new(now) };
        purse.learn(Rest { left, reset_at: now });
        purse.wants(0, now.plus(TERMS.lifetime), &TERMS)
    }

    // Red with a plain difference: terms may change under a purse that has more.
    #[test]
    fn purse_with_more_than_new_terms_allow_buys_nothing() {
        let now = MonoTime::from_micros(1);
        let mut purse = Purse { size: 100, ..Purse::new(now) };
        purse.learn(Rest { left: 1_000, reset_at: now });
        let terms = Terms { cells_max: 20, ..TERMS };
        assert_eq!(purse.wants(40, now.plus(TERMS.lifetime), &terms), None);
    }

    /// Red when a lease may take all that is left.
    #[test]
    fn leases_get_smaller_towards_the_limit_and_end_before_it() {
        let bought = [1_000, 400, 80, 8, 7, 0].map(bought_of);
        assert_eq!(bought, [Some(100), Some(100), Some(20), Some(2), None, None]);
    }
}
