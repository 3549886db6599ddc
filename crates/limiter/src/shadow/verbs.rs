//! What is done to a key beside its calls, done to the candidate's as well.

use std::time::Duration;

use fleetwide_core_traits::{
    AtomicOp, BackendError, Executor, Key, KeyError, Rejection, RejectionKind,
};

use crate::algorithm::{Algorithm, Debit};
use crate::counter::by_quota;
use crate::limiter::{Inner, Limiter};
use crate::multi::rule::Rated;
use crate::op::{Block, Delete, OfCandidate, Refund, Reset, candidate_cell};
use crate::shadow::ledger::Ledger;
use crate::{Held, Quota, ShadowReport};

/// What a call has spent of a candidate.
pub(crate) struct Lent {
    pub(crate) key: Key,
    pub(crate) quota: Quota,
    pub(crate) debit: Debit,
}

impl<E: Executor> Limiter<E> {
    /// What this instance has seen of the [candidate](crate::LimiterBuilder::shadow) since the limiter
    /// was built; `None` if it has none. Numbers that change meanwhile may be of different moments.
    pub fn shadow_report(&self) -> Option<ShadowReport> {
        self.inner.shadow.as_ref().map(|ledger| ledger.report())
    }
}

impl<E: Executor> Inner<E> {
    /// The candidate that is tried on what the user calls `name`.
    pub(crate) fn tried(&self, name: &[u8]) -> Option<&Ledger> {
        self.shadow.as_deref().filter(|ledger| ledger.tries(name))
    }

    /// The candidate's key of what the user calls `name`, if one is tried on it.
    pub(crate) fn beside<A: Algorithm>(&self, name: &[u8]) -> Result<Option<Key>, KeyError> {
        let cell = |candidate| candidate_cell::<A>(&self.namespace, &self.name, name, &candidate);
        self.tried(name).map(|ledger| cell(ledger.candidate())).transpose()
    }

    /// Notes a call that the candidate has not seen, if one is tried on what the user calls `name`.
    pub(crate) fn unjudged(&self, name: &[u8]) {
        if let Some(ledger) = self.tried(name) {
            ledger.unjudged();
        }
    }

    /// Gives back what the candidate has debited. Nothing rests on it, so nobody is told.
    pub(crate) async fn refund_lent<A: Algorithm>(&self, lent: Option<Box<Lent>>) {
        let Some(lent) = lent else { return };
        let Lent { key, quota, debit } = *lent;
        by_quota!(quota, quota => {
            _ = self.run_beside::<A, _, _>(quota, Refund::new(quota, key, debit)).await;
        });
    }

    /// Forgets what the candidate has debited of what the user calls `name`.
    pub(crate) async fn reset_beside<A: Algorithm>(&self, name: &[u8]) {
        let Some((key, quota)) = self.candidate_of::<A>(name) else { return };
        by_quota!(quota, quota => {
            let reset = Reset::new(quota, key.clone());
            if let Err(BackendError::Rejected(Rejection { kind: RejectionKind::WrongType, .. })) =
                self.run_beside::<A, _, _>(quota, reset).await
            {
                _ = self.run(&Delete::<A>::new(key)).await;
            }
        });
    }

    /// Has the candidate refuse what the user calls `name`.
    pub(crate) async fn block_beside<A: Algorithm>(&self, name: &[u8], duration: Duration) {
        let Some((key, quota)) = self.candidate_of::<A>(name) else { return };
        by_quota!(quota, quota => {
            _ = self.run_beside::<A, _, _>(quota, Block::new(quota, key, duration)).await;
        });
    }

    fn candidate_of<A: Algorithm>(&self, name: &[u8]) -> Option<(Key, Quota)> {
        let candidate = self.tried(name)?.candidate();
        // A name that is none is refused by the real step.
        Some((self.beside::<A>(name).ok()??, candidate))
    }

    async fn run_beside<A: Algorithm, B: Rated, O>(&self, _: B, step: O) -> Result<(), BackendError>
    where
        O: AtomicOp<State = Held<B::State>>,
    {
        self.run(&OfCandidate::<A, B, O>::new(step)).await.map(drop)
    }
}
