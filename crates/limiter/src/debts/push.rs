//! Making good what is owed: all of it when a failover is told of, and that of a key before its next
//! call.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetwide_core_traits::{
    AtomicOp, BackendError, Clock, Epoch, Epochs, Executor, ExecutorExt, Key, Outage,
    RejectionKind, Told,
};
use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Debt, Debts, SHARDS};
use crate::Answer;
use crate::algorithm::Algorithm;
use crate::counter::by_quota;
use crate::multi::rule::Rated;
use crate::op::{Form, Merge, Rate};

/// Debts of one trip. Others' calls wait for them on the server, for less than a millisecond.
const TRIP_MAX: usize = 64;
/// A trip that takes longer is made again.
const TRIP_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon it is tried again after a trip that failed, at first and at last.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Who owes what one limiter knows. Cheap to clone.
pub(crate) struct Debtor<E> {
    pub(crate) executor: Arc<E>,
    pub(crate) debts: Arc<Debts>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) deadline: Duration,
    /// As what the keys are kept.
    pub(crate) form: Form,
}

impl<E: Executor> Debtor<E> {
    /// Who owes what is known of `keys_max` keys; of none, over an executor that loses nothing.
    pub(crate) fn new(
        executor: &Arc<E>,
        form: Form,
        keys_max: usize,
        clock: &Arc<dyn Clock>,
        deadline: Duration,
    ) -> Self {
        let is_lossy = !executor.epochs().is_none();
        Self {
            executor: Arc::clone(executor),
            debts: Arc::new(Debts::new(if is_lossy { keys_max } else { 0 })),
            clock: Arc::clone(clock),
            deadline,
            form,
        }
    }

    /// Notes what was answered about `key`.
    pub(crate) fn learn<A: Algorithm>(&self, quota: A, key: &Key, told: &Told<Answer>) {
        if !self.debts.is_on() || A::merge_script().is_none() {
            return;
        }
        let now = self.clock.now();
        if let Some(debt) = Debt::of(quota.into(), &told.reply, now) {
            self.debts.learn(key, debt, told.epoch, now);
            self.attend();
        }
    }

    /// Makes good what is owed of its keys, and then runs `op`.
    ///
    /// # Errors
    /// As of `op` itself. Both together have the time of one call.
    pub(crate) async fn run_settled<O: AtomicOp>(
        &self,
        op: &O,
    ) -> Result<Told<O::Reply>, BackendError> {
        let deadline = Instant::now() + self.deadline;
        self.settle(op.keys(), deadline).await?;
        let late = |_| Err(BackendError::Unknown(Outage::Deadline(self.deadline)));
        timeout_at(deadline, self.executor.run_told(op)).await.unwrap_or_else(late)
    }

    /// Makes good what is owed of `keys`, before a step on them. A few loads if nothing is owed.
    ///
    /// # Errors
    /// It could not be made good by `deadline`; the step must not be made then.
    pub(crate) async fn settle(&self, keys: &[Key], deadline: Instant) -> Result<(), BackendError> {
        if !self.debts.is_on() {
            return Ok(());
        }
        self.debts.advance(self.executor.epoch());
        let now = self.clock.now();
        let owed = |key: &Key| self.debts.owed(key, now).map(|debt| (key.clone(), debt));
        let owed: Vec<_> = keys.iter().filter_map(owed).collect();
        if owed.is_empty() {
            return Ok(());
        }
        // Boxed: it is rare, and would make the future of each call larger.
        let paying = Box::pin(self.pay(owed));
        let late = |_| Err(BackendError::Unknown(Outage::Deadline(self.deadline)));
        timeout_at(deadline, paying).await.unwrap_or_else(late)
    }

    /// Has a task make good what will be owed, if none does.
    fn attend(&self) {
        let is_attended = &self.debts.is_attended;
        if is_attended.load(Ordering::Relaxed) || is_attended.swap(true, Ordering::AcqRel) {
            return;
        }
        // Made before the task, so that another one can begin if this one is never begun.
        let attendance = Attendance {
            executor: Arc::downgrade(&self.executor),
            debts: Arc::downgrade(&self.debts),
            clock: Arc::clone(&self.clock),
            deadline: self.deadline,
            form: self.form,
            is_over: false,
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(attendance.run(self.executor.epochs(), Arc::clone(&self.debts.news)));
        }
    }

