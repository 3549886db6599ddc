//! Who is in flight, and who waits for the next flight: one lane per key with a call in flight.
//!
//! Nothing here waits or sends. A lane exists exactly while somebody answers for it: the caller who
//! found none ([`Enter::First`]), and after it the task that flies for all who came meanwhile.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use fleetwide_core_traits::{BackendError, Key};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::Quota;
use crate::op::Compared;

/// Locks. Callers of different keys rarely meet at one.
const SHARDS: usize = 16;

/// What a waiter is told.
pub(super) type Reply = Result<Compared, BackendError>;

pub(super) struct Lanes {
    shards: Box<[Mutex<HashMap<Key, Lane, RandomState>>]>,
    hasher: RandomState,
    bounds: Bounds,
}

/// What may be waiting at most. Beyond it callers go apart, which costs a trip each and is as exact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) keys: usize,
    pub(super) waiters_per_key: usize,
}

struct Lane {
    /// By which all of them are decided.
    quota: Quota,
    waiting: VecDeque<Waiter>,
    /// When the flight must be back, whatever became of it.
    back_by: Instant,
}

/// A caller who waits for a flight. Its place in the queue is its place in the batch.
pub(super) struct Waiter {
    pub(super) cost: u32,
    pub(super) answer: oneshot::Sender<Reply>,
}

/// How a caller goes on.
pub(super) enum Enter {
    /// Nobody is in flight: fly at once, and see to those who come meanwhile.
    First,
    /// Somebody is: the answer comes with a later flight.
    Joined(oneshot::Receiver<Reply>),
    /// There is no room: fly alone.
    Apart,
}

