//! Who waits for which key in this process: one queue per key, of which only the head asks.
//!
//! Nothing here waits or asks. A place in a queue ends with its [`Place`], however its owner leaves,
//! and the next one has its turn.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Locks. Callers of different keys rarely meet at one.
const SHARDS: usize = 16;
/// A crowd that would take the quota's time many times over is better told to go.
const WAITERS_PER_KEY_MAX: usize = 1_024;
/// Some tens of megabytes, the futures of the callers included.
const WAITERS_MAX: usize = 65_536;

/// The queues of one limiter.
pub(crate) struct Queues {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    bounds: Bounds,
    next_ticket: AtomicU64,
}

/// How many may wait at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) per_key: usize,
    pub(crate) in_all: usize,
}

#[derive(Default)]
struct Shard {
    lines: HashMap<Box<[u8]>, Line, RandomState>,
    waiting: usize,
}

/// The queue of one key; the head is the first.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiter>,
    /// When the head asks again, at the earliest.
    asks_at: Option<Instant>,
}

struct Waiter {
    ticket: u64,
    /// Until when it would wait.
    until: Instant,
    /// Gone once it has its turn.
    told: Option<oneshot::Sender<Turn>>,
}

/// What a waiter is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the head now.
    Ask,
    /// The head asks again after its time is over.
    TooLate {
        /// When the head asks again.
        asks_at: Instant,
    },
}

/// Why somebody has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// So many wait already.
    Full(usize),
    /// The head asks again after its time is over.
    TooLate(Instant),
}

impl Queues {
    pub(crate) fn of_limiter() -> Self {
        Self::new(Bounds { per_key: WAITERS_PER_KEY_MAX, in_all: WAITERS_MAX })
    }

    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            bounds,
            next_ticket: AtomicU64::new(0),
        }
    }

    /// Takes the last place in the queue of `key`, for somebody who would wait until `until`.
    pub(crate) fn enter(&self, key: &[u8], until: Instant) -> Result<Place<'_>, NoPlace> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let shard = &mut *self.shard(key).lock();
        if shard.waiting >= self.bounds.in_all.div_ceil(SHARDS) {
            return Err(NoPlace::Full(self.bounds.in_all));
        }
        let turn = match shard.lines.entry(key.into()) {
            Entry::Vacant(vacant) => {
                let head = Waiter { ticket, until, told: None };
                let line = Line { waiting: VecDeque::from([head]), asks_at: None };
                vacant.insert(line);
                None
            }
            Entry::Occupied(line) => {
                let line = line.into_mut();
                if let Some(asks_at) = line.asks_at.filter(|asks_at| *asks_at > until) {
                    return Err(NoPlace::TooLate(asks_at));
                }
                if line.waiting.len() >= self.bounds.per_key {
                    return Err(NoPlace::Full(self.bounds.per_key));
                }
                let (told, turn) = oneshot::channel();
                line.waiting.push_back(Waiter { ticket, until, told: Some(told) });
                Some(turn)
            }
        };
        shard.waiting += 1;
        Ok(Place { queues: self, key: key.into(), ticket, turn })
    }

    /// Whether nobody waits for `key`.
    pub(crate) fn is_free(&self, key: &[u8]) -> bool {
        !self.shard(key).lock().lines.contains_key(key)
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Queues, and who waits in all of them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(lines, waiting), shard| {
            let shard = shard.lock();
            let here: usize = shard.lines.values().map(|line| line.waiting.len()).sum();
            assert_eq!(here, shard.waiting);
            (lines + shard.lines.len(), waiting + here)
        })
    }
}

/// A place in a queue. Dropped, it is free, and who is the head then has its turn.
#[must_use = "dropped, the place is gone"]
pub(crate) struct Place<'a> {
    queues: &'a Queues,
    key: Box<[u8]>,
    ticket: u64,
    turn: Option<oneshot::Receiver<Turn>>,
}

