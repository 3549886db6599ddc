//! What a bulk read found.

use std::fmt;

use indexmap::IndexMap;

use crate::entry::Hit;
use crate::key::CacheKey;

/// What a bulk read found, in the order in which the keys were first asked for.
pub struct Hits<K, V> {
    by_key: IndexMap<K, Option<Hit<V>>>,
    found: usize,
}

impl<K: CacheKey, V> Hits<K, V> {
    pub(super) fn new(keys: &[K]) -> Self {
        let mut by_key = IndexMap::with_capacity(keys.len());
        for key in keys {
            if !by_key.contains_key(key) {
                by_key.insert(key.clone(), None);
            }
        }
        Self { by_key, found: 0 }
    }

    /// How many different keys were asked for.
    pub fn asked(&self) -> usize {
        self.by_key.len()
    }

    /// How many were found.
    pub const fn len(&self) -> usize {
        self.found
    }

    /// Whether none was found.
    pub const fn is_empty(&self) -> bool {
        self.found == 0
    }

    /// What was found for `key`.
    pub fn get(&self, key: &K) -> Option<&Hit<V>> {
        self.by_key.get(key)?.as_ref()
    }

    /// What was found, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Hit<V>)> {
        self.by_key.iter().filter_map(|(key, hit)| Some((key, hit.as_ref()?)))
    }

    /// The keys for which nothing was found, in their order.
    pub fn missing(&self) -> impl Iterator<Item = &K> {
        self.by_key.iter().filter(|(_, hit)| hit.is_none()).map(|(key, _)| key)
    }

    /// Asks `find` for each key. Returns those that it does not have, each with its place.
    pub(super) fn find(&mut self, find: impl Fn(&K) -> Option<Hit<V>>) -> Vec<(usize, K)> {
        let mut missing = Vec::new();
        for (at, (key, place)) in self.by_key.iter_mut().enumerate() {
            *place = find(key);
            match place {
                Some(_) => self.found += 1,
                None => missing.push((at, key.clone())),
            }
        }
        missing
    }

    pub(super) fn set(&mut self, at: usize, hit: Hit<V>) {
        if let Some((_, place)) = self.by_key.get_index_mut(at) {
            self.found += usize::from(place.is_none());
            *place = Some(hit);
        }
    }
}

impl<K, V> IntoIterator for Hits<K, V> {
    type Item = (K, Hit<V>);
    type IntoIter = IntoHits<K, V>;

    fn into_iter(self) -> IntoHits<K, V> {
        IntoHits(self.by_key.into_iter())
    }
}

/// The keys and values of [`Hits`], in their order.
pub struct IntoHits<K, V>(indexmap::map::IntoIter<K, Option<Hit<V>>>);

impl<K, V> Iterator for IntoHits<K, V> {
    type Item = (K, Hit<V>);

    fn next(&mut self) -> Option<(K, Hit<V>)> {
        self.0.find_map(|(key, hit)| Some((key, hit?)))
    }
}

impl<K, V> fmt::Debug for IntoHits<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoHits").field("left_max", &self.0.len()).finish()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Hits<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.by_key).finish()
    }
}