impl Lanes {
    pub(super) fn new(bounds: Bounds) -> Self {
        let hasher = RandomState::default();
        // A hasher of their own: keys of one shard have equal bits in the other one.
        let shard = || Mutex::new(HashMap::with_hasher(RandomState::default()));
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher, bounds }
    }

    /// Takes a place among those of the same quota. A flight that begins now must be back by
    /// `back_by`.
    pub(super) fn enter(
        &self,
        key: &Key,
        quota: Quota,
        cost: u32,
        now: Instant,
        back_by: Instant,
    ) -> Enter {
        let mut lanes = self.shard(key).lock();
        if let Some(lane) = lanes.get_mut(key) {
            // A flight that is not back in time is not flown any more: its task belongs to a
            // runtime that nobody drives. Who would join it would wait in vain.
            let is_full = lane.waiting.len() >= self.bounds.waiters_per_key;
            if is_full || lane.back_by < now || lane.quota != quota {
                return Enter::Apart;
            }
            let (answer, told) = oneshot::channel();
            lane.waiting.push_back(Waiter { cost, answer });
            return Enter::Joined(told);
        }
        if lanes.len() >= self.bounds.keys.div_ceil(SHARDS) {
            return Enter::Apart;
        }
        lanes.insert(key.clone(), Lane { quota, waiting: VecDeque::new(), back_by });
        Enter::First
    }

    /// The next flight's passengers: at most `max` of those who wait, the first first. Who has left
    /// is left behind. With nobody left the lane is gone, and the caller's duty with it.
    pub(super) fn board(&self, key: &Key, max: usize, back_by: Instant) -> Option<Vec<Waiter>> {
        let mut lanes = self.shard(key).lock();
        let Entry::Occupied(mut lane) = lanes.entry(key.clone()) else { return None };
        let Lane { waiting, back_by: held, .. } = lane.get_mut();
        *held = back_by;
        let mut boarded = Vec::with_capacity(waiting.len().min(max));
        while boarded.len() < max
            && let Some(waiter) = waiting.pop_front()
        {
            if !waiter.answer.is_closed() {
                boarded.push(waiter);
            }
        }
        if boarded.is_empty() {
            lane.remove();
            return None;
        }
        Some(boarded)
    }

    /// Whether somebody waits; if nobody does, the lane is gone, and the caller's duty with it.
    pub(super) fn leave_if_empty(&self, key: &Key) -> bool {
        let mut lanes = self.shard(key).lock();
        let is_empty = lanes.get(key).is_none_or(|lane| lane.waiting.is_empty());
        if is_empty {
            lanes.remove(key);
        }
        is_empty
    }

    /// Ends the lane although somebody may wait. Who does is told by the end of its channel.
    pub(super) fn abandon(&self, key: &Key) {
        // Waiters are dropped outside the lock: that wakes their tasks.
        let lane = self.shard(key).lock().remove(key);
        drop(lane);
    }

    fn shard(&self, key: &Key) -> &Mutex<HashMap<Key, Lane, RandomState>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Lanes, and callers who wait in all of them.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(lanes, waiting), shard| {
            let shard = shard.lock();
            let here: usize = shard.values().map(|lane| lane.waiting.len()).sum();
            (lanes + shard.len(), waiting + here)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetwide_core_traits::Namespace;

    use super::*;

    fn key(name: usize) -> Key {
        Namespace::new("test").unwrap().tag("limiter", name.to_string().as_bytes()).unwrap().key()
    }

    fn lanes(keys: usize, waiters_per_key: usize) -> Lanes {
        Lanes::new(Bounds { keys, waiters_per_key })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn quota(max: u64) -> Quota {
        Quota::sliding_window(max, Duration::from_secs(60)).unwrap()
    }

    fn enter(lanes: &Lanes, name: usize, cost: u32) -> Enter {
        lanes.enter(&key(name), quota(10), cost, Instant::now(), soon())
    }

    fn join(lanes: &Lanes, name: usize, cost: u32) -> Option<oneshot::Receiver<Reply>> {
        match enter(lanes, name, cost) {
            Enter::Joined(told) => Some(told),
            Enter::First | Enter::Apart => None,
        }
    }

    fn board(lanes: &Lanes, name: usize, max: usize) -> Vec<u32> {
        let boarded = lanes.board(&key(name), max, soon()).unwrap_or_default();
        boarded.iter().map(|waiter| waiter.cost).collect()
    }

    #[test]
    fn first_goes_at_once_and_the_others_in_their_order() {
        let lanes = lanes(64, 64);
        assert!(matches!(enter(&lanes, 1, 9), Enter::First));
        let _told: Vec<_> = (1..=5).map(|cost| join(&lanes, 1, cost).unwrap()).collect();
        assert!(matches!(enter(&lanes, 2, 9), Enter::First), "keys are apart");
        assert_eq!(board(&lanes, 1, 3), [1, 2, 3]);
        assert_eq!(board(&lanes, 1, 3), [4, 5]);
        assert!(board(&lanes, 1, 3).is_empty());
        assert!(matches!(enter(&lanes, 1, 9), Enter::First), "the lane is gone");
    }

    // Red without the look at the quota: a call would be decided by that of another.
    #[test]
    fn call_by_another_quota_does_not_join() {
        let lanes = lanes(64, 64);
        assert!(matches!(enter(&lanes, 1, 9), Enter::First));
        let other = lanes.enter(&key(1), quota(11), 1, Instant::now(), soon());
        assert!(matches!(other, Enter::Apart));
        assert!(join(&lanes, 1, 1).is_some());
    }

    // Red when a closed channel is boarded: its cost would be spent for nobody.
    #[test]
    fn who_leaves_before_the_flight_is_not_on_it() {
        let lanes = lanes(64, 64);
        assert!(matches!(enter(&lanes, 1, 9), Enter::First));
        let [first, _second, third, _fourth] = [1, 2, 3, 4].map(|cost| join(&lanes, 1, cost));
        drop((first, third));
        assert_eq!(board(&lanes, 1, 9), [2, 4]);
        let last = join(&lanes, 1, 5);
        drop(last);
        assert!(board(&lanes, 1, 9).is_empty());
        assert_eq!(lanes.len(), (0, 0), "nobody answers for a lane that nobody needs");
    }

    #[test]
    fn queue_and_table_are_bounded() {
        let lanes = lanes(160, 3);
        let told: Vec<_> = (0..1_000)
            .flat_map(|name| [1, 2, 3, 4, 5].map(|cost| join(&lanes, name, cost)))
            .collect();
        let (keys, waiting) = lanes.len();
        assert!(keys <= 160 && waiting == 3 * keys, "{keys} keys, {waiting} waiting");
        assert_eq!(told.iter().flatten().count(), waiting);
    }

    #[test]
    fn who_waits_in_a_lane_that_is_given_up_is_told_at_once() {
        let lanes = lanes(64, 64);
        assert!(matches!(enter(&lanes, 1, 9), Enter::First));
        let mut told = join(&lanes, 1, 1).unwrap();
        lanes.abandon(&key(1));
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    // Red without the look at `back_by`: callers would join a flight whose task is not run.
    #[test]
    fn flight_that_is_not_back_in_time_is_not_waited_for() {
        let lanes = lanes(64, 64);
        let now = Instant::now();
        let back_by = now + Duration::from_millis(20);
        assert!(matches!(lanes.enter(&key(1), quota(10), 1, now, back_by), Enter::First));
        assert!(matches!(lanes.enter(&key(1), quota(10), 1, back_by, soon()), Enter::Joined(_)));
        let late = back_by + Duration::from_millis(1);
        assert!(matches!(lanes.enter(&key(1), quota(10), 1, late, soon()), Enter::Apart));
    }
}
