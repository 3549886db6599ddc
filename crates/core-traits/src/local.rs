//! The in-process tier.

use std::hash::Hash;

/// A bounded map in this process that may forget anything at any time.
///
/// A capability keeps what makes an entry valid (stamps, deadlines) inside `V` and checks it on
/// each hit, so an implementation needs no clock.
pub trait Local<K, V>: Send + Sync + 'static
where
    K: Eq + Hash,
{
    /// The value of `key`. A hit neither allocates nor waits.
    fn get(&self, key: &K) -> Option<V>;

    /// Keeps `value`, which takes `weight` bytes, if there is room for it.
    ///
    /// A value heavier than the whole budget is not kept.
    fn insert(&self, key: K, value: V, weight: u32);

    /// Forgets `key`.
    fn remove(&self, key: &K);

    /// Forgets everything.
    fn clear(&self);

    /// How many entries there are, roughly.
    fn len(&self) -> u64;

    /// Whether there is no entry, roughly.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that all entries take together, roughly.
    fn weight(&self) -> u64;
}
