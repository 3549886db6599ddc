//! The cache, its parts, and the read path in call order.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{
    Append, AppendError, Epoch, Follower, META_PART, Stamp, StoredValue,
};
use fleetwide_core_traits::{
    Clock, Codec, Executor, ExecutorExt, Key, KeyError, Local, MonoTime, Namespace, Serde,
    ServerTime, Tag, Ttl,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::builder::{CacheBuilder, Settings};
use crate::context::LoadContext;
use crate::entry::{Entry, Freshness, Hit, L1Entry, Tier};
use crate::error::LoadError;
use crate::flight::Flights;
use crate::floors::{Floors, Pass};
use crate::follow::Following;
use crate::key::CacheKey;
use crate::ops::{Found, Lookup, Versions, tags_key};
use crate::payload::{self, Opened};
use crate::recovery::{Recovery, Target};
use crate::tags;
use crate::telemetry::{Stats, Telemetry};
use crate::wake::Wakes;

/// A typed cache in two tiers. Cheap to clone; all clones are one cache.
///
/// See the [crate page](crate) for how a read goes, and for what it promises.
pub struct Cache<K, V, E> {
    pub(crate) inner: Arc<Inner<K, V, E>>,
}

/// The parts of a cache.
pub(crate) struct Inner<K, V, E> {
    pub(crate) executor: E,
    pub(crate) tag: Tag,
    pub(crate) name: String,
    pub(crate) meta_key: Key,
    tags_key: Key,
    pub(crate) local: Box<dyn Local<K, L1Entry<V>>>,
    pub(crate) codec: Box<dyn Codec<V>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) floors: Floors,
    pub(crate) lookups: Arc<Flights<Looked<V>>>,
    pub(crate) loads: Arc<Flights<Result<Hit<V>, LoadError>>>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) recovery: Recovery,
    pub(crate) telemetry: Telemetry,
    hasher: RandomState,
    /// Names this instance in the log, and numbers what it appends.
    source: [u8; 8],
    number: AtomicU64,
    /// The server's clock minus ours, µs.
    server_ahead: AtomicI64,
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// No reading of the server's clock yet.
const UNKNOWN: i64 = i64::MIN;

/// What a look into L2 found.
pub(crate) enum Looked<V> {
    Hit(Hit<V>),
    /// Nothing that can be used.
    Miss,
    /// Something that this build cannot decode, or that a tag has voided.
    Unusable,
    /// No answer within the budget.
    Unavailable,
}

impl<K, V> Cache<K, V, ()>
where
    K: CacheKey,
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Options for a cache of values that serde knows, stored as bincode.
    ///
    /// `name` keeps its entries apart from those of other caches in `namespace`; instances that
    /// share a cache use the same. `local` is the tier in this process.
    pub fn builder<E: Executor + Clone>(
        executor: E,
        namespace: &Namespace,
        name: &str,
        local: impl Local<K, L1Entry<V>>,
    ) -> CacheBuilder<K, V, E> {
        CacheBuilder::new(executor, namespace, name, local, Serde::default())
    }
}

