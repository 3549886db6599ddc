//! Every variable that configures a fleet, parsed once.
//!
//! | variable | what it takes | default |
//! | --- | --- | --- |
//! | `REDIS_URL` | the Redis of every role: `redis://`, `rediss://`, `unix://`, with Sentinel or Cluster | none: in memory |
//! | `REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`, `REDIS_DB` | the same in parts, where there is no `REDIS_URL` | none, 6379, none, 0 |
//! | `FLEETWIDE_CACHE_URL` | a Redis for the cache alone | `REDIS_URL` |
//! | `FLEETWIDE_EVENTS_URL` | a Redis for the events alone | `REDIS_URL` |
//! | `FLEETWIDE_LIMITER_URL` | a Redis for the rate limits alone | `REDIS_URL` |
//! | `FLEETWIDE_BREAKER_URL` | a Redis for the circuit breakers alone | `REDIS_URL` |
//! | `FLEETWIDE_LOCK_URLS` | a Redis for the locks alone; several, comma-separated, mean a quorum | `REDIS_URL` |
//! | `FLEETWIDE_NAMESPACE` | what keeps this fleet's keys apart from others on the same server | `fleetwide` |
//! | `FLEETWIDE_INSTANCES` | how many instances share a limit while Redis is away | 1 |
//! | `CACHE_TTL_MS` | how long a value is kept | 900000 |
//! | `CACHE_L1_TTL_MS` | how long a process keeps it before it asks Redis again | 5000 |
//! | `CACHE_STALENESS_MS` | how old what counts as verified may be | 1000 |
//! | `RATE_LIMIT_MAX` | how much is admitted in a window | 100 |
//! | `RATE_LIMIT_WINDOW` | the window, in ms | 60000 |
//! | `RATE_LIMIT_ALGORITHM` | `sliding-window`, `gcra`, `token-bucket`, `fixed-window`, or `sliding-log`, for a maximum up to 128 | `sliding-window` |
//! | `RATE_LIMIT_DEADLINE_MS` | how long a decision waits for Redis | 20 |
//! | `RATE_LIMIT_ON_UNAVAILABLE` | while Redis is away: `allow`, `deny` or `local-share` | `local-share` |
//!
//! An empty value counts as not set. A wrong one is an [`EnvError`], also in a role that this build
//! does not use; only the parts beside a `REDIS_URL` are not looked at.

mod servers;
mod vars;

use std::time::Duration;

use fleetwide_core_traits::{Namespace, Ttl};

pub use servers::{RedisUrl, Servers};
pub use vars::{EnvError, Vars};

/// The namespace of a fleet that chose none.
pub const NAMESPACE_DEFAULT: &str = "fleetwide";
/// A window that is longer is a mistake, and its count belongs into a database.
pub const RATE_LIMIT_WINDOW_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// More instances than any fleet has; a share of a limit is a division by it.
const INSTANCES_MAX: u64 = 100_000;
/// A caller who waits longer for a decision would rather have had another one.
const DEADLINE_MAX: Duration = Duration::from_secs(10);
/// A bound on staleness above it is no bound that anybody could rely on.
const STALENESS_MAX: Duration = Duration::from_secs(3600);

/// What a fleet is configured with.
///
/// Made by [`from_env`](Self::from_env), or by [`Default`] and changed field by field. It holds
/// URLs with passwords; no `Debug` prints one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Keeps this fleet's keys apart from all others on the same server.
    pub namespace: Namespace,
    /// Which Redis does what.
    pub servers: Servers,
    /// The defaults of caches.
    pub cache: CacheSettings,
    /// The default rate limit.
    pub limiter: LimiterSettings,
}

/// The defaults of every cache of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSettings {
    /// How long a value is kept. Default: 15 min.
    pub ttl: Duration,
    /// How long a process keeps a value before it asks Redis again. Default: 5 s.
    pub l1_ttl: Duration,
    /// How old what is marked as verified may be. Default: 1 s.
    pub staleness_bound: Duration,
}

/// The rate limit of a fleet that has one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimiterSettings {
    /// How much is admitted in a window. Default: 100.
    pub max: u32,
    /// The window. Default: 1 min.
    pub window: Duration,
    /// How it is counted. Default: [`Algorithm::SlidingWindow`].
    pub algorithm: Algorithm,
    /// What answers while Redis is away. Default: [`OnUnavailable::LocalShare`].
    pub on_unavailable: OnUnavailable,
    /// How many instances [`OnUnavailable::LocalShare`] divides the limit by. Default: 1.
    pub instances: u32,
    /// How long a decision waits for Redis. Default: 20 ms.
    pub deadline: Duration,
}

/// How a rate limit is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Never more than the limit in any window.
    #[default]
    SlidingWindow,
    /// A steady rate with the limit as burst.
    Gcra,
    /// The same, exact also where a cell takes no whole number of microseconds.
    TokenBucket,
    /// All comes back at multiples of the window, so twice the limit passes over a boundary.
    FixedWindow,
    /// Never more than the limit, which is 128 at most, in any window, exact to the cell.
    SlidingLog,
}

