//! What a call may give back later.

use std::fmt;
use std::time::Duration;

use fleetwide_core_traits::{Key, MonoTime};

use crate::algorithm::Debit;
use crate::shadow::Lent;
use crate::{Answer, Decision, Quota};

/// What a call was granted.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "a refusal that nobody looks at limits nothing"]
pub struct Grant {
    /// Whether the caller may go on.
    pub decision: Decision,
    /// Cells that were spent: fewer than were asked for only if that was asked for; 0 in a refusal.
    pub granted: u32,
    /// What gives them back, if anything can: the fleet's count was asked and has spent them.
    pub receipt: Option<Receipt>,
}

/// Proof of what one call has spent, for [`Limiter::refund`](crate::Limiter::refund).
///
/// It is good for one refund, so it cannot be copied. It is worth less as time goes on, and nothing
/// once time has given back what was spent; dropping it spends nothing and costs nothing.
#[must_use = "dropped, it gives nothing back"]
pub struct Receipt {
    pub(crate) key: Key,
    pub(crate) quota: Quota,
    pub(crate) debit: Debit,
    /// When time has surely given everything back, by the clock of this process. The server knows it
    /// too, but for a server whose clock went back, and came to the time of the call once more.
    pub(crate) worthless_at: MonoTime,
    /// What the same call has spent of a candidate.
    pub(crate) lent: Option<Box<Lent>>,
}

impl Receipt {
    /// The receipt for an answer that came in at `now`; `None` if nothing was spent.
    pub(crate) fn new(key: &Key, quota: Quota, answer: &Answer, now: MonoTime) -> Option<Self> {
        let Answer { verdict, at, granted: cost, mark, .. } = *answer;
        if cost == 0 {
            return None;
        }
        let all_back = Duration::from_micros(verdict.reset_after_us);
        let debit = Debit { cost, at, upto: at.plus(all_back), mark };
        let worthless_at = now.plus(all_back);
        Some(Self { key: key.clone(), quota, debit, worthless_at, lent: None })
    }

    /// The same with what the call has spent of a candidate, if it has.
    pub(crate) fn with_lent(mut self, key: Option<Key>, quota: Quota, answer: &Answer) -> Self {
        let lent = key.filter(|_| answer.granted > 0).map(|key| {
            let all_back = Duration::from_micros(answer.verdict.reset_after_us);
            let Answer { at, granted: cost, mark, .. } = *answer;
            Lent { key, quota, debit: Debit { cost, at, upto: at.plus(all_back), mark } }
        });
        self.lent = lent.map(Box::new);
        self
    }

    /// The receipt for the last `cost` cells of it, which is as if they had been spent by a call of
    /// their own at the same moment; `None` for none.
    pub(crate) fn for_part(mut self, cost: u32) -> Option<Self> {
        self.debit.cost = self.debit.cost.min(cost);
        (self.debit.cost > 0).then_some(self)
    }

    /// Cells that were spent.
    pub const fn cost(&self) -> u32 {
        self.debit.cost
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("cost", &self.debit.cost).finish_non_exhaustive()
    }
}

/// What came of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refunded {
    /// All cells are there again.
    All,
    /// Some are: time had given back the others, or was about to.
    Part,
    /// None are: time has given them back, or the key was reset, or its times mean something else
    /// since (another quota, a clock that went back).
    Nothing,
}
