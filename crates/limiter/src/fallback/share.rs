//! This instance's share of the quota, counted here while the backend gives no answer.
//!
//! What was spent of a share is never forgotten to make room: the key would get a new share. A full
//! table refuses new keys instead, until some key has all its cells back. What is forgotten first
//! is only what the fleet said was left, from which a share would have started lower.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Key, Membership, MonoTime, ServerTime};
use parking_lot::Mutex;

use crate::Verdict;
use crate::algorithm::Algorithm;

/// Locks. Callers meet at one when their keys happen to share it, for well below a microsecond.
const SHARDS: usize = 16;
/// A look at all keys for room takes tens of microseconds, so not every refused call may cause one.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// What each key has spent of this instance's share.
pub(crate) struct Share<A: Algorithm> {
    whole: A,
    /// The part of it that this instance has while it assumes no more instances than it was told of.
    largest: A,
    instances: Instances,
    table: Arc<Table<A>>,
}

/// How many instances divide the quota: never fewer than this one was told of, and more while more are
/// known to live.
#[derive(Clone)]
pub(crate) struct Instances {
    pub(crate) least: NonZeroU32,
    pub(crate) membership: Option<Arc<dyn Membership>>,
}

/// The keys; the same whatever the quota is, and however many instances divide it.
struct Table<A: Algorithm> {
    hasher: RandomState,
    shards: Box<[Mutex<Shard<A>>]>,
    keys_max_per_shard: usize,
}

struct Shard<A: Algorithm> {
    spent: HashMap<Key, A::State>,
    /// What the fleet last said, in two generations: the older one is forgotten as a whole.
    known: [HashMap<Key, Known>; 2],
    sweep_at: MonoTime,
}

#[derive(Clone, Copy)]
struct Known {
    spent: u32,
    at: MonoTime,
}

