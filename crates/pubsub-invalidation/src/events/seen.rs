//! Which events were delivered already: bounded memory of (source, number).

use std::collections::HashMap;

/// Numbers of one source that are remembered, counted back from its highest.
///
/// A retried publish comes soon after the first try: at most a full outbound queue lies between.
pub(super) const NUMBERS: u64 = 2048;
const WORDS: usize = (NUMBERS / 64) as usize;

/// Sources that are remembered; with them, this takes about 300 KB.
const SOURCES_MAX: usize = 1024;

/// Recognises events that come again.
#[derive(Default)]
pub(super) struct Seen {
    own_source: [u8; 8],
    own: Window,
    others: HashMap<[u8; 8], Known>,
    uses: u64,
}

#[derive(Default)]
struct Known {
    window: Window,
    used: u64,
}

impl Seen {
    /// Nothing was seen. `own_source` is never forgotten for others.
    pub(super) fn new(own_source: [u8; 8]) -> Self {
        Self { own_source, ..Self::default() }
    }

    /// Whether event `number` of `source` comes for the first time, as far as is remembered. What
    /// is too old to be remembered counts as new: a duplicate is better than a loss.
    pub(super) fn is_first(&mut self, source: [u8; 8], number: u64) -> bool {
        if source == self.own_source {
            return self.own.is_first(number);
        }
        self.uses += 1;
        if self.others.len() == SOURCES_MAX && !self.others.contains_key(&source) {
            self.forget_one();
        }
        let known = self.others.entry(source).or_default();
        known.used = self.uses;
        known.window.is_first(number)
    }

    fn forget_one(&mut self) {
        let longest_unused = self.others.iter().min_by_key(|(_, known)| known.used);
        if let Some(source) = longest_unused.map(|(source, _)| *source) {
            self.others.remove(&source);
        }
    }
}

/// The numbers of one source: one bit each, in a ring below the highest.
struct Window {
    highest: u64,
    bits: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { highest: 0, bits: [0; WORDS] }
    }
}

impl Window {
    fn is_first(&mut self, number: u64) -> bool {
        if number > self.highest {
            self.advance_to(number);
        } else if self.highest - number >= NUMBERS {
            return true;
        }
        let (word, bit) = ((number % NUMBERS / 64) as usize, 1 << (number % 64));
        let first = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        first
    }

    fn advance_to(&mut self, number: u64) {
        if number - self.highest >= NUMBERS {
            self.bits = [0; WORDS];
        } else {
            for skipped in self.highest + 1..=number {
                self.bits[(skipped % NUMBERS / 64) as usize] &= !(1 << (skipped % 64));
            }
        }
        self.highest = number;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SELF: [u8; 8] = [0; 8];

    proptest! {
        #[test]
        fn a_number_is_first_once_in_any_order_within_the_window(
            steps in prop::collection::vec((0..NUMBERS, 1..9u64), 1..300),
        ) {
            let mut seen = Seen::new(SELF);
            let (mut known, mut highest) = (HashSet::new(), NUMBERS);
            for (back, ahead) in steps {
                let number = highest - back;
                prop_assert_eq!(seen.is_first([1; 8], number), known.insert(number));
                // So that `back` stays inside the window of the highest number that was seen.
                prop_assert_eq!(seen.is_first([1; 8], highest), known.insert(highest));
                highest += ahead;
                prop_assert_eq!(seen.is_first([1; 8], highest), known.insert(highest));
            }
        }
    }

    #[test]
    fn what_is_too_old_to_know_is_delivered() {
        let mut seen = Seen::new(SELF);
        assert!(seen.is_first(SELF, 1) && !seen.is_first(SELF, 1));
        assert!(seen.is_first(SELF, 1 + NUMBERS));
        assert!(seen.is_first(SELF, 1));
    }

    #[test]
    fn sources_are_bounded_and_the_one_unused_for_longest_goes_first() {
        let source = |number: u64| (number + 1).to_be_bytes();
        let mut seen = Seen::new(SELF);
        assert!(seen.is_first(SELF, 7));
        for number in 0..SOURCES_MAX as u64 {
            assert!(seen.is_first(source(number), 7));
        }
        assert!(!seen.is_first(source(0), 7));
        assert!(seen.is_first(source(SOURCES_MAX as u64), 7));
        assert_eq!(seen.others.len(), SOURCES_MAX);
        assert!(!seen.is_first(source(0), 7) && seen.is_first(source(1), 7));
        assert!(!seen.is_first(SELF, 7));
    }
}
