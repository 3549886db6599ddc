//! Which keys are sampled, and the task that has their decisions judged.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetwide_core_traits::{Clock, Executor, ExecutorExt, MonoTime, Namespace};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{sleep, timeout};

use super::op::{Judge, Judgement, Made, exact, judged_cells};
use super::{Counts, Tally};
use crate::algorithm::Algorithm;
use crate::counter::by_quota;
use crate::key_share::KeyShare;
use crate::{Decision, PolicyName, Quota};

/// Decisions that wait. Beyond it they are dropped: about 1 MB if their keys are addresses.
const WAITING_MAX: usize = 8_192;
/// How long decisions are gathered, so that those of one key share a step.
const GATHER: Duration = Duration::from_millis(20);
/// Decisions of one trip.
const TRIP_MAX: usize = 256;
const TRIP_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a trip that failed is made again.
const PAUSE: Duration = Duration::from_millis(200);
/// Older decisions are dropped. `lua/accuracy.lua` keeps its date longer.
const AGE_MAX: Duration = Duration::from_secs(30);

/// Takes the decisions of sampled keys, and never waits.
pub(crate) struct Sampler {
    keys: KeyShare,
    waiting: Sender<Sample>,
    /// Of who has not begun.
    start: Mutex<Option<Start>>,
    pub(super) tally: Arc<Tally>,
}

type Start = Box<dyn FnOnce(&Handle) + Send>;

/// One decision of a sampled key.
struct Sample {
    name: Box<[u8]>,
    quota: Quota,
    at: MonoTime,
    cost: u32,
    is_allowed: bool,
}

impl Sampler {
    /// Samples `share` of all keys, from 0 to 1.
    pub(crate) fn new<E: Executor>(
        share: f64,
        executor: &Arc<E>,
        namespace: &Namespace,
        policy: &PolicyName,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let (waiting, samples) = mpsc::channel(WAITING_MAX);
        let tally = Arc::new(Tally::new(policy));
        let bench = Bench {
            executor: Arc::downgrade(executor),
            namespace: namespace.clone(),
            policy: policy.clone(),
            clock: Arc::clone(clock),
            tally: Arc::clone(&tally),
        };
        let start: Start = Box::new(move |runtime| drop(runtime.spawn(bench.run(samples))));
        let keys = KeyShare::new(share);
        Self { keys, waiting, start: Mutex::new(Some(start)), tally }
    }

    /// Hands on a decision over `cost` cells by `quota`, if its key is sampled.
    pub(crate) fn take(
        &self,
        name: &[u8],
        quota: Quota,
        cost: u32,
        decision: &Decision,
        at: MonoTime,
    ) {
        if !self.has(name) || cost == 0 {
            return;
        }
        let Some(quota) = exact(quota) else { return self.tally.unjudged(1) };
        self.begin();
        let is_allowed = decision.is_allowed();
        let sample = Sample { name: name.into(), quota, at, cost, is_allowed };
        if self.waiting.try_send(sample).is_err() {
            self.tally.dropped(1);
        }
    }

    /// Counts a decision that cannot be judged, if its key is sampled.
    pub(crate) fn pass(&self, name: &[u8]) {
        if self.has(name) {
            self.tally.unjudged(1);
        }
    }

    /// Whether all instances sample `name`.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.keys.has(name)
    }

    fn begin(&self) {
        if let Some(mut start) = self.start.try_lock()
            && start.is_some()
            && let Ok(runtime) = Handle::try_current()
            && let Some(start) = start.take()
        {
            start(&runtime);
        }
    }
}

/// Where decisions are judged, until their limiter is gone.
struct Bench<E> {
    executor: Weak<E>,
    namespace: Namespace,
    policy: PolicyName,
    clock: Arc<dyn Clock>,
    tally: Arc<Tally>,
}

impl<E: Executor> Bench<E> {
    async fn run(self, mut samples: Receiver<Sample>) {
        while let Some(first) = samples.recv().await {
            sleep(GATHER).await;
            let mut some = vec![first];
            while some.len() < TRIP_MAX
                && let Ok(next) = samples.try_recv()
            {
                some.push(next);
            }
            let mut by_key: HashMap<(Box<[u8]>, Kind), Vec<Sample>> = HashMap::new();
            for sample in some {
                let kind = Kind::of(&sample.quota);
                by_key.entry((sample.name.clone(), kind)).or_default().push(sample);
            }
            for ((name, _), samples) in by_key {
                // By the latest quota: it is the one that the next decisions are made by.
                let Some(quota) = samples.last().map(|sample| sample.quota) else { continue };
                by_quota!(quota, quota => self.judge(quota, &name, &samples).await);
            }
        }
    }

    async fn judge<A: Algorithm>(&self, quota: A, name: &[u8], samples: &[Sample]) {
        let Ok(keys) = judged_cells::<A>(&self.namespace, &self.policy, name) else { return };
        for some in samples.chunks(Judge::<A>::DECISIONS_MAX) {
            loop {
                let Some(executor) = self.executor.upgrade() else { return };
                let now = self.clock.now();
                let made = |sample: &Sample| Made {
                    age_us: now.since(sample.at).as_micros() as u64,
                    cost: sample.cost,
                    is_allowed: sample.is_allowed,
                };
                let is_late = some.iter().any(|sample| now.since(sample.at) > AGE_MAX);
                let judge = Judge::new(quota, keys.clone(), some.iter().map(made).collect());
                let Some(judge) = judge else { break self.tally.unjudged(some.len()) };
                if is_late {
                    break self.tally.dropped(some.len());
                }
                match timeout(TRIP_TIMEOUT, executor.run(&judge)).await {
                    Ok(Ok(judgement)) => break self.tally.judged(&counts(some, judgement)),
                    // It may have been judged, and once more would count what was admitted twice; or it
                    // never can be.
                    Ok(Err(error)) if error.may_have_happened() || !error.is_retryable() => {
                        break self.tally.dropped(some.len());
                    }
                    Err(_) => break self.tally.dropped(some.len()),
                    Ok(Err(_)) => {}
                }
                drop(executor);
                sleep(PAUSE).await;
            }
        }
    }
}

/// The algorithms apart: each has a count of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind(u64);

impl Kind {
    fn of(quota: &Quota) -> Self {
        Self(crate::multi::Rule::Rate(*quota).kind())
    }
}

fn counts(samples: &[Sample], judgement: Judgement) -> Counts {
    let (allowed, refused): (Vec<&Sample>, Vec<&Sample>) =
        samples.iter().partition(|sample| sample.is_allowed);
    Counts {
        allowed: allowed.len() as u64,
        allowed_cells: allowed.iter().map(|sample| u64::from(sample.cost)).sum(),
        refused: refused.len() as u64,
        judgement,
    }
}
