//! How a cache is put together.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Codec, Executor, Local, Namespace, SystemClock, Ttl};

use crate::cache::{Cache, Inner};
use crate::entry::L1Entry;
use crate::error::ConfigError;
use crate::key::CacheKey;

/// What does not change while a cache runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Ttl,
    pub(crate) l1_ttl: Ttl,
    pub(crate) staleness_bound: Duration,
    pub(crate) l2: bool,
    pub(crate) alone: bool,
    pub(crate) l2_budget: Duration,
    pub(crate) lease: Duration,
    pub(crate) compress_above: usize,
    pub(crate) flights_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) tags_max: u32,
}

/// Fifteen minutes: long enough to pay, short enough that what nobody invalidates goes by itself.
const TTL_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Five seconds: a hot key costs the server one read in that time and instance.
const L1_TTL_DEFAULT: Duration = Duration::from_secs(5);
/// One second: five beats of the log, so that one lost beat does not make hits unverified.
const STALENESS_BOUND_DEFAULT: Duration = Duration::from_secs(1);
/// A healthy server answers in a millisecond; beyond a tenth of a second the origin is better.
const L2_BUDGET_DEFAULT: Duration = Duration::from_millis(100);
/// A crashed loader delays others by this; a living one renews it three times as often.
const LEASE_DEFAULT: Duration = Duration::from_secs(5);
/// Below it zstd gains little on binary records, and costs microseconds.
const COMPRESS_ABOVE_DEFAULT: usize = 1024;
/// Loads under way that others can join.
const FLIGHTS_MAX_DEFAULT: usize = 100_000;
/// Keys that wait for the server to come back.
const QUEUE_MAX_DEFAULT: usize = 10_000;
/// Tags whose last bump is remembered, here and on the server: about 1 MiB.
const TAGS_MAX_DEFAULT: u32 = 10_000;

/// Options of a [`Cache`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// | option | default |
/// | --- | --- |
/// | [`ttl`](Self::ttl) | 15 min |
/// | [`l1_ttl`](Self::l1_ttl) | 5 s, or the ttl without L2 |
/// | [`staleness_bound`](Self::staleness_bound) | 1 s |
/// | [`l2`](Self::l2) | on |
/// | [`alone`](Self::alone) | off |
/// | [`l2_budget`](Self::l2_budget) | 100 ms |
/// | [`lease`](Self::lease) | 5 s |
/// | [`compress_above`](Self::compress_above) | 1024 bytes |
/// | [`flights_max`](Self::flights_max) | 100,000 |
/// | [`queue_max`](Self::queue_max) | 10,000 keys |
/// | [`tags_max`](Self::tags_max) | 10,000 |
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder<K, V, E> {
    executor: E,
    namespace: Namespace,
    name: String,
    local: Box<dyn Local<K, L1Entry<V>>>,
    codec: Box<dyn Codec<V>>,
    clock: Arc<dyn Clock>,
    l1_ttl: Option<Duration>,
    ttl: Duration,
    settings: Settings,
    _key: PhantomData<fn(K) -> V>,
}

