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

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
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

/// Whether tags that came over a wire are such as a value may carry.
pub(crate) fn are_valid(tags: &[Bytes]) -> bool {
    let fits = |tag: &Bytes| (1..=CacheTag::BYTES_MAX).contains(&tag.len());
    tags.len() <= TAGS_PER_ENTRY_MAX && tags.iter().all(fits)
}

/// What the key and the tags add to the weight of an entry: themselves, and the place of tags in
/// their table.
pub(crate) fn weight(key_bytes: usize, tags: &[Bytes]) -> u32 {
    const PLACE: u32 = 128;
    key_bytes as u32 + tags.iter().map(|tag| tag.len() as u32 + PLACE).sum::<u32>()
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
///
/// A tag that entries of L1 carry is kept for as long as they are there, so those are bounded by
/// L1's bytes; of the others at most `max` are kept. A tag that was forgotten starts again at the
/// highest floor of all that were: an entry which comes too late for a forgotten bump is dead on
/// arrival, and at worst so are a few that were not too late.
pub(crate) struct TagFloors {
    table: Mutex<Table>,
    max: usize,
}

struct Table {
    floors: HashMap<Bytes, Arc<TagFloor>>,
    forgotten_seq: u64,
    forgotten_fence: u64,
    /// How many there may be before the table is looked through again.
    shrink_at: usize,
}

impl TagFloors {
    pub(crate) fn new(max: usize) -> Self {
        let floors = HashMap::new();
        let table = Table { floors, forgotten_seq: 0, forgotten_fence: 0, shrink_at: max };
        Self { table: Mutex::new(table), max }
    }

    /// The floors of `tags`, for an entry to hold.
    pub(crate) fn of(&self, tags: &[Bytes]) -> Box<[Arc<TagFloor>]> {
        if tags.is_empty() {
            return Box::default();
        }
        let mut table = self.table.lock();
        let held = tags.iter().map(|tag| Arc::clone(table.floor(tag))).collect();
        table.shrink(self.max);
        held
    }

    /// A bump with this number was applied, or issued by us and confirmed.
    pub(crate) fn raise(&self, tag: &Bytes, seq: u64) {
        let mut table = self.table.lock();
        table.floor(tag).seq.fetch_max(seq, Ordering::AcqRel);
        table.shrink(self.max);
    }

    /// A bump without a number.
    pub(crate) fn fence(&self, tag: &Bytes, fence: u64) {
        let mut table = self.table.lock();
        table.floor(tag).fence.fetch_max(fence, Ordering::AcqRel);
        table.shrink(self.max);
    }

    /// A new history begins: numbers of the old one say nothing about it.
    pub(crate) fn begin(&self) {
        let mut table = self.table.lock();
        table.forgotten_seq = 0;
        for floor in table.floors.values() {
            floor.seq.store(0, Ordering::Release);
        }
    }
}

impl Table {
    fn floor(&mut self, tag: &Bytes) -> &Arc<TagFloor> {
        // A tag may be a slice of a whole reply, which must not live as long as the tag does.
        let own =
            if self.floors.contains_key(tag) { tag.clone() } else { Bytes::copy_from_slice(tag) };
        self.floors.entry(own).or_insert_with(|| {
            Arc::new(TagFloor {
                seq: AtomicU64::new(self.forgotten_seq),
                fence: AtomicU64::new(self.forgotten_fence),
            })
        })
    }

    /// Forgets the tags that no entry carries, once there are too many.
    fn shrink(&mut self, max: usize) {
        if self.floors.len() <= self.shrink_at {
            return;
        }
        let (mut seq, mut fence) = (self.forgotten_seq, self.forgotten_fence);
        self.floors.retain(|_, floor| {
            let carried = Arc::strong_count(floor) > 1;
            if !carried {
                seq = seq.max(floor.seq.load(Ordering::Acquire));
                fence = fence.max(floor.fence.load(Ordering::Acquire));
            }
            carried
        });
        (self.forgotten_seq, self.forgotten_fence) = (seq, fence);
        // Not again at once, however many are carried: a look through costs what they are.
        self.shrink_at = self.floors.len() * 2 + max;
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

    /// Red if `shrink` forgot without a trace.
    #[test]
    fn a_forgotten_tag_starts_above_what_was_forgotten() {
        let floors = TagFloors::new(2);
        let carried = floors.of(&[tag("carried")]);
        floors.raise(&tag("carried"), 9);
        floors.raise(&tag("a"), 3);
        floors.raise(&tag("b"), 5);
        assert_eq!(carried[0].seq.load(Ordering::Relaxed), 9);
        assert_eq!(floors.table.lock().floors.len(), 1, "what an entry carries stays");
        assert_eq!(floors.of(&[tag("a")])[0].seq.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_tag_does_not_keep_the_reply_that_it_came_in() {
        let reply = Bytes::from(vec![b't'; 1_000]);
        let floors = TagFloors::new(10);
        drop(floors.of(&[reply.slice(..1)]));
        assert!(reply.is_unique());
    }

    #[test]
    fn what_nobody_carries_is_bounded() {
        let floors = TagFloors::new(10);
        for number in 0..1_000 {
            floors.raise(&Bytes::from(format!("{number}")), number);
            assert!(floors.table.lock().floors.len() <= 20);
        }
    }
}
