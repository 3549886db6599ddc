//! The most frequent of many keys, in bounded room: Metwally's space-saving counts.

/// A page of a report, and a scan of two cache lines.
pub(super) const KEYS_MAX: usize = 32;

/// Keys with how often they flipped.
#[derive(Debug, Default)]
pub(super) struct Top {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) key: Box<str>,
    pub(super) only_real: u64,
    pub(super) only_candidate: u64,
    /// The count of the key whose place it has taken.
    pub(super) over: u64,
}

impl Entry {
    const fn count(&self) -> u64 {
        self.only_real + self.only_candidate + self.over
    }
}

impl Top {
    /// Counts a flip of the key `id`, which is written as `key` says.
    pub(super) fn count(&mut self, id: u64, is_only_real: bool, key: impl FnOnce() -> Box<str>) {
        let place = match self.entries.iter().position(|entry| entry.id == id) {
            Some(place) => place,
            None => self.begin(id, key()),
        };
        let entry = &mut self.entries[place];
        if is_only_real {
            entry.only_real += 1;
        } else {
            entry.only_candidate += 1;
        }
    }

    /// A place for a key that has none.
    fn begin(&mut self, id: u64, key: Box<str>) -> usize {
        let fresh = |over| Entry { id, key, only_real: 0, only_candidate: 0, over };
        if self.entries.len() < KEYS_MAX {
            self.entries.push(fresh(0));
            return self.entries.len() - 1;
        }
        let counts = self.entries.iter().map(Entry::count).enumerate();
        let (place, least) = counts.min_by_key(|(_, count)| *count).unwrap_or_default();
        self.entries[place] = fresh(least);
        place
    }

    /// All of them, the most frequent first.
    pub(super) fn sorted(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        entries.sort_by(|a, b| b.count().cmp(&a.count()).then_with(|| a.key.cmp(&b.key)));
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(id: u64) -> Box<str> {
        format!("{id:03}").into()
    }

    // Seen red: without what a newcomer takes over, a key can be counted too low by more than `over`.
    proptest! {
        #[test]
        fn count_is_never_above_the_truth_nor_below_it_by_more_than_it_says(
            flips in prop::collection::vec((0u64..90, any::<bool>()), 0..900),
        ) {
            let (mut top, mut truth) = (Top::default(), HashMap::<u64, u64>::new());
            for (id, is_only_real) in &flips {
                // Low numbers come more often.
                let id = id * id / 90;
                top.count(id, *is_only_real, || name(id));
                *truth.entry(id).or_default() += 1;
            }
            let sorted = top.sorted();
            prop_assert!(sorted.len() <= KEYS_MAX);
            prop_assert!(sorted.is_sorted_by(|a, b| a.count() >= b.count()));
            for entry in &sorted {
                let (seen, real) = (entry.only_real + entry.only_candidate, truth[&entry.id]);
                prop_assert!(seen <= real && real <= entry.count(), "{entry:?}, in truth {real}");
            }
            let frequent = flips.len() as u64 / KEYS_MAX as u64;
            for (id, _) in truth.iter().filter(|(_, count)| **count > frequent) {
                prop_assert!(sorted.iter().any(|entry| entry.id == *id), "{id} is missing");
            }
        }
    }
}
