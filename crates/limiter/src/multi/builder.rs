//! How several limits are put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Executor, Membership, Namespace, Script, SystemClock};

use super::op::AllOrNone;
use super::rule::Rule;
use super::rung::Rung;
use super::{Inner, Level, Limits, LimitsConfigError, script};
use crate::algorithm::Algorithm;
use crate::builder::{
    DEADLINE_DEFAULT, DEADLINE_MIN, DEBT_KEYS_MAX_DEFAULT, PROBE_EVERY_DEFAULT,
    SHARE_KEYS_MAX_DEFAULT, hysteresis, instances_of,
};
use crate::concurrency::ConcurrencyQuota;
use crate::concurrency::keeper::Keeper;
use crate::concurrency::op::{RELEASE, RENEW};
use crate::counter::by_quota;
use crate::debts::push::Debtor;
use crate::fallback::backend::Backend;
use crate::fallback::gate::{Gate, Listener};
use crate::op::Form;
use crate::telemetry::Telemetry;
use crate::{ConfigError, PolicyName, Quota, RungChange, Unavailable};

/// Options of [`Limits`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// | option | default |
/// | --- | --- |
/// | [`on_unavailable`](Self::on_unavailable) | none: it must be chosen |
/// | [`deadline`](Self::deadline) | 20 ms |
/// | [`probe_every`](Self::probe_every) | 200 ms |
/// | [`share_keys_max`](Self::share_keys_max) | 65,536 keys of each level |
/// | [`membership`](Self::membership) | none |
/// | [`debt_keys_max`](Self::debt_keys_max) | 65,536 keys of all levels |
/// | [`on_rung_change`](Self::on_rung_change) | nothing |
/// | [`clock`](Self::clock) | the system's |
#[must_use = "a builder does nothing until `build`"]
pub struct LimitsBuilder<E> {
    executor: E,
    namespace: Namespace,
    name: String,
    scopes: Vec<String>,
    levels: Vec<(String, Vec<String>, Rule)>,
    unavailable: Option<Unavailable>,
    deadline: Duration,
    probe_every: Duration,
    share_keys_max: usize,
    membership: Option<Arc<dyn Membership>>,
    debt_keys_max: usize,
    listener: Option<Listener>,
    clock: Arc<dyn Clock>,
}

