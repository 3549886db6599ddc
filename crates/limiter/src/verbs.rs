//! The verbs beyond check, peek and reset.

use std::time::Duration;

use fleetwide_core_traits::{Executor, Key};
use tokio::join;

use crate::algorithm::Algorithm;
use crate::counter::by_quota;
use crate::limiter::{Counter, Inner, Limiter, by_algorithm};
use crate::op::{AtMost, Block, Check, Compared, Refund, cell};
use crate::voids::Word;
use crate::{
    Answer, CheckError, Decision, Grant, Receipt, RefundError, Refunded, ResetError, Source,
};

impl<E: Executor> Limiter<E> {
    /// Spends `cost` cells of `key`, all or none, as [`check_cost`](Self::check_cost) does, and hands
    /// out a receipt with which they can be given back.
    ///
    /// # Errors
    /// As [`check_cost`](Self::check_cost).
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells, and nobody has the receipt.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    ///
    /// # Examples
    /// ```
    /// # async fn example<E: fleetwide_core_traits::Executor>(
    /// #     limiter: fleetwide_limiter::Limiter<E>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let grant = limiter.check_with_receipt("tenant-7", 5).await?;
    /// // The work failed, and failures are free.
    /// if let Some(receipt) = grant.receipt {
    ///     limiter.refund(receipt).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn check_with_receipt(
        &self,
        key: impl AsRef<[u8]>,
        cost: u64,
    ) -> Result<Grant, CheckError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        by_algorithm!(&*inner.policy(), counter => inner.check_with_receipt(counter, key, cost).await)
    }

    /// Spends as many cells of `key` as are left, `most` at most.
    ///
    /// A grant of none is a refusal, which says when one cell is there. A `most` of 0 spends nothing
    /// and is allowed. More than the quota's [`cost_max`](crate::Quota::cost_max) is never granted at once.
    ///
    /// While the backend is away, the rung grants all or none.
    ///
    /// # Errors
    /// [`CheckError`] if the key is empty or longer than 64 KiB.
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells, and nobody has the receipt.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn check_at_most(
        &self,
        key: impl AsRef<[u8]>,
        most: u32,
    ) -> Result<Grant, CheckError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        by_algorithm!(&*inner.policy(), counter => inner.check_at_most(counter, key, most).await)
    }

    /// Gives back what a call has spent, as far as time has not done so already.
    ///
    /// It is tried once and never sent again: after an error that says that it may have happened, the
    /// cells may be there or not. For GCRA and the token bucket the last cells that were spent are the
    /// last to come back; what stands behind others that were spent later counts in full, what time
    /// has given back does not count. Windows and the log give back all or nothing: while the cells
    /// are in the window, or for the fixed window while the one that counts them is under way. After
    /// a refund of cells in a sliding window, `reset_after` can be longer than it need be until the
    /// sub-window in which they were spent has left.
    ///
    /// # Errors
    /// [`RefundError`] if the backend gave no answer within the deadline, or if the receipt is
    /// another algorithm's.
    ///
    /// # Cancel safety
    /// A dropped call may have given the cells back. The receipt is gone.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn refund(&self, receipt: Receipt) -> Result<Refunded, RefundError> {
        let inner = &*self.inner;
        if !inner.quota().is_of_algorithm_of(&receipt.quota) {
            return Err(RefundError::Foreign);
        }
        by_quota!(receipt.quota, quota => inner.refund(quota, receipt).await)
    }

    /// Refuses everything of `key` for `duration` from now by the server's clock, whatever is left,
    /// also calls that cost nothing. Returns how long the key is blocked from now: an earlier block
    /// that lasts longer stays. Calls during the block do not make it longer.
    ///
    /// Refusals say when the block ends, [`peek`](Self::peek) shows it, and [`reset`](Self::reset)
    /// lifts it. What was spent stays spent. While the backend is away, the rung does not know of it.
    ///
    /// # Errors
    /// [`ResetError`] if the key is empty or longer than 64 KiB, or if the backend gave no answer
    /// within the deadline. Durations above a year are cut to a year.
    ///
    /// # Cancel safety
    /// A dropped call may have blocked the key.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn block(
        &self,
        key: impl AsRef<[u8]>,
        duration: Duration,
    ) -> Result<Duration, ResetError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        by_algorithm!(&*inner.policy(), counter => inner.block(counter, key, duration).await)
    }
}

