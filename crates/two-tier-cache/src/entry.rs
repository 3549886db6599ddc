//! What L1 holds, and what a caller gets.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::MonoTime;

use crate::floors::Pass;
use crate::tags::TagFloor;

/// One value in L1 with all that a hit has to check.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    pub(crate) value: Arc<V>,
    pub(crate) pass: Pass,
    /// The floors of the tags that it carries.
    pub(crate) tags: Box<[Arc<TagFloor>]>,
    /// When it was put here.
    pub(crate) since: MonoTime,
    /// When it expires here.
    pub(crate) until: MonoTime,
    /// How old the value was when it was put here.
    pub(crate) age: Duration,
}

/// An entry as the [`Local`](fleetwide_core_traits::Local) tier of a cache holds it.
///
/// Opaque: only the cache can tell whether it still counts.
pub struct L1Entry<V>(pub(crate) Arc<Entry<V>>);

impl<V> Clone for L1Entry<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> fmt::Debug for L1Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1Entry").field("pass", &self.0.pass).finish_non_exhaustive()
    }
}

/// A value out of a cache, and where it came from. Dereferences to the value.
pub struct Hit<V> {
    pub(crate) entry: Arc<Entry<V>>,
    pub(crate) tier: Tier,
    pub(crate) freshness: Freshness,
    pub(crate) age: Duration,
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
    /// It is known to be out of date, and served because the caller allowed that.
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
    pub const fn age(&self) -> Duration {
        self.age
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
            .field("age", &self.age)
            .finish()
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
