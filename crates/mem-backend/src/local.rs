//! The tier in front of a store.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU64;
use std::sync::Arc;

use fleetwide_core_traits::Local;

use crate::bounded::{Bounded, ENTRY_BYTES};
use crate::door::Door;

/// Enough for tens of thousands of ordinary values, and unnoticed in most services.
const BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;

/// A [`Local`] tier on [`moka::sync`], weighed in bytes. Cheap to clone: all clones are one tier.
///
/// What is asked for often stays, what is asked for once goes first (TinyLFU): while the tier is
/// full, a new value is forgotten at once, and comes in when it is inserted again before long. A hit clones the value, so `V` should be an `Arc` or
/// as cheap; beyond that it does not allocate.
///
/// An entry weighs what [`insert`](Local::insert) is told plus 256 bytes for its place in the
/// tables, so that millions of tiny entries stay inside the budget too.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use fleetwide_core_traits::Local;
/// use fleetwide_mem_backend::MokaLocal;
///
/// let tier: MokaLocal<u64, Arc<str>> = MokaLocal::builder().bytes_max(1 << 20).build();
/// tier.insert(42, "Ada".into(), 3);
/// assert_eq!(tier.get(&42).as_deref(), Some("Ada"));
/// ```
pub struct MokaLocal<K, V> {
    entries: Bounded<K, V>,
    door: Arc<Door>,
    /// What an entry weighs at least, which is how their number is bounded.
    weight_min: u32,
}

impl<K, V> MokaLocal<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Evicts what is over the budget now, so that [`len`](Local::len) and
    /// [`weight`](Local::weight) are exact. For tests: it happens by itself.
    pub fn settle(&self) {
        self.entries.settle();
    }
}

impl MokaLocal<(), ()> {
    /// Options. The types of keys and values are those of the tier that is built.
    pub fn builder() -> MokaLocalBuilder {
        MokaLocalBuilder { bytes_max: BYTES_MAX_DEFAULT, entries_max: None }
    }
}

impl<K, V> Local<K, V> for MokaLocal<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key)
    }

    fn insert(&self, key: K, value: V, weight: u32) {
        let weight = weight.saturating_add(ENTRY_BYTES).max(self.weight_min);
        // Who has a place gets the new value, or the old one would stay.
        if self.entries.is_full_for(weight)
            && !self.door.was_here(self.entries.hash(&key))
            && !self.entries.contains(&key)
        {
            return;
        }
        self.entries.insert(key, value, weight);
    }

    fn remove(&self, key: &K) {
        self.entries.remove(key);
    }

    fn clear(&self) {
        self.entries.clear();
    }

    fn len(&self) -> u64 {
        self.entries.len()
    }

    fn weight(&self) -> u64 {
        self.entries.weight()
    }
}

impl<K, V> Clone for MokaLocal<K, V> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            door: Arc::clone(&self.door),
            weight_min: self.weight_min,
        }
    }
}

impl<K, V> fmt::Debug for MokaLocal<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither keys nor values: they are a user's.
        f.debug_struct("MokaLocal").field("weight_min", &self.weight_min).finish_non_exhaustive()
    }
}

/// Options of a [`MokaLocal`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct MokaLocalBuilder {
    bytes_max: u64,
    entries_max: Option<NonZeroU64>,
}

impl MokaLocalBuilder {
    /// Sets how many bytes all entries may take together. Default: 64 MiB.
    ///
    /// It is exceeded by at most the entries that are being inserted at that moment. The memory of
    /// what was evicted is freed a little later, when no reader can be looking at it.
    pub fn bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Sets how many entries there may be besides. Default: as many as the bytes allow.
    ///
    /// An entry then weighs at least its share, `bytes_max / entries_max`, also in
    /// [`weight`](Local::weight). Zero counts as one.
    pub fn entries_max(self, entries_max: u64) -> Self {
        Self { entries_max: Some(NonZeroU64::new(entries_max).unwrap_or(NonZeroU64::MIN)), ..self }
    }

    /// Builds the tier. It takes space as it is used, not now.
    pub fn build<K, V>(self) -> MokaLocal<K, V>
    where
        K: Eq + Hash + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        let (bytes_max, weight_min) = match self.entries_max {
            None => (self.bytes_max, 0),
            Some(entries_max) => {
                // An entry weighs at most `u32::MAX`; with few entries that bounds the budget.
                let bytes_max =
                    self.bytes_max.min(entries_max.get().saturating_mul(u32::MAX.into()));
                (bytes_max, bytes_max.div_ceil(entries_max.get()) as u32)
            }
        };
        MokaLocal {
            entries: Bounded::new(bytes_max, |cache| cache),
            door: Arc::new(Door::new(bytes_max)),
            weight_min,
        }
    }
}
