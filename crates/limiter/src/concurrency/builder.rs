//! How a limiter of permits is put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Executor, Membership, Namespace, SystemClock};

use super::ConcurrencyQuota;
use super::keeper::Keeper;
use super::limiter::{ConcurrencyLimiter, Inner};
use super::op::{ACQUIRE, RELEASE, RENEW};
use crate::builder::{
    DEADLINE_DEFAULT, DEADLINE_MIN, PROBE_EVERY_DEFAULT, hysteresis, instances_of,
};
use crate::fallback::backend::Backend;
use crate::fallback::gate::{Gate, Listener};
use crate::telemetry::Telemetry;
use crate::wait::queue::Queues;
use crate::{ConfigError, PolicyName, RungChange, Unavailable};

/// Options of a [`ConcurrencyLimiter`]. Setters never fail: only [`build`](Self::build) sees how they
/// fit.
///
/// | option | default |
/// | --- | --- |
/// | [`on_unavailable`](Self::on_unavailable) | none: it must be chosen |
/// | [`deadline`](Self::deadline) | 20 ms |
/// | [`probe_every`](Self::probe_every) | 200 ms |
/// | [`membership`](Self::membership) | none |
/// | [`on_rung_change`](Self::on_rung_change) | nothing |
/// | [`clock`](Self::clock) | the system's |
#[must_use = "a builder does nothing until `build`"]
pub struct ConcurrencyLimiterBuilder<E> {
    executor: E,
    namespace: Namespace,
    name: String,
    quota: ConcurrencyQuota,
    unavailable: Option<Unavailable>,
    deadline: Duration,
    probe_every: Duration,
    membership: Option<Arc<dyn Membership>>,
    listener: Option<Listener>,
    clock: Arc<dyn Clock>,
}

impl<E: Executor> ConcurrencyLimiterBuilder<E> {
    pub(super) fn new(
        executor: E,
        namespace: &Namespace,
        name: &str,
        quota: ConcurrencyQuota,
    ) -> Self {
        Self {
            executor,
            namespace: namespace.clone(),
            name: name.to_owned(),
            quota,
            unavailable: None,
            deadline: DEADLINE_DEFAULT,
            probe_every: PROBE_EVERY_DEFAULT,
            membership: None,
            listener: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets who answers while the backend does not. There is no default.
    pub fn on_unavailable(self, unavailable: Unavailable) -> Self {
        Self { unavailable: Some(unavailable), ..self }
    }

    /// Sets how long a call waits for the backend before the rung answers. Default: 20 ms; at least
    /// 1 ms. Renewals, which nobody waits for, have a third of a lease.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets how often one of the callers asks a backend that is away. Default: 200 ms.
    pub fn probe_every(self, probe_every: Duration) -> Self {
        Self { probe_every, ..self }
    }

    /// Sets what knows how many instances are up, for [`Unavailable::LocalShare`], which then divides
    /// by that number where it is larger than the configured one. Default: nothing. It is asked for
    /// each decision of an outage. The other rungs do not need it.
    pub fn membership(self, membership: Arc<dyn Membership>) -> Self {
        Self { membership: Some(membership), ..self }
    }

    /// Sets what is told when the rung is entered or left. Default: nothing. It is called by the
    /// task that found out, so it must be quick.
    pub fn on_rung_change(self, told: impl Fn(&RungChange) + Send + Sync + 'static) -> Self {
        Self { listener: Some(Box::new(told)), ..self }
    }

    /// Sets where this instance's own time comes from, by which permits are lost. Default: the
    /// system's clocks.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Builds the limiter, and hands its scripts to the executor.
    ///
    /// # Errors
    /// [`ConfigError`]: a name that is none, no rung, a share of no instances, or a deadline below
    /// 1 ms.
    pub fn build(self) -> Result<ConcurrencyLimiter<E>, ConfigError> {
        let name = PolicyName::new(&self.name)?;
        let unavailable = self.unavailable.ok_or(ConfigError::NoRung)?;
        let instances = instances_of(unavailable, self.membership.as_ref())?;
        if self.deadline < DEADLINE_MIN {
            return Err(ConfigError::Deadline(self.deadline));
        }
        self.executor.prepare(&[&ACQUIRE, &RENEW, &RELEASE]);
        let telemetry = Telemetry::new(&name, unavailable);
        let gate = Gate::new(
            hysteresis(self.probe_every),
            Arc::clone(&self.clock),
            telemetry.clone(),
            self.listener,
        );
        let backend = Backend {
            executor: Arc::new(self.executor),
            deadline: self.deadline,
            probe_every: self.probe_every,
            gate,
            clock: self.clock,
            telemetry,
        };
        Ok(ConcurrencyLimiter::new(Inner {
            keeper: Keeper::new(Arc::new(backend), self.quota.lease()),
            namespace: self.namespace,
            name,
            quota: self.quota,
            unavailable,
            instances,
            queues: Queues::of_limiter(),
        }))
    }
}

impl<E> fmt::Debug for ConcurrencyLimiterBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimiterBuilder")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("unavailable", &self.unavailable)
            .finish_non_exhaustive()
    }
}
