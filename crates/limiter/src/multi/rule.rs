//! What one level limits, and what is kept of it.

use fleetwide_core_traits::ArgSink;

use crate::algorithm::Algorithm;
use crate::concurrency::{ConcurrencyQuota, ConcurrencyState};
use crate::counter::by_quota;
use crate::{
    BucketQuota, BucketState, FixedQuota, FixedState, GcraQuota, GcraState, Held, LogQuota,
    LogState, Quota, WindowQuota, WindowState,
};

/// What one level limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// How often.
    Rate(Quota),
    /// How much at once.
    AtOnce(ConcurrencyQuota),
}

impl Rule {
    /// The last part of its keys but for its name.
    pub(crate) const fn part(&self) -> &'static str {
        match self {
            Self::Rate(Quota::Gcra(_)) => GcraQuota::PART,
            Self::Rate(Quota::SlidingWindow(_)) => WindowQuota::PART,
            Self::Rate(Quota::TokenBucket(_)) => BucketQuota::PART,
            Self::Rate(Quota::FixedWindow(_)) => FixedQuota::PART,
            Self::Rate(Quota::SlidingLog(_)) => LogQuota::PART,
            Self::AtOnce(_) => "at-once",
        }
    }

    /// Its number in `lua/multi.lua`.
    pub(crate) const fn kind(&self) -> u64 {
        match self {
            Self::Rate(Quota::Gcra(_)) => 1,
            Self::Rate(Quota::SlidingWindow(_)) => 2,
            Self::Rate(Quota::TokenBucket(_)) => 3,
            Self::Rate(Quota::FixedWindow(_)) => 4,
            Self::Rate(Quota::SlidingLog(_)) => 5,
            Self::AtOnce(_) => 6,
        }
    }

    /// Writes the arguments of a check.
    pub(super) fn args(&self, id: u64, cost: u32, to: &mut dyn ArgSink) {
        match self {
            Self::Rate(quota) => by_quota!(quota, quota => quota.args(to)),
            Self::AtOnce(quota) => {
                to.uint(quota.max().into());
                to.uint(quota.lease_us());
                to.bytes(&id.to_be_bytes());
            }
        }
        to.uint(cost.into());
    }
}

/// What is kept of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelState {
    /// By GCRA.
    Gcra(Held<GcraState>),
    /// By the sliding window, whose ring is far larger than all else.
    SlidingWindow(Box<Held<WindowState>>),
    /// By the token bucket.
    TokenBucket(Held<BucketState>),
    /// By the fixed window.
    FixedWindow(Held<FixedState>),
    /// By the sliding log.
    SlidingLog(Held<LogState>),
    /// Who holds a permit.
    AtOnce(ConcurrencyState),
}

impl LevelState {
    /// The bytes as the scripts store them.
    pub fn to_wire(&self) -> Vec<u8> {
        match self {
            Self::Gcra(held) => held.to_wire(GcraState::to_wire),
            Self::SlidingWindow(held) => held.to_wire(WindowState::to_wire),
            Self::TokenBucket(held) => held.to_wire(BucketState::to_wire),
            Self::FixedWindow(held) => held.to_wire(FixedState::to_wire),
            Self::SlidingLog(held) => held.to_wire(LogState::to_wire),
            Self::AtOnce(state) => state.to_wire(),
        }
    }

    pub(crate) const fn leases(&self) -> Option<&ConcurrencyState> {
        match self {
            Self::AtOnce(state) => Some(state),
            _ => None,
        }
    }
}

/// An algorithm whose state is that of a level.
pub(crate) trait Rated: Algorithm {
    fn held(state: &LevelState) -> Option<&Held<Self::State>>;
    fn level(held: Held<Self::State>) -> LevelState;
}

macro_rules! rated {
    ($($quota:ty => $variant:ident),+ $(,)?) => {
        $(impl Rated for $quota {
            fn held(state: &LevelState) -> Option<&Held<Self::State>> {
                match state {
                    LevelState::$variant(held) => Some(held),
                    _ => None,
                }
            }

            fn level(held: Held<Self::State>) -> LevelState {
                LevelState::$variant(held)
            }
        })+
    };
}

rated! {
    GcraQuota => Gcra,
    BucketQuota => TokenBucket,
    FixedQuota => FixedWindow,
    LogQuota => SlidingLog,
}

impl Rated for WindowQuota {
    fn held(state: &LevelState) -> Option<&Held<WindowState>> {
        match state {
            LevelState::SlidingWindow(held) => Some(held),
            _ => None,
        }
    }

    fn level(held: Held<WindowState>) -> LevelState {
        LevelState::SlidingWindow(Box::new(held))
    }
}
