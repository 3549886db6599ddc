//! One flight per key: whoever comes while it is under way waits for its result.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The flights of one kind under way.
pub(crate) struct Flights<T> {
    under_way: Mutex<HashMap<Bytes, Arc<Flight<T>>>>,
    max: usize,
}

struct Flight<T> {
    /// The result; `None` inside means that its leader left without one.
    done: OnceLock<Option<T>>,
    landed: Notify,
    /// How many follow, and what became of them: see the constants.
    crowd: AtomicU32,
    /// The last follower has left.
    left: Notify,
}

/// All followers have left, so nobody may join any more: the leader has been told to give up.
const ABANDONED: u32 = 1 << 31;
/// The result is wanted even if nobody waits for it.
const WANTED: u32 = 1 << 30;
/// The bits that count followers.
const FOLLOWERS: u32 = WANTED - 1;

/// The part of a caller in a flight.
pub(crate) enum Role<T: Clone> {
    /// It is to find the result, and to tell the others.
    Leader(Leader<T>),
    /// Somebody else is at it.
    Follower(Follower<T>),
}

/// The duty to land a flight. Dropping it lets the followers know that they are on their own.
pub(crate) struct Leader<T: Clone> {
    flights: Arc<Flights<T>>,
    key: Bytes,
    flight: Arc<Flight<T>>,
}

/// A wait for a flight.
pub(crate) struct Follower<T>(Arc<Flight<T>>);

impl<T: Clone> Flights<T> {
    /// At most `max` flights can be joined; further ones fly alone.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::new(HashMap::new()), max })
    }

    /// Joins the flight of `key`, or begins one.
    pub(crate) fn join(self: &Arc<Self>, key: &Bytes) -> Role<T> {
        let mut under_way = self.under_way.lock();
        let full = under_way.len() >= self.max;
        match under_way.entry(key.clone()) {
            Entry::Occupied(mut place) => {
                if let Some(follower) = Follower::join(place.get()) {
                    return Role::Follower(follower);
                }
                let flight = Flight::begun();
                place.insert(Arc::clone(&flight));
                Role::Leader(Leader { flights: Arc::clone(self), key: key.clone(), flight })
            }
            Entry::Vacant(place) => {
                let flight = Flight::begun();
                // A flight that is not in the table can be joined by nobody and detached by
                // nobody, which costs a second load and never a wrong value: what it inserts is
                // still judged by its stamp.
                if !full {
                    place.insert(Arc::clone(&flight));
                }
                Role::Leader(Leader { flights: Arc::clone(self), key: key.clone(), flight })
            }
        }
    }

    /// Begins a flight that nobody can join.
    pub(crate) fn alone(self: &Arc<Self>, key: &Bytes) -> Leader<T> {
        Leader { flights: Arc::clone(self), key: key.clone(), flight: Flight::begun() }
    }

    /// Runs `work` unless somebody runs the same already, and gives everyone the result.
    ///
    /// The leader's work is part of its own future. When it is dropped, one of the others leads.
    pub(crate) async fn share<F>(self: &Arc<Self>, key: &Bytes, work: impl Fn() -> F) -> T
    where
        F: Future<Output = T>,
    {
        loop {
            match self.join(key) {
                Role::Leader(leader) => {
                    // Its own future waits for it.
                    leader.let_finish();
                    let result = work().await;
                    leader.land(result.clone());
                    return result;
                }
                Role::Follower(follower) => {
                    if let Some(result) = follower.wait().await {
                        return result;
                    }
                }
            }
        }
    }

    /// Lets later callers begin a flight of their own, because what this one finds is old.
    pub(crate) fn detach(&self, key: &[u8]) {
        self.under_way.lock().remove(key);
    }

    /// The same for all flights.
    pub(crate) fn detach_all(&self) {
        self.under_way.lock().clear();
    }

    /// How many flights are under way.
    pub(crate) fn len(&self) -> usize {
        self.under_way.lock().len()
    }
}

impl<T> Flight<T> {
    fn begun() -> Arc<Self> {
        Arc::new(Self {
            done: OnceLock::new(),
            landed: Notify::new(),
            crowd: AtomicU32::new(0),
            left: Notify::new(),
        })
    }

    fn is_abandoned(&self) -> bool {
        self.crowd.load(Ordering::Acquire) & ABANDONED != 0
    }
}

impl<T: Clone> Leader<T> {
    /// A wait for the own flight, for a leader that hands its duty to a task. To be called before
    /// that task begins.
    pub(crate) fn follow(&self) -> Follower<T> {
        self.flight.crowd.fetch_add(1, Ordering::AcqRel);
        Follower(Arc::clone(&self.flight))
    }

