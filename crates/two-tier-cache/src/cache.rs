//! The cache, its parts, and the read path in call order.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, AppendError, Epoch, Follower, Followers, META_PART};
use fleetwide_core_traits::{
    Clock, Codec, Executor, Key, KeyError, Local, MonoTime, Namespace, Serde, Tag,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::ask::{Ask, Recalled};
use crate::builder::{CacheBuilder, Settings};
use crate::context::{LoadContext, Loaded};
use crate::entry::{Freshness, Hit, Kept, L1Entry, Tier};
use crate::error::LoadError;
use crate::flight::Flights;
use crate::floors::Floors;
use crate::follow::Following;
use crate::form::Form;
use crate::gate::{Gate, Holdings, LayoutWatch};
use crate::gather::Gather;
use crate::key::CacheKey;
use crate::l2::Looked;
use crate::layout::LayoutError;
use crate::ledger::{Ledger, Use};
use crate::load::{self, Landed};
use crate::ops::tags_key;
use crate::read::Read;
use crate::recovery::Recovery;
use crate::sampler::Sampler;
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
    pub(crate) executor: Gate<E>,
    pub(crate) gather: Gather<E>,
    pub(crate) tag: Tag,
    pub(crate) name: String,
    pub(crate) meta_key: Key,
    pub(crate) tags_key: Key,
    pub(crate) local: Box<dyn Local<K, L1Entry<V>>>,
    pub(crate) codec: Box<Form<V>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) floors: Floors,
    /// With the moment in which L2 was asked.
    pub(crate) lookups: Arc<Flights<(MonoTime, Looked<V>)>>,
    pub(crate) loads: Arc<Flights<Landed<V>>>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) recovery: Recovery,
    /// What flights and the queue take.
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) telemetry: Telemetry,
    pub(crate) sampler: Sampler<Self>,
    /// Loads that may run at a time.
    pub(crate) turns: Arc<Semaphore>,
    hasher: RandomState,
    /// Names this instance in the log, and numbers what it appends.
    source: [u8; 8],
    number: AtomicU64,
    /// The server's clock minus ours, µs.
    pub(crate) server_ahead: AtomicI64,
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Knows how far all instances have come.
    pub(crate) followers: OnceLock<Arc<dyn Followers>>,
    built_at: MonoTime,
}

