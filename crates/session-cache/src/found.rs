//! What a read gives.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_two_tier_cache::{Freshness, Hit, Tier};

use crate::id::ShortId;
use crate::place::Place;
use crate::record::{Record, Target};

/// The answer to a read of an entry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer<V> {
    /// Its value, or that of the entry that it refers to.
    Found(Found<V>),
    /// There is no such entry, or not any more.
    Absent,
    /// The entry is a reference, and what it refers to is not there, or not within 4 references.
    Dangling(Target),
}

impl<V> Answer<V> {
    /// The value, if there is one.
    pub fn found(self) -> Option<Found<V>> {
        match self {
            Self::Found(found) => Some(found),
            Self::Absent | Self::Dangling(_) => None,
        }
    }

    /// Whether there is a value.
    pub const fn is_found(&self) -> bool {
        matches!(self, Self::Found(_))
    }
}

/// A value of a session, and where it came from. Dereferences to the value.
pub struct Found<V> {
    pub(crate) value: Arc<V>,
    pub(crate) place: Place,
    pub(crate) id: Option<ShortId>,
    pub(crate) target: Option<Target>,
    pub(crate) seen: Seen,
}

/// What is known of a value, over all entries that were read on the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    tier: Tier,
    freshness: Freshness,
    age: Duration,
}

impl Seen {
    pub(crate) fn of<V>(hit: &Hit<Record<V>>) -> Self {
        Self { tier: hit.tier(), freshness: hit.freshness(), age: hit.age() }
    }

    /// The same after another entry was read: the farther tier, the worse freshness. The age is
    /// that of the value itself.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            tier: farther(self.tier, next.tier),
            freshness: worse(self.freshness, next.freshness),
            age: next.age,
        }
    }
}

fn farther(one: Tier, other: Tier) -> Tier {
    match (one, other) {
        (Tier::L1, other) | (other, Tier::L1) => other,
        (Tier::L2, far) | (far, _) => far,
    }
}

fn worse(one: Freshness, other: Freshness) -> Freshness {
    match (one, other) {
        (Freshness::Verified, other) | (other, Freshness::Verified) => other,
        (Freshness::Unverified, bad) | (bad, _) => bad,
    }
}

impl<V> Found<V> {
    /// The value.
    pub fn value(&self) -> &Arc<V> {
        &self.value
    }

    /// The value alone.
    pub fn into_value(self) -> Arc<V> {
        self.value
    }

    /// The entry that was asked for.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// That entry's short id. `None` if it was stored while the server gave none:
    /// [`Session::short_id`](crate::Session::short_id) asks again.
    pub fn id(&self) -> Option<ShortId> {
        self.id
    }

    /// The entry that the value is of, if the one that was asked for is a reference.
    pub fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// Where the value came from; of a reference the farther of both.
    pub fn tier(&self) -> Tier {
        self.seen.tier
    }

    /// What is known about how current it is; of a reference the worse of both.
    pub fn freshness(&self) -> Freshness {
        self.seen.freshness
    }

    /// How long ago the value was stored in the shared tier, or loaded.
    pub fn age(&self) -> Duration {
        self.seen.age
    }
}

impl<V> Deref for Found<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> Clone for Found<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            place: self.place.clone(),
            id: self.id,
            target: self.target.clone(),
            seen: self.seen,
        }
    }
}

impl<V: fmt::Debug> fmt::Debug for Found<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("value", &self.value)
            .field("place", &self.place)
            .field("id", &self.id)
            .field("target", &self.target)
            .field("seen", &self.seen)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reads_are_as_far_as_the_farther_and_as_fresh_as_the_worse() {
        let tiers = [Tier::L1, Tier::L2, Tier::Load];
        let fresh = [Freshness::Verified, Freshness::Unverified, Freshness::Stale];
        for one in 0..3 {
            for other in 0..3 {
                assert_eq!(farther(tiers[one], tiers[other]), tiers[one.max(other)]);
                assert_eq!(worse(fresh[one], fresh[other]), fresh[one.max(other)]);
            }
        }
    }
}
