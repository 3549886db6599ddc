//! What one answer says of one key, and how it goes together with others.

use std::time::Duration;

use fleetwide_core_traits::{MonoTime, ServerTime};

use crate::algorithm::Owed;
use crate::{Answer, Mark, Quota, Verdict};

/// What the fleet was known to have spent of a key, by an answer to this instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Debt {
    /// By which it was asked.
    pub(crate) quota: Quota,
    /// When none of it counts any more, on a server whose clock is as far behind as may be.
    until: MonoTime,
    cells: u32,
    mark: Mark,
    /// When it was decided, by the server's clock; the epoch if a refusal said it.
    at: ServerTime,
}

impl Debt {
    /// What `answer`, which came in at `now`, says; `None` if it says nothing of what was spent.
    pub(crate) fn of(quota: Quota, answer: &Answer, now: MonoTime) -> Option<Self> {
        let Verdict { remaining, reset_after_us, .. } = answer.verdict;
        let cells = quota.cost_max().saturating_sub(remaining);
        // While a key is blocked, the answer speaks of the block.
        if answer.blocked_us > 0 || reset_after_us == 0 || cells == 0 {
            return None;
        }
        let slack_us = match quota {
            Quota::FixedWindow(quota) => quota.slack_us(),
            _ => 0,
        };
        let until = now.plus(Duration::from_micros(reset_after_us + slack_us));
        Some(Self { quota, until, cells, mark: answer.mark, at: answer.at })
    }

    pub(crate) fn until(&self) -> MonoTime {
        self.until
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    pub(crate) fn is_over(&self, now: MonoTime) -> bool {
        self.until <= now
    }

    /// What is left of it at `now`, for a server.
    pub(crate) fn owed(&self, now: MonoTime) -> Owed {
        let left_us = self.until.since(now).as_micros() as u64;
        let Mark { generation, refunds, .. } = self.mark;
        Owed { left_us, cells: self.cells, generation, refunds }
    }

    /// Replaced by what a later answer of the same history says. Answers may arrive in another order
    /// than they were decided in: the mark tells them apart, and where it does not, the larger debt
    /// is the later one, but for cells that have left a window meanwhile.
    pub(crate) fn learn(&mut self, other: Self, now: MonoTime) {
        if self.says_more_than(&other, now) {
            // That is as much as the other quota can say.
            self.until = self.until.max(other.until);
            return;
        }
        let is_same = (self.mark, self.quota) == (other.mark, other.quota);
        if !is_same || self.is_over(now) {
            if self.is_over(now) || other.is_later_than(self) {
                *self = other;
            }
        } else if self.is_of_window_of(&other) {
            // Of one moment, the larger is the later one.
            let is_later = other.at > self.at;
            self.cells = if is_later { other.cells } else { self.cells.max(other.cells) };
            self.until = self.until.max(other.until);
            self.at = self.at.max(other.at);
        } else if other.until > self.until {
            // Of the next window.
            *self = other;
        }
    }

    /// Grows by what another history says: the larger of both, and never the sum. What was given back
    /// in one of them is not known to be so in the other.
    pub(crate) fn include(&mut self, other: Self, _: MonoTime) {
        let (known, new) = (self.mark.generation, other.mark.generation);
        if new > known {
            *self = other;
        } else if new == known {
            let later = if other.until > self.until { other } else { *self };
            let refunds = self.mark.refunds.max(other.mark.refunds);
            let is_one_count = self.is_of_window_of(&other);
            let cells = if is_one_count { self.cells.max(other.cells) } else { later.cells };
            *self = Self { cells, mark: Mark { refunds, ..later.mark }, ..later };
        }
    }

    /// Shrinks by what was given back, in the units of its algorithm.
    pub(crate) fn give_back(&mut self, given: u64) {
        self.mark.refunds += given;
        match self.quota {
            // It is a time. The cells stay an upper bound.
            Quota::Gcra(_) | Quota::TokenBucket(_) => {
                self.until = self.until.minus(Duration::from_micros(given));
            }
            Quota::SlidingWindow(_) | Quota::FixedWindow(_) | Quota::SlidingLog(_) => {
                self.cells -= (given.min(self.cells.into())) as u32;
            }
        }
    }

    /// Whether `other` is used up by a smaller quota, so that it does not say how much was spent.
    fn says_more_than(&self, other: &Self, now: MonoTime) -> bool {
        let is_of_one_life = self.mark.generation == other.mark.generation && !self.is_over(now);
        let is_used_up = other.cells == other.quota.cost_max() && other.cells < self.cells;
        is_used_up && is_of_one_life && self.is_of_window_of(other)
    }

    /// Whether both are of one count. Each fixed window has its own, and what is known of one says
    /// nothing of the next. Ends of one window are some trips apart.
    fn is_of_window_of(&self, other: &Self) -> bool {
        let Quota::FixedWindow(quota) = other.quota else { return true };
        let apart = self.until.since(other.until).max(other.until.since(self.until));
        2 * apart < Duration::from_micros(quota.window_us())
    }

    /// Whether it was decided later, for all that marks and the server's clock say.
    fn is_later_than(&self, other: &Self) -> bool {
        let order = |mark: Mark| (mark.generation, mark.life, mark.refunds);
        let is_by_clock = other.at > ServerTime::default() && self.at > other.at;
        order(self.mark) > order(other.mark) || is_by_clock || self.quota != other.quota
    }
}