/// No reading of the server's clock yet.
pub(crate) const UNKNOWN: i64 = i64::MIN;

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
        let inner = Arc::new(inner);
        inner.sampler.watch(&inner);
        inner.executor.watch(Arc::<Inner<K, V, E>>::downgrade(&inner));
        Self { inner }
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
            None => Box::pin(self.inner.find(key, self.inner.settings.ask)).await,
        }
    }

    /// A read of `key` with demands of its own: how fresh it must be, which tiers it may use, how
    /// long it waits.
    pub fn at<'a>(&'a self, key: &'a K) -> Read<'a, K, V, E> {
        Read::new(self, key)
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
    /// [`LoadError`] if the loader fails, panics or takes longer than the
    /// [`hard_timeout`](CacheBuilder::hard_timeout), or if `key` is empty or too long. Trouble with
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
        R: Into<Box<dyn std::error::Error + Send + Sync>>,
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
    pub async fn get_or_load_with<L, F, T, R>(
        &self,
        key: &K,
        loader: L,
    ) -> Result<Hit<V>, LoadError>
    where
        L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>>,
        R: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(hit) = self.inner.hit(key) {
            return Ok(hit);
        }
        let (inner, ask) = (Arc::clone(&self.inner), self.inner.settings.ask);
        load::value(Box::pin(inner.find_or_load(key, ask, false, loader)).await)
    }

    /// The value of `key`, loaded if no tier has it, or `None` if the origin has none.
    ///
    /// That the origin has none is an entry of its own kind, which lives for
    /// [`negative_ttl`](CacheBuilder::negative_ttl) in both tiers, and is invalidated like any
    /// other. A loader says so with `Ok(None)` or [`Loaded::Absent`].
    ///
    /// # Errors
    /// As for [`get_or_load`](Self::get_or_load).
    ///
    /// # Cancel safety
    /// As for [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As for [`get_or_load`](Self::get_or_load).
    pub async fn try_get_or_load<L, F, T, R>(
        &self,
        key: &K,
        loader: L,
    ) -> Result<Option<Hit<V>>, LoadError>
    where
        L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>>,
        R: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(hit) = self.inner.hit(key) {
            return Ok(Some(hit));
        }
        let (inner, ask) = (Arc::clone(&self.inner), self.inner.settings.ask);
        load::option(Box::pin(inner.find_or_load(key, ask, true, loader)).await)
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

    /// Asks the server whether all instances that share the cache lay it out as this one does: a
    /// service that starts calls this, and ends if it is told otherwise.
    ///
    /// Nothing depends on the call. A cache asks by itself before it uses the shared tier, and again
    /// every ten seconds. While another layout is in use, it neither reads nor writes there and goes on
    /// as in an outage: loaders answer, L1 is at best unverified, writes are queued. It joins when the
    /// others have been gone for a minute; what they have left is void then.
    ///
    /// # Errors
    /// [`LayoutError`] if others use the cache in another layout. A server that cannot be asked within
    /// 1 s is no error: the cache starts as in an outage, and asks when the server is there.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn check_layout(
        &self,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<K, V, E> {
        // It does not keep the cache alive.
        let gate = self.inner.executor.clone();
        async move { gate.check().await }
    }

    /// What says at any time whether the layouts differ, without keeping the cache alive.
    pub fn layout_watch(&self) -> LayoutWatch {
        LayoutWatch::new(&self.inner.executor)
    }

    /// Counts since the cache was built, and sizes now.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        Stats {
            l1_entries: inner.local.len(),
            l1_bytes: inner.local.weight(),
            flight_bytes: inner.ledger.flight_bytes(),
            queue_bytes: inner.ledger.queue_bytes(),
            loads_under_way: inner.loads.len() as u64,
            reads_under_way: inner.lookups.len() as u64,
            waiting: inner.wakes.len() as u64,
            queued: inner.recovery.len() as u64,
            layout_differs: inner.executor.is_refused(),
            verified_age: inner.verified_age(),
            sampled: inner.sampler.sampled(),
            sampled_stale: inner.sampler.stale.read(),
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
        executor: Gate<E>,
        tag: Tag,
        name: &str,
        local: Box<dyn Local<K, L1Entry<V>>>,
        codec: Box<Form<V>>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Self {
        let ledger = Ledger::new(settings.pending_bytes_max);
        let meta_key = tag.part(META_PART);
        Self {
            gather: Gather::new(executor.clone(), meta_key.clone()),
            executor,
            meta_key,
            tags_key: tags_key(&tag),
            tag,
            name: name.to_owned(),
            local,
            codec,
            built_at: clock.now(),
            clock,
            floors: Floors::new(settings.tags_max as usize, settings.alone),
            lookups: Flights::new(&ledger, Use::Lookup),
            loads: Flights::new(&ledger, Use::Load),
            wakes: Arc::default(),
            recovery: Recovery::new(&ledger),
            ledger,
            turns: Arc::new(Semaphore::new(settings.loads_max)),
            telemetry: Telemetry::new(name),
            sampler: Sampler::new(name, if settings.l2 { settings.sample } else { 0.0 }),
            hasher: RandomState::new(),
            source: rand::random(),
            number: AtomicU64::new(0),
            server_ahead: AtomicI64::new(UNKNOWN),
            kept: OnceLock::new(),
            followers: OnceLock::new(),
            settings,
        }
    }

    /// Step 1: L1, for a read that asks for nothing special. An entry counts only if its stamp
    /// passes the floors, and its time is not over; what needs a second thought is left to
    /// [`recall`](Self::recall).
    pub(crate) fn hit(&self, key: &K) -> Option<Hit<V>> {
        let L1Entry(Kept::Value(entry)) = self.local.get(key)? else { return None };
        let verified = self.floors.admit(&entry.head.pass, &entry.head.tags)?;
        let now = self.clock.now();
        if now >= entry.head.term.quiet_until {
            // It stays where it is: another entry may have taken its place since it was read.
            return None;
        }
        let ask = &self.settings.ask;
        let freshness = self.freshness(verified, now, ask.bound_us);
        if ask.verified && freshness != Freshness::Verified {
            return None;
        }
        self.telemetry.hits_l1.add();
        let hit = Hit { entry, tier: Tier::L1, freshness, at: now };
        if self.sampler.is_due() {
            self.sample(key, &hit);
        }
        Some(hit)
    }

    /// Steps 1 and 2 for a caller without a loader.
    pub(crate) async fn find(&self, key: &K, ask: Ask) -> Option<Hit<V>> {
        let mut spare = match self.recall(key, &ask) {
            // Nobody loads here, so that the origin rests is no reason to take what is stale.
            Recalled::Fresh(hit) if hit.freshness == Freshness::Stale => Some(hit),
            Recalled::Fresh(hit) | Recalled::Early(hit) => {
                self.telemetry.hit_in_l1(hit.freshness);
                return Some(hit);
            }
            Recalled::Absent => {
                self.telemetry.hits_absent.add();
                return None;
            }
            Recalled::Lapsed(hit) | Recalled::Expired(hit) => Some(hit),
            Recalled::Nothing => None,
        };
        if ask.l2 {
            match self.look(key, &wire(key), &ask).await {
                Looked::Fresh(hit) => return Some(hit),
                Looked::Stale(hit) => spare = Some(hit),
                Looked::Absent(_) => return None,
                Looked::Miss | Looked::Unusable(_) | Looked::Unavailable => {}
            }
        }
        let stale = spare.filter(|_| ask.stale);
        if let Some(hit) = stale.and_then(|hit| self.spare(&hit, &ask, ask.grace())) {
            self.telemetry.stale_on_demand.add();
            return Some(hit);
        }
        self.telemetry.misses.add();
        None
    }

    /// How old the last proof is that no invalidation is missing.
    pub(crate) fn verified_age(&self) -> Duration {
        if self.settings.alone {
            return Duration::ZERO;
        }
        self.clock.now().since(self.floors.verified_as_of().max(self.built_at))
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

impl<K, V, E> Holdings for Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn void(&self) {
        self.floors.void();
        self.detach_all();
        // Nothing in it counts any more; this only gives the memory back.
        self.local.clear();
    }

    fn confirm(&self) {
        self.floors.confirm();
    }
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