impl<E: Executor> Inner<E> {
    async fn check_with_receipt<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
        cost: u64,
    ) -> Result<Grant, CheckError> {
        let Some(cost) = counter.cost(cost)? else {
            return Ok(Grant::of_nothing(self.peek(counter, key, 0).await?));
        };
        if let Some(refused) = self.recall(key, cost) {
            return Ok(Grant::of_nothing(refused));
        }
        let name = key;
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        let check = Check::new(counter.quota, key.clone(), cost);
        let asked = self.asking(&key);
        let beside = self.beside::<A>(name)?;
        let compared = self.ask(self.combiner.run(&check, beside.as_ref())).await;
        match &compared {
            Ok(Compared { answer, .. }) => {
                self.remember(counter.quota, name, asked, cost, answer, self.clock.now());
            }
            Err(_) => self.unjudged(name),
        }
        let (answer, candidate) = match compared {
            Ok(Compared { answer, candidate }) => (Ok(answer), candidate),
            Err(until_probe) => (Err(until_probe), None),
        };
        let mut grant = self.grant(counter, &key, cost, answer);
        if let (Some(ledger), Some(candidate)) = (&self.shadow, candidate) {
            let lent = |receipt: Receipt| receipt.with_lent(beside, ledger.candidate(), &candidate);
            grant.receipt = grant.receipt.map(lent);
        }
        self.decided(name, cost, &grant.decision);
        Ok(grant)
    }

    async fn check_at_most<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
        most: u32,
    ) -> Result<Grant, CheckError> {
        if most == 0 {
            return Ok(Grant::of_nothing(self.peek(counter, key, 0).await?));
        }
        let cost = most.min(counter.quota.cost_max());
        let name = key;
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        // Refused is who cannot have one.
        if let Some(refused) = self.recall(name, 1) {
            return Ok(Grant::of_nothing(refused));
        }
        self.unjudged(name);
        let asked = self.asking(&key);
        let at_most = AtMost::new(counter.quota, key.clone(), cost);
        let answer = self.ask(self.spend(counter, &key, &at_most)).await;
        if let Ok(answer) = &answer {
            self.remember(counter.quota, name, asked, 1, answer, self.clock.now());
        }
        let grant = self.grant(counter, &key, cost, answer);
        self.decided(name, grant.granted.max(1), &grant.decision);
        Ok(grant)
    }

    /// The grant of an answer, or of the rung.
    fn grant<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        cost: u32,
        answer: Result<Answer, Duration>,
    ) -> Grant {
        match answer {
            Ok(answer) => {
                let now = self.clock.now();
                let receipt = Receipt::new(key, counter.quota.into(), &answer, now);
                let decision = counter.shared(key, &answer, now);
                Grant { decision, granted: answer.granted, receipt }
            }
            Err(until_probe) => {
                let decision = self.stand_in(counter, key, cost, until_probe);
                let granted = if decision.is_allowed() { cost } else { 0 };
                Grant { decision, granted, receipt: None }
            }
        }
    }

    async fn refund<A: Algorithm>(
        &self,
        quota: A,
        receipt: Receipt,
    ) -> Result<Refunded, RefundError> {
        let Receipt { key, debit, worthless_at, lent, .. } = receipt;
        // The candidate may take longer to earn it back.
        let lent = self.refund_lent::<A>(lent);
        if self.clock.now() >= worthless_at {
            lent.await;
            return Ok(Refunded::Nothing);
        }
        let _voided = self.voiding(&key, Word::refusals(&key));
        let refund = Refund::new(quota, key.clone(), debit);
        let before = self.debtor.debts.mark(&key);
        let (given, ()) = join!(self.run(&refund), lent);
        let given = given?;
        self.debtor.debts.give_back(&key, given, before);
        Ok(match given {
            0 => Refunded::Nothing,
            given if given >= quota.price(debit.cost) => Refunded::All,
            _ => Refunded::Part,
        })
    }

    async fn block<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &[u8],
        duration: Duration,
    ) -> Result<Duration, ResetError> {
        let name = key;
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        let _voided = self.voiding(&key, Word::key(&key));
        let block = Block::new(counter.quota, key, duration);
        let (blocked, ()) = join!(self.run(&block), self.block_beside::<A>(name, duration));
        Ok(blocked?)
    }
}

impl Grant {
    fn of_nothing(decision: Decision) -> Self {
        Self { decision, granted: 0, receipt: None }
    }

    /// Whether the fleet's count decided.
    pub const fn is_shared(&self) -> bool {
        matches!(self.decision.source(), Source::Shared | Source::Remembered)
    }
}
