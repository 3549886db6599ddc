//! One flight per key: whoever comes while it is under way waits for its result.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ledger::{Ledger, Place, Use};

/// The flights of one kind under way.
pub(crate) struct Flights<T> {
    under_way: Mutex<HashMap<Bytes, Arc<Flight<T>>>>,
    ledger: Arc<Ledger>,
    used_for: Use,
}

struct Flight<T> {
    /// Whether there was room for it. If not, it is its callers' own: when they leave, it ends.
    has_place: bool,
    /// The result; `None` inside means that its leader left without one.
    done: OnceLock<Option<T>>,
    landed: Notify,
    /// How many follow, and what became of them: see the constants. The leader's own place is among
    /// them from the beginning: who joins and leaves before it has taken it ends nothing.
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
    /// Held as long as somebody flies, also after a detach.
    _place: Option<Place>,
}

/// A wait for a flight.
pub(crate) struct Follower<T>(Arc<Flight<T>>);

impl<T: Clone> Flights<T> {
    /// As many flights can be joined as find room; further ones fly alone.
    pub(crate) fn new(ledger: &Arc<Ledger>, used_for: Use) -> Arc<Self> {
        let under_way = Mutex::new(HashMap::new());
        Arc::new(Self { under_way, ledger: Arc::clone(ledger), used_for })
    }

    /// Joins the flight of `key`, or begins one.
    pub(crate) fn join(self: &Arc<Self>, key: &Bytes) -> Role<T> {
        let mut under_way = self.under_way.lock();
        if let Some(follower) = under_way.get(key).and_then(Follower::join) {
            return Role::Follower(follower);
        }
        let leader = self.alone(key);
        // A flight that is not in the table can be joined by nobody and detached by nobody, which
        // costs a second load and never a wrong value: what it inserts is still judged by its stamp.
        if leader.has_place() {
            // In the place of one whose followers have left, if there is such a one.
            under_way.insert(key.clone(), Arc::clone(&leader.flight));
        }
        Role::Leader(leader)
    }

