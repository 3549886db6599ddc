//! Calls that wait until their cost is spent.
//!
//! Those of one process queue per key, and only the head of a queue asks: when it is refused it
//! comes again at the time that it was told, and the others wait for their turn. So a crowd of
//! waiters costs the trips of one, and none of them starves.
//!
//! A call asks in the name of one request ([`Once`]), so a question whose answer was lost is asked
//! again, and spends once. A call that leaves while nobody knows what it has spent is settled in the
//! background: the request is asked once more, and what it has spent is given back.

mod attempt;
pub(crate) mod queue;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::Executor;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::attempt::{Asked, Attempt};
use self::queue::{NoPlace, Place, Queues, Turn};
use crate::algorithm::Algorithm;
use crate::limiter::{Counter, Inner, Limiter, by_algorithm};
use crate::{CheckError, Decision, Source, Verdict, WaitError};

/// Longer than anybody waits, and within what clocks can add.
const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// A head that is told to come at once would only be refused again.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// Who waits for a limiter's keys.
pub(crate) struct Waiting {
    queues: Queues,
    /// Requests that are being settled in the background.
    settling: AtomicUsize,
    seeds: [RandomState; 2],
    next_id: AtomicU64,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self {
            queues: Queues::of_limiter(),
            settling: AtomicUsize::new(0),
            seeds: [RandomState::new(), RandomState::new()],
            next_id: AtomicU64::new(0),
        }
    }

    /// A name for a request that no other request of the fleet has: 128 bits, by seeds of this
    /// process.
    fn fresh_id(&self) -> [u8; 16] {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let [one, other] = &self.seeds;
        let id = u128::from(one.hash_one(number)) << 64 | u128::from(other.hash_one(number));
        id.to_be_bytes()
    }
}

impl<E: Executor> Limiter<E> {
    /// Waits until `cost` cells of `key` are spent, all or none, for `max_wait` at most.
    ///
    /// A refusal is the answer if the cost does not fit within `max_wait`: it comes at once, when
    /// that is known, and says how long it would take. A `max_wait` of zero asks once. An answer may
    /// take a [deadline](crate::LimiterBuilder::deadline) longer than `max_wait`.
    ///
    /// Calls of this process wait for one key in the order in which they came, whatever they cost,
    /// and only the first of them asks. Other calls, and those of other instances, can spend before
    /// it; then it waits on. A call that is not polled keeps its place. A question without an answer is
    /// asked again as long as others are answered, and spends once. Each allowed call keeps one more key
    /// for a minute, as [`check_idempotent`](Self::check_idempotent) does.
    ///
    /// While the backend is away, the rung answers:
    /// - `Allow`: the call goes on at once.
    /// - `LocalShare`: it waits for this instance's share, and meanwhile asks the backend as often as
    ///   the share says.
    /// - `Deny`: it waits until the backend is asked again, and is refused when that is too late.
    ///
    /// # Errors
    /// [`WaitError`]: as [`check_cost`](Self::check_cost); if 1,024 calls wait for the key, or
    /// 65,536 in all; or if others waited before it all the time, without an answer that would say
    /// how long it takes. Nothing was spent.
    ///
    /// # Cancel safety
    /// A dropped call leaves its place to the next. What it may have spent is given back in the
    /// background, if the backend answers; else the cells are spent.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # async fn example<E: fleetwide_core_traits::Executor>(
    /// #     limiter: fleetwide_limiter::Limiter<E>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let decision = limiter.until_ready("partner-api", 1, Duration::from_secs(2)).await?;
    /// if !decision.is_allowed() {
    ///     println!("not within 2 s, but in {:?}", decision.retry_after());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn until_ready(
        &self,
        key: impl AsRef<[u8]>,
        cost: u64,
        max_wait: Duration,
    ) -> Result<Decision, WaitError> {
        let (inner, key) = (&*self.inner, key.as_ref());
        let until = Instant::now() + max_wait.min(WAIT_MAX);
        if inner.waiting.queues.is_free(key)
            && let Some(decision) = self.spend_leased(key, cost)
        {
            return Ok(decision);
        }
        by_algorithm!(&*inner.policy(), counter => {
            self.wait(counter, key, cost, until).await
        })
    }

    async fn wait<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        name: &[u8],
        cost: u64,
        until: Instant,
    ) -> Result<Decision, WaitError> {
        let inner = &*self.inner;
        let Some(cost) = counter.cost(cost)? else {
            return Ok(inner.peek(counter, name, 0).await?);
        };
        inner.unjudged(name);
        let id = inner.waiting.fresh_id();
        let attempt = Attempt::new(self, counter.quota, name, id, cost).map_err(CheckError::Key)?;
        let mut place = match inner.waiting.queues.enter(name, until) {
            Ok(place) => place,
            Err(NoPlace::Full(max)) => return Err(WaitError::Crowded { max }),
            Err(NoPlace::TooLate(asks_at)) => return Ok(inner.too_late(asks_at)),
        };
        match timeout_at(until, place.turn()).await {
            Ok(Turn::Ask) => {}
            Ok(Turn::TooLate { asks_at }) => return Ok(inner.too_late(asks_at)),
            // It may be its turn just now, and it was not asked yet.
            Err(_) => return Err(WaitError::TimedOut),
        }
        let decision = inner.ask_until(counter, attempt, &place, until).await;
        inner.decided(name, cost, &decision);
        Ok(decision)
    }
}

impl<E: Executor> Inner<E> {
    /// What the head of a queue does.
    async fn ask_until<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        mut attempt: Attempt<E, A>,
        place: &Place<'_>,
        until: Instant,
    ) -> Decision {
        loop {
            let decision = match attempt.ask(counter).await {
                Asked::Decided(decision) => decision,
                Asked::Unanswered if Instant::now() < until => continue,
                Asked::Unanswered => attempt.stand_in(counter, self.probe_every),
                Asked::Away { until_probe } => attempt.stand_in(counter, until_probe),
                Asked::TooLong => return attempt.stand_in(counter, self.probe_every),
            };
            let Some(retry_after) = decision.retry_after() else {
                // Spent by this call, or none of the fleet's business.
                attempt.is_over();
                return decision;
            };
            let asks_at = Instant::now() + retry_after.clamp(PAUSE_MIN, WAIT_MAX);
            if asks_at > until {
                return decision;
            }
            place.asks_at(asks_at);
            sleep_until(asks_at).await;
        }
    }

    /// The refusal of who would not wait for the head of its queue.
    fn too_late(&self, asks_at: Instant) -> Decision {
        let wait_us = asks_at.saturating_duration_since(Instant::now()).as_micros() as u64;
        let verdict = Verdict {
            is_allowed: false,
            remaining: 0,
            retry_after_us: wait_us,
            reset_after_us: wait_us,
        };
        let decision = Decision::new(verdict, Source::Remembered);
        self.telemetry.decided(&decision);
        decision
    }
}