    /// Makes good all that is owed, as far as it can; whether nothing is left.
    async fn pay_all(&self) -> bool {
        for shard in 0..SHARDS {
            let owed = self.debts.owed_in(shard, self.clock.now());
            for some in owed.chunks(TRIP_MAX) {
                match timeout(TRIP_TIMEOUT, self.pay(some.to_vec())).await {
                    // One that cannot be paid does not keep the others from it.
                    Ok(Ok(()) | Err(BackendError::Rejected(_))) => {}
                    _ => return false,
                }
            }
        }
        !self.debts.is_any_owed()
    }

    /// Makes good some debts in one trip.
    ///
    /// # Errors
    /// The first of those that were not made good; they are still owed.
    async fn pay(&self, mut some: Vec<(Key, Debt)>) -> Result<(), BackendError> {
        // A limiter has one algorithm; the debts of several levels may have more.
        let mut paid = Ok(());
        while let Some(quota) = some.last().map(|(_, debt)| debt.quota) {
            let is_alike = |(_, debt): &(Key, Debt)| debt.quota.is_of_algorithm_of(&quota);
            let (alike, others) = some.into_iter().partition(is_alike);
            paid = paid.and(by_quota!(quota, quota => self.pay_alike(quota, alike).await));
            some = others;
        }
        paid
    }

    /// Makes good debts of one algorithm, that of `_quota`.
    async fn pay_alike<A: Rated>(
        &self,
        _quota: A,
        some: Vec<(Key, Debt)>,
    ) -> Result<(), BackendError> {
        let now = self.clock.now();
        let merge = |(key, debt): (Key, Debt)| {
            let quota = A::try_from(debt.quota).ok()?;
            let merge = Merge::new(quota, key.clone(), debt.owed(now))?;
            Some(((quota, key, debt), merge))
        };
        let (some, merges): (Vec<_>, Vec<_>) = some.into_iter().filter_map(merge).unzip();
        if merges.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        let told = self.form.run::<Rate<A>, _, _>(&*self.executor, merges).await;
        for ((quota, key, debt), told) in some.into_iter().zip(told) {
            match told {
                Ok(told) => {
                    self.learn(quota, &key, &told);
                    self.debts.paid(&key, &debt, told.epoch);
                }
                // Somebody else's value is in its place: there is nobody to owe it to.
                Err(BackendError::Rejected(rejection))
                    if rejection.kind == RejectionKind::WrongType =>
                {
                    self.debts.forget(&key);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// A task that makes good what is owed. It keeps nothing of the limiter alive; gone before its end,
/// with its runtime, another one may begin.
struct Attendance<E> {
    executor: Weak<E>,
    debts: Weak<Debts>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    form: Form,
    is_over: bool,
}

impl<E: Executor> Attendance<E> {
    async fn run(mut self, mut epochs: Epochs, news: Arc<Notify>) {
        let mut pause = PAUSE_MIN;
        loop {
            let Some(is_clear) = self.pay_all().await else { break };
            pause = if is_clear { PAUSE_MIN } else { (2 * pause).min(PAUSE_MAX) };
            select! {
                epoch = next(&mut epochs) => match epoch {
                    Some(epoch) => {
                        if let Some(debts) = self.debts.upgrade() {
                            debts.advance(epoch);
                        }
                        pause = PAUSE_MIN;
                    }
                    None => break,
                },
                () = news.notified() => {}
                () = sleep(pause), if !is_clear => {}
            }
        }
        self.is_over = true;
    }

    /// `None` if the limiter is gone.
    async fn pay_all(&self) -> Option<bool> {
        let debtor = Debtor {
            executor: self.executor.upgrade()?,
            debts: self.debts.upgrade()?,
            clock: Arc::clone(&self.clock),
            deadline: self.deadline,
            form: self.form,
        };
        // The news may have come before this task heard any.
        debtor.debts.advance(debtor.executor.epoch());
        Some(!debtor.debts.is_any_owed() || debtor.pay_all().await)
    }
}

impl<E> Drop for Attendance<E> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(debts) = self.debts.upgrade()
        {
            debts.is_attended.store(false, Ordering::Release);
        }
    }
}

async fn next(epochs: &mut Epochs) -> Option<Epoch> {
    poll_fn(|cx| Pin::new(&mut *epochs).poll_next(cx)).await
}

impl<E> Clone for Debtor<E> {
    fn clone(&self) -> Self {
        Self {
            executor: Arc::clone(&self.executor),
            debts: Arc::clone(&self.debts),
            clock: Arc::clone(&self.clock),
            deadline: self.deadline,
            form: self.form,
        }
    }
}
