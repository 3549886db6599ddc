//! Step 2 of a read: what the shared tier has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Stamp, StoredValue};
use fleetwide_core_traits::{Executor, ExecutorExt, MonoTime, ServerTime};
use tokio::time::timeout;

use crate::ask::Ask;
use crate::cache::{Inner, UNKNOWN};
use crate::entry::{Entry, Freshness, Head, Hit, Kept, Tier};
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::ops::{Found, Lookup, Reader, Versions};
use crate::payload::{self, Opened};
use crate::recovery::Target;
use crate::tags;
use crate::term::{Life, Term};

/// What a look into L2 found.
pub(crate) enum Looked<V> {
    /// A value that is fresh.
    Fresh(Hit<V>),
    /// A value whose time is over, kept for the case that the origin is slow or fails.
    Stale(Hit<V>),
    /// That the origin has none, said by what was stored at this time.
    Absent(ServerTime),
    /// Nothing that can be used.
    Miss,
    /// Something, stored at this time, that this build cannot decode, or that a tag has voided.
    Unusable(ServerTime),
    /// No answer within the budget, or one that is older than what the reader must see.
    Unavailable,
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Looks into L2, once for all who ask for the key at the same time.
    pub(crate) async fn look(&self, key: &K, wire: &Bytes, ask: &Ask) -> Looked<V> {
        let looking = async {
            if !ask.is_shareable(&self.settings.ask) {
                // A read that is under way may have begun before what this one has to see.
                return self.read_l2(key, wire, ask.at_least).await;
            }
            let came = self.clock.now();
            loop {
                let look = || async { (self.clock.now(), self.read_l2(key, wire, None).await) };
                let (asked, looked) = self.lookups.share(wire, look).await;
                // A hit out of L2 is verified as of when L2 was asked. With a budget longer than the
                // staleness bound that can be too long before this read; what is asked next is not.
                if came.since(asked).as_micros() <= self.settings.ask.bound_us.into() {
                    return looked;
                }
            }
        };
        // Around all of it: a caller who takes over from one that left has no more time than others.
        let looked = timeout(self.settings.l2_budget, looking).await.unwrap_or(Looked::Unavailable);
        if matches!(looked, Looked::Unavailable) {
            self.telemetry.l2_errors.add();
        }
        looked
    }

    async fn read_l2(&self, key: &K, wire: &Bytes, at_least: Option<Stamp>) -> Looked<V> {
        // Before the request is sent: what is fenced off meanwhile must not come back with it, and
        // the answer must show all that is known here by now.
        let (known, fence) = self.floors.here();
        // After the fence: a write that is queued from here on raises it. What the server has for a
        // key that waits to be invalidated is old.
        if self.blocked(Target::Key, wire) {
            return Looked::Unavailable;
        }
        let reader = self.reader();
        let op = Lookup::new(&self.tag, &self.meta_key, wire, reader);
        let Ok(op) = op else { return Looked::Miss };
        match self.gather.lookup(op).await {
            // A server that has not seen what the reader must see has lost it, or never had it.
            Ok(found) if !self.has_seen(found.meta.map(|meta| meta.at), at_least) => {
                Looked::Unavailable
            }
            Ok(Found { meta: Some(meta), .. }) if went_back(meta.at, known) => Looked::Unavailable,
            Ok(Found { meta: Some(meta), value: Some(value), .. }) => {
                self.promote(key, wire, &value, meta.at, fence).await
            }
            Ok(found) => {
                if found.other {
                    self.telemetry.other_schema.add();
                }
                Looked::Miss
            }
            Err(error) => {
                tracing::debug!(cache = %self.name, %error, "reading L2 failed");
                Looked::Unavailable
            }
        }
    }

    /// Whether a server whose log is `at` has seen a write.
    pub(crate) fn has_seen(&self, at: Option<Stamp>, at_least: Option<Stamp>) -> bool {
        at_least.is_none_or(|least| {
            let seen = at.is_some_and(|at| at.epoch == least.epoch && at.seq >= least.seq);
            self.settings.alone || seen
        })
    }

    /// Takes what L2 has into L1. `at` is where the log was when it was read, so it reflects
    /// everything up to there.
    pub(crate) async fn promote(
        &self,
        key: &K,
        wire: &Bytes,
        stored: &StoredValue,
        at: Stamp,
        fence: u64,
    ) -> Looked<V> {
        let Some(opened) = self.open(wire, stored) else {
            return Looked::Unusable(stored.stored_at);
        };
        if !self.unbumped(&opened.tags, stored.stamp).await {
            return Looked::Unusable(stored.stored_at);
        }
        let pass = Pass { stamp: at, fence, stripe: self.stripe(wire) };
        self.take_in((key, wire), stored, opened, pass)
    }

