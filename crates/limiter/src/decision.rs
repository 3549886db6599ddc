//! What a limiter answers.

use std::time::Duration;

/// What an algorithm says about one call, before it is known who reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the cost may be spent.
    pub is_allowed: bool,
    /// Cells that are left after it.
    pub remaining: u32,
    /// The shortest time after which the same cost is allowed, if nobody else spends meanwhile;
    /// 0 if it is allowed now.
    pub retry_after_us: u64,
    /// The time until all cells are back, if nobody spends meanwhile.
    pub reset_after_us: u64,
}

/// The answer to one call. A refusal is an answer, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a refusal that nobody looks at limits nothing"]
pub enum Decision {
    /// Go on: the cost is spent.
    #[non_exhaustive]
    Allow {
        /// Cells that are left. If the source is [`Source::Leased`], those that this instance has in
        /// hand, and those that the fleet had left when it was asked last.
        remaining: u32,
        /// The time until all cells are back, if nobody spends meanwhile.
        reset_after: Duration,
        /// Who decided.
        source: Source,
    },
    /// Do not go on: nothing is spent.
    #[non_exhaustive]
    Deny {
        /// The shortest time after which the same cost is allowed, if nobody else spends meanwhile.
        /// Exact to the microsecond if the source is [`Source::Shared`]. If it is
        /// [`Source::Remembered`], it is what is left of the time that was said then; for a call
        /// that costs more than the one that was refused then, it may be too short.
        retry_after: Duration,
        /// Cells that are left: fewer than the cost.
        remaining: u32,
        /// The time until all cells are back, if nobody spends meanwhile.
        reset_after: Duration,
        /// Who decided.
        source: Source,
    },
}

/// Who decided: the fleet's own count, or the rung that stands in for it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The count that all instances share.
    Shared,
    /// The count that all instances share, by an earlier refusal that is still true: no trip was
    /// made ([`LimiterBuilder::deny_cache`](crate::LimiterBuilder::deny_cache)).
    Remembered,
    /// Cells that this instance bought ahead from the count that all share: no trip was made
    /// ([`LimiterBuilder::leased`](crate::LimiterBuilder::leased)).
    Leased,
    /// This instance's share of the quota, because the backend gives no answer.
    LocalShare,
    /// Nobody: all calls are allowed while the backend gives no answer.
    Open,
    /// Nobody: all calls are refused while the backend gives no answer.
    Closed,
}

impl Decision {
    /// Whether the caller may go on.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// Cells that are left.
    pub const fn remaining(&self) -> u32 {
        match self {
            Self::Allow { remaining, .. } | Self::Deny { remaining, .. } => *remaining,
        }
    }

    /// The shortest time after which a refused call can be allowed.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Allow { .. } => None,
            Self::Deny { retry_after, .. } => Some(*retry_after),
        }
    }

    /// The time until all cells are back, if nobody spends meanwhile.
    pub const fn reset_after(&self) -> Duration {
        match self {
            Self::Allow { reset_after, .. } | Self::Deny { reset_after, .. } => *reset_after,
        }
    }

    /// Who decided.
    pub const fn source(&self) -> Source {
        match self {
            Self::Allow { source, .. } | Self::Deny { source, .. } => *source,
        }
    }

    pub(crate) const fn new(verdict: Verdict, source: Source) -> Self {
        let Verdict { is_allowed, remaining, retry_after_us, reset_after_us } = verdict;
        let reset_after = Duration::from_micros(reset_after_us);
        if is_allowed {
            Self::Allow { remaining, reset_after, source }
        } else {
            let retry_after = Duration::from_micros(retry_after_us);
            Self::Deny { retry_after, remaining, reset_after, source }
        }
    }
}

impl Source {
    /// A word for logs, metrics and headers: `shared`, `remembered`, `leased`, `local_share`,
    /// `open`, `closed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Remembered => "remembered",
            Self::Leased => "leased",
            Self::LocalShare => "local_share",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}
