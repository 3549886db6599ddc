//! The sessions that this process has to do with: what each has in L1, and how it fares.
//!
//! Both tables forget what was used least lately, so they are bounded whatever callers do. One lock
//! guards a sixteenth of the sessions, and is held for a few instructions.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{Clock, MonoTime};
use lru::LruCache;
use parking_lot::Mutex;

use crate::id::ShortId;
use crate::place::{Place, SessionId};
use crate::telemetry::Telemetry;

const SHARDS: usize = 16;

/// The sessions in use here.
pub(crate) struct Roster {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    limits: Limits,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Which shard is looked through next for sessions that are idle.
    sweep: AtomicUsize,
}

/// How much a [`Roster`] keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sessions at a time.
    pub(crate) sessions: usize,
    /// Entries that one session may have in L1; `None` if they are not counted.
    pub(crate) entries: Option<usize>,
    /// A session that was not used for so long is forgotten.
    pub(crate) idle: Duration,
}

/// Sessions, the one used last first.
type Shard = LruCache<SessionId, Book, RandomState>;

/// What is known here of one session.
struct Book {
    /// What it has in L1, the key used last first.
    entries: LruCache<Arc<str>, Option<Known>, RandomState>,
    counts: Counts,
    used: MonoTime,
}

/// The id of an entry, and how long it surely has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: ShortId,
    pub(crate) until: MonoTime,
}

/// What was counted for one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    hits: u64,
    misses: u64,
    evictions: u64,
}

/// How one session fares in this process, since it was first used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Reads that some tier answered.
    pub hits: u64,
    /// Reads that no tier answered, those that a loader answered included.
    pub misses: u64,
    /// Entries that left this process because the session had too many here.
    pub evictions: u64,
    /// Entries that it has in this process; 0 where they are not counted.
    pub entries: u64,
    /// How long it was not used here.
    pub idle: Duration,
}

impl SessionStats {
    /// Hits among all reads, 0 to 1; `None` before the first read.
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}

