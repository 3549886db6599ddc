//! What the fleet is known to have spent, for a server that loses its memory.
//!
//! A replica that is promoted may have missed writes that were acknowledged. What the fleet had spent
//! of a key is known to every instance that was told of it: each answer says how much all have spent,
//! and until when it counts. So each instance keeps the last answer per key, and after a failover
//! those that survived make it good ([`Merge`](crate::op::Merge)): all at once, as soon as they are
//! told ([`push`]), and each call on a key before it is decided.
//!
//! An answer counts for the history of the data that it is from. What was learned in another one than
//! the latest is *owed*: to be made good in the latest. That may be more than is missing there, but
//! does no harm: the server takes the larger of what it knows and what it is told. So it does not
//! matter whether an answer arrives before or after the news of a failover, nor whether a deposed
//! primary goes on answering: its answers are of an earlier history, and owed as they come.
//!
//! Times run by this instance's own clock, from the arrival of an answer, which is later than its
//! decision; so a debt is never made smaller than it is, and larger by a trip at most.

mod debt;
pub(crate) mod push;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use fleetwide_core_traits::{Epoch, Key, MonoTime};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::debt::Debt;
use crate::Mark;

/// Locks. Callers of different keys rarely meet at one.
const SHARDS: usize = 16;

/// What one limiter knows of all keys.
pub(crate) struct Debts {
    /// 0: nothing is kept.
    keys_max_per_shard: usize,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// The latest history that is known of.
    epoch: AtomicU64,
    /// Debts that are owed, in all shards.
    owed: AtomicUsize,
    /// Told when something is owed, and at the end.
    news: Arc<Notify>,
    /// Whether a task makes good what is owed.
    is_attended: AtomicBool,
}

#[derive(Default)]
struct Shard {
    epoch: Epoch,
    /// What was learned in this history.
    seen: Table,
    /// What was learned in earlier ones and is not known to be made good in this one.
    owed: Table,
}

type Table = HashMap<Key, Debt, RandomState>;

