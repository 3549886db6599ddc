//! The algorithm of a limiter, chosen at run time, with its parameters.

use fleetwide_core_traits::{Key, MonoTime};

use crate::algorithm::Algorithm;
use crate::fallback::share::Share;
use crate::{
    Answer, BucketQuota, CheckError, Decision, FixedQuota, GcraQuota, LogQuota, Quota, Source,
    WindowQuota,
};

/// The algorithm, chosen at run time.
pub(crate) enum Policy {
    Gcra(Counter<GcraQuota>),
    SlidingWindow(Counter<WindowQuota>),
    TokenBucket(Counter<BucketQuota>),
    FixedWindow(Counter<FixedQuota>),
    SlidingLog(Counter<LogQuota>),
}

/// Hands a call through to the algorithm.
macro_rules! by_algorithm {
    ($policy:expr, $counter:ident => $call:expr) => {
        match $policy {
            $crate::counter::Policy::Gcra($counter) => $call,
            $crate::counter::Policy::SlidingWindow($counter) => $call,
            $crate::counter::Policy::TokenBucket($counter) => $call,
            $crate::counter::Policy::FixedWindow($counter) => $call,
            $crate::counter::Policy::SlidingLog($counter) => $call,
        }
    };
}
pub(crate) use by_algorithm;

/// One algorithm with its parameters, and this instance's share if it has one.
pub(crate) struct Counter<A: Algorithm> {
    pub(crate) quota: A,
    pub(crate) share: Option<Share<A>>,
}

/// Hands a call through with the parameters of one algorithm.
macro_rules! by_quota {
    ($quota:expr, $parameters:ident => $call:expr) => {
        match $quota {
            $crate::Quota::Gcra($parameters) => $call,
            $crate::Quota::SlidingWindow($parameters) => $call,
            $crate::Quota::TokenBucket($parameters) => $call,
            $crate::Quota::FixedWindow($parameters) => $call,
            $crate::Quota::SlidingLog($parameters) => $call,
        }
    };
}
pub(crate) use by_quota;

impl Policy {
    pub(crate) fn quota(&self) -> Quota {
        by_algorithm!(self, counter => counter.quota.into())
    }

    /// The same counts under another quota; `None` if it counts in another way.
    pub(crate) fn with(&self, quota: Quota) -> Option<Self> {
        Some(match (self, quota) {
            (Self::Gcra(counter), Quota::Gcra(quota)) => Self::Gcra(counter.with(quota)),
            (Self::SlidingWindow(counter), Quota::SlidingWindow(quota)) => {
                Self::SlidingWindow(counter.with(quota))
            }
            (Self::TokenBucket(counter), Quota::TokenBucket(quota)) => {
                Self::TokenBucket(counter.with(quota))
            }
            (Self::FixedWindow(counter), Quota::FixedWindow(quota)) => {
                Self::FixedWindow(counter.with(quota))
            }
            (Self::SlidingLog(counter), Quota::SlidingLog(quota)) => {
                Self::SlidingLog(counter.with(quota))
            }
            _ => return None,
        })
    }
}

impl<A: Algorithm> Counter<A> {
    /// The cost as the steps take it; `None` if nothing is to be spent, so that nothing needs to be
    /// written.
    pub(crate) fn cost(&self, cost: u64) -> Result<Option<u32>, CheckError> {
        let max = self.quota.cost_max();
        match u32::try_from(cost) {
            Ok(0) => Ok(None),
            Ok(cost) if cost <= max => Ok(Some(cost)),
            _ => Err(CheckError::Oversize { cost, max }),
        }
    }

    /// The decision of the fleet's count, which came in at `now`.
    pub(crate) fn shared(&self, key: &Key, answer: &Answer, now: MonoTime) -> Decision {
        if let Some(share) = &self.share {
            share.learn(key, answer.verdict.remaining, now);
        }
        Decision::new(answer.verdict, Source::Shared)
    }

    /// The same count under another quota.
    fn with(&self, quota: A) -> Self {
        Self { quota, share: self.share.as_ref().map(|share| share.with(quota)) }
    }
}
