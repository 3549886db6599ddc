//! How many at once: permits for callers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Executor, KeyError, Namespace};
use tokio::time::{Instant, timeout_at};

use super::builder::ConcurrencyLimiterBuilder;
use super::keeper::{Keeper, LIVE_MAX, Pending, held_until, share_of};
use super::lease::{Lease, Spot};
use super::op::Acquire;
use super::permit::{Entry, Permit};
use super::{ConcurrencyQuota, Grant};
use crate::fallback::backend::Unanswered;
use crate::fallback::share::Instances;
use crate::op::{Form, tag};
use crate::wait::queue::{NoPlace, Queues, Turn};
use crate::{Decision, PolicyName, Source, Unavailable, Verdict};

/// How often the first of those who wait asks: permits come back at any time, and other instances do
/// not say so.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Longer than anybody waits, and within what clocks can add.
const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Limits how many callers of each key are under way at once, over all instances that use the same
/// backend, namespace and name. Cheap to clone; clones are one limiter.
///
/// A permit is a lease by the server's clock, which this process renews in the background, for all
/// its permits together, while it lives. The permit of a process that was killed comes back when its
/// lease ends.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use fleetwide_core_traits::Namespace;
/// # use fleetwide_limiter::Unavailable;
/// # use fleetwide_limiter::concurrency::{ConcurrencyLimiter, ConcurrencyQuota, Entry};
/// # use fleetwide_mem_backend::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
/// let five = ConcurrencyQuota::new(5, Duration::from_secs(10))?;
/// let executor = memory.executor().clone();
/// let limiter = ConcurrencyLimiter::builder(executor, &namespace, "exports", five)
///     .on_unavailable(Unavailable::LocalShare { instances: 3 })
///     .build()?;
/// match limiter.try_acquire("tenant-7").await? {
///     Entry::Held(permit) => {
///         // .. the work; then
///         permit.release().await?;
///     }
///     Entry::Deny { retry_after, .. } => println!("all are held, for {retry_after:?} at most"),
/// }
/// # Ok(()) }
/// ```
pub struct ConcurrencyLimiter<E: Executor> {
    inner: Arc<Inner<E>>,
}

pub(super) struct Inner<E: Executor> {
    pub(super) keeper: Arc<Keeper<E>>,
    pub(super) namespace: Namespace,
    pub(super) name: PolicyName,
    pub(super) quota: ConcurrencyQuota,
    pub(super) unavailable: Unavailable,
    /// Those that have a share, if there are shares.
    pub(super) instances: Option<Instances>,
    pub(super) queues: Queues,
}

/// Why [`ConcurrencyLimiter`] gave neither a permit nor a refusal. Nothing is held.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// The key is empty or too long.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This process holds so many permits, or so many of its calls wait, that there is no room.
    #[error("{max} are held or waited for in this process already")]
    Crowded {
        /// The bound that was reached.
        max: usize,
    },
}

impl<E: Executor> ConcurrencyLimiter<E> {
    /// Options of a limiter called `name`, which counts with `executor`.
    pub fn builder(
        executor: E,
        namespace: &Namespace,
        name: &str,
        quota: ConcurrencyQuota,
    ) -> ConcurrencyLimiterBuilder<E> {
        ConcurrencyLimiterBuilder::new(executor, namespace, name, quota)
    }

    pub(super) fn new(inner: Inner<E>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Takes a permit of `key`, if there is one.
    ///
    /// While the backend gives no answer, the rung does:
    /// - `Allow`: permits without a number, which nobody counts.
    /// - `Deny`: none.
    /// - `LocalShare`: as many as this process may hold of the key by itself, those that it holds
    ///   already included: the maximum divided by the instances that are
    ///   [assumed](Unavailable::LocalShare), at least one. When more are assumed than before, what is
    ///   held stays held.
    ///
    /// Permits of a rung are not lost while they are held. When the backend is back, they are counted
    /// if there is room; so then there can be as many above the maximum as the rung gave.
    ///
    /// # Errors
    /// [`AcquireError`] if the key is empty or longer than 64 KiB, or if this process holds 65,536
    /// permits.
    ///
    /// # Cancel safety
    /// What a dropped call may hold is given back in the background, and comes back when its lease
    /// ends at the latest.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn try_acquire(&self, key: impl AsRef<[u8]>) -> Result<Entry<E>, AcquireError> {
        let entry = self.inner.ask(self.inner.spot(key.as_ref())?).await?;
        Ok(self.inner.told(entry))
    }

