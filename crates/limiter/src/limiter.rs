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
use tokio::time::timeout;

use crate::algorithm::Algorithm;
use crate::combine::Combiner;
pub(crate) use crate::counter::{Counter, Policy, by_algorithm};
use crate::denials::{Asked, Denials};
use crate::fallback::gate::Gate;
use crate::fallback::share::Full;
use crate::lease::table::Leases;
use crate::op::{Check, Delete, Peek, Reset, cell};
use crate::telemetry::Telemetry;
use crate::voids::{Voids, Word};
use crate::wait::Waiting;
use crate::{
    Answer, CheckError, Decision, Leasing, LimiterBuilder, PolicyName, Quota, ResetError, Source,
    Unavailable, Verdict,
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
        let decision = match self.ask(self.combiner.run(&check)).await {
            Ok(answer) => {
                let now = self.clock.now();
                self.remember(counter.quota, name, asked, cost, &answer, now);
                self.learn_rest(name, &answer, now);
                counter.shared(check.key(), &answer, now)
            }
            Err(until_probe) => self.stand_in(counter, check.key(), cost, until_probe),
        };
        self.telemetry.decided(&decision);
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
        let key = cell::<A>(&self.namespace, &self.name, key)?;
        let _voided = self.voiding(&key, Word::key(&key));
        match self.run(&Reset::new(counter.quota, key.clone())).await {
            Err(BackendError::Rejected(Rejection { kind: RejectionKind::WrongType, .. })) => {
                self.run(&Delete::<A>::new(key.clone())).await?;
            }
            done => _ = done?,
        }
        if let Some(share) = &counter.share {
            share.forget(&key);
        }
        Ok(())
    }

    /// The refusal of `cost` cells that is known to be true still, and counted as an answer.
    pub(crate) fn recall(&self, name: &[u8], cost: u32) -> Option<Decision> {
        let refused = self.denials.recall(name, cost, self.clock.now())?;
        self.telemetry.decided(&refused);
        Some(refused)
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
    pub(crate) async fn ask(
        &self,
        step: impl Future<Output = Result<Answer, BackendError>>,
    ) -> Result<Answer, Duration> {
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

    pub(crate) async fn run<O: AtomicOp>(&self, op: &O) -> Result<O::Reply, BackendError> {
        // A backend has deadlines of its own; this one is what callers were promised.
        match timeout(self.deadline, self.executor.run(op)).await {
            Ok(result) => result,
            Err(_) => Err(BackendError::Unknown(Outage::Deadline(self.deadline))),
        }
    }

    /// The rung's answer to a check.
    pub(crate) fn stand_in<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        cost: u32,
        until_probe: Duration,
    ) -> Decision {
        let source = self.unavailable.source();
        match (&counter.share, source) {
            (Some(share), _) => match share.decide(key, cost, self.clock.now()) {
                Ok(Some(verdict)) => Decision::new(verdict, source),
                Ok(None) => refused(until_probe, source),
                Err(Full) => {
                    self.telemetry.share_full();
                    refused(until_probe, source)
                }
            },
            (None, Source::Open) => untouched(counter.quota, cost, source),
            (None, _) => refused(until_probe, source),
        }
    }

    /// The rung's answer to a peek.
    fn stand_in_peek<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        cost: u32,
        until_probe: Duration,
    ) -> Decision {
        let source = self.unavailable.source();
        match (&counter.share, source) {
            (Some(share), _) => Decision::new(share.peek(key, cost, self.clock.now()), source),
            (None, Source::Open) => untouched(counter.quota, 0, source),
            (None, _) => refused(until_probe, source),
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

/// The answer of nobody: as for an unused key.
fn untouched<A: Algorithm>(quota: A, cost: u32, source: Source) -> Decision {
    let remaining = quota.cost_max() - cost;
    let verdict = Verdict { is_allowed: true, remaining, retry_after_us: 0, reset_after_us: 0 };
    Decision::new(verdict, source)
}

/// A refusal because the fleet's count cannot be asked: until it can.
const fn refused(until_probe: Duration, source: Source) -> Decision {
    let until_us = until_probe.as_micros() as u64;
    let verdict = Verdict {
        is_allowed: false,
        remaining: 0,
        retry_after_us: until_us,
        reset_after_us: until_us,
    };
    Decision::new(verdict, source)
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
