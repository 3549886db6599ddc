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

use fleetwide_core_traits::{Key, MonoTime, ServerTime};
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
    own: A,
    instances: NonZeroU32,
    table: Arc<Table<A>>,
}

/// The keys; the same whatever the quota is.
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
    pub(crate) fn new(whole: A, instances: NonZeroU32, keys_max: usize) -> Self {
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
        Self { whole, own: whole.share(instances), instances, table: Arc::new(table) }
    }

    /// The share of another quota, of which as much is spent.
    pub(crate) fn with(&self, whole: A) -> Self {
        let (instances, table) = (self.instances, Arc::clone(&self.table));
        Self { whole, own: whole.share(instances), instances, table }
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
        if cost > self.own.cost_max() {
            return Ok(None);
        }
        let mut shard = self.shard(key).lock();
        if !shard.spent.contains_key(key) {
            self.make_room(&mut shard, now)?;
        }
        let start = self.start(&shard, key, now);
        shard.forget_known(key);
        let (verdict, next) = self.own.decide(start.as_ref(), local(now), cost);
        // Also kept when it only holds what the fleet had said, which is forgotten from now on.
        if let Some(state) = next.or(start) {
            shard.spent.insert(key.clone(), state);
        }
        Ok(Some(verdict))
    }

    /// What [`decide`](Self::decide) would say; a cost above the share is refused.
    pub(crate) fn peek(&self, key: &Key, cost: u32, now: MonoTime) -> Verdict {
        let shard = self.shard(key).lock();
        let start = self.start(&shard, key, now);
        let verdict = self.own.peek(start.as_ref(), local(now), cost.min(self.own.cost_max()));
        Verdict { is_allowed: verdict.is_allowed && cost <= self.own.cost_max(), ..verdict }
    }

    /// How many keys have spent something.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.shards.iter().map(|shard| shard.lock().spent.len()).sum()
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard<A>> {
        &self.table.shards[self.table.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Where `key` stands: by what was spent here, or by what the fleet had said, whichever leaves
    /// less. So a share that was used up in one outage is not there again in the next.
    fn start(&self, shard: &Shard<A>, key: &Key, now: MonoTime) -> Option<A::State> {
        let spent = shard.spent.get(key).cloned();
        let told = shard.known(key).and_then(|known| self.told(known));
        let left =
            |state: &Option<A::State>| self.own.peek(state.as_ref(), local(now), 0).remaining;
        if left(&told) < left(&spent) { told } else { spent }
    }

    /// The state of a share after the fleet said what is left: the same part of it is left.
    fn told(&self, known: Known) -> Option<A::State> {
        let (share, whole) = (self.own.cost_max(), self.whole.cost_max());
        let left = u64::from(whole.saturating_sub(known.spent));
        let left = left * u64::from(share) / u64::from(whole);
        let spent = share - left as u32;
        (spent > 0).then(|| self.own.spent(spent, local(known.at)))
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
mod tests {
    use fleetwide_core_traits::Namespace;

    use super::*;
    use crate::{BucketQuota, FixedQuota, GcraQuota, LogQuota, WindowQuota};

    const SECOND: Duration = Duration::from_secs(1);

    fn key(name: usize) -> Key {
        let namespace = Namespace::new("test").unwrap();
        namespace.tag("limiter", name.to_string().as_bytes()).unwrap().key()
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_micros(1_000_000 * (86_400 + seconds))
    }

    /// One of two instances that share 10 cells in any minute.
    fn window(keys_max: usize) -> Share<WindowQuota> {
        let ten = WindowQuota::new(10, 60 * SECOND).unwrap();
        Share::new(ten, NonZeroU32::new(2).unwrap(), keys_max)
    }

    fn spend<A: Algorithm>(share: &Share<A>, name: usize, now: MonoTime) -> bool {
        share.decide(&key(name), 1, now).unwrap().unwrap().is_allowed
    }

    fn spend_all<A: Algorithm>(share: &Share<A>, name: usize, now: MonoTime) -> usize {
        (0..1_000).take_while(|_| spend(share, name, now)).count()
    }

    #[test]
    fn instance_spends_its_share_and_no_more() {
        assert_eq!(spend_all(&window(100), 1, at(0)), 5);
        let gcra = GcraQuota::new(10, SECOND, 9).unwrap();
        let share = Share::new(gcra, NonZeroU32::new(3).unwrap(), 100);
        assert_eq!(spend_all(&share, 1, at(0)), 3);
        assert_eq!(spend_all(&share, 1, at(0).plus(Duration::from_millis(299))), 0);
        assert_eq!(spend_all(&share, 1, at(0).plus(Duration::from_millis(300))), 1);
    }

    #[test]
    fn share_of_each_algorithm_is_its_part_of_the_cells() {
        fn spent_of<A: Algorithm>(whole: A) -> usize {
            spend_all(&Share::new(whole, NonZeroU32::new(3).unwrap(), 100), 1, at(0))
        }
        assert_eq!(spent_of(BucketQuota::new(10, SECOND, 9).unwrap()), 3);
        assert_eq!(spent_of(FixedQuota::new(10, 60 * SECOND).unwrap()), 3);
        assert_eq!(spent_of(LogQuota::new(10, 60 * SECOND).unwrap()), 3);
    }

    #[test]
    fn share_starts_from_what_the_fleet_said_is_left() {
        let share = window(100);
        share.learn(&key(1), 4, at(0));
        share.learn(&key(2), 0, at(0));
        share.learn(&key(3), 10, at(0));
        assert_eq!([1, 2, 3].map(|name| spend_all(&share, name, at(1))), [2, 0, 5]);
        // What had been spent by then leaves the window when it is a minute old.
        assert_eq!([1, 2, 3].map(|name| spend_all(&share, name, at(61))), [3, 5, 0]);
    }

    // Red when another quota has a table of its own, and when what the fleet said counts as a part of
    // the new quota instead of as cells.
    #[test]
    fn share_of_another_quota_has_as_much_spent() {
        let share = window(100);
        assert_eq!(spend_all(&share, 1, at(0)), 5);
        share.learn(&key(2), 0, at(0));
        let twenty = share.with(WindowQuota::new(20, 60 * SECOND).unwrap());
        assert_eq!([1, 2].map(|name| spend_all(&twenty, name, at(1))), [5, 5]);
        assert_eq!(spend_all(&share, 1, at(2)), 0);
    }

    #[test]
    fn share_survives_a_backend_that_comes_and_goes() {
        let share = window(100);
        assert_eq!(spend_all(&share, 1, at(0)), 5);
        // The backend came back empty, as after a restart, and says that all is left.
        share.learn(&key(1), 10, at(1));
        assert_eq!(spend_all(&share, 1, at(2)), 0);
    }

    #[test]
    fn cost_above_the_share_is_not_decided_here() {
        assert_eq!(window(100).decide(&key(1), 6, at(0)), Ok(None));
        assert!(!window(100).peek(&key(1), 6, at(0)).is_allowed);
    }

    #[test]
    fn peek_spends_nothing() {
        let share = window(100);
        share.learn(&key(1), 4, at(0));
        for _ in 0..3 {
            assert_eq!(share.peek(&key(1), 1, at(0)).remaining, 2);
        }
        assert_eq!((share.len(), spend_all(&share, 1, at(0))), (0, 2));
    }

    #[test]
    fn full_table_refuses_new_keys_rather_than_forget_what_was_spent() {
        let share = window(160);
        let names: Vec<_> =
            (0..400).filter(|&name| share.decide(&key(name), 5, at(0)).is_ok()).collect();
        assert_eq!(share.len(), names.len());
        assert!(names.len() <= 160, "{} keys", names.len());
        for name in names {
            assert!(!spend(&share, name, at(1)), "{name} got a second share");
        }
        // When all have their cells back, there is room again.
        assert!((1_000..1_050).all(|name| spend(&share, name, at(70))));
    }

    #[test]
    fn what_the_fleet_said_is_bounded_too() {
        let share = window(160);
        for name in 0..10_000 {
            share.learn(&key(name), 0, at(0));
        }
        let known: usize = share
            .table
            .shards
            .iter()
            .map(|shard| shard.lock().known.iter().map(HashMap::len).sum::<usize>())
            .sum();
        assert!(known <= 160, "{known} keys");
        assert!(!spend(&share, 9_999, at(1)), "what was said last is remembered");
    }

    #[test]
    fn reset_gives_a_key_its_share_back() {
        let share = window(100);
        assert_eq!(spend_all(&share, 1, at(0)), 5);
        share.forget(&key(1));
        assert_eq!(spend_all(&share, 1, at(0)), 5);
    }
}
