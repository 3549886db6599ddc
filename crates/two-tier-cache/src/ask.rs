//! What one read asks for, and what L1 has to say to it.

use std::time::Duration;

use fleetwide_core_traits::log::Stamp;
use fleetwide_core_traits::{Executor, MonoTime};

use crate::cache::Inner;
use crate::entry::{Freshness, Hit, Kept, L1Entry, Tier};
use crate::key::CacheKey;

/// The demands of one read. A cache has its own, and each call can change them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Ask {
    /// How old the last word of the log may be for a hit to be verified, µs.
    pub(crate) bound_us: u64,
    /// Whether what is not verified is a miss.
    pub(crate) verified: bool,
    /// A write that must be reflected.
    pub(crate) at_least: Option<Stamp>,
    /// Whether L1 is asked.
    pub(crate) l1: bool,
    /// Whether L2 is asked, and told.
    pub(crate) l2: bool,
    /// How long a caller waits who could have a stale value.
    pub(crate) soft_timeout: Option<Duration>,
    /// How long a caller waits at all.
    pub(crate) hard_timeout: Option<Duration>,
    /// How long after its end a value is served while it is renewed.
    pub(crate) revalidate: Duration,
    /// How long after its end a value is served because it cannot be renewed.
    pub(crate) on_error: Duration,
    /// Whether a read without a loader takes what is stale.
    pub(crate) stale: bool,
    /// How long after it took a value L1 may answer; the value's own time in L1 may be shorter.
    pub(crate) l1_ttl: Duration,
    /// How eagerly what is fresh is renewed before its end; `None` = not at all.
    pub(crate) early: Option<f64>,
}

/// What L1 has for a key.
pub(crate) enum Recalled<V> {
    /// A value that counts.
    Fresh(Hit<V>),
    /// A value that counts, but should be renewed before it ends.
    Early(Hit<V>),
    /// The origin has none.
    Absent,
    /// A value whose time in L1 is over; L2 may confirm it.
    Lapsed(Hit<V>),
    /// A value whose time is over.
    Expired(Hit<V>),
    /// Nothing that this read can use.
    Nothing,
}

impl Ask {
    /// How long after its end a value may be of use to this read.
    pub(crate) fn grace(&self) -> Duration {
        self.revalidate.max(self.on_error)
    }

    /// Whether this read may be answered by what somebody else had asked for before.
    pub(crate) fn is_shareable(&self, usual: &Self) -> bool {
        self.at_least.is_none() && self.bound_us >= usual.bound_us
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Step 1 in full, for a read that the short way in [`hit`](Self::hit) did not answer.
    pub(crate) fn recall(&self, key: &K, ask: &Ask) -> Recalled<V> {
        if !ask.l1 {
            return Recalled::Nothing;
        }
        // Before the floors are looked at: they must show everything that this claims was applied.
        let applied = self.floors.applied();
        let Some(L1Entry(kept)) = self.local.get(key) else { return Recalled::Nothing };
        let head = kept.head();
        let Some(verified) = self.floors.admit(&head.pass, &head.tags) else {
            return Recalled::Nothing;
        };
        let now = self.clock.now();
        let freshness = self.freshness(verified, now, ask.bound_us);
        let reflects = self.reflects(head.pass.stamp, applied, ask.at_least);
        if !reflects || (ask.verified && freshness != Freshness::Verified) {
            return Recalled::Nothing;
        }
        match kept {
            Kept::Absent(entry)
                if now < entry.head.term.quiet_until
                    && !entry.head.term.has_lapsed(now, ask.l1_ttl) =>
            {
                Recalled::Absent
            }
            Kept::Absent(_) => Recalled::Nothing,
            Kept::Value(entry) => judge(Hit { entry, tier: Tier::L1, freshness, at: now }, ask),
        }
    }

    /// Whether what has this stamp reflects a write, given how far the log has been applied here.
    pub(crate) fn reflects(&self, stamp: Stamp, applied: Stamp, at_least: Option<Stamp>) -> bool {
        at_least.is_none_or(|least| {
            let here = applied.epoch == least.epoch && applied.seq >= least.seq;
            self.settings.alone || stamp.epoch == least.epoch && (stamp.seq >= least.seq || here)
        })
    }

    pub(crate) fn freshness(&self, verified: MonoTime, now: MonoTime, bound_us: u64) -> Freshness {
        let ever = verified > MonoTime::default();
        let within = now.as_micros().saturating_sub(verified.as_micros()) <= bound_us;
        if self.settings.alone || (ever && within) {
            Freshness::Verified
        } else {
            Freshness::Unverified
        }
    }

    /// A stale value that may be served at this moment, as such; `None` if its extra time is over,
    /// or if it was invalidated since it was found.
    pub(crate) fn spare(&self, hit: &Hit<V>, ask: &Ask, extra: Duration) -> Option<Hit<V>> {
        let (now, head) = (self.clock.now(), &hit.entry.head);
        if !head.term.lasts(now, extra) {
            return None;
        }
        let verified = self.floors.admit_apart(&head.pass, &head.tags)?;
        if ask.verified && self.freshness(verified, now, ask.bound_us) != Freshness::Verified {
            return None;
        }
        Some(Hit { at: now, ..hit.clone() }.stale())
    }
}

/// What an entry that has passed the floors is good for.
fn judge<V>(hit: Hit<V>, ask: &Ask) -> Recalled<V> {
    let (now, head) = (hit.at, &hit.entry.head);
    if now >= head.term.fresh_until {
        let rests = head.rests(now) && head.term.lasts(now, ask.grace());
        let stale = hit.stale();
        return if rests { Recalled::Fresh(stale) } else { Recalled::Expired(stale) };
    }
    if head.term.has_lapsed(now, ask.l1_ttl) {
        return Recalled::Lapsed(hit);
    }
    if is_early(&hit, ask) { Recalled::Early(hit) } else { Recalled::Fresh(hit) }
}

/// Whether a fresh value should be renewed by this caller.
pub(crate) fn is_early<V>(hit: &Hit<V>, ask: &Ask) -> bool {
    let term = &hit.entry.head.term;
    // The dice are thrown only where they can fall on a renewal.
    ask.early.is_some_and(|beta| {
        term.is_early(hit.at, beta, f64::MIN_POSITIVE)
            && term.is_early(hit.at, beta, 1.0 - rand::random::<f64>())
    })
}
