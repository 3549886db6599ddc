//! Other quotas than the one that a limiter was built with: from now on, or for one call.

use std::sync::Arc;

use fleetwide_core_traits::Executor;

use crate::algorithm::Algorithm;
use crate::limiter::{Counter, Inner, Limiter, Policy, by_algorithm};
use crate::op::{Check, Compared, cell};
use crate::voids::Word;
use crate::{CheckError, Decision, Quota, QuotaChangeError};

impl<E: Executor> Limiter<E> {
    /// Changes what each key may spend from now on, for this limiter and all its clones. What was
    /// spent stays spent: the counts are the same, as while a new quota is rolled out.
    ///
    /// Other instances keep theirs until they are told too; meanwhile each decides by its own. All
    /// refusals that were remembered are void, here at once, and elsewhere when word of it comes over
    /// the [bus](crate::LimiterBuilder::bus). What was bought ahead is no longer used, and goes back to
    /// the fleet in the background; the next leases are by the new quota. Calls that are on their way
    /// may be decided by the old one. Receipts from before a change of rate or window give nothing
    /// back.
    ///
    /// # Errors
    /// [`QuotaChangeError`], and the quota is as it was: another algorithm keeps its counts under
    /// other keys, so all that was spent would be forgotten, and with [leases](crate::Leasing) their
    /// lifetime must fit.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_limiter::{Limiter, Quota, Unavailable};
    /// # use fleetwide_mem_backend::Memory;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
    /// let minute = Duration::from_secs(60);
    /// let ten = Quota::sliding_window(10, minute)?;
    /// let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", ten)
    ///     .on_unavailable(Unavailable::Deny)
    ///     .build()?;
    /// assert_eq!(limiter.check_cost("ada", 10).await?.remaining(), 0);
    /// limiter.set_quota(Quota::sliding_window(15, minute)?)?;
    /// assert_eq!(limiter.check("ada").await?.remaining(), 4);
    /// # Ok(()) }
    /// ```
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaChangeError> {
        let inner = &*self.inner;
        let _alone = inner.changing.lock();
        let policy = inner.policy().with(quota).ok_or(QuotaChangeError::OtherAlgorithm)?;
        let terms = inner.leasing.map(|leasing| leasing.terms(quota)).transpose();
        let terms = terms.map_err(QuotaChangeError::Leases)?;
        inner.policy.store(Arc::new(policy));
        // After the quota: what was asked under the old one is void, whenever its answer comes.
        inner.denials.void_all();
        if let (Some(leases), Some((terms, _))) = (&inner.leases, terms) {
            leases.change(terms);
        }
        if let Some(voids) = &inner.voids {
            voids.tell(Word::AllRefusals);
        }
        Ok(())
    }

    /// Spends `cost` cells of `key`, all or none, by `quota` instead of the limiter's own: for a
    /// caller with a plan of its own. What was spent by one quota is spent of the other.
    ///
    /// It is always asked about: no refusal is remembered or recalled, and nothing that was bought
    /// ahead is used, as those are by the limiter's own quota. While the backend is away, the rung
    /// answers by `quota`.
    ///
    /// Best is one quota for each key: where two of different rates or windows take turns on one, each
    /// turn counts all that was spent as of the last call, a part of a cell as a whole, and makes
    /// receipts from before it worthless.
    ///
    /// # Errors
    /// As [`check_cost`](Self::check_cost), with the cost bounded by `quota`, and
    /// [`CheckError::OtherAlgorithm`] if `quota` counts in another way than the limiter's.
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells. It waits for nobody else, and nobody for it.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn check_with_quota(
        &self,
        key: impl AsRef<[u8]>,
        cost: u64,
        quota: Quota,
    ) -> Result<Decision, CheckError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        let policy = inner.policy().with(quota).ok_or(CheckError::OtherAlgorithm)?;
        by_algorithm!(&policy, counter => inner.check_apart(counter, key, cost).await)
    }

    /// What each key may spend now.
    pub fn quota(&self) -> Quota {
        self.inner.quota()
    }
}

impl<E> Inner<E> {
    /// How calls that begin now are counted.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    pub(crate) fn quota(&self) -> Quota {
        self.policy.load().quota()
    }

    /// Whether what was asked by `quota` is worth remembering.
    ///
    /// Asked after the answer has come: if the quota was changed before the question was stamped, it is
    /// seen here, and if it was changed later, the stamp is void.
    pub(crate) fn is_current<A: Algorithm>(&self, quota: A) -> bool {
        self.quota() == quota.into()
    }
}

impl<E: Executor> Inner<E> {
    /// A check that leaves no trace in what is remembered here.
    async fn check_apart<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
        cost: u64,
    ) -> Result<Decision, CheckError> {
        let Some(cost) = counter.cost(cost)? else {
            return self.peek(counter, key, 0).await;
        };
        // A candidate is one of the limiter's own quota.
        let name = key;
        let is_own = self.is_current(counter.quota);
        let beside = if is_own { self.beside::<A>(name)? } else { None };
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        let check = Check::new(counter.quota, key, cost);
        let asked = self.ask(self.combiner.run(&check, beside.as_ref())).await;
        if !is_own || asked.is_err() {
            self.unjudged(name);
        }
        let decision = match asked {
            Ok(Compared { answer, .. }) => counter.shared(check.key(), &answer, self.clock.now()),
            Err(until_probe) => self.stand_in(counter, check.key(), cost, until_probe),
        };
        if is_own {
            self.decided(name, cost, &decision);
        } else {
            self.decided_apart(name, &decision);
        }
        Ok(decision)
    }
}
