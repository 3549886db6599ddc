//! The stamp rule: when an entry of L1 still counts.
//!
//! Every entry carries the [`Stamp`] that its value reflects. Applying invalidation number i of a
//! key raises the floor of the key's stripe to i, and an entry counts only if its stamp is of the
//! current epoch and at or above its floor. So an entry that is inserted late is dead on arrival:
//! inserts need no lock, and messages need no order against them.
//!
//! Writes that have no number, because the server was away, are fenced by a counter of this
//! process in the same way: an entry also carries the counter's value from before its load began.
//!
//! A cache alone has no numbers, and no L2 that would give back what a neighbour's write has voided.
//! There a write voids its own key and no other: it fences only what is still on its way into L1,
//! and takes the key out of L1 or replaces it, in the same [`turn`](Floors::turn) in which an insert
//! looks at the fence. So what is in L1 need not look at the fence of the stripe again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fleetwide_core_traits::MonoTime;
use fleetwide_core_traits::log::{Epoch, Meta, Stamp};
use parking_lot::{Mutex, MutexGuard};

use crate::tags::{TagFloor, TagFloors};

/// Enough that two of a thousand hot keys rarely share one: a shared floor costs a needless miss.
const STRIPES: usize = 64 * 1024;

/// Enough that hardly two threads wait for each other.
const TURNS: usize = 64;

/// The floor of a stripe while a new history begins: nothing counts.
const CLOSED: u64 = u64::MAX;

/// What decides whether an entry counts. Read without a lock on each hit.
pub(crate) struct Floors {
    /// The current history as a number; 0 before the first.
    epoch: AtomicU64,
    /// The furthest number of the log that has been seen here. Whatever begins from now on comes
    /// after all writes up to it, whether they were applied here yet or not.
    known: AtomicU64,
    /// Everything up to this number was applied here, in order.
    applied: AtomicU64,
    /// Floor of all keys.
    clear_seq: AtomicU64,
    /// Counts writes without a number.
    fence: AtomicU64,
    /// Fence of all keys.
    clear_fence: AtomicU64,
    /// Reading of the clock as of which everything is applied, µs; 0 = never.
    verified: AtomicU64,
    /// The same, of which it is not known yet whether it counts: see [`confirm`](Self::confirm).
    unconfirmed: AtomicU64,
    stripes: Box<[Stripe]>,
    /// Of a cache alone, how far behind the stripe of what comes in is that of what is there; 0 if
    /// they are one.
    inside: u32,
    /// Taken by inserts and writes of a cache alone.
    turns: Box<[Mutex<()>]>,
    tags: TagFloors,
    /// The furthest of our own entries that the server has confirmed.
    own: Mutex<Option<Meta>>,
    /// Held while floors change, so that the floors of two histories never mix.
    change: Mutex<()>,
}

#[derive(Default)]
struct Stripe {
    seq: AtomicU64,
    fence: AtomicU64,
}

/// What an entry has to show on a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) stamp: Stamp,
    /// The fence from before the value was read or loaded.
    pub(crate) fence: u64,
    pub(crate) stripe: u32,
}

impl Pass {
    /// Of what must not be kept: no hit admits it. No history has this name, because they are drawn
    /// at random.
    pub(crate) const NONE: Self =
        Self { stamp: Stamp { epoch: Epoch([u8::MAX; 8]), seq: 0 }, fence: 0, stripe: 0 };
}

impl Floors {
    pub(crate) fn new(tags_max: usize, alone: bool) -> Self {
        let (stripes, inside, turns) =
            if alone { (2 * STRIPES, STRIPES as u32, TURNS) } else { (STRIPES, 0, 0) };
        Self {
            epoch: AtomicU64::new(0),
            known: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            clear_seq: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            clear_fence: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
            stripes: (0..stripes).map(|_| Stripe::default()).collect(),
            inside,
            turns: (0..turns).map(|_| Mutex::default()).collect(),
            tags: TagFloors::new(tags_max),
            own: Mutex::new(None),
            change: Mutex::new(()),
        }
    }

    /// The stripe of a hash.
    pub(crate) const fn stripe(hash: u64) -> u32 {
        (hash as usize % STRIPES) as u32
    }