impl<K, V, E> CacheBuilder<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(
        executor: E,
        namespace: &Namespace,
        name: &str,
        local: impl Local<K, L1Entry<V>>,
        codec: impl Codec<V>,
    ) -> Self {
        Self {
            executor,
            namespace: namespace.clone(),
            name: name.to_owned(),
            local: Box::new(local),
            codec: Box::new(codec),
            clock: Arc::new(SystemClock),
            l1_ttl: None,
            ttl: TTL_DEFAULT,
            settings: Settings {
                ttl: Ttl::clamped(TTL_DEFAULT),
                l1_ttl: Ttl::clamped(L1_TTL_DEFAULT),
                staleness_bound: STALENESS_BOUND_DEFAULT,
                l2: true,
                alone: false,
                l2_budget: L2_BUDGET_DEFAULT,
                lease: LEASE_DEFAULT,
                compress_above: COMPRESS_ABOVE_DEFAULT,
                flights_max: FLIGHTS_MAX_DEFAULT,
                queue_max: QUEUE_MAX_DEFAULT,
                tags_max: TAGS_MAX_DEFAULT,
            },
            _key: PhantomData,
        }
    }

    /// Sets how long a value lives after it was stored. Default: 15 min.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Sets how long a value lives in this process; never longer than it lives at all. Default:
    /// 5 s, or the ttl for a cache without L2.
    ///
    /// It bounds what an instance can be wrong by while the log cannot be read.
    pub fn l1_ttl(self, l1_ttl: Duration) -> Self {
        Self { l1_ttl: Some(l1_ttl), ..self }
    }

    /// Sets how old a word of the log may be for a hit to be
    /// [`Verified`](crate::Freshness::Verified). Default: 1 s.
    pub fn staleness_bound(mut self, bound: Duration) -> Self {
        self.settings.staleness_bound = bound;
        self
    }

    /// Sets whether values are kept in the shared tier. Default: yes.
    ///
    /// Without it the cache lives in this process alone; invalidations still go through the log.
    pub fn l2(mut self, l2: bool) -> Self {
        self.settings.l2 = l2;
        self
    }

    /// Says that nobody else can write, as with an executor in memory: then values are kept here
    /// alone, every hit is verified, and the log is written for nobody's sake. Default: no.
    pub fn alone(mut self, alone: bool) -> Self {
        self.settings.alone = alone;
        self
    }

    /// Sets what a read may spend on the shared tier before it goes on without. Default: 100 ms.
    pub fn l2_budget(mut self, budget: Duration) -> Self {
        self.settings.l2_budget = budget;
        self
    }

    /// Sets how long a loader that died keeps others waiting, 100 ms to 60 s. Default: 5 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Sets from how many bytes on values are compressed. Default: 1024; `usize::MAX` = never.
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.settings.compress_above = bytes;
        self
    }

    /// Sets how many loads under way others can join; further ones are not coalesced. Default:
    /// 100,000.
    pub fn flights_max(mut self, flights: usize) -> Self {
        self.settings.flights_max = flights;
        self
    }

    /// Sets how many keys can wait for the server to come back; beyond it everything is cleared
    /// then. Default: 10,000.
    pub fn queue_max(mut self, keys: usize) -> Self {
        self.settings.queue_max = keys;
        self
    }

    /// Sets of how many tags the last bump is remembered, at least 2; beyond it the older half is
    /// forgotten, and what is older than they are is cleared. Default: 10,000.
    pub fn tags_max(mut self, tags: u32) -> Self {
        self.settings.tags_max = tags.max(2);
        self
    }

    /// Sets where time comes from. Default: the operating system.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Builds the cache.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is empty or too long, or a time is out of range.
    pub fn build(self) -> Result<Cache<K, V, E>, ConfigError> {
        let Self { executor, namespace, name, local, codec, clock, mut settings, .. } = self;
        let tag = namespace.tag("cache", name.as_bytes()).map_err(ConfigError::Name)?;
        settings.l2 &= !settings.alone;
        settings.ttl = parse("ttl", self.ttl)?;
        let l1_ttl = match self.l1_ttl {
            Some(l1_ttl) => parse("l1_ttl", l1_ttl)?,
            None if settings.l2 => Ttl::clamped(L1_TTL_DEFAULT),
            None => settings.ttl,
        };
        settings.l1_ttl = l1_ttl.min(settings.ttl);
        in_range("lease", settings.lease, Duration::from_millis(100), crate::ops::LEASE_MAX)?;
        let (min, max) = (Duration::from_millis(1), Duration::from_secs(60));
        in_range("l2_budget", settings.l2_budget, min, max)?;
        in_range("staleness_bound", settings.staleness_bound, min, Duration::from_secs(3600))?;
        executor.prepare(&crate::ops::scripts());
        Ok(Cache::new(Inner::new(executor, tag, &name, local, codec, clock, settings)))
    }
}

fn parse(setting: &'static str, ttl: Duration) -> Result<Ttl, ConfigError> {
    Ttl::new(ttl).map_err(|source| ConfigError::Ttl { setting, source })
}

fn in_range(
    setting: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if value < min || value > max { Err(ConfigError::Range { setting, min, max }) } else { Ok(()) }
}

impl<K, V, E> fmt::Debug for CacheBuilder<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("ttl", &self.ttl)
            .field("l1_ttl", &self.l1_ttl)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
