//! How a limiter is put together.

mod trips;
mod watch;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetwide_core_traits::{Clock, Executor, Membership, Namespace, Script, SystemClock};
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;

use crate::accuracy::sampler::Sampler;
use crate::algorithm::Algorithm;
use crate::combine::Combiner;
use crate::counter::by_quota;
use crate::debts::push::Debtor;
use crate::denials::Denials;
use crate::fallback::gate::{Gate, Listener};
use crate::fallback::ladder::Hysteresis;
use crate::fallback::share::{Instances, Share};
use crate::lease::shop::Giver;
use crate::lease::table::Leases;
use crate::limiter::{Counter, Inner, Policy};
use crate::op::{Form, Judge, Shadowed};
use crate::shadow::ledger::Ledger;
use crate::telemetry::{LeaseTelemetry, Telemetry};
use crate::voids::{Hear, Voids, Word};
use crate::wait::Waiting;
use crate::{ConfigError, Leasing, Limiter, PolicyName, Quota, RungChange, Shadow, Unavailable};

/// Twenty times a healthy answer, and less than a caller notices.
pub(crate) const DEADLINE_DEFAULT: Duration = Duration::from_millis(20);
/// Timers count milliseconds.
pub(crate) const DEADLINE_MIN: Duration = Duration::from_millis(1);
/// One of ten calls of a single caller waits for its deadline during an outage, and after it the
/// fleet's count is back in less than half a second.
pub(crate) const PROBE_EVERY_DEFAULT: Duration = Duration::from_millis(200);
/// A lone lost packet or pause of the server does not take the count from the fleet.
const FAILURES: u32 = 3;
/// A server that restarts answers once, and goes again.
const SUCCESSES: u32 = 2;
/// About 25 MB if all of it is used by sliding windows.
pub(crate) const SHARE_KEYS_MAX_DEFAULT: usize = 65_536;
/// A refused caller that keeps calling costs a trip a second; a raised limit that this instance does
/// not hear of is late by as much.
const DENY_CACHE_DEFAULT: Duration = Duration::from_secs(1);
/// About 8 MB if all of it is used by addresses, and 25 MB by names of 256 bytes.
const DENY_CACHE_KEYS_MAX_DEFAULT: usize = 65_536;
/// About 13 MB if all of it is used by addresses, and as much again while it is owed.
pub(crate) const DEBT_KEYS_MAX_DEFAULT: usize = 65_536;

