//! What came of a candidate, as data.

use std::time::Duration;

use fleetwide_core_traits::ServerTime;

use crate::{Answer, Quota};

/// What this instance has seen of a candidate since its limiter was built:
/// [`Limiter::shadow_report`](crate::Limiter::shadow_report).
///
/// Numbers of different instances add up; the calls of one key may be spread over all of them.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowReport {
    /// The quota that is tried.
    pub candidate: Quota,
    /// The share of all keys on which it is, from 0 to 1. Calls of others are in none of these numbers.
    pub share: f64,
    /// How often both agreed, and how often not.
    pub agreement: Agreement,
    /// Calls that were not judged: see [`Shadow`](crate::Shadow).
    pub unjudged: u64,
    /// Those of them for which the candidate's key held what no limiter writes, or had no room.
    pub failed: u64,
    /// Keys about which both disagree most often: 32 at most, the most frequent first.
    pub flipping: Vec<FlippingKey>,
    /// The first call that both decided differently.
    pub first_divergence: Option<Divergence>,
}

/// How often two quotas agreed, in calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Both allowed it.
    pub both_allow: u64,
    /// Both refused it.
    pub both_deny: u64,
    /// It was allowed, and the candidate would have refused it.
    pub only_real_allows: u64,
    /// It was refused, and the candidate would have allowed it.
    pub only_candidate_allows: u64,
}

impl Agreement {
    /// All calls that were judged.
    pub const fn judged(&self) -> u64 {
        self.both_allow + self.both_deny + self.flips()
    }

    /// Calls that were decided differently.
    pub const fn flips(&self) -> u64 {
        self.only_real_allows + self.only_candidate_allows
    }
}

/// A key about which two quotas disagree.
///
/// Of many keys those that flip most are found with a bounded table: one that comes while it is full
/// takes the place, and the count, of the one that flipped least. So a key has flipped at least
/// `only_real_allows + only_candidate_allows` times, and at most [`over`](Self::over) times more. Up to
/// 32 keys, `over` is 0, and the counts are exact. One that flips more often than one in 32 of all
/// flips is always among them.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlippingKey {
    /// Its name if [names are shown](crate::Shadow::show_keys), else digits that stand for it.
    pub key: String,
    /// Calls that were allowed, and that the candidate would have refused.
    pub only_real_allows: u64,
    /// Calls that were refused, and that the candidate would have allowed.
    pub only_candidate_allows: u64,
    /// How many flips of it may have gone uncounted.
    pub over: u64,
}

/// A call that was decided differently.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// As [`FlippingKey::key`].
    pub key: String,
    /// What it was to spend.
    pub cost: u32,
    /// When it was decided, by the clock of the backend.
    pub at: ServerTime,
    /// The answer, and where the key stood.
    pub real: Opinion,
    /// What the candidate would have answered, and where it stood.
    pub candidate: Opinion,
}

/// What one quota says of a call, and where the key stands by it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Whether the call may go on.
    pub is_allowed: bool,
    /// Cells that are left after it.
    pub remaining: u32,
    /// The shortest time after which the same cost is allowed. Zero: now. [`Duration::MAX`]: never,
    /// the cost is above what an unused key has.
    pub retry_after: Duration,
    /// The time until all cells are back.
    pub reset_after: Duration,
}

impl Opinion {
    pub(super) const fn of(answer: &Answer) -> Self {
        let verdict = answer.verdict;
        let retry_after = match verdict.retry_after_us {
            u64::MAX => Duration::MAX,
            wait_us => Duration::from_micros(wait_us),
        };
        Self {
            is_allowed: verdict.is_allowed,
            remaining: verdict.remaining,
            retry_after,
            reset_after: Duration::from_micros(verdict.reset_after_us),
        }
    }
}
