//! A map that stays under a budget of bytes: moka, with what it leaves to its users.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::fast::RandomState;
use moka::sync::{Cache, CacheBuilder};

/// What an entry costs beside its key and value: its node, its place in the queues of the eviction
/// policy, its slot in the table. Measured, with small keys and values.
pub(crate) const ENTRY_BYTES: u32 = 256;

/// The part of the budget that may be inserted before moka has to settle: evict what is over.
///
/// Left alone, moka settles after 64 writes or 300 ms, so 64 large values would be over the budget
/// together. So moka gets the other 15/16 of the budget, and the whole is never exceeded by more
/// than the entries that are being inserted at that moment.
const UNSETTLED_PART: u64 = 16;

pub(crate) type Builder<K, V> = CacheBuilder<K, Weighed<V>, Cache<K, Weighed<V>>>;

/// Cheap to clone: all clones are one map.
pub(crate) struct Bounded<K, V> {
    cache: Cache<K, Weighed<V>, RandomState>,
    hasher: RandomState,
    /// The heaviest entry that is kept.
    weight_max: u64,
    unsettled: Arc<AtomicU64>,
    unsettled_max: u64,
}

#[derive(Clone)]
pub(crate) struct Weighed<V> {
    pub(crate) value: V,
    weight: u32,
}

impl<K, V> Bounded<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `options` sets what differs between the users of this type.
    pub(crate) fn new(
        bytes_max: u64,
        options: impl FnOnce(Builder<K, V>) -> Builder<K, V>,
    ) -> Self {
        let unsettled_max = bytes_max / UNSETTLED_PART;
        let weight_max = bytes_max - unsettled_max;
        let builder = CacheBuilder::new(weight_max).weigher(|_, entry: &Weighed<V>| entry.weight);
        let hasher = RandomState::default();
        let cache = options(builder).build_with_hasher(hasher.clone());
        Self { cache, hasher, weight_max, unsettled: Arc::default(), unsettled_max }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.cache.get(key).map(|entry| entry.value)
    }

    pub(crate) fn insert(&self, key: K, value: V, weight: u32) {
        if u64::from(weight) > self.weight_max {
            // Left to moka, an update of this weight would stay and push everything else out. What
            // the key had is not its value any more, so it goes.
            self.cache.invalidate(&key);
            return;
        }
        self.cache.insert(key, Weighed { value, weight });
        let unsettled = self.unsettled.fetch_add(weight.into(), Relaxed) + u64::from(weight);
        if unsettled > self.unsettled_max {
            self.settle();
        }
    }

    /// The hash that the table uses, for others who need one of a key.
    pub(crate) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Whether an entry of this weight finds room only if another one leaves, as far as was counted.
    pub(crate) fn is_full_for(&self, weight: u32) -> bool {
        self.cache.weighted_size() + u64::from(weight) > self.weight_max
    }

    /// Whether the key has a value. It does not count as asking for it.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.cache.contains_key(key)
    }

    pub(crate) fn remove(&self, key: &K) -> Option<V> {
        self.cache.remove(key).map(|entry| entry.value)
    }

    pub(crate) fn clear(&self) {
        self.cache.invalidate_all();
    }

    /// Does what moka has put off: evicts what is over, and counts.
    pub(crate) fn settle(&self) {
        self.unsettled.store(0, Relaxed);
        self.cache.run_pending_tasks();
    }

    pub(crate) fn len(&self) -> u64 {
        self.cache.entry_count()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.cache.weighted_size()
    }
}

impl<K, V> Clone for Bounded<K, V> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            hasher: self.hasher.clone(),
            weight_max: self.weight_max,
            unsettled: Arc::clone(&self.unsettled),
            unsettled_max: self.unsettled_max,
        }
    }
}
