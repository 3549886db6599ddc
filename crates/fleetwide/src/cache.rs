//! The two-tier cache: an L1 in this process, an L2 that the fleet shares.
//!
//! # Examples
//! ```
//! use fleetwide::Fleetwide;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory();
//! let users = fleet.cache::<u64, String>("users").build()?;
//!
//! let load = |id| async move { Ok::<_, std::io::Error>(format!("user {id}")) };
//! assert_eq!(**users.get_or_load(&7, load).await?.value(), "user 7");
//! users.invalidate(&7).await?; // on every instance
//! assert!(users.get(&7).await.is_none());
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Codec, Serde};
use fleetwide_mem_backend::MokaLocal;
use fleetwide_two_tier_cache as two_tier_cache;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "encryption")]
pub use fleetwide_two_tier_cache::KeyRing;
pub use fleetwide_two_tier_cache::{
    Applied, Behind, BulkError, BulkItem, BulkWriteError, CacheKey, CacheTag, ConfigError,
    Freshness, Hit, Hits, IntoHits, JitterError, LayoutError, LoadContext, LoadError, Loaded, Many,
    OnAbandon, Progress, PutOptions, Read, Replicas, Stats, TagError, Tier, TokenError, WaitError,
    Warm, WarmError, WriteError, WriteOptions, WriteToken,
};

use crate::backend::FleetExecutor;
use crate::{Fleetwide, log};

/// A cache of a fleet. Cheap to clone; it follows its log for as long as a clone lives.
pub type Cache<K, V> = two_tier_cache::Cache<K, V, FleetExecutor>;

/// An update of the origin under way: see [`Cache::write_guard`](two_tier_cache::Cache::write_guard).
pub type WriteGuard<K, V> = two_tier_cache::WriteGuard<K, V, FleetExecutor>;

/// Bytes that one cache may take in this process.
const BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;
/// What waits gets this part of them, and L1 the rest: of the default 4 MiB, room for two thousand loads.
const PENDING_PART: u64 = 16;

/// The budget of one cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl Bytes {
    /// What L1 gets.
    pub(crate) const fn l1(self) -> u64 {
        self.0 - self.pending()
    }

    /// What flights and the queue of writes get together.
    pub(crate) const fn pending(self) -> u64 {
        self.0 / PENDING_PART
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self(BYTES_MAX_DEFAULT)
    }
}

/// The log is read this often within the staleness bound, so that a lost beat is no lost proof.
pub(crate) const BEATS_PER_BOUND: u32 = 5;

impl Fleetwide {
    /// Options of the cache called `name`, preset by the fleet's settings.
    ///
    /// Instances that use the same name share the cache, so they use it for the same types. Values
    /// are stored as bincode.
    pub fn cache<K, V>(&self, name: &str) -> CacheBuilder<K, V>
    where
        K: CacheKey,
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.cache_with_codec(name, Serde::default())
    }

    /// The same with another codec.
    pub fn cache_with_codec<K, V, C>(&self, name: &str, codec: C) -> CacheBuilder<K, V, C>
    where
        K: CacheKey,
        V: Send + Sync + 'static,
        C: Codec<V>,
    {
        CacheBuilder::new(self, name, codec)
    }
}

/// Options of a [`Cache`], preset by the fleet's settings. Made by [`Fleetwide::cache`].
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder<K, V, C = Serde> {
    fleet: Fleetwide,
    name: String,
    codec: C,
    bytes: Bytes,
    ttl: Duration,
    l1_ttl: Option<Duration>,
    staleness_bound: Duration,
    rest: Options<K, V>,
}

/// What [`CacheBuilder::options`] was given.
type Options<K, V> = Box<dyn FnOnce(Rest<K, V>) -> Rest<K, V>>;
/// The builder of the cache's own crate.
type Rest<K, V> = two_tier_cache::CacheBuilder<K, V, FleetExecutor>;

impl<K, V, C> CacheBuilder<K, V, C>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    C: Codec<V>,
{
    pub(crate) fn new(fleet: &Fleetwide, name: &str, codec: C) -> Self {
        let settings = fleet.settings().cache;
        Self {
            fleet: fleet.clone(),
            name: name.to_owned(),
            codec,
            bytes: Bytes::default(),
            ttl: settings.ttl,
            // Without a shared tier, what this process forgets is lost: it keeps values as long
            // as they live.
            l1_ttl: fleet.cache_backend().is_shared().then_some(settings.l1_ttl),
            staleness_bound: settings.staleness_bound,
            rest: Box::new(|rest| rest),
        }
    }

    /// Sets how long a value lives. Default: `CACHE_TTL_MS`, 15 min.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Sets how long a process keeps a value before it asks Redis again. Default:
    /// `CACHE_L1_TTL_MS`, 5 s; in memory the ttl.
    pub fn l1_ttl(self, l1_ttl: Duration) -> Self {
        Self { l1_ttl: Some(l1_ttl), ..self }
    }

    /// Sets how old what is marked as verified may be. Default: `CACHE_STALENESS_MS`, 1 s.
    pub fn staleness_bound(self, staleness_bound: Duration) -> Self {
        Self { staleness_bound, ..self }
    }

    /// Sets how many bytes it may take in this process. Default: 64 MiB.
    ///
    /// L1 gets fifteen sixteenths; the rest is for what waits, loads and queued writes: see
    /// [`pending_bytes_max`](two_tier_cache::CacheBuilder::pending_bytes_max).
    pub fn bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes: Bytes(bytes_max), ..self }
    }

    /// Sets any other option, as
    /// [`fleetwide_two_tier_cache::CacheBuilder`] has it.
    pub fn options(self, set: impl FnOnce(Rest<K, V>) -> Rest<K, V> + 'static) -> Self {
        let rest = self.rest;
        Self { rest: Box::new(move |builder| set(rest(builder))), ..self }
    }

    /// Builds the cache, and follows what other instances do to it.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is empty or too long, or a time is out of range.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn build(self) -> Result<Cache<K, V>, ConfigError> {
        let Self { fleet, name, codec, rest, .. } = self;
        let backend = fleet.cache_backend();
        let local = MokaLocal::builder().bytes_max(self.bytes.l1()).build();
        let namespace = &fleet.settings().namespace;
        let mut builder = two_tier_cache::Cache::builder_with_codec(
            backend.executor(),
            namespace,
            &name,
            local,
            codec,
        )
        .ttl(self.ttl)
        .staleness_bound(self.staleness_bound)
        .pending_bytes_max(self.bytes.pending())
        .l2(backend.is_shared())
        .alone(backend.is_alone());
        if let Some(l1_ttl) = self.l1_ttl {
            builder = builder.l1_ttl(l1_ttl);
        }
        let cache = rest(builder).build()?;
        let heartbeat = self.staleness_bound / BEATS_PER_BOUND;
        let following = log::follow(backend, cache.tag().clone(), cache.follower(), heartbeat);
        let check = cache.check_layout();
        fleet.beginnings().watch(following.clone(), async { drop(check.await) });
        fleet.layouts().add(cache.layout_watch());
        let first = cache.introduce(Arc::new(following.clone())).is_ok();
        if !first || cache.keep(Box::new(following)).is_err() {
            unreachable!("nobody else has seen this cache yet");
        }
        Ok(cache)
    }
}

impl<K, V, C> fmt::Debug for CacheBuilder<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("bytes_max", &self.bytes.0)
            .field("ttl", &self.ttl)
            .field("l1_ttl", &self.l1_ttl)
            .field("staleness_bound", &self.staleness_bound)
            .finish_non_exhaustive()
    }
}
