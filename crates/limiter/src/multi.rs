//! Several limits in one trip, all or none: tenant > user > route, or 10 a second and 1,000 an hour.
//!
//! Each level limits what the keys of some *scopes* name. All keys of one call are under one hash
//! tag, which is made of the limits' name and the key of the **first scope**, so that a Redis Cluster
//! has them in one slot and one script can judge them at one moment. Therefore each level counts by
//! the first scope: a limit of all routes of a tenant can be one of these levels, a limit of one route
//! over all tenants cannot, and is an error of [`build`](LimitsBuilder::build).
//!
//! A first scope that has one key for all calls puts all of them in one slot.

mod admission;
mod builder;
mod error;
pub mod op;
pub(crate) mod rule;
mod ruling;
mod rung;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Executor, Key, KeyError, Namespace, Told};

pub use self::admission::Admission;
pub use self::builder::LimitsBuilder;
pub use self::error::{LimitsConfigError, LimitsError};
use self::op::{AllOrNone, Ask};
pub use self::rule::{LevelState, Rule};
pub use self::ruling::{LevelRuling, Ruling};
use self::rung::Rung;
use crate::concurrency::ConcurrencyQuota;
use crate::concurrency::keeper::Keeper;
use crate::counter::by_quota;
use crate::debts::push::Debtor;
use crate::fallback::backend::{Backend, Unanswered};
use crate::{Answer, PolicyName, Source, Verdict};

/// Limits how much may be spent at several levels at once, over all instances that use the same
/// backend, namespace and name. Cheap to clone; clones are the same limits.
///
/// A call is allowed if all levels allow it, and then all of them are debited, in one step; else
/// none is. It is one trip, whatever the number of levels. It is neither combined with others nor
/// remembered, and nothing is bought ahead. The count is apart from that of any
/// [`Limiter`](crate::Limiter).
///
/// # After a failover
/// What a new primary has missed of a level that limits a rate is made good, as
/// [for a limiter](crate#after-a-failover) of its algorithm: each answer tells what the fleet has spent
/// of its levels, a refusal and a [`peek`](Self::peek) too. A call after a failover first makes good
/// what is owed of its own levels, within its deadline: a trip more for each algorithm among them. What
/// is owed of all others follows in the background. Permits [need none of it](crate::concurrency).
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use fleetwide_core_traits::Namespace;
/// # use fleetwide_limiter::{Quota, Unavailable};
/// # use fleetwide_limiter::multi::Limits;
/// # use fleetwide_mem_backend::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
/// let [second, hour] = [1, 3600].map(Duration::from_secs);
/// let limits = Limits::builder(memory.executor().clone(), &namespace, "api", &["tenant", "user"])
///     .rate("tenant-hour", &["tenant"], Quota::sliding_window(1_000, hour)?)
///     .rate("user-hour", &["tenant", "user"], Quota::sliding_window(100, hour)?)
///     .rate("user-pace", &["tenant", "user"], Quota::gcra(10, second, 10)?)
///     .on_unavailable(Unavailable::LocalShare { instances: 3 })
///     .build()?;
/// let ruling = limits.check(&["tenant-7", "ada"], 1).await?;
/// match ruling.refused_by() {
///     None => assert_eq!(ruling.decision.remaining(), 9),
///     Some(level) => println!("{level:?}: again in {:?}", ruling.decision.retry_after()),
/// }
/// # Ok(()) }
/// ```
pub struct Limits<E> {
    inner: Arc<Inner<E>>,
}

struct Inner<E> {
    backend: Arc<Backend<E>>,
    /// Holds the permits, if a level has any.
    keeper: Option<Arc<Keeper<E>>>,
    /// Knows what the fleet has spent of the others.
    debtor: Debtor<E>,
    namespace: Namespace,
    name: PolicyName,
    scopes: usize,
    levels: Vec<Level>,
    rung: Rung,
}

/// One of several limits.
#[derive(Clone, Debug)]
struct Level {
    name: PolicyName,
    /// The places of the scopes by which it counts; the first is 0.
    scopes: Vec<usize>,
    rule: Rule,
}

impl Level {
    const fn cost_max(&self) -> u32 {
        op::cost_max(&self.rule)
    }

    const fn at_once(&self) -> Option<ConcurrencyQuota> {
        match self.rule {
            Rule::Rate(_) => None,
            Rule::AtOnce(quota) => Some(quota),
        }
    }

    /// What a call asks of it: the cost, or a permit.
    const fn ask(&self, cost: u32, id: u64) -> Ask {
        let cost = match self.rule {
            Rule::Rate(_) => cost,
            Rule::AtOnce(_) => 1,
        };
        Ask { rule: self.rule, cost, id }
    }
}

impl<E: Executor> Limits<E> {
    /// Options of limits called `name` over these scopes, which count with `executor`.
    ///
    /// A scope is a kind of key, such as `tenant` or `route`; each call names one key of each. The
    /// key of the first one decides in which slot a call is counted.
    pub fn builder(
        executor: E,
        namespace: &Namespace,
        name: &str,
        scopes: &[&str],
    ) -> LimitsBuilder<E> {
        LimitsBuilder::new(executor, namespace, name, scopes)
    }

