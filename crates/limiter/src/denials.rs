//! Refusals that are still true: a call that cannot be allowed yet makes no trip.
//!
//! A refusal says when its cost fits at the earliest. Until then, counted from the moment at which
//! the question was *sent*, the same cost or a dearer one is refused here. It was decided later than
//! it was sent, so nothing is ever refused that time alone would have allowed.
//!
//! What others do can make a refusal untrue: a reset, a refund, a larger limit, a server that lost
//! its state. What this instance does, and what it hears of, voids the refusal at once
//! ([`Floors`]); for the rest no refusal is remembered longer than the horizon. So this refuses
//! wrongly for a horizon at most, and allows nothing.
//!
//! Refusals are forgotten in generations: the older one as a whole, when the younger one is full or
//! older than the horizon. A refusal that is forgotten costs a trip.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::mem;
use std::time::Duration;

use fleetwide_core_traits::{Key, MonoTime};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::floors::{Floors, Stamp};
use crate::{Answer, Decision, Source, Verdict};

/// Locks. Callers of different keys rarely meet at one.
const SHARDS: usize = 16;
/// Longer names are not remembered, which bounds the bytes: they cost a trip each.
pub(crate) const NAME_BYTES_MAX: usize = 256;

/// What the fleet has refused to this instance of late.
pub(crate) struct Denials {
    /// Zero: nothing is remembered.
    horizon: Duration,
    names_max_per_generation: usize,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    floors: Floors,
}

/// Two generations of refusals.
#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
    /// When the young one began.
    begun: MonoTime,
}

type Generation = HashMap<Box<[u8]>, Refusal, RandomState>;

#[derive(Clone, Copy)]
struct Refusal {
    cost: u32,
    remaining: u32,
    stamp: Stamp,
    /// Until when it is surely true.
    until: MonoTime,
    /// When who was told at once comes again.
    retry_at: MonoTime,
    reset_at: MonoTime,
}

/// A question about a key, before it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    at: MonoTime,
    stamp: Stamp,
}

impl Denials {
    /// Remembers refusals for `horizon` at most, of `names_max` names at most.
    pub(crate) fn new(horizon: Duration, names_max: usize) -> Self {
        Self {
            horizon,
            names_max_per_generation: names_max.div_ceil(2 * SHARDS),
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            floors: Floors::new(),
        }
    }

    /// The refusal of `cost` cells of what the user calls `name`, if it is known to be true still.
    /// Takes a lock for some instructions, and allocates nothing.
    pub(crate) fn recall(&self, name: &[u8], cost: u32, now: MonoTime) -> Option<Decision> {
        if self.horizon.is_zero() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let refusal = {
            let shard = self.shard(name).lock();
            *shard.young.get(name).or_else(|| shard.old.get(name))?
        };
        let is_true = cost >= refusal.cost && now < refusal.until;
        (is_true && self.floors.holds(refusal.stamp)).then(|| refusal.decision(now))
    }

    /// Notes that `key` is about to be asked about.
    pub(crate) fn asking(&self, key: &Key, now: MonoTime) -> Asked {
        Asked { at: now, stamp: self.floors.stamp(key.as_bytes()) }
    }

    /// Remembers the answer to `cost` cells, which came in at `now`, if it is a refusal.
    pub(crate) fn learn(
        &self,
        name: &[u8],
        asked: Asked,
        cost: u32,
        answer: &Answer,
        now: MonoTime,
    ) {
        let Verdict { is_allowed, remaining, retry_after_us, reset_after_us } = answer.verdict;
        let retry_after = Duration::from_micros(retry_after_us);
        let until = asked.at.plus(retry_after.min(self.horizon));
        if is_allowed || until <= now || name.len() > NAME_BYTES_MAX {
            return;
        }
        let refusal = Refusal {
            cost,
            remaining,
            stamp: asked.stamp,
            until,
            retry_at: now.plus(retry_after),
            reset_at: now.plus(Duration::from_micros(reset_after_us)),
        };
        let mut shard = self.shard(name).lock();
        let gone = self.turn(&mut shard, now);
        if let Some(known) = shard.young.get_mut(name) {
            *known = refusal;
        } else {
            shard.young.insert(name.into(), refusal);
        }
        drop(shard);
        // Thousands of names may be in it: freed outside the lock.
        drop(gone);
    }

    /// Forgets what is known of `key`, and what is on its way.
    pub(crate) fn void(&self, key: &[u8]) {
        self.floors.raise(key);
    }

    /// Forgets all, and what is on its way.
    pub(crate) fn void_all(&self) {
        self.floors.raise_all();
    }

    /// Begins a generation when it is time: what is forgotten, if anything is.
    fn turn(&self, shard: &mut Shard, now: MonoTime) -> Option<Generation> {
        let is_full = shard.young.len() >= self.names_max_per_generation;
        if !is_full && now.since(shard.begun) < self.horizon {
            return None;
        }
        shard.begun = now;
        let young = mem::take(&mut shard.young);
        Some(mem::replace(&mut shard.old, young))
    }