impl<K, V> Cache<K, V, ()>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// The same with another codec.
    pub fn builder_with_codec<E: Executor + Clone>(
        executor: E,
        namespace: &Namespace,
        name: &str,
        local: impl Local<K, L1Entry<V>>,
        codec: impl Codec<V>,
    ) -> CacheBuilder<K, V, E> {
        CacheBuilder::new(executor, namespace, name, local, codec)
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(inner: Inner<K, V, E>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The cached value of `key`, from this process or from the shared tier.
    ///
    /// Trouble with the server is a miss here, and adds at most the budget for L2. A hit in this
    /// process neither allocates nor waits.
    ///
    /// # Cancel safety
    /// Cancel safe: others who wait for the same read go on.
    pub async fn get(&self, key: &K) -> Option<Hit<V>> {
        // The hit and the miss are apart, so that the future of a hit stays small.
        match self.inner.hit(key) {
            Some(hit) => Some(hit),
            None => Box::pin(self.inner.find(key)).await,
        }
    }

    /// The value of `key` if this process has it.
    pub fn peek(&self, key: &K) -> Option<Hit<V>> {
        self.inner.hit(key)
    }

    /// The value of `key`, loaded from the origin by `loader` if no tier has it.
    ///
    /// However many callers ask at the same time, in however many instances, one loader runs. It
    /// runs in a task of its own, and fills both tiers unless the key was written meanwhile.
    ///
    /// # Errors
    /// [`LoadError`] if the loader fails or panics, or if `key` is empty or too long. Trouble with
    /// the server is no error: the loader answers.
    ///
    /// # Cancel safety
    /// Cancel safe: a load that has begun goes on for the others, and fills the cache.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn get_or_load<L, F, R>(&self, key: &K, loader: L) -> Result<Hit<V>, LoadError>
    where
        L: FnOnce(K) -> F + Send + 'static,
        F: Future<Output = Result<V, R>> + Send + 'static,
        R: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        self.get_or_load_with(key, |context| loader(context.into_key())).await
    }

    /// The same with a loader that says how its value is to be kept: see [`LoadContext`].
    ///
    /// # Errors
    /// As for [`get_or_load`](Self::get_or_load).
    ///
    /// # Cancel safety
    /// As for [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As for [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_with<L, F, R>(&self, key: &K, loader: L) -> Result<Hit<V>, LoadError>
    where
        L: FnOnce(LoadContext<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, R>> + Send + 'static,
        R: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        match self.inner.hit(key) {
            Some(hit) => Ok(hit),
            None => Box::pin(Arc::clone(&self.inner).find_or_load(key, loader)).await,
        }
    }

    /// The tag of the cache's log: hand it to whatever follows logs, together with
    /// [`follower`](Self::follower).
    pub fn tag(&self) -> &Tag {
        &self.inner.tag
    }

    /// What must be told about the cache's log.
    ///
    /// A cache that follows no log still serves the shared tier correctly, but has no L1: it could
    /// not hear what other instances write.
    pub fn follower(&self) -> Arc<dyn Follower> {
        Arc::new(Following::new(&self.inner))
    }

    /// Keeps something, such as the task that follows the log, for as long as the cache lives.
    /// Returns it if something is kept already.
    ///
    /// # Errors
    /// What was handed in, if something is kept already.
    pub fn keep(&self, what: Box<dyn Any + Send + Sync>) -> Result<(), Box<dyn Any + Send + Sync>> {
        self.inner.kept.set(what)
    }

    /// Counts since the cache was built, and sizes now.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        Stats {
            l1_entries: inner.local.len(),
            l1_bytes: inner.local.weight(),
            loads_under_way: inner.loads.len() as u64,
            queued: inner.recovery.len() as u64,
            ..inner.telemetry.stats()
        }
    }

    /// The name that the cache was built with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(
        executor: E,
        tag: Tag,
        name: &str,
        local: Box<dyn Local<K, L1Entry<V>>>,
        codec: Box<dyn Codec<V>>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Self {
        Self {
            executor,
            meta_key: tag.part(META_PART),
            tags_key: tags_key(&tag),
            tag,
            name: name.to_owned(),
            local,
            codec,
            clock,
            floors: Floors::new(settings.tags_max as usize),
            lookups: Flights::new(settings.flights_max),
            loads: Flights::new(settings.flights_max),
            wakes: Arc::default(),
            recovery: Recovery::new(settings.queue_max),
            telemetry: Telemetry::new(name),
            hasher: RandomState::new(),
            source: rand::random(),
            number: AtomicU64::new(0),
            server_ahead: AtomicI64::new(UNKNOWN),
            kept: OnceLock::new(),
            settings,
        }
    }

    /// Step 1: L1. An entry counts only if its stamp passes the floors, and its time is not over.
    pub(crate) fn hit(&self, key: &K) -> Option<Hit<V>> {
        let L1Entry(entry) = self.local.get(key)?;
        let verified = self.floors.admit(&entry.pass, &entry.tags)?;
        let now = self.clock.now();
        if now >= entry.until {
            // It stays where it is: another entry may have taken its place since it was read.
            return None;
        }
        self.telemetry.hits_l1.add();
        let age = entry.age + now.since(entry.since);
        Some(Hit { age, tier: Tier::L1, freshness: self.freshness(verified, now), entry })
    }

    /// Steps 1 and 2 for a caller without a loader.
    async fn find(&self, key: &K) -> Option<Hit<V>> {
        if !self.settings.l2 {
            self.telemetry.misses.add();
            return None;
        }
        let wire = wire(key);
        if let Looked::Hit(hit) = self.look(key, &wire).await {
            Some(hit)
        } else {
            self.telemetry.misses.add();
            None
        }
    }

    /// Step 2: L2, once for all who ask for the key at the same time.
    pub(crate) async fn look(&self, key: &K, wire: &Bytes) -> Looked<V> {
        let shared = self.lookups.share(wire, || self.read_l2(key, wire));
        // Around all of it: a caller who takes over from one that left has no more time than others.
        let looked = timeout(self.settings.l2_budget, shared).await;
        let looked = looked.unwrap_or(Looked::Unavailable);
        if matches!(looked, Looked::Unavailable) {
            self.telemetry.l2_errors.add();
        }
        looked
    }

    async fn read_l2(&self, key: &K, wire: &Bytes) -> Looked<V> {
        // Before the request is sent: what is fenced off meanwhile must not come back with it.
        let fence = self.floors.fence();
        // After the fence: a write that is queued from here on raises it. What the server has for a
        // key that waits to be invalidated is old.
        if self.blocked(Target::Key, wire) {
            return Looked::Unavailable;
        }
        let Ok(op) = Lookup::new(&self.tag, &self.meta_key, wire) else { return Looked::Miss };
        match self.executor.run(&op).await {
            Ok(Found { meta: Some(meta), value: Some(value) }) => {
                let promoted = self.promote(key, wire, &value, meta.at, fence).await;
                promoted.map_or(Looked::Unusable, Looked::Hit)
            }
            Ok(_) => Looked::Miss,
            Err(error) => {
                tracing::debug!(cache = %self.name, %error, "reading L2 failed");
                Looked::Unavailable
            }
        }
    }

    /// Takes a value of L2 into L1. `at` is where the log was when it was read, so the value
    /// reflects everything up to there. `None` if it cannot be used.
    pub(crate) async fn promote(
        &self,
        key: &K,
        wire: &Bytes,
        stored: &StoredValue,
        at: Stamp,
        fence: u64,
    ) -> Option<Hit<V>> {
        let opened = payload::open(&*self.codec, &stored.envelope);
        let Opened { value, weight, tags } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(cache = %self.name, %error, "a value in L2 counts as a miss");
                self.telemetry.undecodable.add();
                return None;
            }
        };
        if !tags::are_valid(&tags) || !self.unbumped(&tags, stored.stamp).await {
            return None;
        }
        let now = self.clock.now();
        let (age, left) = self.age_and_rest(stored, now);
        let until = now.plus(left.min(self.settings.l1_ttl.as_duration()));
        let entry = Arc::new(Entry {
            value: Arc::new(value),
            pass: Pass { stamp: at, fence, stripe: self.stripe(wire) },
            tags: self.floors.of(&tags),
            since: now,
            until,
            age,
        });
        self.local.insert(key.clone(), L1Entry(Arc::clone(&entry)), weight + tags::weight(&tags));
        self.telemetry.hits_l2.add();
        Some(Hit { entry, tier: Tier::L2, freshness: Freshness::Verified, age })
    }

    /// Whether none of a value's tags was bumped since it was stamped.
    ///
    /// The versions are read after the value, so they show every bump that the value's own read
    /// could have missed.
    async fn unbumped(&self, tags: &[Bytes], stamp: Stamp) -> bool {
        if tags.is_empty() {
            return true;
        }
        if tags.iter().any(|tag| self.blocked(Target::Tag, tag)) {
            return false;
        }
        let op = Versions::new(&self.tags_key, tags);
        match self.executor.run(&op).await {
            Ok(bumped) => {
                bumped.epoch == Some(stamp.epoch) && bumped.seqs.iter().all(|seq| *seq <= stamp.seq)
            }
            Err(_) => false,
        }
    }

    /// Whether L2 must not be used for this, because a write of it waits to be repeated.
    pub(crate) fn blocked(&self, target: impl FnOnce(Bytes) -> Target, name: &Bytes) -> bool {
        !self.recovery.is_idle() && self.recovery.blocks(&target(name.clone()))
    }

    /// How old a value is, and how long it still lives, by the server's clock.
    fn age_and_rest(&self, stored: &StoredValue, now: MonoTime) -> (Duration, Duration) {
        match self.server_time(now) {
            Some(server) => (server.since(stored.stored_at), stored.expires_at.since(server)),
            None => (Duration::ZERO, stored.expires_at.since(stored.stored_at)),
        }
    }

    /// The server's time at `now`, late by a round trip at most; `None` if it was never read.
    fn server_time(&self, now: MonoTime) -> Option<ServerTime> {
        let ahead = self.server_ahead.load(Ordering::Relaxed);
        (ahead != UNKNOWN)
            .then(|| ServerTime::from_micros(now.as_micros().saturating_add_signed(ahead)))
    }

    pub(crate) fn server_clock(&self, sent: MonoTime, server: ServerTime) {
        let ahead = server.as_micros() as i64 - sent.as_micros() as i64;
        self.server_ahead.store(ahead, Ordering::Relaxed);
    }

    /// What the server's clock shows at most, so much time from now; `None` if it was never read.
    pub(crate) fn server_deadline(&self, within: Duration) -> Option<ServerTime> {
        self.server_time(self.clock.now()).map(|now| now.plus(within))
    }

    pub(crate) fn freshness(&self, verified: MonoTime, now: MonoTime) -> Freshness {
        let ever = verified > MonoTime::default();
        if self.settings.alone || (ever && now.since(verified) <= self.settings.staleness_bound) {
            Freshness::Verified
        } else {
            Freshness::Unverified
        }
    }

    /// What is loaded or written here, for L1. Nothing if it does not fit or has no weight.
    pub(crate) fn keep_local(
        &self,
        key: &K,
        value: Arc<V>,
        pass: Pass,
        keep: Keep<'_>,
    ) -> Arc<Entry<V>> {
        let now = self.clock.now();
        let Keep { ttl, weight, tags } = keep;
        let until = now.plus(ttl.as_duration().min(self.settings.l1_ttl.as_duration()));
        let (floors, age) = (self.floors.of(tags), Duration::ZERO);
        let entry = Arc::new(Entry { value, pass, tags: floors, since: now, until, age });
        if let Some(weight) = weight {
            let weight = weight + tags::weight(tags);
            self.local.insert(key.clone(), L1Entry(Arc::clone(&entry)), weight);
        }
        entry
    }

    pub(crate) fn stripe(&self, wire: &[u8]) -> u32 {
        Floors::stripe(self.hasher.hash_one(wire))
    }

    /// An entry for the log.
    pub(crate) fn append(&self, body: Bytes) -> Result<Append, AppendError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let fresh = Epoch(rand::random());
        Append::new(&self.tag, fresh, rand::random(), self.source, number, body)
    }

    /// Lets later callers begin their own reads and loads of a key.
    pub(crate) fn detach(&self, wire: &[u8]) {
        self.lookups.detach(wire);
        self.loads.detach(wire);
    }

    pub(crate) fn detach_all(&self) {
        self.lookups.detach_all();
        self.loads.detach_all();
    }
}

