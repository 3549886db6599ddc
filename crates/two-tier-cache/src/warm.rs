//! Filling a cache before it is asked.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::Stamp;
use fleetwide_core_traits::{Executor, ExecutorExt};
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use crate::bulk::{BulkError, BulkItem, Hits, Origin, origin};
use crate::cache::{Cache, Inner, checked_wire};
use crate::entry::Tier;
use crate::error::LoadError;
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::ops::{Found, Lookup};
use crate::tags;

/// Between two looks at what was applied.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(5);

/// What one loader call and one trip carry without making others wait.
const BATCH_DEFAULT: usize = 100;
/// Enough to keep a server busy while the origin works, and few beside the cache's own loads.
const CONCURRENCY_DEFAULT: usize = 4;
/// An origin that fails so often should be left alone.
const FAILURES_MAX_DEFAULT: u64 = 1000;

/// A warm-up that is about to begin. Made by [`Cache::warm`] and [`Cache::warm_keys`].
#[must_use = "nothing is warmed until `run`"]
pub struct Warm<'a, K, V, E, S> {
    cache: &'a Cache<K, V, E>,
    stream: S,
    /// `None` if the values come with their keys.
    origin: Option<Origin<K, V>>,
    batch: usize,
    concurrency: usize,
    failures_max: u64,
    on_progress: Box<dyn Fn(Progress) + Send + Sync + 'a>,
}

/// How far a warm-up has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Keys whose values are new in the cache.
    pub loaded: u64,
    /// Keys that it had already.
    pub present: u64,
    /// Keys that the origin does not have.
    pub absent: u64,
    /// Pairs that were left out, because their keys were written since they came out of the stream.
    pub outdated: u64,
    /// Keys that could not be loaded.
    pub failed: u64,
    /// How many are still to come, if the stream knows.
    pub left: Option<u64>,
}

impl Progress {
    /// Keys that are dealt with, the failed among them.
    pub const fn done(&self) -> u64 {
        self.loaded + self.present + self.absent + self.outdated + self.failed
    }
}

/// A warm-up that was given up, because too many keys failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("given up after {} failures: {source}", progress.failed)]
#[non_exhaustive]
pub struct WarmError {
    /// How far it came.
    pub progress: Progress,
    /// The last failure.
    pub source: LoadError,
}

/// A key, and its value if that comes with it.
type Entry<K, V> = (K, Option<BulkItem<V>>);

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Fills the cache with the pairs of `stream`: of a key, and a value or a [`BulkItem`].
    ///
    /// What the cache has already stays as it is. Unlike [`put_many`](Self::put_many) it writes
    /// nothing into the log: other instances are told nothing, and keep what they have.
    ///
    /// A pair must be what the origin has when it comes out of the stream: a lazy query is, a list
    /// that was made before may not be. A write that comes after its pair voids the pair, whichever
    /// instance wrote: before a batch is stored, this instance waits until it has heard of all that
    /// was written up to then, at most the staleness bound, and otherwise stores none of it.
    pub fn warm<'a, S, T>(
        &'a self,
        stream: S,
    ) -> Warm<'a, K, V, E, impl Stream<Item = Entry<K, V>> + use<'a, K, V, E, S, T>>
    where
        S: Stream<Item = (K, T)> + 'a,
        T: Into<BulkItem<V>> + 'a,
    {
        Warm::new(self, stream.map(|(key, item)| (key, Some(item.into()))), None)
    }

    /// Fills the cache with the keys of `stream`, for which `loader` is asked in batches.
    ///
    /// Each batch is read as by [`get_many`](Self::get_many) and its
    /// [`load`](crate::Many::load): what the shared tier has is taken from there, no key is loaded
    /// twice at a time, and a write during the load voids what was loaded.
    pub fn warm_keys<'a, S, L, F, I, T, R>(
        &'a self,
        stream: S,
        loader: L,
    ) -> Warm<'a, K, V, E, impl Stream<Item = Entry<K, V>> + use<'a, K, V, E, S, L, F, I, T, R>>
    where
        S: Stream<Item = K> + 'a,
        L: Fn(Vec<K>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<I, R>> + Send + 'static,
        I: IntoIterator<Item = (K, T)>,
        T: Into<BulkItem<V>>,
        R: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        Warm::new(self, stream.map(|key| (key, None)), Some(origin(loader)))
    }
}

