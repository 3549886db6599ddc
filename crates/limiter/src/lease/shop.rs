//! Buying, giving back, and the calls that are answered from what is in hand.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Clock, Executor, ExecutorExt, MonoTime, Outage};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::purse::{Lot, Rest};
use super::table::{GiveBack, Leases};
use crate::algorithm::Algorithm;
use crate::counter::by_quota;
use crate::denials::Denials;
use crate::limiter::{Counter, Inner, Limiter, by_algorithm};
use crate::op::{AtMost, Refund, cell};
use crate::receipt::Receipt;
use crate::telemetry::LeaseTelemetry;
use crate::voids::{Voids, Word};
use crate::{Answer, Decision, Source, Verdict};

/// A sweep looks at all keys, so it must not come all the time.
const SWEEP_EVERY_MIN: Duration = Duration::from_millis(5);
/// How many leases are given back at once.
const ABREAST: usize = 32;
/// How often a shutdown looks whether the last purchases are home.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl<E: Executor> Limiter<E> {
    /// Gives back to the fleet what this instance has bought ahead and not used, and buys nothing
    /// more: from here on each call is asked about. Without [leases](crate::LimiterBuilder::leased)
    /// it does nothing.
    ///
    /// Dropping the last clone of a limiter does the same in the background, if a runtime is there to
    /// do it. What cannot be given back comes back by itself, with time.
    ///
    /// It takes as long as the backend; when that fails, what is left is not given back, and it ends.
    ///
    /// # Cancel safety
    /// A dropped call gives back less.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    ///
    /// # Examples
    /// ```
    /// # async fn example<E: fleetwide_core_traits::Executor>(
    /// #     limiter: fleetwide_limiter::Limiter<E>,
    /// # ) {
    /// // The service is told to stop: the others get what this instance had in hand.
    /// limiter.shutdown().await;
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        let Some(leases) = &inner.leases else { return };
        inner.giver(leases).give(leases.close()).await;
        // A purchase gives itself back when it finds the shop closed.
        let late = Instant::now() + 2 * inner.deadline;
        while leases.is_any_on_its_way() && Instant::now() < late {
            sleep(LOOK_EVERY).await;
        }
    }

    /// The answer to a call from what is in hand; `None` if the fleet must be asked. Begins what
    /// must be done in the background.
    pub(crate) fn spend_leased(&self, name: &[u8], cost: u64) -> Option<Decision> {
        let inner = &*self.inner;
        let leases = inner.leases.as_ref()?;
        let cost = u32::try_from(cost).ok().filter(|cost| *cost > 0)?;
        if inner.tried(name).is_some() {
            return None;
        }
        let now = inner.clock.now();
        let taken = leases.take(name, cost, now);
        if let Some(cells) = taken.buy {
            self.buy(leases, name, cells);
        }
        if taken.is_kept && leases.begin_sweeping() {
            self.sweep(leases);
        }
        let Rest { left, reset_at } = taken.allowed?;
        let verdict = Verdict {
            is_allowed: true,
            remaining: left.min(inner.quota().cost_max()),
            retry_after_us: 0,
            reset_after_us: reset_at.since(now).as_micros() as u64,
        };
        let decision = Decision::new(verdict, Source::Leased);
        inner.decided(name, cost, &decision);
        Some(decision)
    }

    fn buy(&self, leases: &Arc<Leases>, name: &[u8], cells: u32) {
        // Made before the task, so that it also ends the purchase if the task is never begun.
        let purchase = Purchase { leases: Arc::clone(leases), name: name.into(), is_over: false };
        if let Ok(runtime) = Handle::try_current() {
            let limiter = self.clone();
            runtime.spawn(async move {
                let inner = &*limiter.inner;
                by_algorithm!(&*inner.policy(), counter => inner.buy(counter, purchase, cells).await);
            });
        }
    }

    fn sweep(&self, leases: &Arc<Leases>) {
        let sweeper = Sweeper { leases: Arc::downgrade(leases) };
        let mut every = sweep_every(leases);
        let clock = Arc::clone(&self.inner.clock);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                loop {
                    sleep(every).await;
                    let Some(leases) = sweeper.leases.upgrade() else { break };
                    if !leases.sweep(clock.now()) {
                        break;
                    }
                    every = sweep_every(&leases);
                }
            });
        }
    }
}

fn sweep_every(leases: &Leases) -> Duration {
    (leases.terms().lifetime / 2).max(SWEEP_EVERY_MIN)
}

/// Who sweeps. Gone, another one may begin.
struct Sweeper {
    leases: Weak<Leases>,
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(leases) = self.leases.upgrade() {
            leases.end_sweeping();
        }
    }
}

/// A purchase on its way. Dropped before its answer came, the key can be bought for again.
struct Purchase {
    leases: Arc<Leases>,
    name: Box<[u8]>,
    is_over: bool,
}

impl Drop for Purchase {
    fn drop(&mut self) {
        if !self.is_over {
            self.leases.bought(&self.name, None, Rest::default(), MonoTime::default());
        }
        self.leases.arrived();
    }
}