impl<E: Executor> LimitsBuilder<E> {
    pub(super) fn new(executor: E, namespace: &Namespace, name: &str, scopes: &[&str]) -> Self {
        Self {
            executor,
            namespace: namespace.clone(),
            name: name.to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            levels: Vec::new(),
            unavailable: None,
            deadline: DEADLINE_DEFAULT,
            probe_every: PROBE_EVERY_DEFAULT,
            share_keys_max: SHARE_KEYS_MAX_DEFAULT,
            membership: None,
            debt_keys_max: DEBT_KEYS_MAX_DEFAULT,
            listener: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Adds a level that spends `quota` of what is named by the keys of the scopes `by`, of which
    /// the first scope must be one. Several levels may count by the same.
    pub fn rate(self, name: &str, by: &[&str], quota: Quota) -> Self {
        self.level(name, by, Rule::Rate(quota))
    }

    /// Adds a level of which so many are under way at once: each call holds one permit of what is
    /// named by the keys of the scopes `by`. Then calls are made with
    /// [`try_acquire`](Limits::try_acquire).
    pub fn at_once(self, name: &str, by: &[&str], quota: ConcurrencyQuota) -> Self {
        self.level(name, by, Rule::AtOnce(quota))
    }

    fn level(mut self, name: &str, by: &[&str], rule: Rule) -> Self {
        let by = by.iter().map(|&scope| scope.to_owned()).collect();
        self.levels.push((name.to_owned(), by, rule));
        self
    }

    /// Sets who answers while the backend does not. There is no default.
    pub fn on_unavailable(self, unavailable: Unavailable) -> Self {
        Self { unavailable: Some(unavailable), ..self }
    }

    /// Sets how long a call waits for the backend before the rung answers. Default: 20 ms; at least
    /// 1 ms.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets how often one of the callers asks a backend that is away. Default: 200 ms.
    pub fn probe_every(self, probe_every: Duration) -> Self {
        Self { probe_every, ..self }
    }

    /// Sets how many keys of each level an instance counts by itself under
    /// [`Unavailable::LocalShare`]. Default: 65,536. Further keys are refused.
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
    /// which the new primary has missed it. Default: 65,536, each level of a call with a key of its
    /// own; 0 makes nothing good. It is as for a
    /// [limiter](crate::LimiterBuilder::debt_keys_max), and permits need none.
    pub fn debt_keys_max(self, keys_max: usize) -> Self {
        Self { debt_keys_max: keys_max, ..self }
    }

    /// Sets what is told when the rung is entered or left. Default: nothing. It is called by the
    /// task that found out, so it must be quick.
    pub fn on_rung_change(self, told: impl Fn(&RungChange) + Send + Sync + 'static) -> Self {
        Self { listener: Some(Box::new(told)), ..self }
    }

    /// Sets where this instance's own time comes from. Default: the system's clocks.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Builds the limits, and hands their scripts to the executor.
    ///
    /// # Errors
    /// [`LimitsConfigError`]: no levels or more than 8, names that are none or are there twice, a
    /// level that does not count by the first scope, or what is wrong for a single limiter as well.
    pub fn build(self) -> Result<Limits<E>, LimitsConfigError> {
        let name = PolicyName::new(&self.name).map_err(ConfigError::Name)?;
        let unavailable = self.unavailable.ok_or(ConfigError::NoRung)?;
        let instances = instances_of(unavailable, self.membership.as_ref())?;
        if self.deadline < DEADLINE_MIN {
            return Err(ConfigError::Deadline(self.deadline).into());
        }
        if self.share_keys_max == 0 {
            return Err(ConfigError::NoKeys.into());
        }
        let levels = levels(&self.scopes, &self.levels)?;
        let leases = levels.iter().filter_map(|level| Some(level.at_once()?.lease()));
        let lease_min = leases.min();
        self.executor.prepare(&[&script::CHECK, &script::PEEK]);
        self.executor.prepare(&merges(&levels));
        if lease_min.is_some() {
            self.executor.prepare(&[&RENEW, &RELEASE]);
        }
        let telemetry = Telemetry::new(&name, unavailable);
        let gate = Gate::new(
            hysteresis(self.probe_every),
            Arc::clone(&self.clock),
            telemetry.clone(),
            self.listener,
        );
        let rung = Rung::new(unavailable, instances, &levels, self.share_keys_max);
        let executor = Arc::new(self.executor);
        let keys_max = self.debt_keys_max;
        let debtor = Debtor::new(&executor, Form::Level, keys_max, &self.clock, self.deadline);
        let backend = Arc::new(Backend {
            executor,
            deadline: self.deadline,
            probe_every: self.probe_every,
            gate,
            clock: self.clock,
            telemetry,
        });
        let keeper = lease_min.map(|lease_min| Keeper::new(Arc::clone(&backend), lease_min));
        Ok(Limits::new(Inner {
            backend,
            keeper,
            debtor,
            namespace: self.namespace,
            name,
            scopes: self.scopes.len(),
            levels,
            rung,
        }))
    }
}

/// The scripts that make good what a new primary has missed.
fn merges(levels: &[Level]) -> Vec<&'static Script> {
    let merge = |level: &Level| match level.rule {
        Rule::Rate(quota) => by_quota!(quota, quota => merge_of(quota)),
        Rule::AtOnce(_) => None,
    };
    levels.iter().filter_map(merge).collect()
}

fn merge_of<A: Algorithm>(_: A) -> Option<&'static Script> {
    A::merge_script()
}

/// The levels with their scopes as places, each once and in order.
fn levels(
    scopes: &[String],
    given: &[(String, Vec<String>, Rule)],
) -> Result<Vec<Level>, LimitsConfigError> {
    for (at, scope) in scopes.iter().enumerate() {
        check_name(scope, &scopes[..at])?;
    }
    if given.is_empty() {
        return Err(LimitsConfigError::NoLevels);
    }
    if given.len() > AllOrNone::LEVELS_MAX {
        return Err(LimitsConfigError::TooManyLevels { count: given.len() });
    }
    let mut names: Vec<String> = Vec::new();
    let mut levels = Vec::new();
    for (name, by, rule) in given {
        let parsed = check_name(name, &names)?;
        names.push(name.clone());
        let mut places = Vec::new();
        for scope in by {
            let place = scopes.iter().position(|one| one == scope);
            places.push(place.ok_or_else(|| LimitsConfigError::UnknownScope {
                level: name.clone(),
                scope: scope.clone(),
            })?);
        }
        places.sort_unstable();
        places.dedup();
        if places.first() != Some(&0) {
            let first = scopes.first().cloned().unwrap_or_default();
            return Err(LimitsConfigError::SpansSlots { level: name.clone(), first });
        }
        levels.push(Level { name: parsed, scopes: places, rule: *rule });
    }
    Ok(levels)
}

fn check_name(name: &str, before: &[String]) -> Result<PolicyName, LimitsConfigError> {
    if before.iter().any(|one| one == name) {
        return Err(LimitsConfigError::Twice { name: name.to_owned() });
    }
    PolicyName::new(name)
        .map_err(|source| LimitsConfigError::Name { name: name.to_owned(), source })
}

impl<E> fmt::Debug for LimitsBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitsBuilder")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .field("levels", &self.levels)
            .field("unavailable", &self.unavailable)
            .finish_non_exhaustive()
    }
}
