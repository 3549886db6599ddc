//! How a cache is put together.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Codec, Executor, Local, Namespace, Seal, SystemClock, Ttl};
use tokio::sync::Semaphore;

use crate::ask::Ask;
use crate::cache::{Cache, Inner};
use crate::entry::L1Entry;
use crate::error::ConfigError;
use crate::form::Form;
use crate::gate::Gate;
use crate::key::CacheKey;
use crate::layout::Layout;

/// What does not change while a cache runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Ttl,
    pub(crate) l1_ttl: Ttl,
    pub(crate) negative_ttl: Ttl,
    /// What a read asks for that says nothing else.
    pub(crate) ask: Ask,
    pub(crate) l2: bool,
    pub(crate) alone: bool,
    pub(crate) jitter: f64,
    pub(crate) sample: f64,
    pub(crate) on_error_rest: Duration,
    pub(crate) on_abandon: OnAbandon,
    pub(crate) loads_max: usize,
    pub(crate) l1_value_bytes_max: u32,
    pub(crate) l2_budget: Duration,
    pub(crate) lease: Duration,
    pub(crate) compress_above: usize,
    pub(crate) pending_bytes_max: u64,
    pub(crate) tags_max: u32,
    pub(crate) layout: Layout,
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
/// What does not exist yet may soon: long enough that asking for it in a loop costs little.
const NEGATIVE_TTL_DEFAULT: Duration = Duration::from_secs(10);
/// An origin that fails is asked once a second and key, however many ask for it.
const ON_ERROR_REST_DEFAULT: Duration = Duration::from_secs(1);
/// More than any pool of connections to an origin, less than what a cleared cache could ask for.
const LOADS_MAX_DEFAULT: usize = 512;
/// A sixty-fourth of the usual L1: larger values would push out more than they are worth.
const L1_VALUE_BYTES_MAX_DEFAULT: u32 = 1 << 20;
/// With it a value is renewed 69 load costs before its end, every second time.
pub(crate) const BETA_MAX: f64 = 100.0;
/// Nobody waits longer than a day.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// A year: a stale value has some use while the origin is rebuilt.
const GRACE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Below it zstd gains little on binary records, and costs microseconds.
const COMPRESS_ABOVE_DEFAULT: usize = 1024;
/// A sixteenth of the usual L1: two thousand loads that can be joined, and beside them thousands of
/// short keys that wait for the server to come back.
const PENDING_BYTES_MAX_DEFAULT: u64 = 4 << 20;
/// Tags whose last bump is remembered, here and on the server: about 1 MiB.
const TAGS_MAX_DEFAULT: u32 = 10_000;

/// What becomes of a load when all who waited for it have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnAbandon {
    /// It goes on, and fills the cache: the next caller is glad of it. Not if there was no room for it:
    /// see [`pending_bytes_max`](CacheBuilder::pending_bytes_max).
    #[default]
    Finish,
    /// The loader is dropped at its next await, and its lease is given back. A load that renews
    /// what is still served goes on in any case.
    Cancel,
}

