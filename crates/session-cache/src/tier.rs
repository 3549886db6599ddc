//! L1 with a limit for each session: no session pushes the others out.

use std::sync::Arc;

use fleetwide_core_traits::Local;
use fleetwide_two_tier_cache::L1Entry;

use crate::place::{Place, SessionId};
use crate::record::Record;
use crate::roster::Roster;

/// What an entry costs in the [`Roster`], beside its key: its place in the list and in the table.
const ROSTER_BYTES: u32 = 160;

/// What L1 holds of a cache of `V`.
pub(crate) type Held<V> = L1Entry<Record<V>>;

/// A tier in front of which a [`Roster`] decides what leaves. Cheap to clone.
pub(crate) struct Tier<V> {
    inner: Arc<dyn Local<Place, Held<V>>>,
    roster: Arc<Roster>,
}

impl<V: Send + Sync + 'static> Tier<V> {
    pub(crate) fn new(inner: impl Local<Place, Held<V>>, roster: Arc<Roster>) -> Self {
        Self { inner: Arc::new(inner), roster }
    }

    /// A session has ended: what it has here is of no use.
    pub(crate) fn end(&self, session: &SessionId) {
        self.remove_all(self.roster.end(session));
    }

    /// Counts a read of a session.
    pub(crate) fn count(&self, session: &SessionId, hit: bool) {
        self.remove_all(self.roster.count(session, hit));
    }

    /// Forgets some of the sessions that nobody uses.
    pub(crate) fn sweep(&self) {
        self.remove_all(self.roster.sweep());
    }

    // After the roster has let go of its lock: the two locks are never held together.
    fn remove_all(&self, places: Vec<Place>) {
        for place in places {
            self.inner.remove(&place);
        }
    }
}

impl<V: Send + Sync + 'static> Local<Place, Held<V>> for Tier<V> {
    fn get(&self, place: &Place) -> Option<Held<V>> {
        let held = self.inner.get(place)?;
        self.roster.touch(place);
        Some(held)
    }

    fn insert(&self, place: Place, held: Held<V>, weight: u32) {
        let names = place.session().as_str().len() + place.key().len();
        let weight = weight.saturating_add(ROSTER_BYTES + names as u32);
        self.inner.insert(place.clone(), held, weight);
        // After the insert: whatever is there is on the roster, or about to be.
        self.remove_all(self.roster.admit(&place));
    }

    fn remove(&self, place: &Place) {
        self.inner.remove(place);
        self.roster.forget(place);
    }

    fn clear(&self) {
        self.inner.clear();
        self.roster.clear();
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn weight(&self) -> u64 {
        self.inner.weight()
    }
}

impl<V> Clone for Tier<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), roster: Arc::clone(&self.roster) }
    }
}