    /// Whether an entry of L1 counts, and as of when that is verified.
    ///
    /// The verified time is read first: what was applied before it was set is then seen in the
    /// floors. The epoch is read last, because a new history resets the floors after it.
    pub(crate) fn admit(&self, pass: &Pass, tags: &[Arc<TagFloor>]) -> Option<MonoTime> {
        let verified = self.verified.load(Ordering::Acquire);
        let stripe = self.stripe_at(pass.stripe, self.inside);
        let counts = tags.iter().all(|floor| floor.admits(pass))
            && pass.stamp.seq >= stripe.seq.load(Ordering::Acquire)
            && pass.stamp.seq >= self.clear_seq.load(Ordering::Acquire)
            && pass.fence >= stripe.fence.load(Ordering::Acquire)
            && pass.fence >= self.clear_fence.load(Ordering::Acquire)
            && number(pass.stamp.epoch) == self.epoch.load(Ordering::Acquire);
        counts.then(|| MonoTime::from_micros(verified))
    }

    /// The same for what is not in L1, or may have left it since it was read: something on its way
    /// in, or a value that was put aside.
    pub(crate) fn admit_apart(&self, pass: &Pass, tags: &[Arc<TagFloor>]) -> Option<MonoTime> {
        let verified = self.admit(pass, tags)?;
        let fence = self.stripe_at(pass.stripe, 0).fence.load(Ordering::Acquire);
        (pass.fence >= fence).then_some(verified)
    }