/// Options of a [`Cache`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// | option | default |
/// | --- | --- |
/// | [`ttl`](Self::ttl) | 15 min |
/// | [`l1_ttl`](Self::l1_ttl) | 5 s, or the ttl without L2 |
/// | [`negative_ttl`](Self::negative_ttl) | 10 s |
/// | [`staleness_bound`](Self::staleness_bound) | 1 s |
/// | [`strict`](Self::strict) | off |
/// | [`jitter`](Self::jitter) | 0 |
/// | [`stale_while_revalidate`](Self::stale_while_revalidate) | off |
/// | [`stale_if_error`](Self::stale_if_error) | off |
/// | [`stale_if_error_rest`](Self::stale_if_error_rest) | 1 s |
/// | [`soft_timeout`](Self::soft_timeout) | none |
/// | [`hard_timeout`](Self::hard_timeout) | none |
/// | [`sample`](Self::sample) | 0.0, nothing |
/// | [`early_refresh`](Self::early_refresh) | off |
/// | [`loads_max`](Self::loads_max) | 512 |
/// | [`on_abandon`](Self::on_abandon) | finish |
/// | [`l1_value_bytes_max`](Self::l1_value_bytes_max) | 1 MiB |
/// | [`l2`](Self::l2) | on |
/// | [`alone`](Self::alone) | off |
/// | [`l2_budget`](Self::l2_budget) | 100 ms |
/// | [`lease`](Self::lease) | 5 s |
/// | [`compress_above`](Self::compress_above) | 1024 bytes |
/// | [`schema`](Self::schema) | worked out from the type |
/// | [`key_version`](Self::key_version) | 0 |
/// | [`seal`](Self::seal) | none |
/// | [`pending_bytes_max`](Self::pending_bytes_max) | 4 MiB |
/// | [`tags_max`](Self::tags_max) | 10,000 |
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder<K, V, E> {
    executor: E,
    namespace: Namespace,
    name: String,
    local: Box<dyn Local<K, L1Entry<V>>>,
    codec: Box<dyn Codec<V>>,
    clock: Arc<dyn Clock>,
    schema: Option<u32>,
    seal: Option<Arc<dyn Seal>>,
    l1_ttl: Option<Duration>,
    ttl: Duration,
    negative_ttl: Duration,
    staleness_bound: Duration,
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
            schema: None,
            seal: None,
            l1_ttl: None,
            ttl: TTL_DEFAULT,
            negative_ttl: NEGATIVE_TTL_DEFAULT,
            staleness_bound: STALENESS_BOUND_DEFAULT,
            settings: Settings {
                ttl: Ttl::clamped(TTL_DEFAULT),
                l1_ttl: Ttl::clamped(L1_TTL_DEFAULT),
                negative_ttl: Ttl::clamped(NEGATIVE_TTL_DEFAULT),
                ask: Ask {
                    bound_us: STALENESS_BOUND_DEFAULT.as_micros() as u64,
                    verified: false,
                    at_least: None,
                    l1: true,
                    l2: true,
                    soft_timeout: None,
                    hard_timeout: None,
                    revalidate: Duration::ZERO,
                    on_error: Duration::ZERO,
                    stale: false,
                    l1_ttl: Duration::MAX,
                    early: None,
                },
                l2: true,
                alone: false,
                jitter: 0.0,
                sample: 0.0,
                on_error_rest: ON_ERROR_REST_DEFAULT,
                on_abandon: OnAbandon::Finish,
                loads_max: LOADS_MAX_DEFAULT,
                l1_value_bytes_max: L1_VALUE_BYTES_MAX_DEFAULT,
                l2_budget: L2_BUDGET_DEFAULT,
                lease: LEASE_DEFAULT,
                compress_above: COMPRESS_ABOVE_DEFAULT,
                pending_bytes_max: PENDING_BYTES_MAX_DEFAULT,
                tags_max: TAGS_MAX_DEFAULT,
                layout: Layout { keys: 0 },
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
    pub fn staleness_bound(self, bound: Duration) -> Self {
        Self { staleness_bound: bound, ..self }
    }

    /// Sets whether a hit that is not verified counts as a miss. Default: no, it is marked.
    ///
    /// A strict cache asks L2, and then the origin, as long as the log cannot be read.
    pub fn strict(mut self, strict: bool) -> Self {
        self.settings.ask.verified = strict;
        self
    }

    /// Sets how long it is remembered that the origin has no value. Default: 10 s, at most the ttl.
    pub fn negative_ttl(self, negative_ttl: Duration) -> Self {
        Self { negative_ttl, ..self }
    }

    /// Sets by what share, 0 to 1, ttls are shortened at random, so that what was stored together
    /// does not expire together. Default: 0.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// Sets how long after its end a value is served at once while it is renewed in the background.
    /// Default: not at all.
    ///
    /// It concerns what has expired, never what was invalidated. L2 keeps values for so much
    /// longer.
    pub fn stale_while_revalidate(mut self, extra: Duration) -> Self {
        self.settings.ask.revalidate = extra;
        self
    }

    /// Sets how long after its end a value is served because the loader fails, panics or takes too
    /// long. Default: not at all.
    ///
    /// It concerns what has expired, never what was invalidated. L2 keeps values for so much
    /// longer.
    pub fn stale_if_error(mut self, extra: Duration) -> Self {
        self.settings.ask.on_error = extra;
        self
    }

    /// Sets how long the origin is left alone after a failure while a stale value is served. Default:
    /// 1 s.
    pub fn stale_if_error_rest(mut self, rest: Duration) -> Self {
        self.settings.on_error_rest = rest;
        self
    }

    /// Sets how long a read waits for its loader when it has a stale value that may be served
    /// instead; the load goes on. Default: for ever, and not at all while
    /// [`stale_while_revalidate`](Self::stale_while_revalidate) lasts.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ask.soft_timeout = Some(timeout);
        self
    }

    /// Sets how long a read waits for its loader at all. Default: for ever.
    ///
    /// The loader goes on, and fills the cache when it is done, unless its key was written meanwhile.
    /// After twice this time it no longer holds others up: the key can be loaded again.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ask.hard_timeout = Some(timeout);
        self
    }

    /// Renews values shortly before they expire, while they are still served: at random, the
    /// likelier the nearer the end is and the longer the last load took (`XFetch`). Default: off;
    /// `1.0` is the published optimum, more renews earlier.
    ///
    /// Only reads with a loader can renew.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.settings.ask.early = Some(beta);
        self
    }

    /// Sets how many loaders may run at a time in this process; further ones wait for their turn.
    /// Default: 512.
    ///
    /// After a clear every key is a miss: this is what then protects the origin. A load that a
    /// loader itself asks for, in its own task, does not count: the two could wait for each other.
    pub fn loads_max(mut self, loads: usize) -> Self {
        self.settings.loads_max = loads;
        self
    }

    /// Sets what becomes of a load when all who waited for it have left. Default: it is finished.
    pub fn on_abandon(mut self, on_abandon: OnAbandon) -> Self {
        self.settings.on_abandon = on_abandon;
        self
    }

    /// Sets how large a value may be to be kept in this process too; larger ones are kept in L2
    /// alone. Default: 1 MiB. Without L2 it has no effect.
    pub fn l1_value_bytes_max(mut self, bytes: u32) -> Self {
        self.settings.l1_value_bytes_max = bytes;
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

    /// Sets what a read may spend on the shared tier before it goes on without, 1 ms to 60 s. Default:
    /// 100 ms.
    ///
    /// It may be longer than the staleness bound: a read joins no look into L2 that is older than that.
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

    /// Sets which version of its type this cache reads and writes. Default: what the codec works out
    /// from the type ([`Codec::schema`]).
    ///
    /// Instances with different numbers keep their values of one key side by side, and do not see
    /// each other's; a write by any of them removes them all. Say a number of your own to let old
    /// and new forms of a type that can read each other share values, or to keep them apart where
    /// only the meaning has changed. 0 is a number like any other, the one of codecs that know none.
    pub fn schema(self, schema: u32) -> Self {
        Self { schema: Some(schema), ..self }
    }

    /// Says which version the bytes of keys are. Default: 0.
    ///
    /// Entries and invalidations find each other by those bytes, so instances that form them in
    /// different ways must not share a cache. Raise this number when [`CacheKey::write`], or the text
    /// that keys are made of, changes: a cache with another number does not use the shared tier while
    /// instances with the old one live, and says so ([`Cache::check_layout`]). What they have left is
    /// void when it takes over. For a deploy in which both run side by side, take another name.
    pub fn key_version(mut self, version: u32) -> Self {
        self.settings.layout.keys = version;
        self
    }

    /// Sets what protects values on their way to the shared tier, such as a `KeyRing` (feature
    /// `encryption`). Default: nothing.
    ///
    /// What it cannot open is a miss with a metric, and so is what it has not sealed. Keys, tags,
    /// sizes and times are not hidden; L1 holds values as they are.
    pub fn seal(self, seal: impl Seal) -> Self {
        Self { seal: Some(Arc::new(seal)), ..self }
    }

    /// Sets how many bytes may be taken by what waits: looks into L2 and loads that others can join,
    /// and writes that wait for the server to come back. Default: 4 MiB. L1 has a budget of its own,
    /// that of the tier which the cache was given.
    ///
    /// A look takes 384 bytes and its key, a load 1280 bytes and its key three times, a write 256 bytes
    /// and its key. [`Stats`](crate::Stats) has the sums. Not counted is what a loader holds while it
    /// runs, and some 4 KiB for each of those [`loads_max`](Self::loads_max).
    ///
    /// A flight that finds no room can be joined by nobody, and ends when its callers leave, also with
    /// [`OnAbandon::Finish`]. A write that finds none makes one clear of all that wait. Flights leave a
    /// quarter of the room to writes.
    pub fn pending_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.pending_bytes_max = bytes;
        self
    }

    /// Sets of how many tags the last bump is remembered, at least 2; beyond it the older half is
    /// forgotten, and what is older than they are is cleared. Default: 10,000.
    pub fn tags_max(mut self, tags: u32) -> Self {
        self.settings.tags_max = tags.max(2);
        self
    }

    /// Sets which part of the hits in this process is read again from the shared tier, 0.0 to 1.0,
    /// to see whether they were out of date. Default: 0.0, none.
    ///
    /// It happens in tasks of their own, at most four at a time; more are let go, so the share is
    /// an upper bound. Each costs the server one read. What comes of it is in
    /// [`Stats`](crate::Stats) and in the metrics `fleetwide_cache_sampled_total` and
    /// `fleetwide_cache_sampled_staleness_seconds`: the share of consistent reads is
    /// `consistent / (consistent + stale)`. A key that the shared tier does not have at that moment
    /// counts as neither.
    pub fn sample(mut self, share: f64) -> Self {
        self.settings.sample = share;
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
        settings.negative_ttl = parse("negative_ttl", self.negative_ttl)?.min(settings.ttl);
        settings.ask.l2 = settings.l2;
        in_range("lease", settings.lease, Duration::from_millis(100), crate::ops::LEASE_MAX)?;
        let (min, max) = (Duration::from_millis(1), Duration::from_secs(60));
        in_range("l2_budget", settings.l2_budget, min, max)?;
        in_range("staleness_bound", self.staleness_bound, min, Duration::from_secs(3600))?;
        settings.ask.bound_us = self.staleness_bound.as_micros() as u64;
        let (soft, hard) = (settings.ask.soft_timeout, settings.ask.hard_timeout);
        in_range(
            "soft_timeout",
            soft.unwrap_or_default(),
            Duration::ZERO,
            hard.unwrap_or(WAIT_MAX),
        )?;
        in_range("hard_timeout", hard.unwrap_or(min), min, WAIT_MAX)?;
        in_range("stale_while_revalidate", settings.ask.revalidate, Duration::ZERO, GRACE_MAX)?;
        in_range("stale_if_error", settings.ask.on_error, Duration::ZERO, GRACE_MAX)?;
        factor("jitter", settings.jitter, 1.0)?;
        factor("sample", settings.sample, 1.0)?;
        factor("early_refresh", settings.ask.early.unwrap_or_default(), BETA_MAX)?;
        let loads = 1..=Semaphore::MAX_PERMITS;
        settings.loads_max = settings.loads_max.clamp(*loads.start(), *loads.end());
        let codec = Box::new(Form::new(codec, self.schema, self.seal, &tag));
        executor.prepare(&crate::ops::scripts());
        let executor = if settings.alone {
            Gate::open(executor)
        } else {
            Gate::new(executor, &tag, &name, settings.layout, Arc::clone(&clock))
        };
        Ok(Cache::new(Inner::new(executor, tag, &name, local, codec, clock, settings)))
    }
}

fn parse(setting: &'static str, ttl: Duration) -> Result<Ttl, ConfigError> {
    Ttl::new(ttl).map_err(|source| ConfigError::Ttl { setting, source })
}

fn factor(setting: &'static str, value: f64, max: f64) -> Result<(), ConfigError> {
    let fits = (0.0..=max).contains(&value);
    if fits { Ok(()) } else { Err(ConfigError::Factor { setting, max }) }
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
