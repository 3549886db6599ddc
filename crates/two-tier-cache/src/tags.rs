//! Tags: names that void many entries at once.
//!
//! A tag has a floor like a stripe has. An entry holds its tags' floors themselves, so a hit reads
//! them without looking anything up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::floors::Pass;

/// Tags that one entry may carry.
pub(crate) const TAGS_PER_ENTRY_MAX: usize = 32;

/// A name that entries can carry, 1 to 512 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheTag(Bytes);

impl CacheTag {
    /// Bytes that a tag may have.
    pub const BYTES_MAX: usize = 512;

    /// Parses a tag.
    ///
    /// # Errors
    /// [`TagError`] if it is empty or too long.
    pub fn new(tag: impl AsRef<[u8]>) -> Result<Self, TagError> {
        match tag.as_ref().len() {
            0 => Err(TagError::Empty),
            len if len > Self::BYTES_MAX => Err(TagError::TooLong(len)),
            _ => Ok(Self(Bytes::copy_from_slice(tag.as_ref()))),
        }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for CacheTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Why bytes are no tag, or a value cannot carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// Nothing names nothing.
    #[error("a tag must not be empty")]
    Empty,
    /// Longer than [`CacheTag::BYTES_MAX`].
    #[error("a tag may have at most {max} bytes, this one has {0}", max = CacheTag::BYTES_MAX)]
    TooLong(usize),
    /// More than an entry may carry.
    #[error("a value may carry at most {TAGS_PER_ENTRY_MAX} tags")]
    TooMany,
}

/// Sorted and without duplicates, as an entry carries them.
pub(crate) fn checked(mut tags: Vec<CacheTag>) -> Result<Vec<Bytes>, TagError> {
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_PER_ENTRY_MAX {
        return Err(TagError::TooMany);
    }
    Ok(tags.into_iter().map(|tag| tag.0).collect())
}

/// The floor of one tag.
#[derive(Debug, Default)]
pub(crate) struct TagFloor {
    seq: AtomicU64,
    fence: AtomicU64,
}

impl TagFloor {
    pub(crate) fn admits(&self, pass: &Pass) -> bool {
        pass.stamp.seq >= self.seq.load(Ordering::Acquire)
            && pass.fence >= self.fence.load(Ordering::Acquire)
    }
}

/// The floors of the tags that this process has met.
pub(crate) struct TagFloors {
    floors: Mutex<HashMap<Bytes, Arc<TagFloor>>>,
    max: usize,
}

/// Floors that were forgotten to stay within the limit; everything must stand above them instead.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) seq: u64,
    pub(crate) fence: u64,
}

impl TagFloors {
    pub(crate) fn new(max: usize) -> Self {
        Self { floors: Mutex::default(), max }
    }

    /// The floors of `tags`, for an entry to hold.
    pub(crate) fn of(&self, tags: &[Bytes]) -> (Box<[Arc<TagFloor>]>, Forgotten) {
        if tags.is_empty() {
            return (Box::default(), Forgotten::default());
        }
        let mut floors = self.floors.lock();
        let held =
            tags.iter().map(|tag| Arc::clone(floors.entry(tag.clone()).or_default())).collect();
        (held, self.shrink(&mut floors))
    }

    /// A bump with this number was applied, or issued by us and confirmed.
    pub(crate) fn raise(&self, tag: &Bytes, seq: u64) -> Forgotten {
        let mut floors = self.floors.lock();
        floors.entry(tag.clone()).or_default().seq.fetch_max(seq, Ordering::AcqRel);
        self.shrink(&mut floors)
    }

    /// A bump without a number.
    pub(crate) fn fence(&self, tag: &Bytes, fence: u64) -> Forgotten {
        let mut floors = self.floors.lock();
        floors.entry(tag.clone()).or_default().fence.fetch_max(fence, Ordering::AcqRel);
        self.shrink(&mut floors)
    }

    /// A new history begins: numbers of the old one say nothing about it.
    pub(crate) fn begin(&self) {
        for floor in self.floors.lock().values() {
            floor.seq.store(0, Ordering::Release);
        }
    }

    /// Forgets the tags that no entry carries, once there are too many.
    fn shrink(&self, floors: &mut HashMap<Bytes, Arc<TagFloor>>) -> Forgotten {
        let mut forgotten = Forgotten::default();
        if floors.len() <= self.max {
            return forgotten;
        }
        floors.retain(|_, floor| {
            let carried = Arc::strong_count(floor) > 1;
            if !carried {
                forgotten.seq = forgotten.seq.max(floor.seq.load(Ordering::Acquire));
                forgotten.fence = forgotten.fence.max(floor.fence.load(Ordering::Acquire));
            }
            carried
        });
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn a_tag_is_checked_once() {
        assert_eq!(CacheTag::new(""), Err(TagError::Empty));
        assert_eq!(CacheTag::new("t".repeat(513)), Err(TagError::TooLong(513)));
        let many = (0..33).map(|i: i32| CacheTag::new(i.to_string()).unwrap()).collect();
        assert_eq!(checked(many), Err(TagError::TooMany));
        let twice = vec![CacheTag::new("a").unwrap(), CacheTag::new("a").unwrap()];
        assert_eq!(checked(twice).unwrap().len(), 1);
    }

    /// Red if `shrink` forgot without saying what.
    #[test]
    fn what_is_forgotten_is_handed_over_as_a_floor_for_all() {
        let floors = TagFloors::new(2);
        let (carried, none) = floors.of(&[tag("carried")]);
        assert_eq!(none, Forgotten::default());
        floors.raise(&tag("carried"), 9);
        floors.raise(&tag("a"), 3);
        let forgotten = floors.raise(&tag("b"), 5);
        assert_eq!(forgotten, Forgotten { seq: 5, fence: 0 });
        assert_eq!(carried[0].seq.load(Ordering::Relaxed), 9);
        assert_eq!(floors.floors.lock().len(), 1, "what an entry carries stays");
    }
}