    /// Held by a cache alone while something comes into L1, and while a write takes it out.
    pub(crate) fn turn(&self, stripe: u32) -> Option<MutexGuard<'_, ()>> {
        let turn = self.turns.get(stripe as usize % TURNS)?;
        Some(turn.lock())
    }

    /// What a value that is read or loaded from now on may claim without a word from the server.
    pub(crate) fn here(&self) -> (Stamp, u64) {
        let fence = self.fence.load(Ordering::Acquire);
        let _still = self.change.lock();
        let epoch = Epoch(self.epoch.load(Ordering::Acquire).to_be_bytes());
        (Stamp { epoch, seq: self.known.load(Ordering::Acquire) }, fence)
    }

    /// How far the log was applied. An entry that is admitted *after* this was read, and is of the
    /// same epoch, reflects everything up to here.
    ///
    /// The epoch is read first and a new history sets it last, so a number is never taken for one
    /// of a later history.
    pub(crate) fn applied(&self) -> Stamp {
        let epoch = Epoch(self.epoch.load(Ordering::Acquire).to_be_bytes());
        Stamp { epoch, seq: self.applied.load(Ordering::Acquire) }
    }

    /// The server has confirmed a write of ours, and the log ended with it then.
    pub(crate) fn wrote(&self, meta: Meta) {
        let mut own = self.own.lock();
        // Answers can overtake each other within a history.
        let is_later = |own: &Meta| own.at.epoch != meta.at.epoch || own.at.seq < meta.at.seq;
        if own.as_ref().is_none_or(is_later) {
            *own = Some(meta);
        }
    }

    /// The furthest of our own entries that the server has confirmed.
    pub(crate) fn own(&self) -> Option<Meta> {
        *self.own.lock()
    }

    /// An invalidation of a key was applied, or issued by us and confirmed.
    pub(crate) fn raise(&self, stripe: u32, at: Stamp) {
        let _alone = self.change.lock();
        if number(at.epoch) == self.epoch.load(Ordering::Acquire) {
            self.stripe_at(stripe, 0).seq.fetch_max(at.seq, Ordering::AcqRel);
            self.known.fetch_max(at.seq, Ordering::AcqRel);
        } else {
            // Our log does not know this history yet, or knows a later one: the number cannot be
            // compared with any floor here, but what we hold now is older than the write.
            self.fence_stripe(stripe);
        }
    }

    /// Everything was cleared.
    pub(crate) fn raise_all(&self, at: Stamp) {
        let _alone = self.change.lock();
        if number(at.epoch) == self.epoch.load(Ordering::Acquire) {
            self.clear_seq.fetch_max(at.seq, Ordering::AcqRel);
            self.known.fetch_max(at.seq, Ordering::AcqRel);
        } else {
            self.fence_everything();
        }
    }

    /// A key was written without a number: what began before does not count any more.
    pub(crate) fn fence_key(&self, stripe: u32) {
        let _alone = self.change.lock();
        self.fence_stripe(stripe);
    }

    /// The same for what is not in L1. To be done in a [`turn`](Self::turn), and whoever does it
    /// sees to what is.
    pub(crate) fn fence_key_apart(&self, stripe: u32) {
        let _alone = self.change.lock();
        let fence = self.fence.fetch_add(1, Ordering::AcqRel) + 1;
        self.stripe_at(stripe, 0).fence.fetch_max(fence, Ordering::AcqRel);
    }

    /// Everything was written without a number.
    pub(crate) fn fence_all(&self) {
        let _alone = self.change.lock();
        self.fence_everything();
    }

    /// The floors of `tags`, for an entry to hold.
    pub(crate) fn of(&self, tags: &[Bytes]) -> Box<[Arc<TagFloor>]> {
        self.tags.of(tags)
    }

    /// A bump of a tag was applied, or issued by us and confirmed.
    pub(crate) fn raise_tag(&self, tag: &Bytes, at: Stamp) {
        let _alone = self.change.lock();
        if number(at.epoch) == self.epoch.load(Ordering::Acquire) {
            self.tags.raise(tag, at.seq);
            self.known.fetch_max(at.seq, Ordering::AcqRel);
        } else {
            self.fence_one_tag(tag);
        }
    }

    /// A tag was bumped without a number.
    pub(crate) fn fence_tag(&self, tag: &Bytes) {
        let _alone = self.change.lock();
        self.fence_one_tag(tag);
    }

    /// Everything up to this place of the log was applied.
    pub(crate) fn seen(&self, at: Stamp) {
        let _alone = self.change.lock();
        if number(at.epoch) == self.epoch.load(Ordering::Acquire) {
            self.known.fetch_max(at.seq, Ordering::AcqRel);
            self.applied.fetch_max(at.seq, Ordering::AcqRel);
        }
    }

    /// A history begins, or goes on behind a hole: nothing from before counts.
    pub(crate) fn begin(&self, at: Stamp) {
        let _alone = self.change.lock();
        self.verified.store(0, Ordering::Release);
        self.unconfirmed.store(0, Ordering::Release);
        let cleared = self.clear_seq.swap(CLOSED, Ordering::AcqRel);
        let (mut clear, mut known) = (cleared, self.known.load(Ordering::Acquire));
        self.applied.store(at.seq, Ordering::Release);
        if self.epoch.swap(number(at.epoch), Ordering::AcqRel) != number(at.epoch) {
            for stripe in &self.stripes {
                stripe.seq.store(0, Ordering::Release);
            }
            self.tags.begin();
            (clear, known) = (0, 0);
        }
        // Our own writes may be ahead of where the log is read from.
        self.known.store(known.max(at.seq), Ordering::Release);
        self.clear_seq.store(clear.max(at.seq), Ordering::Release);
    }

    /// As of when everything is applied; 0 if that was never proved in this history.
    pub(crate) fn verified_as_of(&self) -> MonoTime {
        MonoTime::from_micros(self.verified.load(Ordering::Acquire))
    }

    /// Everything that was in the log at `as_of` has been applied.
    pub(crate) fn verified(&self, as_of: MonoTime) {
        self.verified.fetch_max(as_of.as_micros(), Ordering::AcqRel);
    }

    /// The same, while it is not known yet whether this process understands its log.
    pub(crate) fn verified_if_confirmed(&self, as_of: MonoTime) {
        self.unconfirmed.fetch_max(as_of.as_micros(), Ordering::AcqRel);
    }

    /// It does.
    pub(crate) fn confirm(&self) {
        // Under the lock: it must not come after the beginning of another history.
        let _alone = self.change.lock();
        let as_of = self.unconfirmed.swap(0, Ordering::AcqRel);
        self.verified.fetch_max(as_of, Ordering::AcqRel);
    }

    /// It does not, or did not until now: nothing from before counts.
    pub(crate) fn void(&self) {
        let _alone = self.change.lock();
        self.unconfirmed.store(0, Ordering::Release);
        self.verified.store(0, Ordering::Release);
        self.fence_everything();
    }

    fn fence_stripe(&self, stripe: u32) {
        let fence = self.fence.fetch_add(1, Ordering::AcqRel) + 1;
        for part in [0, self.inside] {
            self.stripe_at(stripe, part).fence.fetch_max(fence, Ordering::AcqRel);
        }
    }

    fn stripe_at(&self, stripe: u32, part: u32) -> &Stripe {
        &self.stripes[stripe as usize % STRIPES + part as usize]
    }

    fn fence_one_tag(&self, tag: &Bytes) {
        let fence = self.fence.fetch_add(1, Ordering::AcqRel) + 1;
        self.tags.fence(tag, fence);
    }

    fn fence_everything(&self) {
        let fence = self.fence.fetch_add(1, Ordering::AcqRel) + 1;
        self.clear_fence.fetch_max(fence, Ordering::AcqRel);
    }
}