/// How a value is kept in L1.
#[derive(Clone, Copy)]
pub(crate) struct Keep<'a> {
    pub(crate) ttl: Ttl,
    /// What it weighs; `None` if it is not to be kept.
    pub(crate) weight: Option<u32>,
    pub(crate) tags: &'a [Bytes],
}

/// The bytes of a key.
fn wire(key: &impl CacheKey) -> Bytes {
    let mut wire = Vec::with_capacity(32);
    key.write(&mut wire);
    Bytes::from(wire)
}

/// The bytes of a key that is to be loaded or written, checked.
pub(crate) fn checked_wire(key: &impl CacheKey) -> Result<Bytes, KeyError> {
    let wire = wire(key);
    match wire.len() {
        0 => Err(KeyError::Empty),
        len if len > Key::NAME_BYTES_MAX => Err(KeyError::TooLong(len)),
        _ => Ok(wire),
    }
}

impl<V> Clone for Looked<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Hit(hit) => Self::Hit(hit.clone()),
            Self::Miss => Self::Miss,
            Self::Unusable => Self::Unusable,
            Self::Unavailable => Self::Unavailable,
        }
    }
}

impl<K, V, E> Clone for Cache<K, V, E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, V, E> fmt::Debug for Cache<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("tag", &self.inner.tag)
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}