impl<'a, K, V, E, S> Warm<'a, K, V, E, S>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
    S: Stream<Item = Entry<K, V>>,
{
    fn new(cache: &'a Cache<K, V, E>, stream: S, origin: Option<Origin<K, V>>) -> Self {
        Self {
            cache,
            stream,
            origin,
            batch: BATCH_DEFAULT,
            concurrency: CONCURRENCY_DEFAULT,
            failures_max: FAILURES_MAX_DEFAULT,
            on_progress: Box::new(|_| {}),
        }
    }

    /// Sets how many keys go together at most, at least 1. Default: 100.
    ///
    /// A stream that is slow makes smaller batches: what is there does not wait for the rest.
    pub fn batch(self, keys: usize) -> Self {
        Self { batch: keys.max(1), ..self }
    }

    /// Sets how many batches are under way at a time, at least 1. Default: 4.
    ///
    /// The cache's [`loads_max`](crate::CacheBuilder::loads_max) holds for them as for all loads.
    pub fn concurrency(self, batches: usize) -> Self {
        Self { concurrency: batches.max(1), ..self }
    }

    /// Sets how many keys may fail before the warm-up is given up. Default: 1,000.
    pub fn failures_max(self, keys: u64) -> Self {
        Self { failures_max: keys, ..self }
    }

    /// Calls `tell` after each batch. It must not block; to watch from elsewhere let it write into a
    /// `tokio::sync::watch`.
    pub fn on_progress(self, tell: impl Fn(Progress) + Send + Sync + 'a) -> Self {
        Self { on_progress: Box::new(tell), ..self }
    }

    /// Warms the cache until the stream ends. Holds `batch` times `concurrency` keys at most.
    ///
    /// Whether this process keeps an entry is decided by its L1 as ever: an entry that is asked for
    /// often is not pushed out by one that nobody has asked for yet. The shared tier takes all.
    ///
    /// # Errors
    /// [`WarmError`] if more keys failed than [`failures_max`](Self::failures_max). What was loaded
    /// stays.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call takes nothing more out of the stream, and the loads that have
    /// begun go on and fill the cache.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn run(self) -> Result<Progress, WarmError> {
        let Self { cache, stream, origin, batch, concurrency, failures_max, on_progress } = self;
        let total = stream.size_hint().1.map(|total| total as u64);
        let mut batches = pin!(stream.ready_chunks(batch));
        let mut under_way = FuturesUnordered::new();
        let mut progress = Progress { left: total, ..Progress::default() };
        let mut before = cache.inner.floors.here();
        let (mut more, mut last) = (true, None::<LoadError>);
        while more || !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(ended) = under_way.next(), if !under_way.is_empty() => {
                    let (done, error): (Progress, Option<LoadError>) = ended;
                    progress.add(done, total);
                    last = error.or(last);
                    on_progress(progress);
                    if let Some(source) = last.take_if(|_| progress.failed > failures_max) {
                        return Err(WarmError { progress, source });
                    }
                }
                entries = batches.next(), if more && under_way.len() < concurrency => {
                    match entries {
                        Some(entries) => {
                            under_way.push(warm_batch(cache, entries, origin.clone(), before));
                            before = cache.inner.floors.here();
                        }
                        None => more = false,
                    }
                }
            }
        }
        progress.left = Some(0);
        Ok(progress)
    }
}

impl Progress {
    fn add(&mut self, done: Self, total: Option<u64>) {
        self.loaded += done.loaded;
        self.present += done.present;
        self.absent += done.absent;
        self.outdated += done.outdated;
        self.failed += done.failed;
        self.left = total.map(|total| total.saturating_sub(self.done()));
    }
}