    /// What L2 has, out of its envelope. `None` if this build cannot read it.
    pub(crate) fn open(&self, wire: &[u8], stored: &StoredValue) -> Option<Opened<V>> {
        let envelope = match self.codec.unprotect(wire, &stored.envelope) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::debug!(cache = %self.name, %error, "a value in L2 counts as a miss");
                self.telemetry.unopened.add();
                return None;
            }
        };
        match payload::open(&*self.codec, &envelope) {
            Ok(opened) => tags::are_valid(&opened.tags).then_some(opened),
            Err(error) => {
                tracing::debug!(cache = %self.name, %error, "a value in L2 counts as a miss");
                self.telemetry.undecodable.add();
                None
            }
        }
    }

    /// Puts what L2 has, and what counts, into L1: fresh, stale, or that the origin has none.
    pub(crate) fn take_in(
        &self,
        (key, wire): (&K, &Bytes),
        stored: &StoredValue,
        opened: Opened<V>,
        pass: Pass,
    ) -> Looked<V> {
        let Opened { value, weight, tags, soft_ttl, cost } = opened;
        let now = self.clock.now();
        let (age, left) = self.age_and_rest(stored, now);
        let fresh = soft_ttl.map_or(left, |soft| soft.saturating_sub(age).min(left));
        let l1 = left.min(self.settings.l1_ttl.as_duration());
        let early = self.settings.ask.early;
        let term = Term::new(now, Life { age, fresh, l1, cost, early });
        let head = Head::new(pass, self.floors.of(&tags), term, Some(stored.stored_at));
        let weight = weight.saturating_add(tags::weight(wire.len(), &tags));
        let Some(value) = value else {
            let absent = Kept::Absent(Arc::new(Entry { head, value: () }));
            self.keep(key, absent, weight);
            self.telemetry.hits_absent.add();
            return Looked::Absent(stored.stored_at);
        };
        let entry = Arc::new(Entry { head, value: Arc::new(value) });
        self.keep(key, Kept::Value(Arc::clone(&entry)), weight);
        let hit = Hit { entry, tier: Tier::L2, freshness: Freshness::Verified, at: now };
        if now < term.fresh_until {
            self.telemetry.hits_l2.add();
            Looked::Fresh(hit)
        } else {
            Looked::Stale(hit.stale())
        }
    }

    /// Whether none of a value's tags was bumped since it was stamped.
    ///
    /// The versions are read after the value, so they show every bump that the value's own read
    /// could have missed; and of those that are no longer remembered by then, how far they went.
    pub(crate) async fn unbumped(&self, tags: &[Bytes], stamp: Stamp) -> bool {
        if tags.is_empty() {
            return true;
        }
        if tags.iter().any(|tag| self.blocked(Target::Tag, tag)) {
            return false;
        }
        let op = Versions::new(&self.tags_key, tags);
        match self.executor.run(&op).await {
            Ok(bumped) => {
                bumped.epoch == Some(stamp.epoch) && bumped.seqs.iter().all(|seq| *seq <= stamp.seq)
            }
            Err(_) => false,
        }
    }

    /// Whether L2 must not be used for this, because a write of it waits to be repeated.
    pub(crate) fn blocked(&self, target: impl FnOnce(Bytes) -> Target, name: &Bytes) -> bool {
        !self.recovery.is_idle() && self.recovery.blocks(&target(name.clone()))
    }

    /// How old a value is, and how long it is still kept, by the server's clock.
    pub(crate) fn age_and_rest(&self, stored: &StoredValue, now: MonoTime) -> (Duration, Duration) {
        match self.server_time(now) {
            Some(server) => (server.since(stored.stored_at), stored.expires_at.since(server)),
            None => (Duration::ZERO, stored.expires_at.since(stored.stored_at)),
        }
    }

    /// Whose values this instance understands.
    pub(crate) fn reader(&self) -> Reader {
        Reader { schema: self.codec.schema(), now: self.server_time(self.clock.now()) }
    }

    /// The server's time at `now`, late by a round trip at most; `None` if it was never read.
    fn server_time(&self, now: MonoTime) -> Option<ServerTime> {
        let ahead = self.server_ahead.load(Ordering::Relaxed);
        (ahead != UNKNOWN)
            .then(|| ServerTime::from_micros(now.as_micros().saturating_add_signed(ahead)))
    }

    pub(crate) fn server_clock(&self, sent: MonoTime, server: ServerTime) {
        let ahead = server.as_micros() as i64 - sent.as_micros() as i64;
        self.server_ahead.store(ahead, Ordering::Relaxed);
    }

    /// What the server's clock shows at most, so much time from now; `None` if it was never read.
    pub(crate) fn server_deadline(&self, within: Duration) -> Option<ServerTime> {
        self.server_time(self.clock.now()).map(|now| now.plus(within))
    }
}

/// Whether a server whose log is `at` has lost writes that were `known` here before it was asked: it
/// went back to an older state, such as that of a replica which took its place. What it has may be
/// what those writes have removed. The log's follower finds out at its next beat, and begins anew.
pub(crate) fn went_back(at: Stamp, known: Stamp) -> bool {
    at.epoch == known.epoch && at.seq < known.seq
}

impl<V> Clone for Looked<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Fresh(hit) => Self::Fresh(hit.clone()),
            Self::Stale(hit) => Self::Stale(hit.clone()),
            Self::Absent(at) => Self::Absent(*at),
            Self::Miss => Self::Miss,
            Self::Unusable(at) => Self::Unusable(*at),
            Self::Unavailable => Self::Unavailable,
        }
    }
}