/// There is no room for one more key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<A: Algorithm> Share<A> {
    pub(crate) fn new(whole: A, instances: Instances, keys_max: usize) -> Self {
        let shard = || {
            let known = [HashMap::new(), HashMap::new()];
            let sweep_at = MonoTime::default();
            Mutex::new(Shard { spent: HashMap::new(), known, sweep_at })
        };
        let table = Table {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            keys_max_per_shard: keys_max.div_ceil(SHARDS),
        };
        Self { whole, largest: whole.share(instances.least), instances, table: Arc::new(table) }
    }

    /// The share of another quota, of which as much is spent.
    pub(crate) fn with(&self, whole: A) -> Self {
        let (instances, table) = (self.instances.clone(), Arc::clone(&self.table));
        Self { whole, largest: whole.share(instances.least), instances, table }
    }

    /// Remembers what the fleet says is left of `key`.
    pub(crate) fn learn(&self, key: &Key, remaining: u32, now: MonoTime) {
        let known = &mut self.shard(key).lock().known;
        if known[0].len() >= self.table.keys_max_per_shard.div_ceil(2)
            && !known[0].contains_key(key)
        {
            known[1] = mem::take(&mut known[0]);
        }
        let spent = self.whole.cost_max().saturating_sub(remaining);
        known[0].insert(key.clone(), Known { spent, at: now });
    }

    /// Forgets `key`, as a reset does.
    pub(crate) fn forget(&self, key: &Key) {
        let mut shard = self.shard(key).lock();
        shard.spent.remove(key);
        shard.forget_known(key);
    }

    /// Spends `cost` of this instance's share of `key`. `None` if the cost is above the share.
    ///
    /// # Errors
    /// [`Full`]; then nothing is spent.
    pub(crate) fn decide(
        &self,
        key: &Key,
        cost: u32,
        now: MonoTime,
    ) -> Result<Option<Verdict>, Full> {
        let own = self.own();
        if cost > own.cost_max() {
            return Ok(None);
        }
        let mut shard = self.shard(key).lock();
        if !shard.spent.contains_key(key) {
            self.make_room(&mut shard, now)?;
        }
        let start = self.start(own, &shard, key, now);
        shard.forget_known(key);
        let (verdict, next) = own.decide(start.as_ref(), local(now), cost);
        // Also kept when it only holds what the fleet had said, which is forgotten from now on.
        if let Some(state) = next.or(start) {
            shard.spent.insert(key.clone(), state);
        }
        Ok(Some(verdict))
    }

    /// What [`decide`](Self::decide) would say; a cost above the share is refused.
    pub(crate) fn peek(&self, key: &Key, cost: u32, now: MonoTime) -> Verdict {
        let own = self.own();
        let shard = self.shard(key).lock();
        let start = self.start(own, &shard, key, now);
        let verdict = own.peek(start.as_ref(), local(now), cost.min(own.cost_max()));
        Verdict { is_allowed: verdict.is_allowed && cost <= own.cost_max(), ..verdict }
    }

    /// Whether a share is as large, by as many instances as are assumed now.
    pub(crate) fn can_have(&self, cost: u32) -> bool {
        cost <= self.own().cost_max()
    }

    /// Whether `key` has a place, or there is one for it.
    pub(crate) fn has_room(&self, key: &Key, now: MonoTime) -> bool {
        let mut shard = self.shard(key).lock();
        shard.spent.contains_key(key) || self.make_room(&mut shard, now).is_ok()
    }

    /// How many keys have spent something.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.shards.iter().map(|shard| shard.lock().spent.len()).sum()
    }

    /// This instance's part, by as many instances as are assumed now. States hold the parameters that
    /// they were written with, so what was spent of a part of another size stays spent.
    fn own(&self) -> A {
        match self.instances.assumed() {
            least if least == self.instances.least => self.largest,
            more => self.whole.share(more),
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard<A>> {
        &self.table.shards[self.table.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Where `key` stands: by what was spent here, or by what the fleet had said, whichever leaves
    /// less. So a share that was used up in one outage is not there again in the next.
    fn start(&self, own: A, shard: &Shard<A>, key: &Key, now: MonoTime) -> Option<A::State> {
        let spent = shard.spent.get(key).cloned();
        let told = shard.known(key).and_then(|known| self.told(own, known));
        let left = |state: &Option<A::State>| own.peek(state.as_ref(), local(now), 0).remaining;
        if left(&told) < left(&spent) { told } else { spent }
    }

    /// The state of a share after the fleet said what is left: the same part of it is left.
    fn told(&self, own: A, known: Known) -> Option<A::State> {
        let (share, whole) = (own.cost_max(), self.whole.cost_max());
        let left = u64::from(whole.saturating_sub(known.spent));
        let left = left * u64::from(share) / u64::from(whole);
        let spent = share - left as u32;
        (spent > 0).then(|| own.spent(spent, local(known.at)))
    }

    fn make_room(&self, shard: &mut Shard<A>, now: MonoTime) -> Result<(), Full> {
        let keys_max = self.table.keys_max_per_shard;
        if shard.spent.len() >= keys_max && now >= shard.sweep_at {
            shard.sweep_at = now.plus(SWEEP_EVERY);
            shard.spent.retain(|_, state| !A::lives(state, local(now)).is_zero());
        }
        if shard.spent.len() < keys_max { Ok(()) } else { Err(Full) }
    }
}

impl Instances {
    pub(crate) fn assumed(&self) -> NonZeroU32 {
        let live = self.membership.as_ref().and_then(|membership| membership.instances());
        live.map_or(self.least, |live| live.max(self.least))
    }
}

impl<A: Algorithm> Shard<A> {
    fn known(&self, key: &Key) -> Option<Known> {
        self.known.iter().find_map(|generation| generation.get(key)).copied()
    }

    fn forget_known(&mut self, key: &Key) {
        for generation in &mut self.known {
            generation.remove(key);
        }
    }
}

/// This instance decides by its own clock, which never goes back.
const fn local(now: MonoTime) -> ServerTime {
    ServerTime::from_micros(now.as_micros())
}

#[cfg(test)]
mod tests;