    fn new(inner: Inner<E>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Spends `cost` cells at each level, at all or at none. There is one of `keys` for each scope,
    /// in their order. A cost of 0 spends nothing.
    ///
    /// # Errors
    /// [`LimitsError`] if there are fewer or more keys than scopes, if one is empty or longer than
    /// 64 KiB, if the cost is above what an unused key has at some level, or if a level hands out
    /// permits. A refusal is a [`Ruling`].
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells, at all levels or at none.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn check<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        cost: u64,
    ) -> Result<Ruling, LimitsError> {
        let inner = &*self.inner;
        if let Some(level) = inner.levels.iter().find(|level| level.at_once().is_some()) {
            return Err(LimitsError::Unheld { level: level.name.as_str().to_owned() });
        }
        let cost = inner.cost(cost)?;
        let ruling = inner.ask(inner.keys(keys)?, cost, cost > 0).await;
        inner.backend.telemetry.decided(&ruling.decision);
        Ok(ruling)
    }

    /// Says what [`check`](Self::check) would, and spends nothing. What is left is as it is now.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn peek<K: AsRef<[u8]>>(&self, keys: &[K], cost: u64) -> Result<Ruling, LimitsError> {
        let inner = &*self.inner;
        let cost = inner.cost(cost)?;
        Ok(inner.ask(inner.keys(keys)?, cost, false).await)
    }

    /// What these limits are called.
    pub fn name(&self) -> &PolicyName {
        &self.inner.name
    }
}

impl<E: Executor> Inner<E> {
    async fn ask(&self, levels: Vec<(Key, &Level)>, cost: u32, is_spending: bool) -> Ruling {
        match self.step(&levels, cost, 0, is_spending).await {
            Ok(ruling) => ruling,
            Err(away) => self.stand_in(&levels, cost, is_spending, away.until_probe),
        }
    }

    /// Asks the fleet's count.
    async fn step(
        &self,
        levels: &[(Key, &Level)],
        cost: u32,
        id: u64,
        is_spending: bool,
    ) -> Result<Ruling, Unanswered> {
        let asks = levels.iter().map(|(key, level)| (key.clone(), level.ask(cost, id))).collect();
        let op = if is_spending { AllOrNone::check(asks) } else { AllOrNone::peek(asks) };
        // There is one: `build` has seen to the number, and `keys` to the tag.
        let until_probe = self.backend.probe_every;
        let op = op.ok_or(Unanswered { until_probe, may_have_happened: false })?;
        let told = self.backend.ask_by(self.debtor.run_settled(&op)).await?;
        self.note(levels, &told);
        let now = self.backend.now();
        let answers = told.reply;
        let verdicts: Vec<Verdict> = answers.iter().map(|answer| answer.verdict).collect();
        for (place, ((key, _), verdict)) in levels.iter().zip(&verdicts).enumerate() {
            self.rung.learn(place, key, verdict.remaining, now);
        }
        Ok(Ruling::of(self.names(), &verdicts, Source::Shared))
    }

    /// Notes what each level answered, for after a failover. A refusal says as much as a grant, and
    /// so does a level that was not debited because another one refuses.
    fn note(&self, levels: &[(Key, &Level)], told: &Told<Vec<Answer>>) {
        for ((key, level), answer) in levels.iter().zip(&told.reply) {
            if let Rule::Rate(quota) = level.rule {
                let told = Told { reply: *answer, epoch: told.epoch };
                by_quota!(quota, quota => self.debtor.learn(quota, key, &told));
            }
        }
    }

    fn stand_in(
        &self,
        levels: &[(Key, &Level)],
        cost: u32,
        is_spending: bool,
        until_probe: Duration,
    ) -> Ruling {
        let now = self.backend.now();
        let verdicts = self.rung.decide(levels, cost, is_spending, now, until_probe);
        Ruling::of(self.names(), &verdicts, self.rung.source())
    }

    fn names(&self) -> impl Iterator<Item = &PolicyName> {
        self.levels.iter().map(|level| &level.name)
    }

    fn cost(&self, cost: u64) -> Result<u32, LimitsError> {
        for level in self.levels.iter().filter(|level| level.at_once().is_none()) {
            let max = level.cost_max();
            if cost > u64::from(max) {
                let level = level.name.as_str().to_owned();
                return Err(LimitsError::Oversize { cost, level, max });
            }
        }
        // Not above any maximum; without any, it is spent nowhere.
        Ok(u32::try_from(cost).unwrap_or(u32::MAX))
    }

    /// The key of each level, all under the tag of the first scope's key. A name says how long each
    /// further key in it is, so that no two lists of keys share one.
    fn keys<K: AsRef<[u8]>>(&self, named: &[K]) -> Result<Vec<(Key, &Level)>, LimitsError> {
        let (Some(first), true) = (named.first(), named.len() == self.scopes) else {
            return Err(LimitsError::Keys { scopes: self.scopes, keys: named.len() });
        };
        if named.iter().any(|key| key.as_ref().is_empty()) {
            return Err(KeyError::Empty.into());
        }
        let name = [self.name.as_str().as_bytes(), b"/", first.as_ref()].concat();
        let tag = self.namespace.tag("limits", &name)?;
        let key = |level: &Level| {
            let mut name = level.name.as_str().as_bytes().to_vec();
            for &scope in &level.scopes[1..] {
                let key = named[scope].as_ref();
                name.extend(format!("/{scope}.{}=", key.len()).into_bytes());
                name.extend_from_slice(key);
            }
            tag.named(level.rule.part(), &name)
        };
        self.levels.iter().map(|level| Ok((key(level)?, level))).collect()
    }
}

impl<E> Clone for Limits<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E> fmt::Debug for Limits<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("name", &self.inner.name)
            .field("levels", &self.inner.levels)
            .field("gate", &self.inner.backend.gate)
            .finish_non_exhaustive()
    }
}