/// Options of a [`Limiter`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// | option | default |
/// | --- | --- |
/// | [`on_unavailable`](Self::on_unavailable) | none: it must be chosen |
/// | [`deadline`](Self::deadline) | 20 ms |
/// | [`probe_every`](Self::probe_every) | 200 ms |
/// | [`share_keys_max`](Self::share_keys_max) | 65,536 keys |
/// | [`membership`](Self::membership) | none |
/// | [`combining`](Self::combining) | on |
/// | [`deny_cache`](Self::deny_cache) | 1 s |
/// | [`deny_cache_keys_max`](Self::deny_cache_keys_max) | 65,536 keys |
/// | [`debt_keys_max`](Self::debt_keys_max) | 65,536 keys |
/// | [`leased`](Self::leased) | off |
/// | [`bus`](Self::bus) | none |
/// | [`shadow`](Self::shadow) | none |
/// | [`sample_accuracy`](Self::sample_accuracy) | of no keys |
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
    membership: Option<Arc<dyn Membership>>,
    is_combining: bool,
    deny_cache: Duration,
    deny_cache_keys_max: usize,
    debt_keys_max: usize,
    leasing: Option<Leasing>,
    bus: Option<StartVoids>,
    shadow: Option<Shadow>,
    sampled: f64,
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
            membership: None,
            is_combining: true,
            deny_cache: DENY_CACHE_DEFAULT,
            deny_cache_keys_max: DENY_CACHE_KEYS_MAX_DEFAULT,
            debt_keys_max: DEBT_KEYS_MAX_DEFAULT,
            leasing: None,
            bus: None,
            shadow: None,
            sampled: 0.0,
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

    /// Sets what knows how many instances are up, for [`Unavailable::LocalShare`], which then divides
    /// by that number where it is larger than the configured one. Default: nothing. It is asked for
    /// each decision of an outage. The other rungs do not need it.
    pub fn membership(self, membership: Arc<dyn Membership>) -> Self {
        Self { membership: Some(membership), ..self }
    }

    /// Sets of how many keys it is kept what the fleet has spent, to be made good after a failover in
    /// which the new primary has missed it. Default: 65,536; 0 makes nothing good.
    ///
    /// Beyond it the quarter is forgotten that would count no more first, and what the new primary
    /// has missed of those keys can be spent again. It is kept only where
    /// the executor can lose what was acknowledged: not in memory.
    pub fn debt_keys_max(self, keys_max: usize) -> Self {
        Self { debt_keys_max: keys_max, ..self }
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
    /// [`ConfigError`]: a name that is none, no rung, a share of no instances or without room, a
    /// deadline below 1 ms, leases of an algorithm that has none or that live too long, or a
    /// share of keys that is none.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if a [`bus`](Self::bus) is set.
    pub fn build(self) -> Result<Limiter<E>, ConfigError> {
        let name = PolicyName::new(&self.name)?;
        let unavailable = self.unavailable.ok_or(ConfigError::NoRung)?;
        let instances = instances_of(unavailable, self.membership.as_ref())?;
        if self.deadline < DEADLINE_MIN {
            return Err(ConfigError::Deadline(self.deadline));
        }
        let tried = self.shadow.map_or(0.0, |shadow| shadow.share);
        if [self.sampled, tried].iter().any(|share| !(0.0..=1.0).contains(share)) {
            return Err(ConfigError::SampledShare);
        }
        if self.share_keys_max == 0 {
            return Err(ConfigError::NoKeys);
        }
        let terms = self.leasing.map(|leasing| leasing.terms(self.quota)).transpose()?;
        let policy = match self.quota {
            Quota::Gcra(quota) => Policy::Gcra(self.counter(quota, instances)),
            Quota::SlidingWindow(quota) => Policy::SlidingWindow(self.counter(quota, instances)),
            Quota::TokenBucket(quota) => Policy::TokenBucket(self.counter(quota, instances)),
            Quota::FixedWindow(quota) => Policy::FixedWindow(self.counter(quota, instances)),
            Quota::SlidingLog(quota) => Policy::SlidingLog(self.counter(quota, instances)),
        };
        let telemetry = Telemetry::new(&name, unavailable);
        let gate = Gate::new(
            hysteresis(self.probe_every),
            self.clock.clone(),
            telemetry.clone(),
            self.listener,
        );
        let executor = Arc::new(self.executor);
        let sampler = (self.sampled > 0.0)
            .then(|| Sampler::new(self.sampled, &executor, &self.namespace, &name, &self.clock));
        let keys_max = self.debt_keys_max;
        let debtor = Debtor::new(&executor, Form::Plain, keys_max, &self.clock, self.deadline);
        let shadow = self.shadow.map(|shadow| Arc::new(Ledger::new(shadow, &name)));
        let combiner = Combiner::new(
            debtor.clone(),
            self.deadline,
            self.is_combining,
            telemetry.clone(),
            shadow.clone(),
        );
        let denials = Arc::new(Denials::new(self.deny_cache, self.deny_cache_keys_max));
        let (voids, told) = Voids::new();
        let voids = self.bus.is_some().then_some(voids);
        let leases = terms.map(|(terms, keys_max)| {
            let giver = Giver {
                executor: Arc::clone(&executor),
                deadline: self.deadline,
                clock: Arc::clone(&self.clock),
                denials: Arc::clone(&denials),
                voids: voids.clone(),
                telemetry: LeaseTelemetry::new(&name),
            };
            let give_back = giver.in_background();
            Arc::new(Leases::new(terms, keys_max, give_back, giver.telemetry))
        });
        if let Some(start) = self.bus {
            start(&self.namespace, &name, told, hear(&denials, leases.as_ref()));
        }
        Ok(Limiter::new(Inner {
            executor,
            combiner,
            debtor,
            namespace: self.namespace,
            name,
            policy: ArcSwap::from_pointee(policy),
            changing: Mutex::new(()),
            unavailable,
            deadline: self.deadline,
            probe_every: self.probe_every,
            gate,
            denials,
            leasing: self.leasing,
            leases,
            voids,
            shadow,
            sampler,
            waiting: Waiting::new(),
            clock: self.clock,
            telemetry,
        }))
    }

    fn counter<A: Algorithm>(&self, quota: A, instances: Option<Instances>) -> Counter<A> {
        let scripts = [A::check_script(), A::peek_script(), A::once_script()];
        let verbs = A::verbs().scripts();
        let some = [A::batch_script(), A::merge_script()];
        let some: Vec<_> = some.into_iter().flatten().collect();
        self.executor.prepare(&[&scripts[..], &verbs, &some].concat());
        if self.sampled > 0.0 {
            self.executor.prepare(&[Judge::<A>::SCRIPT]);
        }
        if let Some(Shadow { candidate, .. }) = self.shadow {
            let verbs = by_quota!(candidate, candidate => verbs_of(candidate));
            self.executor.prepare(&[&[Shadowed::script_of(quota, candidate)][..], &verbs].concat());
        }
        let share = instances.map(|instances| Share::new(quota, instances, self.share_keys_max));
        Counter { quota, share }
    }
}

/// The scripts that are run on the key of a candidate alone.
fn verbs_of<A: Algorithm>(_: A) -> Vec<&'static Script> {
    A::verbs().scripts()
}

/// How readily a rung is entered and left.
pub(crate) const fn hysteresis(probe_every: Duration) -> Hysteresis {
    Hysteresis { failures: FAILURES, successes: SUCCESSES, probe_every }
}

/// The instances that share a quota while the backend is away, if they do.
pub(crate) fn instances_of(
    unavailable: Unavailable,
    membership: Option<&Arc<dyn Membership>>,
) -> Result<Option<Instances>, ConfigError> {
    match unavailable {
        Unavailable::LocalShare { instances } => {
            let least = NonZeroU32::new(instances).ok_or(ConfigError::NoInstances)?;
            Ok(Some(Instances { least, membership: membership.cloned() }))
        }
        Unavailable::Allow | Unavailable::Deny => Ok(None),
    }
}

/// Begins to talk on a bus.
type StartVoids = Box<dyn FnOnce(&Namespace, &PolicyName, Receiver<Word>, Hear) + Send>;

/// Forgets what others say is void.
fn hear(denials: &Arc<Denials>, leases: Option<&Arc<Leases>>) -> Hear {
    let (denials, leases) = (Arc::downgrade(denials), leases.map(Arc::downgrade));
    Box::new(move |word| {
        let Some(denials) = denials.upgrade() else { return false };
        match word {
            Word::Refusals(key) => denials.void(&key),
            Word::Key(key) => {
                denials.void(&key);
                if let Some(leases) = leases.as_ref().and_then(Weak::upgrade) {
                    leases.void(&key);
                }
            }
            Word::AllRefusals => denials.void_all(),
        }
        true
    })
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
