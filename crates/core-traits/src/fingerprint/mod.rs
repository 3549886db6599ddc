//! A number for the shape of a type, worked out from what it asks of a deserializer.
//!
//! The type is made to deserialize itself from nothing: whatever it asks for (a `u32`, a struct with
//! these fields, one of these variants) is hashed, and then given to it in some small form, so that
//! it goes on asking. An enum is walked once per variant, and a type inside itself is cut short.
//!
//! Where a type refuses all that is offered, because its own code checks what it is given, the walk
//! ends there: the number then covers what came before, with the names of all fields of the structs
//! that were begun. It is the same in every process, whatever happened: neither addresses nor the
//! names that the compiler gives to types are hashed.

#[cfg(test)]
mod tests;
mod walk;

use std::any::type_name;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// How often a type is walked: once for each variant of its widest enum, and once for each value
/// that it refuses.
const WALKS_MAX: usize = 512;
/// Questions of a type that are hashed, over all walks: a bound of milliseconds.
const ASKED_MAX: usize = 100_000;
/// How deep a walk goes into a type that contains itself in a way that is not seen.
const DEEP_MAX: usize = 64;

/// A number for the shape of `V`, as [`Codec::schema`](crate::Codec::schema) wants it; never 0.
///
/// It changes when a field or a variant comes, goes, moves, or changes its name or type, anywhere
/// inside `V`, and when a type with a name changes that. The names are those that serde knows. It
/// does not change from one build or process to the next, nor with the format of a codec.
///
/// What it cannot see: what follows a field whose own code refuses every value that is tried, the
/// fields of a struct with `#[serde(flatten)]`, what an untagged or internally tagged enum accepts,
/// and a change of meaning that leaves names and types as they were. It runs the type's own
/// `Deserialize`; if that panics, the walk ends there.
pub fn fingerprint<V: DeserializeOwned>() -> u32 {
    let mut walk = Walk::default();
    for _ in 0..WALKS_MAX {
        walk.begin();
        let walked =
            std::panic::catch_unwind(AssertUnwindSafe(|| V::deserialize(&mut walk).map(drop)));
        match walked {
            Ok(Ok(())) => {}
            Ok(Err(refused)) => walk.refused(&refused),
            Err(_panic) => break,
        }
        if !walk.learned {
            break;
        }
    }
    walk.number()
}

/// What is known of a type while it is walked.
#[derive(Default)]
struct Walk {
    hash: Sha256,
    asked: usize,
    /// Named types that the walk is inside of, and those that it has been through.
    inside: Vec<&'static str>,
    through: HashSet<&'static str>,
    /// How many of them it is inside of for a second time: then what may be empty is.
    brief: usize,
    deep: usize,
    /// For each enum, how many variants were walked, and one that has an end.
    walked: HashMap<&'static str, u32>,
    ends: HashMap<&'static str, u32>,
    /// For each type of a plain value, which of the values to try is given.
    given: HashMap<&'static str, usize>,
    last_given: Option<(&'static str, usize)>,
    /// Whether another walk would go another way.
    learned: bool,
}

/// A type did not take what it was given.
#[derive(Debug, Default)]
struct Refused {
    missing: Option<&'static str>,
}

impl Walk {
    fn begin(&mut self) {
        self.inside.clear();
        self.through.clear();
        (self.brief, self.deep, self.learned, self.last_given) = (0, 0, false, None);
        self.note("walk");
    }

    /// Hashes a word that the type has said.
    fn note(&mut self, word: &str) {
        self.hash.update((word.len() as u64).to_be_bytes());
        self.hash.update(word);
    }

    /// Hashes a question of the type.
    fn ask(&mut self, kind: &str) -> Result<(), Refused> {
        self.asked += 1;
        if self.asked > ASKED_MAX {
            return Err(Refused::default());
        }
        self.note(kind);
        Ok(())
    }

    /// A question for a plain value. Which of `values` is given: the first that was not refused.
    fn plain<T: Copy, Asker>(&mut self, kind: &str, values: &[T]) -> Result<T, Refused> {
        self.ask(kind)?;
        let who = type_name::<Asker>();
        self.last_given = Some((who, values.len()));
        let at = self.given.get(who).copied().unwrap_or(0);
        values.get(at).or(values.first()).copied().ok_or_else(Refused::default)
    }

    /// The walk has ended: most likely it was the last value. The next walk gives another one.
    fn refused(&mut self, refused: &Refused) {
        self.note(refused.missing.unwrap_or_default());
        let Some((who, values)) = self.last_given else { return };
        let given = self.given.entry(who).or_default();
        if *given < values {
            *given += 1;
            self.learned |= *given < values;
        }
    }

    /// Walks what is inside of something.
    fn deeper<T>(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        if self.deep == DEEP_MAX {
            return Err(Refused::default());
        }
        self.deep += 1;
        let walked = walk(self);
        self.deep -= 1;
        walked
    }

    /// Walks a type with a name.
    fn named<Type, T>(
        &mut self,
        name: &str,
        walk: impl FnOnce(&mut Self, bool) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.ask(name)?;
        let who = type_name::<Type>();
        let again = self.inside.contains(&who) || self.through.contains(who);
        self.brief += usize::from(again);
        self.inside.push(who);
        let walked = self.deeper(|walk_| walk(walk_, again));
        self.inside.pop();
        self.brief -= usize::from(again);
        self.through.insert(who);
        walked
    }

    /// Which variant of an enum is walked now: the next one, or one that has an end.
    fn variant<Type>(&mut self, count: u32, again: bool) -> Result<u32, Refused> {
        let who = type_name::<Type>();
        let next = self.walked.get(who).copied().unwrap_or(0);
        if !again && next < count {
            self.walked.insert(who, next + 1);
            self.learned = true;
            return Ok(next);
        }
        if let Some(end) = self.ends.get(who) {
            return Ok(*end);
        }
        // Inside itself: each time another variant, until one of them does not contain it again.
        let times = self.inside.iter().filter(|inside| **inside == who).count() as u32;
        let first = next.saturating_sub(1);
        if times > count || count == 0 {
            Err(Refused::default())
        } else {
            Ok((first + times - 1) % count)
        }
    }

    fn has_end<Type>(&mut self, variant: u32) {
        self.ends.entry(type_name::<Type>()).or_insert(variant);
    }

    fn number(self) -> u32 {
        let hash = self.hash.finalize();
        let number = hash.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
        number.max(1)
    }
}
