//! Calls that may be made again.

use fleetwide_core_traits::Executor;

use crate::algorithm::Algorithm;
use crate::limiter::{Counter, Inner, Limiter, by_algorithm};
use crate::op::{Once, cell, id_cell};
use crate::{CheckError, Decision};

impl<E: Executor> Limiter<E> {
    /// Spends `cost` cells of `key`, all or none, as [`check_cost`](Self::check_cost) does, but once
    /// per request: a call with the `id` of one that was allowed less than a minute ago gets the
    /// first decision again, and spends nothing.
    ///
    /// For callers that ask again when they do not know what became of a request. An `id` is the
    /// caller's own, and is good for one request of one key: the cost of the first call counts, and a
    /// reset or a block since then changes nothing. A refusal is not remembered, so the same request
    /// may be allowed later.
    ///
    /// While the backend is away the rung answers, which knows of no requests; the decision's
    /// [`source`](Decision::source) says so. If it may have been asked in vain, ask it again with the
    /// same `id` within the minute: cells that it spent without saying so are not spent twice.
    ///
    /// It is never answered from what is remembered or in hand here, and shares no trips. Each
    /// allowed call keeps one more key for a minute, of about 200 bytes.
    ///
    /// # Errors
    /// As [`check_cost`](Self::check_cost), and if the `id` is empty or longer than 64 KiB.
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells. Another one with the same `id` finds out.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    ///
    /// # Examples
    /// ```
    /// # async fn example<E: fleetwide_core_traits::Executor>(
    /// #     limiter: fleetwide_limiter::Limiter<E>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let first = limiter.check_idempotent("tenant-7", 5, "order-4711").await?;
    /// // The client lost the reply, and sends its order once more.
    /// let again = limiter.check_idempotent("tenant-7", 5, "order-4711").await?;
    /// assert_eq!(first.is_allowed(), again.is_allowed());
    /// # Ok(()) }
    /// ```
    pub async fn check_idempotent(
        &self,
        key: impl AsRef<[u8]>,
        cost: u64,
        id: impl AsRef<[u8]>,
    ) -> Result<Decision, CheckError> {
        let (inner, key, id) = (&*self.inner, key.as_ref(), id.as_ref());
        by_algorithm!(&*inner.policy(), counter => inner.check_once(counter, key, cost, id).await)
    }
}

impl<E: Executor> Inner<E> {
    async fn check_once<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        name: &[u8],
        cost: u64,
        id: &[u8],
    ) -> Result<Decision, CheckError> {
        let id = id_cell::<A>(&self.namespace, &self.name, name, id)?;
        let Some(cost) = counter.cost(cost)? else {
            return self.peek(counter, name, 0).await;
        };
        let key = cell::<A>(&self.namespace, &self.name, name)?;
        let once = Once::new(counter.quota, key.clone(), id, cost);
        // A refusal that is remembered here says nothing of a request that was allowed before it.
        self.unjudged(name);
        let asked = self.asking(&key);
        let decision = match self.ask(self.spend_once(counter, &key, &once)).await {
            Ok(answer) => {
                let now = self.clock.now();
                self.remember(counter.quota, name, asked, cost, &answer, now);
                counter.shared(&key, &answer, now)
            }
            Err(until_probe) => self.stand_in(counter, &key, cost, until_probe),
        };
        self.decided(name, cost, &decision);
        Ok(decision)
    }
}
