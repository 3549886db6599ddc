//! How exact decisions are, measured: those of some keys are judged by an exact count.

pub(crate) mod op;
pub(crate) mod sampler;

use std::sync::atomic::{AtomicU64, Ordering};

use fleetwide_core_traits::{Executor, Key, KeyError, Namespace};

use self::op::{Forget, Judgement, exact, judged_cells};
use crate::algorithm::Algorithm;
use crate::counter::by_quota;
use crate::limiter::{Inner, Limiter};
use crate::telemetry::AccuracyTelemetry;
use crate::{Decision, PolicyName};

/// What came of the decisions of this instance over sampled keys:
/// [`LimiterBuilder::sample_accuracy`](crate::LimiterBuilder::sample_accuracy).
///
/// The count that they are judged by is the fleet's; these numbers are of what this instance decided,
/// and those of different instances add up.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Calls that were allowed, and judged.
    pub allowed: u64,
    /// Their cells.
    pub allowed_cells: u64,
    /// Those of the cells that were admitted above the quota; each counts once.
    pub over_cells: u64,
    /// Calls that were refused, and judged.
    pub refused: u64,
    /// Those of them whose cost the quota had room for.
    pub under_refusals: u64,
    /// Decisions that cannot be judged: by a quota of their own, or by a sliding window of more than
    /// 4,096 cells.
    pub unjudged: u64,
    /// Decisions that were lost before they were judged: too many at once, or no answer.
    pub dropped: u64,
}

impl Accuracy {
    /// The part of all admitted cells that was above the quota, from 0 to 1.
    pub fn over(&self) -> f64 {
        self.over_cells as f64 / self.allowed_cells.max(1) as f64
    }

    /// The part of all refusals that the quota had room for, from 0 to 1.
    pub fn under(&self) -> f64 {
        self.under_refusals as f64 / self.refused.max(1) as f64
    }
}

impl<E: Executor> Limiter<E> {
    /// How exact this instance's decisions were since the limiter was built, as far as they have been
    /// judged; `None` if nothing is [sampled](crate::LimiterBuilder::sample_accuracy).
    pub fn accuracy(&self) -> Option<Accuracy> {
        self.inner.sampler.as_ref().map(|sampler| sampler.tally.read())
    }
}

impl<E: Executor> Inner<E> {
    /// Counts a decision over `cost` cells by the limiter's own quota.
    pub(crate) fn decided(&self, name: &[u8], cost: u32, decision: &Decision) {
        self.telemetry.decided(decision);
        if let Some(sampler) = &self.sampler {
            sampler.take(name, self.quota(), cost, decision, self.clock.now());
        }
    }

    /// Counts a decision by another quota.
    pub(crate) fn decided_apart(&self, name: &[u8], decision: &Decision) {
        self.telemetry.decided(decision);
        if let Some(sampler) = &self.sampler {
            sampler.pass(name);
        }
    }

    /// Forgets what was admitted of a key that is reset.
    pub(crate) async fn forget_judged(&self, name: &[u8]) {
        if !self.sampler.as_ref().is_some_and(|sampler| sampler.has(name)) {
            return;
        }
        let Some(quota) = exact(self.quota()) else { return };
        by_quota!(quota, quota => {
            if let Ok(keys) = cells_of(quota, &self.namespace, &self.name, name) {
                _ = self.run(&Forget::new(quota, keys)).await;
            }
        });
    }
}

fn cells_of<A: Algorithm>(
    _: A,
    namespace: &Namespace,
    policy: &PolicyName,
    name: &[u8],
) -> Result<[Key; 2], KeyError> {
    judged_cells::<A>(namespace, policy, name)
}

/// What was judged in one step.
pub(crate) struct Counts {
    allowed: u64,
    allowed_cells: u64,
    refused: u64,
    judgement: Judgement,
}

/// The numbers of one limiter.
pub(crate) struct Tally {
    /// In the order of [`Accuracy`].
    numbers: [AtomicU64; 7],
    telemetry: AccuracyTelemetry,
}

impl Tally {
    fn new(policy: &PolicyName) -> Self {
        Self { numbers: Default::default(), telemetry: AccuracyTelemetry::new(policy) }
    }

    fn add(&self, numbers: [u64; 7]) {
        for (place, number) in numbers.into_iter().enumerate().filter(|(_, number)| *number > 0) {
            self.numbers[place].fetch_add(number, Ordering::Relaxed);
            self.telemetry.add(place, number);
        }
    }

    fn judged(&self, counts: &Counts) {
        let Counts { allowed, allowed_cells, refused, judgement } = *counts;
        let Judgement { over_cells, under_refusals } = judgement;
        self.add([allowed, allowed_cells, over_cells, refused, under_refusals, 0, 0]);
    }

    fn unjudged(&self, decisions: usize) {
        self.add([0, 0, 0, 0, 0, decisions as u64, 0]);
    }

    fn dropped(&self, decisions: usize) {
        self.add([0, 0, 0, 0, 0, 0, decisions as u64]);
    }

    fn read(&self) -> Accuracy {
        let [allowed, allowed_cells, over_cells, refused, under_refusals, unjudged, dropped] =
            std::array::from_fn(|place| self.numbers[place].load(Ordering::Relaxed));
        Accuracy { allowed, allowed_cells, over_cells, refused, under_refusals, unjudged, dropped }
    }
}
