//! The purses of all keys, and whether there may be any.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{Key, MonoTime};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::Terms;
use super::purse::{Lot, Purse, Rest, Taken};
use crate::denials::NAME_BYTES_MAX;
use crate::floors::{Floors, Stamp};
use crate::receipt::Receipt;
use crate::telemetry::LeaseTelemetry;

/// Locks. Callers of different keys rarely meet at one.
const SHARDS: usize = 16;

/// Hands receipts to who gives their cells back to the fleet.
pub(crate) type GiveBack = Box<dyn Fn(Vec<Receipt>) + Send + Sync>;

/// All that this instance has bought ahead. Dropped, it gives it back.
pub(crate) struct Leases {
    terms: LiveTerms,
    keys_max_per_shard: usize,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    floors: Floors,
    /// Not after the shutdown.
    is_open: AtomicBool,
    is_swept: AtomicBool,
    /// Purchases on their way.
    on_their_way: AtomicUsize,
    give_back: GiveBack,
    telemetry: LeaseTelemetry,
}

type Shard = HashMap<Box<[u8]>, Purse, RandomState>;

/// Terms that may change. Each is read by itself: for a moment one of them can be of before.
struct LiveTerms {
    cells_max: AtomicU32,
    lifetime_us: AtomicU64,
}

impl LiveTerms {
    fn new(terms: Terms) -> Self {
        let live = Self { cells_max: AtomicU32::new(0), lifetime_us: AtomicU64::new(0) };
        live.set(terms);
        live
    }

    fn set(&self, Terms { cells_max, lifetime }: Terms) {
        self.cells_max.store(cells_max, Ordering::Relaxed);
        self.lifetime_us.store(lifetime.as_micros() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Terms {
        Terms {
            cells_max: self.cells_max.load(Ordering::Relaxed),
            lifetime: Duration::from_micros(self.lifetime_us.load(Ordering::Relaxed)),
        }
    }
}

impl Leases {
    pub(crate) fn new(
        terms: Terms,
        keys_max: usize,
        give_back: GiveBack,
        telemetry: LeaseTelemetry,
    ) -> Self {
        Self {
            terms: LiveTerms::new(terms),
            keys_max_per_shard: keys_max.div_ceil(SHARDS),
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            floors: Floors::new(),
            is_open: AtomicBool::new(true),
            is_swept: AtomicBool::new(false),
            on_their_way: AtomicUsize::new(0),
            give_back,
            telemetry,
        }
    }

    pub(crate) fn terms(&self) -> Terms {
        self.terms.get()
    }

    /// What is bought from now on is by these terms, and what was bought before is given back.
    pub(crate) fn change(&self, terms: Terms) {
        self.terms.set(terms);
        self.floors.raise_all();
        let mut gone = Vec::new();
        for shard in &self.shards {
            shard.lock().values_mut().for_each(|purse| purse.empty(&mut gone));
        }
        self.give(gone);
    }

    pub(crate) fn telemetry(&self) -> &LeaseTelemetry {
        &self.telemetry
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Takes `cost` cells of what the user calls `name`, if they are in hand. It takes a lock for
    /// some instructions. It allocates only for a key that is new, and when leases run out.
    pub(crate) fn take(&self, name: &[u8], cost: u32, now: MonoTime) -> Taken {
        if name.len() > NAME_BYTES_MAX || !self.is_open() {
            return Taken::default();
        }
        let mut gone = Vec::new();
        let mut shard = self.shard(name).lock();
        let taken = if let Some(purse) = shard.get_mut(name) {
            purse.take(cost, now, &self.terms(), &self.floors, &mut gone)
        } else {
            let is_kept = shard.len() < self.keys_max_per_shard && !name.is_empty();
            if is_kept {
                shard.insert(name.into(), Purse::new(now));
            }
            Taken { is_kept, ..Taken::default() }
        };
        if taken.buy.is_some() {
            self.on_their_way.fetch_add(1, Ordering::AcqRel);
        }
        drop(shard);
        self.give(gone);
        taken
    }

    /// Notes what an exact answer said is left of a key.
    pub(crate) fn learn(&self, name: &[u8], rest: Rest) {
        if let Some(purse) = self.shard(name).lock().get_mut(name) {
            purse.learn(rest);
        }
    }

    /// Notes that cells of `key` are about to be bought.
    pub(crate) fn stamp(&self, key: &Key) -> Stamp {
        self.floors.stamp(key.as_bytes())
    }

    /// Ends a purchase: with what was granted, if anything was. What cannot be used, because the
    /// shutdown came first, is handed back.
    pub(crate) fn bought(
        &self,
        name: &[u8],
        lot: Option<Lot>,
        rest: Rest,
        now: MonoTime,
    ) -> Option<Receipt> {
        let mut shard = self.shard(name).lock();
        let rejected = match shard.get_mut(name) {
            Some(purse) if self.is_open() => {
                purse.bought(lot, rest, now);
                None
            }
            _ => lot.and_then(Lot::into_rest),
        };
        drop(shard);
        rejected
    }

    /// A purchase that began has ended, and what it left is given back.
    pub(crate) fn arrived(&self) {
        self.on_their_way.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn is_any_on_its_way(&self) -> bool {
        self.on_their_way.load(Ordering::Acquire) > 0
    }

    /// Makes void what is in hand of `key`, and what is on its way.
    pub(crate) fn void(&self, key: &[u8]) {
        self.floors.raise(key);
    }

    /// Whether the caller is the one to sweep from now on, until
    /// [`end_sweeping`](Self::end_sweeping).
    pub(crate) fn begin_sweeping(&self) -> bool {
        !self.is_swept.load(Ordering::Relaxed) && !self.is_swept.swap(true, Ordering::AcqRel)
    }

    /// Gives back what is over or idle, and forgets keys that are not called any more. Whether there
    /// is anything left to sweep later.
    pub(crate) fn sweep(&self, now: MonoTime) -> bool {
        let mut gone = Vec::new();
        let mut is_empty = true;
        let terms = self.terms();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, purse| purse.sweep(now, &terms, &self.floors, &mut gone));
            is_empty &= shard.is_empty();
        }
        self.give(gone);
        !is_empty
    }

    /// Nobody sweeps any more. A key that came meanwhile is swept by whoever calls it next.
    pub(crate) fn end_sweeping(&self) {
        self.is_swept.store(false, Ordering::Release);
    }

    /// No lease is bought or used any more. All that is in hand.
    pub(crate) fn close(&self) -> Vec<Receipt> {
        self.is_open.store(false, Ordering::Release);
        let mut gone = Vec::new();
        for shard in &self.shards {
            for (_, mut purse) in shard.lock().drain() {
                purse.empty(&mut gone);
            }
        }
        gone
    }

    fn give(&self, gone: Vec<Receipt>) {
        if !gone.is_empty() {
            (self.give_back)(gone);
        }
    }

    fn shard(&self, name: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let gone = self.close();
        self.give(gone);
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("terms", &self.terms()).finish_non_exhaustive()
    }
}