impl Place<'_> {
    /// Waits until this is the head, or cannot be in time.
    pub(crate) async fn turn(&mut self) -> Turn {
        match &mut self.turn {
            // A place is told before it is dropped, and only this one drops it.
            Some(turn) => turn.await.unwrap_or(Turn::Ask),
            None => Turn::Ask,
        }
    }

    /// Says when this place, which is the head, asks again. Who would not wait for so long is told,
    /// and leaves.
    pub(crate) fn asks_at(&self, asks_at: Instant) {
        let mut late = Vec::new();
        {
            let shard = &mut *self.queues.shard(&self.key).lock();
            let Some(line) = shard.lines.get_mut(&self.key) else { return };
            line.asks_at = Some(asks_at);
            let waiting = std::mem::take(&mut line.waiting);
            for mut waiter in waiting {
                if waiter.ticket != self.ticket && waiter.until < asks_at {
                    shard.waiting -= 1;
                    late.extend(waiter.told.take());
                } else {
                    line.waiting.push_back(waiter);
                }
            }
        }
        // Told outside the lock: that wakes their tasks.
        for told in late {
            let _ = told.send(Turn::TooLate { asks_at });
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let next = {
            let shard = &mut *self.queues.shard(&self.key).lock();
            let Some(line) = shard.lines.get_mut(&self.key) else { return };
            let at = line.waiting.iter().position(|waiter| waiter.ticket == self.ticket);
            let Some(at) = at else { return };
            line.waiting.remove(at);
            shard.waiting -= 1;
            match line.waiting.front_mut() {
                None => {
                    shard.lines.remove(&self.key);
                    None
                }
                Some(_) if at > 0 => None,
                Some(head) => {
                    let told = head.told.take();
                    line.asks_at = None;
                    told
                }
            }
        };
        if let Some(told) = next {
            // Who left meanwhile gives the turn on by its own drop.
            let _ = told.send(Turn::Ask);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    fn queues(per_key: usize, in_all: usize) -> Queues {
        Queues::new(Bounds { per_key, in_all })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn enter<'a>(queues: &'a Queues, key: &str) -> Place<'a> {
        queues.enter(key.as_bytes(), soon()).ok().unwrap()
    }

    fn turn(place: &mut Place<'_>) -> Option<Turn> {
        place.turn().now_or_never()
    }

    #[test]
    fn turns_go_by_the_order_of_arrival_and_keys_are_apart() {
        let queues = queues(8, 1_024);
        let mut places: Vec<_> = (0..4).map(|_| enter(&queues, "a")).collect();
        assert_eq!(turn(&mut enter(&queues, "b")), Some(Turn::Ask));
        while !places.is_empty() {
            assert_eq!(turn(&mut places[0]), Some(Turn::Ask));
            for later in &mut places[1..] {
                assert_eq!(turn(later), None);
            }
            drop(places.remove(0));
        }
        assert_eq!(queues.len(), (0, 0));
    }

    // Red when only a head that has had its turn hands it on: the third one waits for ever.
    #[test]
    fn who_leaves_before_or_after_its_turn_hands_it_on() {
        let queues = queues(8, 1_024);
        let [first, second, third, mut fourth] = [(); 4].map(|()| enter(&queues, "a"));
        drop(third);
        drop(first);
        // It has its turn, and leaves without having looked.
        drop(second);
        assert_eq!(turn(&mut fourth), Some(Turn::Ask));
        drop(fourth);
        assert_eq!(queues.len(), (0, 0));
    }

    #[test]
    fn who_would_not_wait_for_the_head_is_told_at_once() {
        let queues = queues(8, 1_024);
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let head = queues.enter(b"a", at(60)).ok().unwrap();
        let mut short = queues.enter(b"a", at(3)).ok().unwrap();
        let mut long = queues.enter(b"a", at(30)).ok().unwrap();
        head.asks_at(at(10));
        assert_eq!(turn(&mut short), Some(Turn::TooLate { asks_at: at(10) }));
        assert_eq!(turn(&mut long), None);
        assert_eq!(queues.enter(b"a", at(9)).err(), Some(NoPlace::TooLate(at(10))));
        drop(head);
        assert_eq!(turn(&mut long), Some(Turn::Ask));
        drop((short, long));
        assert_eq!(queues.len(), (0, 0));
    }

    #[test]
    fn waiters_are_bounded_for_each_key_and_in_all() {
        let few = queues(3, 1_024);
        let _places: Vec<_> = (0..3).map(|_| enter(&few, "a")).collect();
        assert_eq!(few.enter(b"a", soon()).err(), Some(NoPlace::Full(3)));
        let queues = queues(1_024, 64);
        let places: Vec<_> =
            (0..1_000).map_while(|n| queues.enter(&[n as u8; 3], soon()).ok()).collect();
        assert!(places.len() <= 64 && places.len() > 8, "{}", places.len());
    }
}