    /// Says that the result is wanted even if nobody waits for it.
    pub(crate) fn let_finish(&self) {
        self.flight.crowd.fetch_or(WANTED, Ordering::AcqRel);
    }

    /// Returns when the last who waited has left, and the result is not wanted without them.
    pub(crate) async fn abandoned(&self) {
        loop {
            let left = self.flight.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.flight.is_abandoned() {
                return;
            }
            left.await;
        }
    }

    /// Lets later callers begin a flight of their own.
    pub(crate) fn detach(&self) {
        let mut under_way = self.flights.under_way.lock();
        if under_way.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            under_way.remove(&self.key);
        }
    }

    /// Gives everyone the result.
    pub(crate) fn land(self, result: T) {
        let _first = self.flight.done.set(Some(result));
    }
}

impl<T: Clone> Drop for Leader<T> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock();
        if let Entry::Occupied(place) = under_way.entry(std::mem::take(&mut self.key)) {
            // After a detach another flight may have the place.
            if Arc::ptr_eq(place.get(), &self.flight) {
                place.remove();
            }
        }
        drop(under_way);
        let _landed = self.flight.done.set(None);
        self.flight.landed.notify_waiters();
    }
}

impl<T> Follower<T> {
    /// `None` if all who followed before have left.
    fn join(flight: &Arc<Flight<T>>) -> Option<Self> {
        let joined = |crowd: u32| (crowd & ABANDONED == 0).then_some(crowd + 1);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        flight.crowd.fetch_update(order.0, order.1, joined).ok()?;
        Some(Self(Arc::clone(flight)))
    }

    /// Says that the result is wanted although this one waits no longer.
    pub(crate) fn let_finish(&self) {
        self.0.crowd.fetch_or(WANTED, Ordering::AcqRel);
    }
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        let left = |crowd: u32| {
            let rest = crowd - 1;
            Some(if rest & (FOLLOWERS | WANTED) == 0 { rest | ABANDONED } else { rest })
        };
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let before = self.0.crowd.fetch_update(order.0, order.1, left);
        if before.is_ok_and(|crowd| crowd & (FOLLOWERS | WANTED) == 1) {
            self.0.left.notify_waiters();
        }
    }
}

impl<T: Clone> Follower<T> {
    /// The result; `None` if the leader left without one.
    pub(crate) async fn wait(&self) -> Option<T> {
        loop {
            let landed = self.0.landed.notified();
            tokio::pin!(landed);
            // Listening must begin before the look, or a landing in between would be missed.
            landed.as_mut().enable();
            if let Some(done) = self.0.done.get() {
                return done.clone();
            }
            landed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key() -> Bytes {
        Bytes::from_static(b"key")
    }

    #[tokio::test]
    async fn a_dropped_leader_is_followed_by_one_of_those_who_wait() {
        let flights = Flights::<u32>::new(10);
        let runs = Arc::new(AtomicUsize::new(0));
        let work = || {
            let runs = Arc::clone(&runs);
            move || {
                let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
                async move { if first { std::future::pending().await } else { 7 } }
            }
        };
        let (table, first_work, second_work) = (Arc::clone(&flights), work(), work());
        let leader = tokio::spawn(async move { table.share(&key(), first_work).await });
        while runs.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let table = Arc::clone(&flights);
        let follower = tokio::spawn(async move { table.share(&key(), second_work).await });
        tokio::task::yield_now().await;
        leader.abort();
        assert_eq!(follower.await.unwrap(), 7);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn after_a_detach_a_caller_flies_alone_and_the_table_ends_empty() {
        let flights = Flights::<u32>::new(10);
        let Role::Leader(old) = flights.join(&key()) else { panic!("the first leads") };
        let joined = old.follow();
        flights.detach(&key());
        let Role::Leader(new) = flights.join(&key()) else { panic!("the next leads again") };
        old.land(1);
        assert_eq!(flights.len(), 1, "the old flight must not take the new one's place away");
        new.land(2);
        assert_eq!((joined.wait().await, flights.len()), (Some(1), 0));
    }

    #[tokio::test]
    async fn a_full_table_lets_callers_fly_alone() {
        let flights = Flights::<u32>::new(1);
        let _held = flights.join(&key());
        let other = Bytes::from_static(b"other");
        let Role::Leader(alone) = flights.join(&other) else { panic!("nobody is there to join") };
        assert_eq!(flights.len(), 1);
        alone.land(1);
        assert_eq!(flights.len(), 1);
    }
}