    /// Begins a flight that nobody can join.
    pub(crate) fn alone(self: &Arc<Self>, key: &Bytes) -> Leader<T> {
        let place = self.ledger.place(self.used_for, key.len());
        let flight = Flight::begun(place.is_some());
        Leader { flights: Arc::clone(self), key: key.clone(), flight, _place: place }
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
    fn begun(has_place: bool) -> Arc<Self> {
        Arc::new(Self {
            has_place,
            done: OnceLock::new(),
            landed: Notify::new(),
            crowd: AtomicU32::new(1),
            left: Notify::new(),
        })
    }

    fn let_finish(&self) {
        if self.has_place {
            self.crowd.fetch_or(WANTED, Ordering::AcqRel);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.crowd.load(Ordering::Acquire) & ABANDONED != 0
    }
}

impl<T: Clone> Leader<T> {
    /// A wait for the own flight, for a leader that hands its duty to a task: the place that it has
    /// from the beginning. To be called once at most, before that task begins.
    pub(crate) fn follow(&self) -> Follower<T> {
        Follower(Arc::clone(&self.flight))
    }

    /// Says that the result is wanted even if nobody waits for it, if there was room for the flight:
    /// what nobody waits for and nothing counts could be any number.
    pub(crate) fn let_finish(&self) {
        self.flight.let_finish();
    }

    /// Whether there was room for it, so that it may go on when nobody waits for it any more.
    pub(crate) fn has_place(&self) -> bool {
        self.flight.has_place
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

    /// Says that the result is wanted although this one waits no longer: as
    /// [`Leader::let_finish`].
    pub(crate) fn let_finish(&self) {
        self.0.let_finish();
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

    use std::time::Duration;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const ROOMY: u64 = 1 << 20;

    fn key() -> Bytes {
        Bytes::from_static(b"key")
    }

    /// The budget in which a load of a short key finds room, and no second one.
    fn one_load() -> u64 {
        Use::Load.bytes(key().len()) * 3 / 2
    }

    fn taken<T>(from: &mut Vec<T>, at: usize) -> Option<T> {
        (!from.is_empty()).then(|| from.swap_remove(at % from.len()))
    }

    fn flights(bytes_max: u64) -> Arc<Flights<u32>> {
        Flights::new(&Ledger::new(bytes_max), Use::Load)
    }

    fn leader(flights: &Arc<Flights<u32>>, key: &Bytes) -> Leader<u32> {
        let Role::Leader(leader) = flights.join(key) else { panic!("nobody is there to join") };
        leader
    }

    #[tokio::test]
    async fn a_dropped_leader_is_followed_by_one_of_those_who_wait() {
        let flights = flights(ROOMY);
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
        let flights = flights(ROOMY);
        let Role::Leader(old) = flights.join(&key()) else { panic!("the first leads") };
        let joined = old.follow();
        flights.detach(&key());
        let Role::Leader(new) = flights.join(&key()) else { panic!("the next leads again") };
        old.land(1);
        assert_eq!(flights.len(), 1, "the old flight must not take the new one's place away");
        new.land(2);
        assert_eq!((joined.wait().await, flights.len()), (Some(1), 0));
    }

    /// Red when the leader's place is counted only once it follows.
    #[tokio::test]
    async fn who_joins_and_leaves_before_the_leader_follows_ends_nothing() {
        let flights = flights(ROOMY);
        let leader = leader(&flights, &key());
        let Role::Follower(hasty) = flights.join(&key()) else { panic!("a flight is under way") };
        drop(hasty);
        let own = leader.follow();
        assert_eq!(leader.abandoned().now_or_never(), None);
        let Role::Follower(other) = flights.join(&key()) else { panic!("it can be joined") };
        leader.land(7);
        assert_eq!((own.wait().await, other.wait().await), (Some(7), Some(7)));
    }

    /// Also those whose callers have all left. Red without the look at `has_place` in `let_finish`.
    #[tokio::test]
    async fn flights_without_room_fly_alone_and_end_when_nobody_waits() {
        let flights = flights(one_load());
        let (held, other) = (leader(&flights, &key()), Bytes::from_static(b"other"));
        for _ in 0..2 {
            let alone = leader(&flights, &other);
            assert_eq!((alone.has_place(), flights.len()), (false, 1));
            alone.let_finish();
            drop(alone.follow());
            tokio::time::timeout(Duration::from_secs(5), alone.abandoned()).await.unwrap();
            alone.land(1);
            assert_eq!(flights.len(), 1, "it has taken nobody's place away");
        }
        drop(held);
        assert!(leader(&flights, &other).has_place());
        assert_eq!(flights.ledger.flight_bytes(), 0);
    }

    /// Not only as long as it stands in the table: its task lives on.
    #[tokio::test]
    async fn a_flight_keeps_its_bytes_until_its_leader_is_gone() {
        let flights = flights(one_load());
        let (first, second) = (leader(&flights, &key()), Bytes::from_static(b"two"));
        flights.detach(&key());
        assert_eq!(flights.len(), 0);
        assert!(!leader(&flights, &second).has_place());
        drop(first);
        let abandoned = leader(&flights, &second);
        drop(abandoned.follow());
        assert!(!leader(&flights, &second).has_place(), "it is abandoned, and still flies");
        drop(abandoned);
        assert!(leader(&flights, &second).has_place());
    }

    /// What one can do with flights, in any order.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Join(u8),
        Alone(u8),
        Follow(usize),
        LetFinish(usize),
        Leave(usize),
        Land(usize),
        DropLeader(usize),
        DetachOne(usize),
        Detach(u8),
        DetachAll,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let (key, at) = (0..4_u8, 0..8_usize);
        let step = prop_oneof![
            4 => key.clone().prop_map(Step::Join),
            1 => key.clone().prop_map(Step::Alone),
            2 => at.clone().prop_map(Step::Follow),
            1 => at.clone().prop_map(Step::LetFinish),
            2 => at.clone().prop_map(Step::Leave),
            2 => at.clone().prop_map(Step::Land),
            1 => at.clone().prop_map(Step::DropLeader),
            1 => at.prop_map(Step::DetachOne),
            1 => key.prop_map(Step::Detach),
            1 => Just(Step::DetachAll),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// After each step the ledger has what the leaders hold that found room, and no more than
        /// it may; and after the last, nothing.
        #[test]
        fn the_ledger_has_what_flies_and_nothing_else(steps in steps()) {
            let flights = flights(3 * one_load());
            let (mut leaders, mut followers) = (Vec::<Leader<u32>>::new(), Vec::new());
            let name = |key: u8| Bytes::from(vec![b'k'; usize::from(key) + 1]);
            for step in steps {
                match step {
                    Step::Join(key) => match flights.join(&name(key)) {
                        Role::Leader(leader) => leaders.push(leader),
                        Role::Follower(follower) => followers.push(follower),
                    },
                    Step::Alone(key) => leaders.push(flights.alone(&name(key))),
                    Step::Follow(at) if !leaders.is_empty() => {
                        let leader = &leaders[at % leaders.len()];
                        // As its contract says: before others can have left.
                        if !leader.flight.is_abandoned() {
                            followers.push(leader.follow());
                        }
                    }
                    Step::LetFinish(at) if !leaders.is_empty() => {
                        leaders[at % leaders.len()].let_finish();
                    }
                    Step::Leave(at) => drop(taken(&mut followers, at)),
                    Step::Land(at) => taken(&mut leaders, at).into_iter().for_each(|l| l.land(1)),
                    Step::DropLeader(at) => drop(taken(&mut leaders, at)),
                    Step::DetachOne(at) if !leaders.is_empty() => {
                        leaders[at % leaders.len()].detach();
                    }
                    Step::Detach(key) => flights.detach(&name(key)),
                    Step::DetachAll => flights.detach_all(),
                    Step::Follow(_) | Step::LetFinish(_) | Step::DetachOne(_) => {}
                }
                let placed = leaders.iter().filter(|leader| leader.has_place());
                let bytes: u64 =
                    placed.clone().map(|leader| Use::Load.bytes(leader.key.len())).sum();
                prop_assert_eq!(flights.ledger.flight_bytes(), bytes);
                prop_assert!(bytes <= 3 * one_load());
                prop_assert!(flights.len() <= placed.count());
            }
            drop(leaders);
            prop_assert_eq!((flights.ledger.flight_bytes(), flights.len()), (0, 0));
        }
    }
}
