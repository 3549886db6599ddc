//! Rate limits that hold for the whole fleet.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//!
//! use fleetwide::Fleetwide;
//! use fleetwide::limiter::Quota;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory();
//! let five_a_minute = Quota::sliding_window(5, Duration::from_secs(60))?;
//! let logins = fleet.limiter("logins", five_a_minute).build()?;
//! for _ in 0..5 {
//!     assert!(logins.check("198.51.100.7").await?.is_allowed());
//! }
//! let refused = logins.check("198.51.100.7").await?;
//! println!("try again in {:?}", refused.retry_after());
//! # assert!(!refused.is_allowed());
//! # Ok(()) }
//! ```

use fleetwide_limiter::{self as limiter, concurrency, multi};

pub use fleetwide_limiter::concurrency::{AcquireError, ConcurrencyQuota, ConcurrencyQuotaError};
pub use fleetwide_limiter::multi::{LevelRuling, LimitsConfigError, LimitsError, Ruling};
pub use fleetwide_limiter::{
    Accuracy, Agreement, Divergence, FlippingKey, Opinion, Shadow, ShadowReport,
};
pub use fleetwide_limiter::{
    BucketQuota, CheckError, ConfigError, Decision, FixedQuota, GcraQuota, Grant, Leasing,
    LogQuota, PolicyName, PolicyNameError, Quota, QuotaChangeError, QuotaError, Receipt,
    RefundError, Refunded, ResetError, RungChange, Source, Unavailable, WaitError, WindowQuota,
};

use crate::Fleetwide;
use crate::backend::FleetExecutor;
use crate::env::{Algorithm, LimiterSettings, OnUnavailable};

/// A rate limiter of a fleet. Cheap to clone.
pub type Limiter = limiter::Limiter<FleetExecutor>;
/// Options of a [`Limiter`].
pub type LimiterBuilder = limiter::LimiterBuilder<FleetExecutor>;
/// Several limits of a fleet, in one trip, all or none. Cheap to clone.
pub type Limits = multi::Limits<FleetExecutor>;
/// Options of [`Limits`].
pub type LimitsBuilder = multi::LimitsBuilder<FleetExecutor>;
/// What came of a call of [`Limits`] that holds permits.
pub type Admission = multi::Admission<FleetExecutor>;
/// Limits how much is under way in a fleet. Cheap to clone.
pub type ConcurrencyLimiter = concurrency::ConcurrencyLimiter<FleetExecutor>;
/// Options of a [`ConcurrencyLimiter`].
pub type ConcurrencyLimiterBuilder = concurrency::ConcurrencyLimiterBuilder<FleetExecutor>;
/// A permit, or a refusal.
pub type Entry = concurrency::Entry<FleetExecutor>;
/// One of those that are under way; given back when it is dropped.
pub type Permit = concurrency::Permit<FleetExecutor>;

impl Fleetwide {
    /// Options of the limiter called `policy`, preset by the fleet's settings: what answers while
    /// Redis is away, and the deadline of a decision.
    ///
    /// Instances that use the same name and algorithm share what was spent, and over Redis they tell
    /// each other of resets and refunds: then it must be built in a Tokio runtime.
    pub fn limiter(&self, policy: &str, quota: Quota) -> LimiterBuilder {
        let settings = self.settings().limiter;
        let backend = self.limiter_backend();
        let options =
            limiter::Limiter::builder(backend.executor(), self.namespace(), policy, quota)
                .on_unavailable(settings.unavailable())
                .deadline(settings.deadline);
        if backend.is_shared() { options.bus(backend.bus()) } else { options }
    }

    /// Options of limits called `name` over these scopes, such as `tenant` and `user`: several levels
    /// that are spent in one trip, all or none. Preset as [`limiter`](Self::limiter).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use fleetwide::Fleetwide;
    /// use fleetwide::limiter::Quota;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let fleet = Fleetwide::memory();
    /// let hour = Duration::from_secs(3600);
    /// let limits = fleet
    ///     .limits("api", &["tenant", "user"])
    ///     .rate("tenant-hour", &["tenant"], Quota::sliding_window(1_000, hour)?)
    ///     .rate("user-hour", &["tenant", "user"], Quota::sliding_window(100, hour)?)
    ///     .build()?;
    /// let ruling = limits.check(&["tenant-7", "ada"], 1).await?;
    /// assert_eq!(ruling.decision.remaining(), 99);
    /// # Ok(()) }
    /// ```
    pub fn limits(&self, name: &str, scopes: &[&str]) -> LimitsBuilder {
        let settings = self.settings().limiter;
        let executor = self.limiter_backend().executor();
        multi::Limits::builder(executor, self.namespace(), name, scopes)
            .on_unavailable(settings.unavailable())
            .deadline(settings.deadline)
    }

    /// Options of the limiter called `name` of how much is under way at once. Preset as
    /// [`limiter`](Self::limiter).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use fleetwide::Fleetwide;
    /// use fleetwide::limiter::{ConcurrencyQuota, Entry};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let fleet = Fleetwide::memory();
    /// let five = ConcurrencyQuota::new(5, Duration::from_secs(10))?;
    /// let exports = fleet.concurrency_limiter("exports", five).build()?;
    /// match exports.try_acquire("tenant-7").await? {
    ///     Entry::Held(permit) => permit.release().await?,
    ///     Entry::Deny { retry_after, .. } => println!("all are held, for {retry_after:?} at most"),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn concurrency_limiter(
        &self,
        name: &str,
        quota: ConcurrencyQuota,
    ) -> ConcurrencyLimiterBuilder {
        let settings = self.settings().limiter;
        let executor = self.limiter_backend().executor();
        concurrency::ConcurrencyLimiter::builder(executor, self.namespace(), name, quota)
            .on_unavailable(settings.unavailable())
            .deadline(settings.deadline)
    }
}

impl LimiterSettings {
    /// The quota of these settings.
    ///
    /// # Errors
    /// [`QuotaError`] if the numbers do not fit the algorithm.
    pub fn quota(&self) -> Result<Quota, QuotaError> {
        let max = u64::from(self.max);
        match self.algorithm {
            Algorithm::SlidingWindow => Quota::sliding_window(max, self.window),
            Algorithm::Gcra => Quota::gcra(max, self.window, max),
            Algorithm::TokenBucket => Quota::token_bucket(max, self.window, max),
            Algorithm::FixedWindow => Quota::fixed_window(max, self.window),
            Algorithm::SlidingLog => Quota::sliding_log(max, self.window),
        }
    }

    fn unavailable(&self) -> Unavailable {
        match self.on_unavailable {
            OnUnavailable::Allow => Unavailable::Allow,
            OnUnavailable::Deny => Unavailable::Deny,
            OnUnavailable::LocalShare => Unavailable::LocalShare { instances: self.instances },
        }
    }
}
