//! One request of a waiting call: asked until there is an answer, and settled when its caller leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Executor, Key, KeyError, MonoTime};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::algorithm::Algorithm;
use crate::limiter::{Counter, Inner, Limiter};
use crate::op::{Once, Refund, cell, id_cell};
use crate::receipt::Receipt;
use crate::voids::Word;
use crate::{Answer, Decision};

/// So many are settled in the background at once. What others have spent stays spent.
const SETTLING_MAX: usize = 1_024;
/// How often a request is settled: once more than a lone loss takes.
const SETTLE_TRIES: usize = 3;

pub(super) struct Attempt<E: Executor, A: Algorithm> {
    inner: Arc<Inner<E>>,
    name: Box<[u8]>,
    key: Key,
    once: Once<A>,
    quota: A,
    cost: u32,
    /// When the first question was sent of which nobody knows what it has spent.
    owing_since: Option<MonoTime>,
}

/// What came of asking.
pub(super) enum Asked {
    /// An answer, which may be remembered from before.
    Decided(Decision),
    /// No answer, and it may be asked again at once.
    Unanswered,
    /// The rung must answer.
    Away { until_probe: Duration },
    /// It is so long ago that a question was not answered that another one could spend once more.
    TooLong,
}

impl<E: Executor, A: Algorithm> Attempt<E, A> {
    pub(super) fn new(
        limiter: &Limiter<E>,
        quota: A,
        name: &[u8],
        id: [u8; 16],
        cost: u32,
    ) -> Result<Self, KeyError> {
        let inner = Arc::clone(&limiter.inner);
        let key = cell::<A>(&inner.namespace, &inner.name, name)?;
        let id = id_cell::<A>(&inner.namespace, &inner.name, name, &id)?;
        let once = Once::new(quota, key.clone(), id, cost);
        Ok(Self { inner, name: name.into(), key, once, quota, cost, owing_since: None })
    }

    /// Asks once, or recalls a refusal.
    pub(super) async fn ask(&mut self, counter: &Counter<A>) -> Asked {
        let inner = Arc::clone(&self.inner);
        let now = inner.clock.now();
        match self.owing_since {
            // Nothing was spent: a refusal that is remembered is as good as one that is asked for.
            None => {
                if let Some(refused) = inner.refused(&self.name, self.cost, now) {
                    return Asked::Decided(refused);
                }
            }
            // By half of it no two clocks disagree about the rest.
            Some(since) if now.since(since) >= Once::<A>::HORIZON / 2 => return Asked::TooLong,
            Some(_) => {}
        }
        let asking = match inner.gate.enter() {
            Ok(asking) => asking,
            Err(until_probe) => return Asked::Away { until_probe },
        };
        let asked = inner.asking(&self.key);
        let owed_before = self.owing_since;
        self.owing_since = owed_before.or(Some(now));
        let result = inner.spend_once(counter, &self.key, &self.once).await;
        let now = inner.clock.now();
        match result {
            Ok(answer) => {
                asking.answered();
                // One that is still on its way can spend all the same.
                self.owing_since = owed_before;
                inner.remember(self.quota, &self.name, asked, self.cost, &answer, now);
                Asked::Decided(counter.shared(&self.key, &answer, now))
            }
            Err(error) => {
                inner.telemetry.failed();
                asking.failed(&error);
                match error {
                    BackendError::Unknown(_) => Asked::Unanswered,
                    error => {
                        if !error.may_have_happened() {
                            self.owing_since = owed_before;
                        }
                        Asked::Away { until_probe: inner.probe_every }
                    }
                }
            }
        }
    }

    pub(super) fn stand_in(&self, counter: &Counter<A>, until_probe: Duration) -> Decision {
        self.inner.stand_in(counter, &self.key, self.cost, until_probe)
    }

    /// The caller goes on: what was spent, if anything, was spent by it.
    pub(super) fn is_over(&mut self) {
        self.owing_since = None;
    }
}

/// A caller that leaves while nobody knows what it has spent.
impl<E: Executor, A: Algorithm> Drop for Attempt<E, A> {
    fn drop(&mut self) {
        let (Some(_), Ok(runtime)) = (self.owing_since, Handle::try_current()) else { return };
        let settling = &self.inner.waiting.settling;
        if settling.fetch_add(1, Ordering::AcqRel) >= SETTLING_MAX {
            settling.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let settlement = Settlement {
            inner: Arc::clone(&self.inner),
            once: self.once.clone(),
            key: self.key.clone(),
            quota: self.quota,
        };
        runtime.spawn(settlement.settle());
    }
}

struct Settlement<E: Executor, A: Algorithm> {
    inner: Arc<Inner<E>>,
    once: Once<A>,
    key: Key,
    quota: A,
}

impl<E: Executor, A: Algorithm> Settlement<E, A> {
    /// Asks once more: if the request has spent, or does so now, that is given back. A question that
    /// is still on its way finds the request answered, and spends nothing.
    async fn settle(self) {
        let inner = &*self.inner;
        for _ in 0..SETTLE_TRIES {
            if let Ok(answer) = inner.run(&self.once).await {
                self.give_back(&answer).await;
                return;
            }
            sleep(inner.probe_every).await;
        }
    }

    async fn give_back(&self, answer: &Answer) {
        let inner = &*self.inner;
        let receipt = Receipt::new(&self.key, self.quota.into(), answer, inner.clock.now());
        let Some(receipt) = receipt else { return };
        let _voided = inner.voiding(&self.key, Word::refusals(&self.key));
        let refund = Refund::new(self.quota, self.key.clone(), receipt.debit);
        // It is tried once: a refund that is sent again may give back twice.
        let _ = inner.run(&refund).await;
    }
}

impl<E: Executor, A: Algorithm> Drop for Settlement<E, A> {
    fn drop(&mut self) {
        self.inner.waiting.settling.fetch_sub(1, Ordering::AcqRel);
    }
}