impl Debts {
    /// Keeps what is known of `keys_max` keys, and of as many for which it is owed.
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            keys_max_per_shard: keys_max.div_ceil(SHARDS),
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            epoch: AtomicU64::new(0),
            owed: AtomicUsize::new(0),
            news: Arc::default(),
            is_attended: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.keys_max_per_shard > 0
    }

    /// Notes what an answer of `epoch` that came in at `now` said of `key`.
    pub(crate) fn learn(&self, key: &Key, debt: Debt, epoch: Epoch, now: MonoTime) {
        if debt.is_over(now) {
            return;
        }
        self.advance(epoch);
        let mut shard = self.shard(key).lock();
        if epoch >= shard.epoch {
            note(&mut shard.seen, key, debt, self.keys_max_per_shard, now, Debt::learn);
            return;
        }
        self.count(&mut shard, |shard| {
            note(&mut shard.owed, key, debt, self.keys_max_per_shard, now, Debt::include);
        });
        drop(shard);
        self.news.notify_one();
    }

    /// Notes that the data have another history now: what was learned so far is owed. One load if it
    /// is known.
    pub(crate) fn advance(&self, epoch: Epoch) {
        let number = epoch.number();
        if number <= self.epoch.load(Ordering::Acquire) {
            return;
        }
        // The shards first: who finds the new number finds what is owed.
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.epoch < epoch {
                self.count(&mut shard, |shard| shard.turn(epoch, self.keys_max_per_shard));
            }
        }
        self.epoch.fetch_max(number, Ordering::AcqRel);
        self.news.notify_one();
    }

    /// What is owed of `key`. One load if nothing is owed at all.
    pub(crate) fn owed(&self, key: &Key, now: MonoTime) -> Option<Debt> {
        if self.owed.load(Ordering::Acquire) == 0 {
            return None;
        }
        let owed = self.shard(key).lock().owed.get(key).copied();
        owed.filter(|debt| !debt.is_over(now))
    }

    /// Whether anything is owed.
    pub(crate) fn is_any_owed(&self) -> bool {
        self.owed.load(Ordering::Acquire) > 0
    }

    /// All that is owed in one of the shards; what is over is forgotten.
    fn owed_in(&self, shard: usize, now: MonoTime) -> Vec<(Key, Debt)> {
        let mut shard = self.shards[shard].lock();
        self.count(&mut shard, |shard| shard.owed.retain(|_, debt| !debt.is_over(now)));
        shard.owed.iter().map(|(key, debt)| (key.clone(), *debt)).collect()
    }

    /// Notes that `debt` was made good in `epoch`.
    pub(crate) fn paid(&self, key: &Key, debt: &Debt, epoch: Epoch) {
        let mut shard = self.shard(key).lock();
        // In an earlier history it was paid in vain, and a debt that has grown was paid in part.
        if epoch >= shard.epoch && shard.owed.get(key) == Some(debt) {
            self.count(&mut shard, |shard| _ = shard.owed.remove(key));
        }
    }

    /// Forgets what is known of `key`: it was reset.
    pub(crate) fn forget(&self, key: &Key) {
        let mut shard = self.shard(key).lock();
        shard.seen.remove(key);
        self.count(&mut shard, |shard| _ = shard.owed.remove(key));
    }

    /// Forgets what is known of `key` from before `generation`, which a reset has begun. What was spent
    /// after it may have been answered before.
    pub(crate) fn forget_before(&self, key: &Key, generation: u64) {
        let is_void = |debt: &Debt| debt.mark().generation < generation;
        let mut shard = self.shard(key).lock();
        if shard.seen.get(key).is_some_and(is_void) {
            shard.seen.remove(key);
        }
        if shard.owed.get(key).is_some_and(is_void) {
            self.count(&mut shard, |shard| _ = shard.owed.remove(key));
        }
    }

    /// Where the history of `key` stands, for all that is known.
    pub(crate) fn mark(&self, key: &Key) -> Option<Mark> {
        self.shard(key).lock().seen.get(key).map(Debt::mark)
    }

    /// Notes that so much, in the units of its algorithm, was given back of `key`, which stood at
    /// `before` when that was asked for. If it stands elsewhere now, an answer that came meanwhile may
    /// have said so already, and taken off twice it would be less than is owed.
    pub(crate) fn give_back(&self, key: &Key, given: u64, before: Option<Mark>) {
        let mut shard = self.shard(key).lock();
        if let Some(debt) = shard.seen.get_mut(key)
            && Some(debt.mark()) == before
        {
            debt.give_back(given);
        }
    }

    /// Changes a shard, and keeps the count of what is owed.
    fn count(&self, shard: &mut Shard, change: impl FnOnce(&mut Shard)) {
        let before = shard.owed.len();
        change(shard);
        let after = shard.owed.len();
        self.owed.fetch_add(after.wrapping_sub(before), Ordering::AcqRel);
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

impl Drop for Debts {
    fn drop(&mut self) {
        // Who attends to them finds them gone.
        self.news.notify_one();
    }
}

impl Shard {
    /// Begins a history: what was learned in the one before is owed.
    fn turn(&mut self, epoch: Epoch, keys_max: usize) {
        self.epoch = epoch;
        let seen = std::mem::take(&mut self.seen);
        if self.owed.is_empty() {
            self.owed = seen;
            return;
        }
        for (key, debt) in seen {
            note(&mut self.owed, &key, debt, keys_max, MonoTime::default(), Debt::include);
        }
    }
}

/// Puts `debt` into a table, together with what is there of the key.
fn note(
    table: &mut Table,
    key: &Key,
    debt: Debt,
    keys_max: usize,
    now: MonoTime,
    join: impl FnOnce(&mut Debt, Debt, MonoTime),
) {
    if let Some(known) = table.get_mut(key) {
        join(known, debt, now);
        return;
    }
    if table.len() >= keys_max {
        make_room(table, keys_max, now);
    }
    table.insert(key.clone(), debt);
}

/// Forgets what is over, and if that is little, the quarter that will be over first: it is what does
/// the least harm, and so one sweep serves many keys.
fn make_room(table: &mut Table, keys_max: usize, now: MonoTime) {
    table.retain(|_, debt| !debt.is_over(now));
    let quarter = keys_max.div_ceil(4);
    if table.len() + quarter <= keys_max {
        return;
    }
    let mut ends: Vec<MonoTime> = table.values().map(Debt::until).collect();
    if ends.is_empty() {
        return;
    }
    let last = quarter.min(ends.len()) - 1;
    let (_, &mut last, _) = ends.select_nth_unstable(last);
    let mut surplus = quarter;
    table.retain(|_, debt| {
        let goes = debt.until() <= last && surplus > 0;
        surplus -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod lossless;
#[cfg(test)]
mod tests;
