//! Who may come into a full tier: keys that were there before.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes of the budget for each bit.
const BYTES_PER_BIT: u64 = 32;
/// 4 KiB: two thousand newcomers are remembered even by the smallest tier.
const WORDS_MIN: u64 = 512;
/// 8 MiB: enough for tiers of 2 GiB and more.
const WORDS_MAX: u64 = 1 << 20;
/// So few newcomers to a word that hardly one is taken for another.
const NEWCOMERS_PER_WORD: usize = 8;

/// Remembers keys that were turned away lately, in two bits each.
///
/// A full tier gains nothing from a value that is asked for once, and pays for it: it is inserted,
/// finds no place, and is freed later, often by another thread. So the first time it is turned
/// away. This is the doorkeeper of `TinyLFU`; what passes it is still judged by the policy behind.
///
/// It may take a stranger for an acquaintance, which costs an insert, and never the other way
/// round, but for the moment in which it forgets all.
pub(crate) struct Door {
    words: Box<[AtomicU64]>,
    /// Newcomers since it began to remember.
    newcomers: AtomicUsize,
}

impl Door {
    /// A door to a tier of so many bytes. It takes about 0.4 % of that besides.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let words = (bytes_max / BYTES_PER_BIT / 64).clamp(WORDS_MIN, WORDS_MAX);
        let words = words.next_power_of_two() as usize;
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            newcomers: AtomicUsize::new(0),
        }
    }

    /// Whether the key with this hash was here lately. From now on it was.
    pub(crate) fn was_here(&self, hash: u64) -> bool {
        let bits = 1 << (hash >> 58) | 1 << (hash >> 52 & 63);
        let word = &self.words[hash as usize & (self.words.len() - 1)];
        if word.load(Relaxed) & bits == bits {
            return true;
        }
        word.fetch_or(bits, Relaxed);
        if self.newcomers.fetch_add(1, Relaxed) == self.words.len() * NEWCOMERS_PER_WORD {
            self.forget();
        }
        false
    }

    #[cold]
    fn forget(&self) {
        for word in &self.words {
            word.store(0, Relaxed);
        }
        self.newcomers.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_key_is_known_the_second_time() {
        let door = Door::new(0);
        assert!(!door.was_here(7) && door.was_here(7) && !door.was_here(7 << 40));
    }

    /// Red without `forget`: then a tier that is full for long would let everybody in.
    #[test]
    fn newcomers_are_hardly_ever_taken_for_somebody_else() {
        let (door, hasher) = (Door::new(1 << 20), foldhash::fast::RandomState::default());
        let keys = 0..200_000_u64;
        let taken = keys.filter(|key| door.was_here(hasher.hash_one(key))).count();
        assert!(taken < 10_000, "{taken} of 200,000");
    }
}
