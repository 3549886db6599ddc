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

use fleetwide_limiter as limiter;

pub use fleetwide_limiter::{
    Accuracy, Agreement, Divergence, FlippingKey, Opinion, Shadow, ShadowReport,
};
pub use fleetwide_limiter::{
    BucketQuota, CheckError, ConfigError, Decision, FixedQuota, GcraQuota, Grant, Leasing,
    LogQuota, PolicyName, PolicyNameError, Quota, QuotaChangeError, QuotaError, Receipt,
    RefundError, Refunded, ResetError, RungChange, Source, Unavailable, WindowQuota,
};

use crate::Fleetwide;
use crate::backend::FleetExecutor;
use crate::env::{Algorithm, LimiterSettings, OnUnavailable};

/// A rate limiter of a fleet. Cheap to clone.
pub type Limiter = limiter::Limiter<FleetExecutor>;
/// Options of a [`Limiter`].
pub type LimiterBuilder = limiter::LimiterBuilder<FleetExecutor>;

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