    /// Takes a permit of `key`, and waits for one, for `max_wait` at most. Then it is refused.
    ///
    /// Calls of this process wait for one key in the order in which they came, and only the first of
    /// them asks: when this process gives a permit of the key back, and every 50 ms, because other
    /// instances do not say so when they do.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire), and if 1,024 calls wait for the key, or 65,536 in all.
    ///
    /// # Cancel safety
    /// As [`try_acquire`](Self::try_acquire). A dropped call leaves its place to the next.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn acquire(
        &self,
        key: impl AsRef<[u8]>,
        max_wait: Duration,
    ) -> Result<Entry<E>, AcquireError> {
        let until = Instant::now() + max_wait.min(WAIT_MAX);
        let entry = self.inner.wait(key.as_ref(), until).await?;
        Ok(self.inner.told(entry))
    }

    /// How many there are, and how long a lease is.
    pub fn quota(&self) -> ConcurrencyQuota {
        self.inner.quota
    }
}

impl<E: Executor> Inner<E> {
    async fn wait(&self, name: &[u8], until: Instant) -> Result<Entry<E>, AcquireError> {
        let spot = self.spot(name)?;
        let refused = Entry::Deny { retry_after: ASK_EVERY, source: Source::Remembered };
        let mut place = match self.queues.enter(name, until) {
            Ok(place) => place,
            Err(NoPlace::Full(max)) => return Err(AcquireError::Crowded { max }),
            Err(NoPlace::TooLate(_)) => return Ok(refused),
        };
        match timeout_at(until, place.turn()).await {
            Ok(Turn::Ask) => {}
            Ok(Turn::TooLate { .. }) | Err(_) => return Ok(refused),
        }
        let watch = self.keeper.watch(&spot.key);
        loop {
            let entry = self.ask(spot.clone()).await?;
            let Entry::Deny { retry_after, .. } = entry else { return Ok(entry) };
            let asks_at = Instant::now() + retry_after.clamp(Duration::from_millis(1), ASK_EVERY);
            if Instant::now() >= until {
                return Ok(entry);
            }
            // Woken by a permit that is given back here, or by the time.
            let _ = timeout_at(asks_at.min(until), watch.freed()).await;
        }
    }

    async fn ask(&self, spot: Spot) -> Result<Entry<E>, AcquireError> {
        if self.keeper.is_full() {
            return Err(AcquireError::Crowded { max: LIVE_MAX });
        }
        let id = self.keeper.fresh_id();
        let pending = Pending::new(&self.keeper, vec![spot.clone()], id);
        let asked_at = self.keeper.backend.now();
        let acquire = Acquire::new(spot.quota, spot.key.clone(), id, 1);
        let answer = self.keeper.backend.ask(&acquire).await;
        pending.settle(answer.as_ref().is_err_and(|away| away.may_have_happened));
        Ok(match answer {
            Ok(Grant { is_granted: true, .. }) => {
                let until = held_until(spot.quota, asked_at);
                let lease = self.keeper.hold(Lease::new(spot, id, 1, until), None);
                self.entry(lease, Duration::ZERO, Source::Shared)
            }
            Ok(Grant { retry_after_us, .. }) => {
                let retry_after = Duration::from_micros(retry_after_us);
                Entry::Deny { retry_after, source: Source::Shared }
            }
            Err(Unanswered { until_probe, .. }) => self.stand_in(spot, until_probe),
        })
    }

    fn stand_in(&self, spot: Spot, until_probe: Duration) -> Entry<E> {
        let share = share_of(self.quota, self.unavailable, self.instances.as_ref());
        // Another id: the one that was asked for may be on its way to be given back.
        let lease = Lease::of_rung(spot, self.keeper.fresh_id(), 1);
        let lease = self.keeper.hold(lease, share);
        self.entry(lease, until_probe, self.unavailable.source())
    }

    fn entry(&self, lease: Option<Arc<Lease>>, retry_after: Duration, source: Source) -> Entry<E> {
        match lease {
            Some(lease) => Entry::Held(Permit::new(Arc::clone(&self.keeper), vec![lease], source)),
            None => Entry::Deny { retry_after, source },
        }
    }

    fn spot(&self, name: &[u8]) -> Result<Spot, KeyError> {
        let key = tag(&self.namespace, &self.name, name)?.part("at-once");
        Ok(Spot { key, quota: self.quota, form: Form::Plain })
    }

    /// Counts an answer.
    fn told(&self, entry: Entry<E>) -> Entry<E> {
        let (is_allowed, source) = match &entry {
            Entry::Held(permit) => (true, permit.source()),
            Entry::Deny { source, .. } => (false, *source),
        };
        let verdict = Verdict { is_allowed, ..Verdict::default() };
        self.keeper.backend.telemetry.decided(&Decision::new(verdict, source));
        entry
    }
}

impl<E: Executor> Clone for ConcurrencyLimiter<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E: Executor> fmt::Debug for ConcurrencyLimiter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimiter")
            .field("name", &self.inner.name)
            .field("quota", &self.inner.quota)
            .field("unavailable", &self.inner.unavailable)
            .finish_non_exhaustive()
    }
}
