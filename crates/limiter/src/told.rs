//! What a request was answered, so that a retry of it gets the same answer. The twin of
//! `lua/once_open.lua` and `lua/once.lua`.

use std::time::Duration;

use fleetwide_core_traits::ServerTime;

use crate::{Answer, Mark, Verdict};

/// How long an answer is remembered: longer than anybody retries one request, and short enough that
/// what a busy key leaves behind stays small.
pub(crate) const HORIZON: Duration = Duration::from_secs(60);

/// An allowed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    at_us: u64,
    remaining: u32,
    granted: u32,
    reset_after_us: u64,
    mark: Mark,
}

impl Told {
    /// What must be remembered of an answer; `None` if nothing was spent.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let Answer { verdict, at, granted, mark, .. } = *answer;
        let Verdict { remaining, reset_after_us, .. } = verdict;
        let told = Self { at_us: at.as_micros(), remaining, granted, reset_after_us, mark };
        (verdict.is_allowed && granted > 0).then_some(told)
    }

    /// The answer once more, unless it is too long ago.
    pub(crate) fn answer(&self, now: ServerTime) -> Option<Answer> {
        let horizon_us = HORIZON.as_micros() as u64;
        let verdict = Verdict {
            is_allowed: true,
            remaining: self.remaining,
            retry_after_us: 0,
            reset_after_us: self.reset_after_us,
        };
        let (at, granted) = (ServerTime::from_micros(self.at_us), self.granted);
        let answer = Answer { verdict, at, granted, mark: self.mark, blocked_us: 0 };
        (self.at_us + horizon_us > now.as_micros()).then_some(answer)
    }

    /// The bytes as the scripts store them.
    pub(crate) fn to_wire(self) -> Vec<u8> {
        let Mark { generation, life, refunds } = self.mark;
        let mut wire = self.at_us.to_be_bytes().to_vec();
        wire.extend([self.remaining, self.granted].map(u32::to_be_bytes).concat());
        wire.extend(
            [self.reset_after_us, generation, life, refunds].map(u64::to_be_bytes).concat(),
        );
        wire
    }
}