impl Roster {
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>, telemetry: Arc<Telemetry>) -> Self {
        let shard = |_| Mutex::new(LruCache::unbounded_with_hasher(RandomState::new()));
        Self {
            shards: std::array::from_fn(shard),
            hasher: RandomState::new(),
            limits,
            clock,
            telemetry,
            sweep: AtomicUsize::new(0),
        }
    }

    /// An entry of L1 was asked for: it leaves last now.
    pub(crate) fn touch(&self, place: &Place) {
        if self.limits.entries.is_some() {
            let mut shard = self.shard(place.session()).lock();
            if let Some(book) = shard.peek_mut(place.session()) {
                book.entries.promote(place.shared_key());
            }
        }
    }

    /// An entry has come into L1. Returns what has to leave it in its place.
    pub(crate) fn admit(&self, place: &Place) -> Vec<Place> {
        let Some(max) = self.limits.entries else { return Vec::new() };
        let mut shard = self.shard(place.session()).lock();
        let mut gone = self.book(&mut shard, place.session());
        let Some(book) = shard.get_mut(place.session()) else { return gone };
        let known = book.entries.pop(place.shared_key()).flatten();
        book.entries.put(Arc::clone(place.shared_key()), known);
        while book.entries.len() > max {
            let Some((key, _)) = book.entries.pop_lru() else { break };
            book.counts.evictions += 1;
            self.telemetry.evictions.add();
            gone.extend(Place::new(place.session(), &key));
        }
        gone
    }

    /// An entry has left L1.
    pub(crate) fn forget(&self, place: &Place) {
        let mut shard = self.shard(place.session()).lock();
        if let Some(book) = shard.peek_mut(place.session()) {
            book.entries.pop(place.shared_key());
        }
    }

    /// L1 is empty, and what was known of ids may be wrong. Counts stay.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            for (_, book) in shard.lock().iter_mut() {
                book.entries.clear();
            }
        }
    }

    /// A session has ended. Returns what it had in L1.
    pub(crate) fn end(&self, session: &SessionId) -> Vec<Place> {
        let book = self.shard(session).lock().pop(session);
        book.map_or_else(Vec::new, |book| self.closed(session, &book))
    }

    /// Counts a read. Returns what has to leave L1, because other sessions had to be forgotten.
    #[must_use]
    pub(crate) fn count(&self, session: &SessionId, hit: bool) -> Vec<Place> {
        let mut shard = self.shard(session).lock();
        let gone = self.book(&mut shard, session);
        if let Some(book) = shard.get_mut(session) {
            if hit {
                book.counts.hits += 1;
            } else {
                book.counts.misses += 1;
            }
        }
        gone
    }

    /// What is known of the id of an entry in L1, if it surely has it until `until`.
    pub(crate) fn known(&self, place: &Place, until: MonoTime) -> Option<Known> {
        let shard = self.shard(place.session()).lock();
        let known = shard.peek(place.session())?.entries.peek(place.shared_key())?.as_ref()?;
        (known.until >= until).then_some(*known)
    }

    /// Remembers the id of an entry, for as long as it is in L1.
    pub(crate) fn learn(&self, place: &Place, known: Known) {
        let mut shard = self.shard(place.session()).lock();
        let book = shard.peek_mut(place.session());
        if let Some(held) = book.and_then(|book| book.entries.peek_mut(place.shared_key())) {
            *held = Some(known);
        }
    }

    pub(crate) fn stats(&self, session: &SessionId) -> Option<SessionStats> {
        let shard = self.shard(session).lock();
        let book = shard.peek(session)?;
        let idle = self.clock.now().since(book.used);
        let Counts { hits, misses, evictions } = book.counts;
        let entries = book.entries.len() as u64;
        (idle <= self.limits.idle).then_some(SessionStats {
            hits,
            misses,
            evictions,
            entries,
            idle,
        })
    }

    /// How many sessions were used lately.
    pub(crate) fn active(&self) -> u64 {
        let now = self.clock.now();
        let in_use = |book: &Book| now.since(book.used) <= self.limits.idle;
        let of_shard = |shard: &Mutex<Shard>| {
            // Sorted by their last use, so the first idle one ends the search.
            shard.lock().iter().take_while(|(_, book)| in_use(book)).count() as u64
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Forgets the idle sessions of the next shard. Returns what has to leave L1.
    #[must_use]
    pub(crate) fn sweep(&self) -> Vec<Place> {
        let at = self.sweep.fetch_add(1, Ordering::Relaxed) % SHARDS;
        self.shrink(&mut self.shards[at].lock(), usize::MAX)
    }

    /// Makes sure that the session has a book, and that it counts as used. Returns what has to
    /// leave L1, because other sessions had to be forgotten.
    fn book(&self, shard: &mut Shard, session: &SessionId) -> Vec<Place> {
        let used = self.clock.now();
        if let Some(book) = shard.get_mut(session) {
            book.used = used;
            return Vec::new();
        }
        let entries = LruCache::unbounded_with_hasher(RandomState::new());
        shard.put(session.clone(), Book { entries, counts: Counts::default(), used });
        self.telemetry.active.increment(1.0);
        self.shrink(shard, self.limits.sessions.div_ceil(SHARDS))
    }

    /// Forgets sessions that are idle, or too many.
    fn shrink(&self, shard: &mut Shard, max: usize) -> Vec<Place> {
        let now = self.clock.now();
        let mut gone = Vec::new();
        while let Some((_, book)) = shard.peek_lru() {
            if shard.len() <= max && now.since(book.used) <= self.limits.idle {
                break;
            }
            if let Some((session, book)) = shard.pop_lru() {
                gone.extend(self.closed(&session, &book));
            }
        }
        gone
    }

    fn closed(&self, session: &SessionId, book: &Book) -> Vec<Place> {
        self.telemetry.active.decrement(1.0);
        book.entries.iter().filter_map(|(key, _)| Place::new(session, key).ok()).collect()
    }

    fn shard(&self, session: &SessionId) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(session) as usize % SHARDS]
    }
}
