//! Calls on one key that share their trips.
//!
//! While a call on a key is in flight, others on that key wait for the next one, which carries all
//! of them as one [`Batch`]: their costs are decided in the order in which they came, as if each had
//! been sent alone. So one hot key costs one trip at a time, however many callers there are.
//!
//! Who finds nobody in flight goes at once, without a task. Who comes meanwhile is carried by a task
//! that begins when the first one is back, or has left, and ends when nobody waits. Each caller keeps
//! its own deadline, so none of them depends on another to be answered in time.
//!
//! A caller that leaves before its flight does is not on it. What comes back for one that left later
//! is handed to [`Combiner::nobody_took`].

mod lanes;

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Executor, ExecutorExt, Key, Malformed, Outage, Told};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::lanes::{Bounds, Enter, Lanes, Reply, Waiter};
use crate::algorithm::Algorithm;
use crate::debts::push::Debtor;
use crate::op::{Batch, Check, Compared};
use crate::shadow::ledger::Ledger;
use crate::telemetry::Telemetry;

/// A few megabytes if all of them have a caller in flight.
const KEYS_MAX: usize = 16_384;
/// Sixteen flights: a queue that is longer is not worked off before the deadline of its end.
const WAITERS_PER_KEY_MAX: usize = 4_096;

/// Sends the calls of one limiter. Cheap to clone.
pub(crate) struct Combiner<E> {
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    debtor: Debtor<E>,
    deadline: Duration,
    is_on: bool,
    telemetry: Telemetry,
    lanes: Lanes,
    shadow: Option<Arc<Ledger>>,
}

impl<E: Executor> Combiner<E> {
    /// Callers share trips if `is_on`, and if their algorithm can.
    pub(crate) fn new(
        debtor: Debtor<E>,
        deadline: Duration,
        is_on: bool,
        telemetry: Telemetry,
        shadow: Option<Arc<Ledger>>,
    ) -> Self {
        let bounds = Bounds { keys: KEYS_MAX, waiters_per_key: WAITERS_PER_KEY_MAX };
        let lanes = Lanes::new(bounds);
        let shared = Shared { debtor, deadline, is_on, telemetry, lanes, shadow };
        Self { shared: Arc::new(shared) }
    }

    /// Makes the step of `check`, with those of others on its key if there are any. If it has the key
    /// of a candidate `beside` it, that is asked in the same step.
    ///
    /// # Errors
    /// No answer came, or none within the deadline.
    pub(crate) async fn run<A: Algorithm>(&self, check: &Check<A>, beside: Option<&Key>) -> Reply {
        let now = Instant::now();
        let deadline = now + self.shared.deadline;
        self.shared.debtor.settle(slice::from_ref(check.key()), deadline).await?;
        let entered = if self.shared.is_on && A::batch_script().is_some() {
            let (quota, cost) = (check.quota().into(), check.cost());
            self.shared.lanes.enter(check.key(), quota, cost, now, deadline)
        } else {
            Enter::Apart
        };
        let _first = match entered {
            Enter::First => Some(First { combiner: self, check, beside }),
            Enter::Apart => None,
            Enter::Joined(told) => {
                let mut seat = Seat { combiner: self, check, told };
                match timeout_at(deadline, &mut seat.told).await {
                    Ok(Ok(answer)) => return answer,
                    Err(_) => return Err(self.late()),
                    // The task that would have answered is gone, with its runtime.
                    Ok(Err(_)) => None,
                }
            }
        };
        let debtor = &self.shared.debtor;
        if let (Some(ledger), Some(beside)) = (&self.shared.shadow, beside) {
            let keys = [check.key(), beside];
            let both = self.ask_both(ledger, check.quota(), keys, vec![check.cost()], deadline);
            // Boxed: few limiters have a candidate, and it would make the future of each call larger.
            return Box::pin(both).await?.pop().ok_or_else(no_answer);
        }
        let flight = timeout_at(deadline, debtor.executor.run_told(check));
        let told = flight.await.unwrap_or_else(|_| Err(self.late()))?;
        debtor.learn(check.quota(), check.key(), &told);
        Ok(Compared::alone(told.reply))
    }

    /// Makes the step of `costs` by a quota and by its candidate.
    async fn ask_both<A: Algorithm>(
        &self,
        ledger: &Ledger,
        quota: A,
        keys: [&Key; 2],
        costs: Vec<u32>,
        deadline: Instant,
    ) -> Result<Vec<Compared>, BackendError> {
        let debtor = &self.shared.debtor;
        let flight = timeout_at(deadline, ledger.ask(&*debtor.executor, quota, keys, costs));
        let Told { reply, epoch } = flight.await.unwrap_or_else(|_| Err(self.late()))?;
        // The last one knows of all before it.
        if let Some(last) = reply.last() {
            debtor.learn(quota, keys[0], &Told { reply: last.answer, epoch });
        }
        Ok(reply)
    }

