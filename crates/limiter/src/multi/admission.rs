//! Calls over several levels of which some limit how much is under way at once.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Executor, Key};

use super::{Inner, Level, Limits, LimitsError, Ruling};
use crate::Verdict;
use crate::concurrency::Permit;
use crate::concurrency::keeper::{Keeper, LIVE_MAX, Pending, held_until};
use crate::concurrency::lease::{Lease, Spot};
use crate::op::Form;

/// What came of a call that holds permits.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Admission<E: Executor> {
    /// What the levels say.
    pub ruling: Ruling,
    /// What is held of all levels that limit how much is under way: one thing, to be kept until the
    /// caller is done. `None` if the call is refused, or if there is no such level.
    pub permit: Option<Permit<E>>,
}

impl<E: Executor> Limits<E> {
    /// Spends `cost` cells at each level that limits a rate, and takes a permit at each that limits
    /// how much is under way: at all levels, or at none. There is one of `keys` for each scope, in
    /// their order.
    ///
    /// Cells that were spent stay spent when the permit is given back. While the backend gives no
    /// answer, the rung does; a share of permits is the maximum divided by the instances that are
    /// assumed, at least one, of each key in this process.
    ///
    /// # Errors
    /// [`LimitsError`]: as [`check`](Self::check), and if this process holds 65,536 permits.
    ///
    /// # Cancel safety
    /// A dropped call may have spent the cells. Permits that it may hold are given back in the
    /// background, and come back when their leases end at the latest.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_limiter::{Quota, Unavailable};
    /// # use fleetwide_limiter::concurrency::ConcurrencyQuota;
    /// # use fleetwide_limiter::multi::Limits;
    /// # use fleetwide_mem_backend::Memory;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
    /// let [second, hour] = [1, 3600].map(Duration::from_secs);
    /// let limits = Limits::builder(memory.executor().clone(), &namespace, "exports", &["tenant"])
    ///     .rate("pace", &["tenant"], Quota::gcra(10, second, 10)?)
    ///     .rate("hour", &["tenant"], Quota::sliding_window(1_000, hour)?)
    ///     .at_once("running", &["tenant"], ConcurrencyQuota::new(5, 10 * second)?)
    ///     .on_unavailable(Unavailable::Deny)
    ///     .build()?;
    /// let admission = limits.try_acquire(&["tenant-7"], 1).await?;
    /// if let Some(permit) = admission.permit {
    ///     // .. the work; then
    ///     permit.release().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn try_acquire<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        cost: u64,
    ) -> Result<Admission<E>, LimitsError> {
        let inner = &*self.inner;
        let cost = inner.cost(cost)?;
        let levels = inner.keys(keys)?;
        let Some(keeper) = &inner.keeper else {
            let ruling = inner.ask(levels, cost, cost > 0).await;
            inner.backend.telemetry.decided(&ruling.decision);
            return Ok(Admission { ruling, permit: None });
        };
        if keeper.is_full() {
            return Err(LimitsError::Crowded { max: LIVE_MAX });
        }
        let admission = inner.admit(keeper, &levels, cost).await;
        inner.backend.telemetry.decided(&admission.ruling.decision);
        Ok(admission)
    }
}

impl<E: Executor> Inner<E> {
    async fn admit(
        &self,
        keeper: &Arc<Keeper<E>>,
        levels: &[(Key, &Level)],
        cost: u32,
    ) -> Admission<E> {
        let id = keeper.fresh_id();
        let pending = Pending::new(keeper, spots(levels).collect(), id);
        let asked_at = self.backend.now();
        let answer = self.step(levels, cost, id, true).await;
        pending.settle(answer.as_ref().is_err_and(|away| away.may_have_happened));
        let ruling = match answer {
            Ok(ruling) => ruling,
            Err(away) => return self.admit_by_rung(keeper, levels, cost, away.until_probe),
        };
        let permit = ruling.is_allowed().then(|| {
            let lease = |spot: Spot| {
                let until = held_until(spot.quota, asked_at);
                keeper.hold(Lease::new(spot, id, 1, until), None)
            };
            let leases = spots(levels).filter_map(lease).collect();
            Permit::new(Arc::clone(keeper), leases, ruling.decision.source())
        });
        Admission { ruling, permit }
    }

    /// Permits first: they can be given back when a rate refuses.
    fn admit_by_rung(
        &self,
        keeper: &Arc<Keeper<E>>,
        levels: &[(Key, &Level)],
        cost: u32,
        until_probe: Duration,
    ) -> Admission<E> {
        let (id, source) = (keeper.fresh_id(), self.rung.source());
        let held: Vec<Option<Arc<Lease>>> = spots(levels)
            .map(|spot| {
                let share = self.rung.permits(spot.quota);
                keeper.hold(Lease::of_rung(spot, id, 1), share)
            })
            .collect();
        let is_held = held.iter().all(Option::is_some);
        let mut is_level_held = held.iter().map(Option::is_some);
        let now = self.backend.now();
        let mut verdicts = self.rung.decide(levels, cost, is_held, now, until_probe);
        for (verdict, (_, level)) in verdicts.iter_mut().zip(levels) {
            if level.at_once().is_some() && is_level_held.next() == Some(false) {
                let until_us = until_probe.as_micros() as u64;
                *verdict = Verdict { retry_after_us: until_us, ..Verdict::default() };
            }
        }
        let ruling = Ruling::of(self.names(), &verdicts, source);
        let leases = held.into_iter().flatten().collect();
        // Dropped, it gives back what is held.
        let permit = Permit::new(Arc::clone(keeper), leases, source);
        let permit = ruling.is_allowed().then_some(permit);
        Admission { ruling, permit }
    }
}

/// Where the permits of a call are counted.
fn spots<'a>(levels: &'a [(Key, &Level)]) -> impl Iterator<Item = Spot> + 'a {
    levels.iter().filter_map(|(key, level)| {
        let quota = level.at_once()?;
        Some(Spot { key: key.clone(), quota, form: Form::Level })
    })
}
