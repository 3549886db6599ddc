//! Mistakes: of who puts limits together, and of who calls them.

use fleetwide_core_traits::KeyError;

use super::op::AllOrNone;
use crate::{ConfigError, PolicyNameError};

/// Why options make no [`Limits`](super::Limits).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsConfigError {
    /// What is wrong for a single limiter as well.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing is limited.
    #[error("there must be at least 1 level")]
    NoLevels,
    /// A step holds the server up for all others while it runs.
    #[error("there may be at most {max} levels, these are {count}", max = AllOrNone::LEVELS_MAX)]
    TooManyLevels {
        /// How many there are.
        count: usize,
    },
    /// The name of a level or of a scope is none.
    #[error("{name:?} names no level and no scope: {source}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        source: PolicyNameError,
    },
    /// Two levels, or two scopes, of one name: they would share their keys.
    #[error("{name:?} is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A level counts by a scope that is none of these limits'.
    #[error("level {level:?} counts by {scope:?}, which is no scope")]
    UnknownScope {
        /// The level.
        level: String,
        /// What it counts by.
        scope: String,
    },
    /// A level does not count by the first scope, so its keys would be in another slot.
    #[error("level {level:?} must count by {first:?} too: all keys of one step are in one slot")]
    SpansSlots {
        /// The level.
        level: String,
        /// The first scope.
        first: String,
    },
}

/// Why a call over several levels got no answer. Nothing was spent.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// A key is empty or too long.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There must be one key for each scope.
    #[error("there are {scopes} scopes, and {keys} keys")]
    Keys {
        /// How many scopes there are.
        scopes: usize,
        /// How many keys there were.
        keys: usize,
    },
    /// The cost is above all that an unused key has at this level, so no wait would help.
    #[error("a cost of {cost} can never be allowed: level {level:?} has {max}")]
    Oversize {
        /// What was asked for.
        cost: u64,
        /// The level.
        level: String,
        /// The most that one call can spend of it.
        max: u32,
    },
    /// A level hands out permits, which only [`try_acquire`](super::Limits::try_acquire) gives.
    #[error("level {level:?} hands out permits: use try_acquire")]
    Unheld {
        /// The level.
        level: String,
    },
    /// This process holds so many permits that there is no room for more.
    #[error("{max} permits are held in this process already")]
    Crowded {
        /// The bound that was reached.
        max: usize,
    },
}
