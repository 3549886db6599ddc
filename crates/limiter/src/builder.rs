//! How a limiter is put together.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Executor, Namespace, SystemClock};

use crate::algorithm::{Algorithm, Verbs};
use crate::combine::Combiner;
use crate::fallback::gate::{Gate, Listener};
use crate::fallback::ladder::Hysteresis;
use crate::fallback::share::Share;
use crate::limiter::{Counter, Inner, Policy};
use crate::telemetry::Telemetry;
use crate::{ConfigError, Limiter, PolicyName, Quota, RungChange, Unavailable};

/// Twenty times a healthy answer, and less than a caller notices.
const DEADLINE_DEFAULT: Duration = Duration::from_millis(20);
/// Timers count milliseconds.
pub(crate) const DEADLINE_MIN: Duration = Duration::from_millis(1);
/// One of ten calls of a single caller waits for its deadline during an outage, and after it the
/// fleet's count is back in less than half a second.
const PROBE_EVERY_DEFAULT: Duration = Duration::from_millis(200);
/// A lone lost packet or pause of the server does not take the count from the fleet.
const FAILURES: u32 = 3;
/// A server that restarts answers once, and goes again.
const SUCCESSES: u32 = 2;
/// About 25 MB if all of it is used by sliding windows.
const SHARE_KEYS_MAX_DEFAULT: usize = 65_536;

/// Options of a [`Limiter`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// | option | default |
/// | --- | --- |
/// | [`on_unavailable`](Self::on_unavailable) | none: it must be chosen |
/// | [`deadline`](Self::deadline) | 20 ms |
/// | [`probe_every`](Self::probe_every) | 200 ms |
/// | [`share_keys_max`](Self::share_keys_max) | 65,536 keys |
/// | [`combining`](Self::combining) | on |
/// | [`on_rung_change`](Self::on_rung_change) | nothing |
/// | [`clock`](Self::clock) | the system's |
#[must_use = "a builder does nothing until `build`"]
pub struct LimiterBuilder<E> {
    executor: E,
    namespace: Namespace,
    name: String,
    quota: Quota,
    unavailable: Option<Unavailable>,
    deadline: Duration,
    probe_every: Duration,
    share_keys_max: usize,
    is_combining: bool,
    listener: Option<Listener>,
    clock: Arc<dyn Clock>,
}

impl<E: Executor> LimiterBuilder<E> {
    pub(crate) fn new(executor: E, namespace: &Namespace, name: &str, quota: Quota) -> Self {
        Self {
            executor,
            namespace: namespace.clone(),
            name: name.to_owned(),
            quota,
            unavailable: None,
            deadline: DEADLINE_DEFAULT,
            probe_every: PROBE_EVERY_DEFAULT,
            share_keys_max: SHARE_KEYS_MAX_DEFAULT,
            is_combining: true,
            listener: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets who answers while the backend does not. There is no default.
    pub fn on_unavailable(self, unavailable: Unavailable) -> Self {
        Self { unavailable: Some(unavailable), ..self }
    }

    /// Sets how long a call waits for the backend before the rung answers. Default: 20 ms; at least
    /// 1 ms. A decision takes at most this, and what the runtime takes to wake its task.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets how often one of the callers asks a backend that is away. Default: 200 ms.
    pub fn probe_every(self, probe_every: Duration) -> Self {
        Self { probe_every, ..self }
    }

    /// Sets how many keys an instance counts by itself under [`Unavailable::LocalShare`]. Default:
    /// 65,536. Further keys are refused until others have all their cells back, because a key that
    /// is forgotten would get a second share.
    pub fn share_keys_max(self, share_keys_max: usize) -> Self {
        Self { share_keys_max, ..self }
    }

    /// Sets whether calls on one key share a trip while another one is in flight. Default: they do.
    ///
    /// It changes no answer: costs are decided in the order in which they came. A call waits for the
    /// one in flight before it, within its deadline.
    pub fn combining(self, is_combining: bool) -> Self {
        Self { is_combining, ..self }
    }

    /// Sets what is told when the rung is entered or left. Default: nothing. It is called by the
    /// task that found out, so it must be quick.
    pub fn on_rung_change(self, told: impl Fn(&RungChange) + Send + Sync + 'static) -> Self {
        Self { listener: Some(Box::new(told)), ..self }
    }

    /// Sets where this instance's own time comes from. Default: the system's clocks. The fleet's
    /// count goes by the executor's clock.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Builds the limiter, and hands its scripts to the executor.
    ///
    /// # Errors
    /// [`ConfigError`]: a name that is none, no rung, a share of no instances or without room, or a
    /// deadline below 1 ms.
    pub fn build(self) -> Result<Limiter<E>, ConfigError> {
        let name = PolicyName::new(&self.name)?;
        let unavailable = self.unavailable.ok_or(ConfigError::NoRung)?;
        let instances = match unavailable {
            Unavailable::LocalShare { instances } => {
                Some(NonZeroU32::new(instances).ok_or(ConfigError::NoInstances)?)
            }
            Unavailable::Allow | Unavailable::Deny => None,
        };
        if self.deadline < DEADLINE_MIN {
            return Err(ConfigError::Deadline(self.deadline));
        }
        if self.share_keys_max == 0 {
            return Err(ConfigError::NoKeys);
        }
        let policy = match self.quota {
            Quota::Gcra(quota) => Policy::Gcra(self.counter(quota, instances)),
            Quota::SlidingWindow(quota) => Policy::SlidingWindow(self.counter(quota, instances)),
            Quota::TokenBucket(quota) => Policy::TokenBucket(self.counter(quota, instances)),
            Quota::FixedWindow(quota) => Policy::FixedWindow(self.counter(quota, instances)),
            Quota::SlidingLog(quota) => Policy::SlidingLog(self.counter(quota, instances)),
        };
        let telemetry = Telemetry::new(&name, unavailable);
        let hysteresis =
            Hysteresis { failures: FAILURES, successes: SUCCESSES, probe_every: self.probe_every };
        let gate = Gate::new(hysteresis, self.clock.clone(), telemetry.clone(), self.listener);
        let executor = Arc::new(self.executor);
        let combiner = Combiner::new(
            Arc::clone(&executor),
            self.deadline,
            self.is_combining,
            telemetry.clone(),
        );
        Ok(Limiter::new(Inner {
            executor,
            combiner,
            namespace: self.namespace,
            name,
            quota: self.quota,
            policy,
            unavailable,
            deadline: self.deadline,
            probe_every: self.probe_every,
            gate,
            clock: self.clock,
            telemetry,
        }))
    }

    fn counter<A: Algorithm>(&self, quota: A, instances: Option<NonZeroU32>) -> Counter<A> {
        let verbs = A::verbs().map(Verbs::scripts).unwrap_or_default();
        let scripts = [A::check_script(), A::peek_script()];
        self.executor.prepare(&[&scripts[..], &verbs, A::batch_script().as_slice()].concat());
        let share = instances.map(|instances| Share::new(quota, instances, self.share_keys_max));
        Counter { quota, share }
    }
}

impl<E> fmt::Debug for LimiterBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterBuilder")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("unavailable", &self.unavailable)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
