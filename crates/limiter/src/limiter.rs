//! The limiter: each call is one step on the fleet's count, or an answer of the rung.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetwide_core_traits::{
    AtomicOp, BackendError, Clock, Executor, ExecutorExt, Key, MonoTime, Namespace, Outage,
    Rejection, RejectionKind,
};
use parking_lot::Mutex;
use tokio::join;
use tokio::time::timeout;

use crate::accuracy::sampler::Sampler;
use crate::algorithm::Algorithm;
use crate::combine::Combiner;
pub(crate) use crate::counter::{Counter, Policy, by_algorithm};
use crate::debts::push::Debtor;
use crate::denials::{Asked, Denials};
use crate::fallback::gate::Gate;
use crate::lease::table::Leases;
use crate::op::{AtMost, Check, Compared, Delete, Once, Peek, Reset, cell};
use crate::shadow::ledger::Ledger;
use crate::telemetry::Telemetry;
use crate::voids::{Voids, Word};
use crate::wait::Waiting;
use crate::{
    Answer, CheckError, Decision, Leasing, LimiterBuilder, PolicyName, Quota, ResetError,
    Unavailable,
};

/// Limits how much each key may spend, over all instances that use the same backend, namespace and
/// name. Cheap to clone; clones are one limiter.
///
/// A decision takes at most the limiter's deadline and what the runtime takes to wake its task; it
/// never fails for an outage, because then the chosen [`Unavailable`] answers.
pub struct Limiter<E> {
    pub(crate) inner: Arc<Inner<E>>,
}

pub(crate) struct Inner<E> {
    pub(crate) executor: Arc<E>,
    pub(crate) combiner: Combiner<E>,
    pub(crate) debtor: Debtor<E>,
    pub(crate) namespace: Namespace,
    pub(crate) name: PolicyName,
    pub(crate) policy: ArcSwap<Policy>,
    /// Held by who changes the quota.
    pub(crate) changing: Mutex<()>,
    pub(crate) unavailable: Unavailable,
    pub(crate) deadline: Duration,
    pub(crate) probe_every: Duration,
    pub(crate) gate: Gate,
    pub(crate) denials: Arc<Denials>,
    pub(crate) leasing: Option<Leasing>,
    pub(crate) leases: Option<Arc<Leases>>,
    pub(crate) voids: Option<Voids>,
    pub(crate) shadow: Option<Arc<Ledger>>,
    pub(crate) sampler: Option<Sampler>,
    pub(crate) waiting: Waiting,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
}

impl<E: Executor> Limiter<E> {
    /// Options of a limiter called `name`, which counts with `executor`.
    ///
    /// Limiters with the same namespace, name and algorithm share what was spent. Their quotas may
    /// differ, as they do while a new one is rolled out: what was spent stays spent.
    pub fn builder(
        executor: E,
        namespace: &Namespace,
        name: &str,
        quota: Quota,
    ) -> LimiterBuilder<E> {
        LimiterBuilder::new(executor, namespace, name, quota)
    }

    pub(crate) fn new(inner: Inner<E>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Spends one cell of `key`, if there is one.
    ///
    /// # Errors
    /// [`CheckError`] if the key is empty or longer than 64 KiB. A refusal is a [`Decision`].
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cell. It waits for nobody else, and nobody for it.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn check(&self, key: impl AsRef<[u8]>) -> Result<Decision, CheckError> {
        self.check_cost(key, 1).await
    }

    /// Spends `cost` cells of `key`, all or none. A cost of 0 spends nothing and is allowed.
    ///
    /// # Errors
    /// [`CheckError`] if the key is empty or longer than 64 KiB, or if the cost is above what an
    /// unused key has, so that no wait would help.
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells. It waits for nobody else, and nobody for it.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn check_cost(
        &self,
        key: impl AsRef<[u8]>,
        cost: u64,
    ) -> Result<Decision, CheckError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        if let Some(decision) = self.spend_leased(key, cost) {
            return Ok(decision);
        }
        by_algorithm!(&*inner.policy(), counter => inner.check(counter, key, cost).await)
    }

