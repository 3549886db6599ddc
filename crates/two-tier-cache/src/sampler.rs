//! Looking after hits in production: a part of them is read again, where nobody waits for it.
//!
//! The shared tier knows of everything that was written through it. If it has a value that was
//! stored after the place in the log that a hit reflects, the hit was out of date, by as long as
//! that value has been there. What it does not have any more says nothing: it may have been
//! invalidated, or only have expired.
//!
//! | metric | kind | labels |
//! | --- | --- | --- |
//! | `fleetwide_cache_sampled_total` | counter | `cache`, `outcome` = `consistent`, `stale`, `unknown`, `unavailable` |
//! | `fleetwide_cache_sampled_staleness_seconds` | histogram | `cache`: 0 for what is consistent |

use std::cell::Cell;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use fleetwide_core_traits::log::StoredValue;
use fleetwide_core_traits::{Executor, ExecutorExt};
use metrics::{Histogram, counter, histogram};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::{Inner, checked_wire};
use crate::entry::Hit;
use crate::key::CacheKey;
use crate::ops::{Found, Lookup};
use crate::telemetry::Count;

/// Hits that are read again at a time. What is drawn beyond that is let go.
const AT_A_TIME: usize = 4;
/// Nobody waits for a sample, so it may take longer than a read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Draws hits, and counts what came of them.
pub(crate) struct Sampler<I> {
    /// Which of 2^64 numbers are drawn; 0 = none.
    threshold: u64,
    cache: OnceLock<Weak<I>>,
    room: Arc<Semaphore>,
    pub(crate) consistent: Count,
    pub(crate) stale: Count,
    pub(crate) unknown: Count,
    pub(crate) unavailable: Count,
    staleness: Histogram,
}

/// What a second look at a hit has shown.
#[derive(Debug, PartialEq)]
enum Outcome {
    Consistent,
    /// It was out of date, for so long if that is known.
    Stale(Option<Duration>),
    Unknown,
    Unavailable,
}

impl<I> Sampler<I> {
    /// Draws `share` of all hits, from 0.0 to 1.0.
    pub(crate) fn new(cache: &str, share: f64) -> Self {
        let count = |outcome| {
            let name = cache.to_owned();
            Count::new(
                counter!("fleetwide_cache_sampled_total", "cache" => name, "outcome" => outcome),
            )
        };
        let name = cache.to_owned();
        Self {
            // Saturates: 1.0 draws all but one of 2^64.
            threshold: (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64,
            cache: OnceLock::new(),
            room: Arc::new(Semaphore::new(AT_A_TIME)),
            consistent: count("consistent"),
            stale: count("stale"),
            unknown: count("unknown"),
            unavailable: count("unavailable"),
            staleness: histogram!("fleetwide_cache_sampled_staleness_seconds", "cache" => name),
        }
    }

    /// Says whose hits these are.
    pub(crate) fn watch(&self, cache: &Arc<I>) {
        let _once = self.cache.set(Arc::downgrade(cache));
    }

    /// Whether a hit is drawn. Allocates nothing; without a share it is one comparison.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.threshold != 0 && draw() < self.threshold
    }

    /// How many hits were read again.
    pub(crate) fn sampled(&self) -> u64 {
        let counts = [&self.consistent, &self.stale, &self.unknown, &self.unavailable];
        counts.into_iter().map(Count::read).sum()
    }

    fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Consistent => {
                self.consistent.add();
                self.staleness.record(0.0);
            }
            Outcome::Stale(known) => {
                self.stale.add();
                if let Some(staleness) = known {
                    self.staleness.record(*staleness);
                }
            }
            Outcome::Unknown => self.unknown.add(),
            Outcome::Unavailable => self.unavailable.add(),
        }
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Reads a hit of L1 again, in a task of its own. Without a runtime, or with enough of that
    /// under way already, nothing happens.
    #[cold]
    pub(crate) fn sample(&self, key: &K, hit: &Hit<V>) {
        let Some(cache) = self.sampler.cache.get().and_then(Weak::upgrade) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let Ok(room) = Arc::clone(&self.sampler.room).try_acquire_owned() else { return };
        let (key, hit) = (key.clone(), hit.clone());
        runtime.spawn(async move {
            let looking = timeout(PATIENCE, cache.look_again(&key, &hit));
            let outcome = looking.await.unwrap_or(Outcome::Unavailable);
            cache.sampler.count(&outcome);
            drop(room);
        });
    }

    async fn look_again(&self, key: &K, hit: &Hit<V>) -> Outcome {
        let Ok(wire) = checked_wire(key) else { return Outcome::Unknown };
        let op = Lookup::new(&self.tag, &self.meta_key, &wire, self.reader());
        let Ok(op) = op else { return Outcome::Unknown };
        match self.executor.run(&op).await {
            Ok(Found { value: Some(stored), .. }) => self.compare(&wire, &stored, hit).await,
            Ok(_) => Outcome::Unknown,
            Err(_) => Outcome::Unavailable,
        }
    }

    async fn compare(&self, wire: &[u8], stored: &StoredValue, hit: &Hit<V>) -> Outcome {
        let reflected = hit.entry.head.pass.stamp;
        if stored.stamp.epoch != reflected.epoch {
            return Outcome::Unknown;
        }
        if stored.stamp.seq <= reflected.seq {
            let Some(opened) = self.open(wire, stored) else { return Outcome::Unknown };
            // A tag may have been bumped and the value not been stored again.
            let counts = self.unbumped(&opened.tags, reflected).await;
            return if counts { Outcome::Consistent } else { Outcome::Stale(None) };
        }
        let now = self.clock.now();
        let (there_for, _) = self.age_and_rest(stored, now);
        match there_for.checked_sub(now.since(hit.at)) {
            Some(staleness) if !staleness.is_zero() => Outcome::Stale(Some(staleness)),
            // It was stored after the hit.
            _ => Outcome::Consistent,
        }
    }
}

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// A number that nobody can predict from the hits: `SplitMix64`, seeded once for each thread.
fn draw() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    DICE.with(|dice| {
        let state = if dice.get() == 0 { rand::random() } else { dice.get() };
        dice.set(state.wrapping_add(STEP));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_all_hits_is_drawn() {
        for share in [0.0, 0.01, 0.5, 1.0] {
            let sampler = Sampler::<()>::new("test", share);
            let drawn = (0..100_000).filter(|_| sampler.is_due()).count() as f64;
            assert!((drawn / 100_000.0 - share).abs() < 0.01, "{drawn} of 100,000 for {share}");
        }
    }
}
