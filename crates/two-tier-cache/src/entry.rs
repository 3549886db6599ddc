//! What L1 holds, and what a caller gets.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{MonoTime, ServerTime};

use crate::floors::Pass;
use crate::tags::TagFloor;
use crate::term::Term;

/// What a hit has to check, whatever the entry says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) pass: Pass,
    /// The floors of the tags that the entry carries.
    pub(crate) tags: Box<[Arc<TagFloor>]>,
    pub(crate) term: Term,
    /// When the server stored it, which tells it from later ones; `None` if it came from here.
    pub(crate) stored_at: Option<ServerTime>,
    /// After a load that failed: when the next one may be tried, µs.
    retry_at: AtomicU64,
}

/// One entry in L1: a value, or nothing where the origin has none.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) head: Head,
    pub(crate) value: T,
}

/// An entry as the [`Local`](fleetwide_core_traits::Local) tier of a cache holds it.
///
/// Opaque: only the cache can tell whether it still counts.
pub struct L1Entry<V>(pub(crate) Kept<V>);

/// What an entry says about its key.
pub(crate) enum Kept<V> {
    /// Its value.
    Value(Arc<Entry<Arc<V>>>),
    /// That the origin has none.
    Absent(Arc<Entry<()>>),
}

/// The answer to a read with a loader.
pub(crate) enum Answer<V> {
    Value(Hit<V>),
    Absent,
}

impl Head {
    pub(crate) fn new(
        pass: Pass,
        tags: Box<[Arc<TagFloor>]>,
        term: Term,
        stored_at: Option<ServerTime>,
    ) -> Self {
        Self { pass, tags, term, stored_at, retry_at: AtomicU64::new(0) }
    }

    /// Lets loads rest until `at`.
    pub(crate) fn rest_until(&self, at: MonoTime) {
        self.retry_at.store(at.as_micros(), Ordering::Relaxed);
    }

    /// Whether a load has failed so lately that the next one must wait.
    pub(crate) fn rests(&self, now: MonoTime) -> bool {
        now.as_micros() < self.retry_at.load(Ordering::Relaxed)
    }
}

impl<V> Kept<V> {
    pub(crate) fn head(&self) -> &Head {
        match self {
            Self::Value(entry) => &entry.head,
            Self::Absent(entry) => &entry.head,
        }
    }

    /// Whether it is this very entry.
    pub(crate) fn is(&self, other: &Arc<Entry<Arc<V>>>) -> bool {
        matches!(self, Self::Value(entry) if Arc::ptr_eq(entry, other))
    }
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Value(entry) => Self::Value(Arc::clone(entry)),
            Self::Absent(entry) => Self::Absent(Arc::clone(entry)),
        }
    }
}

impl<V> Clone for L1Entry<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> fmt::Debug for L1Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1Entry").field("pass", &self.0.head().pass).finish_non_exhaustive()
    }
}

impl<V> Clone for Answer<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Value(hit) => Self::Value(hit.clone()),
            Self::Absent => Self::Absent,
        }
    }
}

/// A value out of a cache, and where it came from. Dereferences to the value.
pub struct Hit<V> {
    pub(crate) entry: Arc<Entry<Arc<V>>>,
    pub(crate) tier: Tier,
    pub(crate) freshness: Freshness,
    /// When it was read.
    pub(crate) at: MonoTime,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// This process.
    L1,
    /// The shared server.
    L2,
    /// The origin, by a loader.
    Load,
}

/// What is known about how current a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// It reflects every invalidation that returned Ok more than the staleness bound ago.
    Verified,
    /// The log could not be read lately, so invalidations may have been missed.
    Unverified,
    /// Its time is over, and it is served because the caller allowed that. What was invalidated is
    /// never served, stale or not.
    Stale,
}

impl<V> Hit<V> {
    /// The value.
    pub fn value(&self) -> &Arc<V> {
        &self.entry.value
    }

    /// The value alone.
    pub fn into_value(self) -> Arc<V> {
        Arc::clone(&self.entry.value)
    }

    /// Where it came from.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// What is known about how current it is.
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How long ago it was stored in the shared tier, or loaded; off by a round trip at most.
    pub fn age(&self) -> Duration {
        self.entry.head.term.age(self.at)
    }

    /// The same as something that is served although its time is over.
    pub(crate) fn stale(self) -> Self {
        Self { freshness: Freshness::Stale, ..self }
    }
}

impl<V> Deref for Hit<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.entry.value
    }
}

impl<V> Clone for Hit<V> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), ..*self }
    }
}

impl<V: fmt::Debug> fmt::Debug for Hit<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("value", &self.entry.value)
            .field("tier", &self.tier)
            .field("freshness", &self.freshness)
            .field("age", &self.age())
            .finish_non_exhaustive()
    }
}

impl Tier {
    /// `l1`, `l2` or `load`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Load => "load",
        }
    }
}

impl Freshness {
    /// `verified`, `unverified` or `stale`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Stale => "stale",
        }
    }
}