impl<E: Executor> Inner<E> {
    async fn buy<A: Algorithm>(&self, counter: &Counter<A>, mut purchase: Purchase, cells: u32) {
        let Purchase { leases, name, is_over } = &mut purchase;
        let Ok(key) = cell::<A>(&self.namespace, &self.name, name) else { return };
        let at_most = AtMost::new(counter.quota, key.clone(), cells);
        let asked_at = self.clock.now();
        let stamp = leases.stamp(&key);
        let asked = self.asking(&key);
        // No answer: nothing more is bought until the fleet has answered a call.
        let Ok(answer) = self.ask(self.spend(counter, &key, &at_most)).await else { return };
        let now = self.clock.now();
        self.remember(counter.quota, name, asked, 1, &answer, now);
        let _ = counter.shared(&key, &answer, now);
        let receipt = Receipt::new(&key, counter.quota.into(), &answer, now);
        leases.telemetry().bought(answer.granted);
        if !self.is_current(counter.quota) {
            // By a quota of before.
            self.giver(leases).give(receipt.into_iter().collect()).await;
            return;
        }
        let lot = receipt.map(|receipt| Lot::new(receipt, stamp, asked_at, &leases.terms()));
        let rest = rest(&answer, now);
        *is_over = true;
        if let Some(receipt) = leases.bought(name, lot, rest, now) {
            self.giver(leases).give(vec![receipt]).await;
        }
    }

    fn giver(&self, leases: &Leases) -> Giver<E> {
        Giver {
            executor: Arc::clone(&self.executor),
            deadline: self.deadline,
            clock: Arc::clone(&self.clock),
            denials: Arc::clone(&self.denials),
            voids: self.voids.clone(),
            telemetry: leases.telemetry().clone(),
        }
    }

    /// Notes what an exact answer to a call on `name` said is left.
    pub(crate) fn learn_rest(&self, name: &[u8], answer: &Answer, now: MonoTime) {
        if let Some(leases) = &self.leases {
            leases.learn(name, rest(answer, now));
        }
    }
}

fn rest(answer: &Answer, now: MonoTime) -> Rest {
    let Verdict { remaining, reset_after_us, .. } = answer.verdict;
    Rest { left: remaining, reset_at: now.plus(Duration::from_micros(reset_after_us)) }
}

/// Gives back what was bought and not used.
pub(crate) struct Giver<E> {
    pub(crate) executor: Arc<E>,
    pub(crate) deadline: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) denials: Arc<Denials>,
    pub(crate) voids: Option<Voids>,
    pub(crate) telemetry: LeaseTelemetry,
}

impl<E: Executor> Giver<E> {
    /// What gives back in the background of the runtime that is there; without one, nothing.
    pub(crate) fn in_background(&self) -> GiveBack {
        let giver = self.clone();
        Box::new(move |receipts| {
            if let Ok(runtime) = Handle::try_current() {
                let giver = giver.clone();
                runtime.spawn(async move { giver.give(receipts).await });
            }
        })
    }

    /// Gives back some at a time, until one fails: a backend that is away is not asked a thousand
    /// times for what time gives back anyway.
    async fn give(&self, receipts: Vec<Receipt>) {
        let mut flights = JoinSet::new();
        for receipt in receipts {
            if flights.len() >= ABREAST
                && let Some(Ok(Err(_))) = flights.join_next().await
            {
                break;
            }
            let giver = self.clone();
            flights.spawn(async move { giver.refund(receipt).await });
        }
        while flights.join_next().await.is_some() {}
    }

    async fn refund(&self, receipt: Receipt) -> Result<(), BackendError> {
        if self.clock.now() >= receipt.worthless_at {
            return Ok(());
        }
        self.telemetry.given_back(receipt.cost());
        by_quota!(receipt.quota, quota => self.refund_by(quota, receipt).await)
    }

    async fn refund_by<A: Algorithm>(
        &self,
        quota: A,
        receipt: Receipt,
    ) -> Result<(), BackendError> {
        let Receipt { key, debit, .. } = receipt;
        let refund = Refund::new(quota, key.clone(), debit);
        let given = match timeout(self.deadline, self.executor.run(&refund)).await {
            Ok(given) => given,
            Err(_) => Err(BackendError::Unknown(Outage::Deadline(self.deadline))),
        };
        // Who was refused may be allowed now.
        self.denials.void(key.as_bytes());
        if let Some(voids) = &self.voids {
            voids.tell(Word::refusals(&key));
        }
        given.map(drop)
    }
}

impl<E> Clone for Giver<E> {
    fn clone(&self) -> Self {
        Self {
            executor: Arc::clone(&self.executor),
            deadline: self.deadline,
            clock: Arc::clone(&self.clock),
            denials: Arc::clone(&self.denials),
            voids: self.voids.clone(),
            telemetry: self.telemetry.clone(),
        }
    }
}