    fn late(&self) -> BackendError {
        BackendError::Unknown(Outage::Deadline(self.shared.deadline))
    }

    /// The answer to a call whose caller has left.
    fn nobody_took<A: Algorithm>(&self, check: &Check<A>, compared: &Compared) {
        let _ = check;
        if compared.answer.verdict.is_allowed {
            self.shared.telemetry.unclaimed();
        }
    }
}

/// A step answers each of its costs, and there is a step for each that is asked.
fn no_answer() -> BackendError {
    Malformed::new("an answer for each cost", "none").into()
}

impl<E> Clone for Combiner<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// The caller that found nobody in flight. When it is back, or leaves, the others take off.
struct First<'a, E: Executor, A: Algorithm> {
    combiner: &'a Combiner<E>,
    check: &'a Check<A>,
    beside: Option<&'a Key>,
}

impl<E: Executor, A: Algorithm> Drop for First<'_, E, A> {
    fn drop(&mut self) {
        let (combiner, key) = (self.combiner, self.check.key());
        if combiner.shared.lanes.leave_if_empty(key) {
            return;
        }
        // Made before the task, so that it also ends the lane if the task is never begun.
        let (key, beside) = (key.clone(), self.beside.cloned());
        let flights = Flights { combiner: combiner.clone(), key, beside, is_over: false };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(flights.fly(self.check.quota()));
        }
    }
}

/// A caller that waits for a flight.
struct Seat<'a, E: Executor, A: Algorithm> {
    combiner: &'a Combiner<E>,
    check: &'a Check<A>,
    told: oneshot::Receiver<Reply>,
}

impl<E: Executor, A: Algorithm> Drop for Seat<'_, E, A> {
    fn drop(&mut self) {
        // Closed first: from here on the flight finds out by itself that nobody waits.
        self.told.close();
        if let Ok(Ok(compared)) = self.told.try_recv() {
            self.combiner.nobody_took(self.check, &compared);
        }
    }
}

/// The flights of one key, until nobody waits. Whatever ends them, a panic of the executor or the
/// end of the runtime, the lane ends with them, and who waits in it goes alone.
struct Flights<E: Executor> {
    combiner: Combiner<E>,
    key: Key,
    /// The key of the candidate, for those who came while there is one.
    beside: Option<Key>,
    is_over: bool,
}

impl<E: Executor> Flights<E> {
    async fn fly<A: Algorithm>(mut self, quota: A) {
        loop {
            let deadline = Instant::now() + self.shared().deadline;
            let boarded = self.shared().lanes.board(&self.key, Batch::<A>::COSTS_MAX, deadline);
            let Some(passengers) = boarded else { break };
            self.shared().telemetry.flew(passengers.len());
            let answers = self.trip(quota, &passengers, deadline).await;
            self.land(quota, passengers, answers);
        }
        // The lane is gone, and by now another caller may have begun the next one.
        self.is_over = true;
    }

    async fn trip<A: Algorithm>(
        &self,
        quota: A,
        passengers: &[Waiter],
        deadline: Instant,
    ) -> Result<Vec<Compared>, BackendError> {
        let costs = passengers.iter().map(|waiter| waiter.cost).collect();
        if let (Some(ledger), Some(beside)) = (&self.shared().shadow, &self.beside) {
            let keys = [&self.key, beside];
            return self.combiner.ask_both(ledger, quota, keys, costs, deadline).await;
        }
        // There is one: who is not combined never waits.
        let Some(batch) = Batch::new(quota, self.key.clone(), costs) else {
            return Err(no_answer());
        };
        let debtor = &self.shared().debtor;
        let flight = timeout_at(deadline, debtor.executor.run_told(&batch));
        let told = flight.await.unwrap_or_else(|_| Err(self.combiner.late()))?;
        let Told { reply: answers, epoch } = told;
        // The last one knows of all before it.
        if let Some(&reply) = answers.last() {
            debtor.learn(quota, &self.key, &Told { reply, epoch });
        }
        Ok(answers.into_iter().map(Compared::alone).collect())
    }

    fn land<A: Algorithm>(
        &self,
        quota: A,
        passengers: Vec<Waiter>,
        answers: Result<Vec<Compared>, BackendError>,
    ) {
        match answers {
            Ok(answers) => {
                for (waiter, compared) in passengers.into_iter().zip(answers) {
                    if let Err(Ok(compared)) = waiter.answer.send(Ok(compared)) {
                        let check = Check::new(quota, self.key.clone(), waiter.cost);
                        self.combiner.nobody_took(&check, &compared);
                    }
                }
            }
            Err(error) => {
                for waiter in passengers {
                    // Who left meanwhile wants to know no more than who has got it.
                    let _ = waiter.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn shared(&self) -> &Shared<E> {
        &self.combiner.shared
    }
}

impl<E: Executor> Drop for Flights<E> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared().lanes.abandon(&self.key);
        }
    }
}
