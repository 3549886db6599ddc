//! What an entry of a cache's log says, for others who follow the log beside the cache.

use bytes::Bytes;
use fleetwide_core_traits::log::Entry;

use crate::body::{self, Said};
use crate::tags::CacheTag;

/// What somebody did to the cache, as one entry of its log says it.
///
/// Loads are not among it: filling the cache publishes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A value was written under the key with these bytes, as
    /// [`CacheKey::write`](crate::CacheKey::write) forms them.
    Put(Bytes),
    /// What was under this key was removed.
    Removed(Bytes),
    /// What carried this tag was removed.
    TagRemoved(CacheTag),
    /// Everything was removed, or a later version says something that this one does not know.
    Cleared,
}

impl Change {
    /// Reads an entry of a cache's log; one that names several keys is several changes. Never fails:
    /// what makes no sense counts as a clear.
    pub fn read(entry: &Entry) -> impl Iterator<Item = Self> + use<> {
        let of_key = if body::is_put(&entry.body) { Self::Put } else { Self::Removed };
        let (keys, other) = match body::read(&entry.body) {
            Said::Changed(key) => (vec![key], None),
            Said::ChangedMany(keys) => (keys, None),
            Said::Bumped(tag) => {
                let removed = CacheTag::new(tag).map_or(Self::Cleared, Self::TagRemoved);
                (Vec::new(), Some(removed))
            }
            Said::Cleared => (Vec::new(), Some(Self::Cleared)),
        };
        keys.into_iter().map(of_key).chain(other)
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::log::Stamp;

    use super::*;

    fn read(body: Bytes) -> Change {
        let [change] = read_all(body).try_into().unwrap();
        change
    }

    fn read_all(body: Bytes) -> Vec<Change> {
        let (id, previous, source) = ([0; 8], [0; 8], [0; 8]);
        let entry = Entry { stamp: Stamp::default(), id, previous, source, number: 0, body };
        Change::read(&entry).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(body::put(b"k")), Change::Put(Bytes::from_static(b"k")));
        assert_eq!(read(body::invalidate(b"k")), Change::Removed(Bytes::from_static(b"k")));
        assert_eq!(read(body::bump(b"t")), Change::TagRemoved(CacheTag::new("t").unwrap()));
        assert_eq!(read(body::clear()), Change::Cleared);
    }

    #[test]
    fn an_entry_with_many_keys_is_as_many_changes() {
        let keys = [Bytes::from_static(b"k"), Bytes::from_static(b"l")];
        let put = read_all(body::put_many(keys.iter()));
        assert_eq!(put, keys.clone().map(Change::Put));
        let removed = read_all(body::invalidate_many(keys.iter()));
        assert_eq!(removed, keys.map(Change::Removed));
    }

    #[test]
    fn what_makes_no_sense_counts_as_a_clear() {
        assert_eq!(read(Bytes::from_static(&[99, 1])), Change::Cleared);
        assert_eq!(read(body::bump(&[b't'; 513])), Change::Cleared);
    }
}