const fn number(epoch: Epoch) -> u64 {
    u64::from_be_bytes(epoch.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Epoch = Epoch([1; 8]);
    const NEW: Epoch = Epoch([2; 8]);

    fn at(epoch: Epoch, seq: u64) -> Stamp {
        Stamp { epoch, seq }
    }

    fn counts(floors: &Floors, stamp: Stamp, fence: u64) -> bool {
        floors.admit(&Pass { stamp, fence, stripe: 3 }, &[]).is_some()
    }

    #[test]
    fn an_entry_counts_from_its_floor_up() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 4));
        assert!(counts(&floors, at(OLD, 4), 0) && !counts(&floors, at(OLD, 3), 0));
        floors.raise(3, at(OLD, 6));
        floors.raise(9, at(OLD, 8));
        floors.raise(3, at(OLD, 5));
        assert!(counts(&floors, at(OLD, 6), 0) && !counts(&floors, at(OLD, 5), 0));
        floors.raise_all(at(OLD, 7));
        assert!(counts(&floors, at(OLD, 7), 0) && !counts(&floors, at(OLD, 6), 0));
    }

    /// Red if `begin` took the log's place as it is: a load from before our own clear, which the log
    /// has not brought back yet, would count again.
    #[test]
    fn a_hole_does_not_lower_the_floor_of_our_own_clear() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 1));
        floors.raise_all(at(OLD, 12));
        floors.begin(at(OLD, 5));
        assert!(!counts(&floors, at(OLD, 11), 0) && counts(&floors, at(OLD, 12), 0));
        assert_eq!(floors.here().0, at(OLD, 12));
    }

    #[test]
    fn a_bump_of_a_tag_voids_what_carries_it_in_its_own_history() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 1));
        let (tag, other) = (Bytes::from_static(b"t"), Bytes::from_static(b"u"));
        let (carried, unrelated) = (floors.of(std::slice::from_ref(&tag)), floors.of(&[other]));
        floors.raise_tag(&tag, at(OLD, 3));
        let pass = |stamp| Pass { stamp, fence: 0, stripe: 3 };
        assert!(floors.admit(&pass(at(OLD, 2)), &carried).is_none());
        assert!(floors.admit(&pass(at(OLD, 2)), &unrelated).is_some());
        assert!(floors.admit(&pass(at(OLD, 3)), &carried).is_some());
        floors.begin(at(NEW, 0));
        assert!(floors.admit(&pass(at(NEW, 0)), &carried).is_some());
        assert!(floors.admit(&pass(at(OLD, 2)), &carried).is_none());
    }

    /// Numbers of two histories say nothing about each other. Red without the epoch in `admit`.
    #[test]
    fn a_higher_number_of_another_history_does_not_count() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 4));
        floors.raise(3, at(OLD, 90));
        floors.begin(at(NEW, 1));
        assert!(!counts(&floors, at(OLD, 99), 0));
        assert!(counts(&floors, at(NEW, 1), 0), "the floors of the old history are gone");
    }

    /// Red if `raise` compared the numbers, or did nothing.
    #[test]
    fn a_write_in_a_history_that_is_not_known_yet_fences_what_is_here() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 50));
        let before = floors.here().1;
        floors.raise(3, at(NEW, 1));
        assert!(!counts(&floors, at(OLD, 60), before));
        assert!(counts(&floors, at(OLD, 60), floors.here().1), "what is read from now on counts");
    }

    /// Red with the last *applied* number instead: a load that follows our own write would then be
    /// dead on arrival until the write's message has come back to us.
    #[test]
    fn what_begins_after_a_write_counts_at_once() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 4));
        floors.raise(3, at(OLD, 6));
        let (stamp, fence) = floors.here();
        assert!(counts(&floors, stamp, fence));
    }

    #[test]
    fn a_write_without_a_number_voids_what_began_before_it() {
        let floors = Floors::new(9, false);
        let (stamp, before) = floors.here();
        floors.fence_key(3);
        assert!(!counts(&floors, stamp, before) && counts(&floors, stamp, floors.here().1));
        let before = floors.here().1;
        floors.fence_all();
        assert!(!counts(&floors, stamp, before) && counts(&floors, stamp, floors.here().1));
    }

    #[test]
    fn a_new_history_is_not_verified_until_somebody_says_so() {
        let floors = Floors::new(9, false);
        floors.begin(at(OLD, 1));
        floors.verified(MonoTime::from_micros(7));
        let pass = |stamp| Pass { stamp, fence: 0, stripe: 3 };
        assert_eq!(floors.admit(&pass(at(OLD, 1)), &[]), Some(MonoTime::from_micros(7)));
        floors.begin(at(NEW, 1));
        assert_eq!(floors.admit(&pass(at(NEW, 1)), &[]), Some(MonoTime::default()));
    }
}