    fn shard(&self, name: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let each = self.shards.iter().map(|shard| shard.lock());
        each.map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

impl Refusal {
    fn decision(&self, now: MonoTime) -> Decision {
        let left_us = |time: MonoTime| time.since(now).as_micros() as u64;
        let verdict = Verdict {
            is_allowed: false,
            remaining: self.remaining,
            retry_after_us: left_us(self.retry_at),
            reset_after_us: left_us(self.reset_at),
        };
        Decision::new(verdict, Source::Remembered)
    }
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::Namespace;

    use super::*;

    const X: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_micros(86_400_000_000 + 1_000 * millis)
    }

    fn key(name: &str) -> Key {
        Namespace::new("test").unwrap().tag("limiter", name.as_bytes()).unwrap().key()
    }

    fn refused(millis: u64) -> Answer {
        let retry_after_us = 1_000 * millis;
        let verdict = Verdict { retry_after_us, reset_after_us: 9_000_000, ..Verdict::default() };
        Answer { verdict, ..Answer::default() }
    }

    /// Asks at one time, and hears that `cost` is refused at another.
    fn learn(denials: &Denials, name: &str, cost: u32, retry_ms: u64, [sent, heard]: [u64; 2]) {
        let asked = denials.asking(&key(name), at(sent));
        denials.learn(name.as_bytes(), asked, cost, &refused(retry_ms), at(heard));
    }

    fn retry_ms(denials: &Denials, name: &str, cost: u32, now: u64) -> Option<u128> {
        let decision = denials.recall(name.as_bytes(), cost, at(now))?;
        assert!(!decision.is_allowed() && decision.source() == Source::Remembered);
        Some(decision.retry_after()?.as_millis())
    }

    // Red when it counts from the answer, and when it remembers for longer than the horizon.
    #[test]
    fn refusal_holds_from_the_question_on_and_for_the_horizon_at_most() {
        let denials = Denials::new(X, 100);
        learn(&denials, "a", 1, 300, [0, 40]);
        assert_eq!(retry_ms(&denials, "a", 1, 40), Some(300));
        assert_eq!(retry_ms(&denials, "a", 1, 299), Some(41));
        assert_eq!(retry_ms(&denials, "a", 1, 300), None);
        learn(&denials, "b", 1, 60_000, [0, 40]);
        assert_eq!(retry_ms(&denials, "b", 1, 999), Some(59_041));
        assert_eq!(retry_ms(&denials, "b", 1, 1_000), None);
        assert_eq!(denials.recall(b"b", 1, at(999)).unwrap().reset_after().as_millis(), 8_041);
    }

    // Red without the look at the cost: a cheaper call would be refused that may be allowed.
    #[test]
    fn refusal_says_nothing_of_a_cheaper_call() {
        let denials = Denials::new(X, 100);
        learn(&denials, "a", 5, 500, [0, 1]);
        assert_eq!(retry_ms(&denials, "a", 4, 2), None);
        assert!(retry_ms(&denials, "a", 5, 2).is_some() && retry_ms(&denials, "a", 9, 2).is_some());
    }

    #[test]
    fn refusal_that_is_on_its_way_when_its_key_is_voided_is_void() {
        let denials = Denials::new(X, 100);
        let asked = denials.asking(&key("a"), at(0));
        denials.void(key("a").as_bytes());
        denials.learn(b"a", asked, 1, &refused(500), at(1));
        assert_eq!(retry_ms(&denials, "a", 1, 2), None);
        learn(&denials, "a", 1, 500, [2, 3]);
        assert!(retry_ms(&denials, "a", 1, 4).is_some());
        denials.void_all();
        assert_eq!(retry_ms(&denials, "a", 1, 4), None);
    }

    #[test]
    fn names_are_bounded_in_number_and_in_length() {
        let denials = Denials::new(X, 320);
        for name in 0..10_000 {
            learn(&denials, &name.to_string(), 1, 500, [0, 1]);
        }
        assert!((200..=320).contains(&denials.len()), "{}", denials.len());
        assert!(retry_ms(&denials, "9999", 1, 2).is_some(), "the last one is remembered");
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        learn(&denials, &long, 1, 500, [0, 1]);
        assert_eq!(retry_ms(&denials, &long, 1, 2), None);
    }

    #[test]
    fn what_is_over_makes_room_by_and_by() {
        let denials = Denials::new(X, 32_000);
        for name in 0..2_000 {
            learn(&denials, &name.to_string(), 1, 500, [0, 1]);
        }
        for turn in 1..=2 {
            for name in 0..200 {
                let sent = 1_500 * turn;
                learn(&denials, &format!("later-{name}"), 1, 500, [sent, sent + 1]);
            }
        }
        assert_eq!(denials.len(), 400, "200 of each generation");
    }

    #[test]
    fn horizon_of_zero_remembers_nothing() {
        let denials = Denials::new(Duration::ZERO, 100);
        learn(&denials, "a", 1, 500, [0, 1]);
        assert_eq!((denials.len(), retry_ms(&denials, "a", 1, 2)), (0, None));
    }
}