/// What a rate limiter answers while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnavailable {
    /// Everything is admitted.
    Allow,
    /// Nothing is admitted.
    Deny,
    /// Each instance admits its share of the limit.
    #[default]
    LocalShare,
}

impl Settings {
    /// Parses the variables of this process.
    ///
    /// # Errors
    /// [`EnvError`] for the first variable with a value that it does not take.
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_vars(&Vars::process())
    }

    /// Parses `vars`.
    ///
    /// # Errors
    /// [`EnvError`] for the first variable with a value that it does not take.
    pub fn from_vars(vars: &Vars) -> Result<Self, EnvError> {
        Ok(Self {
            namespace: namespace(vars)?,
            servers: Servers::from_vars(vars)?,
            cache: CacheSettings::from_vars(vars)?,
            limiter: LimiterSettings::from_vars(vars)?,
        })
    }
}

impl Default for Settings {
    /// In memory, with every default of the table above.
    fn default() -> Self {
        Self {
            namespace: Namespace::new(NAMESPACE_DEFAULT).expect("the default name is a valid one"),
            servers: Servers::default(),
            cache: CacheSettings::default(),
            limiter: LimiterSettings::default(),
        }
    }
}

fn namespace(vars: &Vars) -> Result<Namespace, EnvError> {
    const NAME: &str = "FLEETWIDE_NAMESPACE";
    let text = vars.text(NAME)?.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned());
    let takes = "1 to 64 ASCII letters, digits, `.`, `_` or `-`";
    Namespace::new(&text).map_err(|_| EnvError::new(NAME, takes))
}

impl CacheSettings {
    fn from_vars(vars: &Vars) -> Result<Self, EnvError> {
        let default = Self::default();
        let ttl_max = Ttl::MAX.as_duration();
        Ok(Self {
            ttl: vars.millis("CACHE_TTL_MS", ttl_max, default.ttl)?,
            l1_ttl: vars.millis("CACHE_L1_TTL_MS", ttl_max, default.l1_ttl)?,
            staleness_bound: vars.millis(
                "CACHE_STALENESS_MS",
                STALENESS_MAX,
                default.staleness_bound,
            )?,
        })
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(15 * 60),
            l1_ttl: Duration::from_secs(5),
            staleness_bound: Duration::from_secs(1),
        }
    }
}

impl LimiterSettings {
    fn from_vars(vars: &Vars) -> Result<Self, EnvError> {
        let default = Self::default();
        let algorithms = [
            ("sliding-window", Algorithm::SlidingWindow),
            ("gcra", Algorithm::Gcra),
            ("token-bucket", Algorithm::TokenBucket),
            ("fixed-window", Algorithm::FixedWindow),
            ("sliding-log", Algorithm::SlidingLog),
        ];
        let rungs = [
            ("allow", OnUnavailable::Allow),
            ("deny", OnUnavailable::Deny),
            ("local-share", OnUnavailable::LocalShare),
        ];
        let settings = Self {
            max: vars.number("RATE_LIMIT_MAX", 1..=u32::MAX.into(), default.max.into())? as u32,
            window: vars.millis("RATE_LIMIT_WINDOW", RATE_LIMIT_WINDOW_MAX, default.window)?,
            algorithm: vars.choice("RATE_LIMIT_ALGORITHM", &algorithms, default.algorithm)?,
            on_unavailable: vars.choice(
                "RATE_LIMIT_ON_UNAVAILABLE",
                &rungs,
                default.on_unavailable,
            )?,
            instances: vars.number("FLEETWIDE_INSTANCES", 1..=INSTANCES_MAX, 1)? as u32,
            deadline: vars.millis("RATE_LIMIT_DEADLINE_MS", DEADLINE_MAX, default.deadline)?,
        };
        #[cfg(feature = "limiter")]
        settings.quota().map_err(misfit)?;
        Ok(settings)
    }
}

/// The numbers are in their ranges, and no quota all the same.
#[cfg(feature = "limiter")]
fn misfit(error: fleetwide_limiter::QuotaError) -> EnvError {
    let takes = match error {
        // In the words that the variables take.
        fleetwide_limiter::QuotaError::LogTooLong { .. } => {
            "at most 128 where RATE_LIMIT_ALGORITHM is `sliding-log`; above it take `sliding-window`"
                .to_owned()
        }
        error => format!("a number that fits the algorithm and the window: {error}"),
    };
    EnvError::new("RATE_LIMIT_MAX", takes)
}

impl Default for LimiterSettings {
    fn default() -> Self {
        Self {
            max: 100,
            window: Duration::from_secs(60),
            algorithm: Algorithm::default(),
            on_unavailable: OnUnavailable::default(),
            instances: 1,
            deadline: Duration::from_millis(20),
        }
    }
}