/// One batch, whose entries came out of the stream after `before`.
async fn warm_batch<K, V, E>(
    cache: &Cache<K, V, E>,
    entries: Vec<Entry<K, V>>,
    origin: Option<Origin<K, V>>,
    before: (Stamp, u64),
) -> (Progress, Option<LoadError>)
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    let mut done = Progress::default();
    let (mut keys, mut pairs) = (Vec::with_capacity(entries.len()), HashMap::new());
    for (key, item) in entries {
        if let Some(item) = item {
            if !cache.inner.still_counts(&key, &item, before) {
                done.outdated += 1;
                continue;
            }
            pairs.insert(key.clone(), item);
        }
        keys.push(key);
    }
    let origin = origin.unwrap_or_else(|| from_pairs(Arc::clone(&cache.inner), pairs, before));
    let (found, failed) = match cache.get_many(&keys).load_from(origin).await {
        Ok(found) => (found, Vec::new()),
        Err(BulkError { found, failed, .. }) => (found, failed),
    };
    done.count(&found, failed.len() as u64);
    // What came twice is dealt with as well.
    done.present += (keys.len() - found.asked()) as u64;
    (done, failed.into_iter().next_back().map(|(_, error)| error))
}

impl Progress {
    fn count<K: CacheKey, V>(&mut self, found: &Hits<K, V>, failed: u64) {
        for (_, hit) in found.iter() {
            match hit.tier() {
                Tier::Load => self.loaded += 1,
                Tier::L1 | Tier::L2 => self.present += 1,
            }
        }
        self.failed += failed;
        self.absent += (found.asked() - found.len()) as u64 - failed;
    }
}

/// A loader that has its values already.
fn from_pairs<K, V, E>(
    inner: Arc<Inner<K, V, E>>,
    pairs: HashMap<K, BulkItem<V>>,
    before: (Stamp, u64),
) -> Origin<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    let pairs = Arc::new(pairs);
    Arc::new(move |keys| {
        let (inner, pairs) = (Arc::clone(&inner), Arc::clone(&pairs));
        Box::pin(async move {
            // The keys are leased by now: a later write takes the lease away, and an earlier one is
            // known here once all that has happened so far is.
            let knows_all = inner.has_caught_up(keys.first()).await;
            let take = |key: K| {
                let item = pairs.get(&key)?.clone();
                // Written since it came: who asked before the write may have it, and nobody else.
                // Such a write has detached the flight, so that nobody else has joined it.
                let counts = knows_all && inner.still_counts(&key, &item, before);
                Some((key, if counts { item } else { item.no_store() }))
            };
            Ok(keys.into_iter().filter_map(take).collect())
        })
    })
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Waits until this instance has applied what the log has by now, for as long as a beat may take to
    /// tell it. Returns whether it has.
    async fn has_caught_up(&self, any: Option<&K>) -> bool {
        if self.settings.alone || !self.settings.l2 {
            return true;
        }
        let Some(Ok(wire)) = any.map(checked_wire) else { return true };
        let Ok(op) = Lookup::new(&self.tag, &self.meta_key, &wire, self.reader()) else {
            return true;
        };
        let found = timeout(self.settings.l2_budget, self.executor.run(&op)).await;
        let Ok(Ok(Found { meta: Some(meta), .. })) = found else { return false };
        let applied = async {
            loop {
                let applied = self.floors.applied();
                if applied.epoch == meta.at.epoch && applied.seq >= meta.at.seq {
                    return;
                }
                sleep(CATCH_UP_PAUSE).await;
            }
        };
        let bound = Duration::from_micros(self.settings.ask.bound_us);
        timeout(bound, applied).await.is_ok()
    }

    /// Whether nothing that this instance knows of has voided a value of that time.
    fn still_counts(&self, key: &K, item: &BulkItem<V>, (stamp, fence): (Stamp, u64)) -> bool {
        // A key that is none fails later, with its reason.
        let Ok(wire) = checked_wire(key) else { return true };
        let tags = tags::checked(item.said.tags.clone()).unwrap_or_default();
        let pass = Pass { stamp, fence, stripe: self.stripe(&wire) };
        self.floors.admit_apart(&pass, &self.floors.of(&tags)).is_some()
    }
}

impl<K, V, E, S> fmt::Debug for Warm<'_, K, V, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm")
            .field("batch", &self.batch)
            .field("concurrency", &self.concurrency)
            .field("failures_max", &self.failures_max)
            .finish_non_exhaustive()
    }
}
