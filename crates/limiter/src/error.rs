//! Mistakes of the caller, and outages where no rung can stand in.

use std::time::Duration;

use fleetwide_core_traits::{BackendError, KeyError};

use crate::PolicyNameError;
use crate::builder::DEADLINE_MIN;

/// Why a call got no [`Decision`](crate::Decision). Nothing was spent.
///
/// All of these are mistakes of the caller: a refusal is an answer, and when the backend is away,
/// the chosen rung answers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The key is empty or too long.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The cost is above all that an unused key has, so no wait would help.
    #[error("a cost of {cost} can never be allowed: the quota is {max}")]
    Oversize {
        /// What was asked for.
        cost: u64,
        /// The most that one call can spend.
        max: u32,
    },
    /// The quota of this call counts in another way than the limiter's own, under other keys.
    #[error("the quota of this call counts in another way than the limiter's")]
    OtherAlgorithm,
}

/// Why a limiter goes on with the quota that it has.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaChangeError {
    /// Each algorithm has keys of its own, so all that was spent would be forgotten.
    #[error("the quota counts in another way: what was spent would be forgotten")]
    OtherAlgorithm,
    /// The limiter's leases do not fit it.
    #[error(transparent)]
    Leases(ConfigError),
}

/// Why [`Limiter::until_ready`](crate::Limiter::until_ready) got no decision. Nothing was spent.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// A mistake of the caller.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// So many calls of this process wait already, for this key or in all.
    #[error("{max} calls wait already")]
    Crowded {
        /// The bound that was reached.
        max: usize,
    },
    /// Others waited before this call until its time was over, and the first of them had no answer.
    #[error("others waited before it until its time was over")]
    TimedOut,
}

/// Why nothing is known to have been given back.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefundError {
    /// The receipt is from a limiter with another algorithm.
    #[error("the receipt is another algorithm's")]
    Foreign,
    /// The backend gave no answer; it says whether the cells may be there again.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why a key was not reset, or not blocked.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// The key is empty or too long.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The backend gave no answer; it says whether the key may be reset, or blocked, all the same.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why options make no [`Limiter`](crate::Limiter).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] PolicyNameError),
    /// Nobody said what answers while the backend does not.
    #[error("say what answers while the backend gives no answer: on_unavailable(..)")]
    NoRung,
    /// A share of a fleet of nobody.
    #[error("a local share takes at least 1 instance")]
    NoInstances,
    /// A decision needs some time.
    #[error("a deadline must be at least {DEADLINE_MIN:?}, this is {0:?}")]
    Deadline(Duration),
    /// How much more leases let through is not known for this algorithm.
    #[error("leases take GCRA or the sliding window")]
    NotLeasable,
    /// A lease that lives long compared with the quota lets much more through.
    #[error("a lease may live for 1 µs to {max:?}, half of the quota's time; this is {lifetime:?}")]
    LeaseLifetime {
        /// What was asked for.
        lifetime: Duration,
        /// The longest.
        max: Duration,
    },
    /// A part of the keys is from none of them to all.
    #[error("a share of keys is from 0 to 1")]
    SampledShare,
    /// A table without room could answer nobody.
    #[error("a local share takes room for at least 1 key")]
    NoKeys,
}