    /// Says what [`check`](Self::check) would, and spends nothing. The cells that are left, and the
    /// time until all are back, are as they are now.
    ///
    /// # Errors
    /// [`CheckError`] if the key is empty or longer than 64 KiB.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn peek(&self, key: impl AsRef<[u8]>) -> Result<Decision, CheckError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        by_algorithm!(&*inner.policy(), counter => inner.peek(counter, key, 1).await)
    }

    /// Forgets what `key` has spent, for the whole fleet; of local shares, only this instance's.
    ///
    /// # Errors
    /// [`ResetError`] if the key is empty or longer than 64 KiB, or if the backend gave no answer
    /// within the deadline. Unlike a decision, a reset cannot be stood in for.
    ///
    /// # Cancel safety
    /// A dropped call may have reset the key.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn reset(&self, key: impl AsRef<[u8]>) -> Result<(), ResetError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        by_algorithm!(&*inner.policy(), counter => inner.reset(counter, key).await)
    }

    /// What this limiter is called.
    pub fn name(&self) -> &PolicyName {
        &self.inner.name
    }
}

impl<E: Executor> Inner<E> {
    async fn check<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
        cost: u64,
    ) -> Result<Decision, CheckError> {
        let Some(cost) = counter.cost(cost)? else {
            return self.peek(counter, key, 0).await;
        };
        if let Some(refused) = self.recall(key, cost) {
            return Ok(refused);
        }
        let name = key;
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        let check = Check::new(counter.quota, key, cost);
        let asked = self.asking(check.key());
        let beside = self.beside::<A>(name)?;
        let decision = match self.ask(self.combiner.run(&check, beside.as_ref())).await {
            Ok(Compared { answer, .. }) => {
                let now = self.clock.now();
                self.remember(counter.quota, name, asked, cost, &answer, now);
                self.learn_rest(name, &answer, now);
                counter.shared(check.key(), &answer, now)
            }
            Err(until_probe) => {
                self.unjudged(name);
                self.stand_in(counter, check.key(), cost, until_probe)
            }
        };
        self.decided(name, cost, &decision);
        Ok(decision)
    }

    pub(crate) async fn peek<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
        cost: u32,
    ) -> Result<Decision, CheckError> {
        let key = cell::<A>(&self.namespace, &self.name, key)?;
        Ok(match self.ask(self.run(&Peek::new(counter.quota, key.clone(), cost))).await {
            Ok(answer) => counter.shared(&key, &answer, self.clock.now()),
            Err(until_probe) => self.stand_in_peek(counter, &key, cost, until_probe),
        })
    }

    async fn reset<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
    ) -> Result<(), ResetError> {
        let name = key;
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        let _voided = self.voiding(&key, Word::key(&key));
        // What is owed is made good first, so that the reset leaves a mark behind which voids what
        // others owe.
        let reset = Reset::new(counter.quota, key.clone());
        let aside = async { join!(self.reset_beside::<A>(name), self.forget_judged(name)) };
        let (done, _) = join!(self.debtor.run_settled(&reset), aside);
        let begun = match done {
            Err(BackendError::Rejected(Rejection { kind: RejectionKind::WrongType, .. })) => {
                self.run(&Delete::<A>::new(key.clone())).await?;
                None
            }
            done => done?.reply,
        };
        match begun {
            Some((generation, _)) => self.debtor.debts.forget_before(&key, generation),
            None => self.debtor.debts.forget(&key),
        }
        if let Some(share) = &counter.share {
            share.forget(&key);
        }
        Ok(())
    }

    /// The refusal of `cost` cells that is known to be true still, and counted as an answer.
    pub(crate) fn recall(&self, name: &[u8], cost: u32) -> Option<Decision> {
        let refused = self.refused(name, cost, self.clock.now())?;
        self.decided(name, cost, &refused);
        Some(refused)
    }

    /// The refusal of `cost` cells that is known to be true still.
    pub(crate) fn refused(&self, name: &[u8], cost: u32, now: MonoTime) -> Option<Decision> {
        // A call without a trip would be one that the candidate does not see.
        if self.tried(name).is_some() {
            return None;
        }
        self.denials.recall(name, cost, now)
    }

    /// Notes that `key` is about to be asked about.
    pub(crate) fn asking(&self, key: &Key) -> Asked {
        self.denials.asking(key, self.clock.now())
    }

    /// Remembers the answer to `cost` cells by `quota`, if it is a refusal.
    pub(crate) fn remember<A: Algorithm>(
        &self,
        quota: A,
        name: &[u8],
        asked: Asked,
        cost: u32,
        answer: &Answer,
        now: MonoTime,
    ) {
        if self.is_current(quota) {
            self.denials.learn(name, asked, cost, answer, now);
        }
    }

    /// Makes void what `word` says of `key`, here and with the others, when the step that is about to
    /// be made is over, whatever comes of it.
    pub(crate) fn voiding(&self, key: &Key, word: Word) -> Voiding<'_, E> {
        Voiding { inner: self, key: key.clone(), word }
    }

    /// Asks the fleet's count.
    ///
    /// # Errors
    /// The rung must answer; the backend is not asked before this time is over.
    pub(crate) async fn ask<T>(
        &self,
        step: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, Duration> {
        let asking = self.gate.enter()?;
        let begun = self.clock.now();
        let result = step.await;
        self.telemetry.asked(self.clock.now().since(begun).as_secs_f64());
        match result {
            Ok(answer) => {
                asking.answered();
                Ok(answer)
            }
            Err(error) => {
                self.telemetry.failed();
                asking.failed(&error);
                Err(self.probe_every)
            }
        }
    }

    /// Spends what is there of `key`, and notes the answer for after a failover.
    pub(crate) async fn spend<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        op: &AtMost<A>,
    ) -> Result<Answer, BackendError> {
        let told = self.debtor.run_settled(op).await?;
        self.debtor.learn(counter.quota, key, &told);
        Ok(told.reply)
    }

    /// Spends for one request of `key`, and notes the answer for after a failover. One that is
    /// remembered is noted as if it were new: what is owed may be made good for a minute too long, and
    /// that of a fixed window in the one that is under way then.
    pub(crate) async fn spend_once<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        once: &Once<A>,
    ) -> Result<Answer, BackendError> {
        let told = self.debtor.run_settled(once).await?;
        self.debtor.learn(counter.quota, key, &told);
        Ok(told.reply)
    }

    pub(crate) async fn run<O: AtomicOp>(&self, op: &O) -> Result<O::Reply, BackendError> {
        // A backend has deadlines of its own; this one is what callers were promised.
        match timeout(self.deadline, self.executor.run(op)).await {
            Ok(result) => result,
            Err(_) => Err(BackendError::Unknown(Outage::Deadline(self.deadline))),
        }
    }
}

/// A step after which refusals from before it may be untrue. It ends with this, also if its caller
/// leaves.
#[must_use = "dropped, it makes void"]
pub(crate) struct Voiding<'a, E> {
    inner: &'a Inner<E>,
    key: Key,
    word: Word,
}

impl<E> Drop for Voiding<'_, E> {
    fn drop(&mut self) {
        let Inner { denials, leases, voids, .. } = self.inner;
        denials.void(self.key.as_bytes());
        if let (Word::Key(_), Some(leases)) = (&self.word, leases) {
            leases.void(self.key.as_bytes());
        }
        if let Some(voids) = voids {
            voids.tell(self.word.clone());
        }
    }
}

impl<E> Clone for Limiter<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E> fmt::Debug for Limiter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("name", &self.inner.name)
            .field("quota", &self.inner.quota())
            .field("unavailable", &self.inner.unavailable)
            .field("gate", &self.inner.gate)
            .finish_non_exhaustive()
    }
}
