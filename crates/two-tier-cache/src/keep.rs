//! What L1 takes, and for how long both tiers keep it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Executor, Ttl};

use crate::cache::Inner;
use crate::entry::{Entry, Head, Kept, L1Entry};
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::tags;
use crate::term::{self, Life, Term};

/// How a value is kept in L1.
#[derive(Clone, Copy)]
pub(crate) struct Keep<'a> {
    pub(crate) ttl: Duration,
    /// How long before L2 is asked again, if not as the cache has it.
    pub(crate) l1_ttl: Option<Ttl>,
    /// What loading it cost.
    pub(crate) cost: Duration,
    /// What it weighs; `None` if it is not to be kept.
    pub(crate) weight: Option<u32>,
    /// Bytes of its key, which weigh as well.
    pub(crate) key_bytes: usize,
    pub(crate) tags: &'a [Bytes],
}

impl Keep<'_> {
    /// What the value, its key and its tags weigh.
    pub(crate) fn full_weight(&self) -> Option<u32> {
        Some(self.weight?.saturating_add(tags::weight(self.key_bytes, self.tags)))
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// What is loaded or written here, for L1. It is not kept if it has no weight, or too much.
    pub(crate) fn keep_local(
        &self,
        key: &K,
        value: Arc<V>,
        pass: Pass,
        keep: Keep<'_>,
    ) -> Arc<Entry<Arc<V>>> {
        let entry = self.own_entry(value, pass, keep);
        if let Some(weight) = keep.full_weight() {
            self.keep(key, Kept::Value(Arc::clone(&entry)), weight);
        }
        entry
    }

    pub(crate) fn own_entry(
        &self,
        value: Arc<V>,
        pass: Pass,
        keep: Keep<'_>,
    ) -> Arc<Entry<Arc<V>>> {
        Arc::new(Entry { head: self.own_head(pass, keep), value })
    }

    /// The same for what the origin does not have.
    pub(crate) fn keep_absent(&self, key: &K, pass: Pass, keep: Keep<'_>) {
        let entry = Arc::new(Entry { head: self.own_head(pass, keep), value: () });
        self.keep(key, Kept::Absent(entry), tags::weight(keep.key_bytes, keep.tags));
    }

    fn own_head(&self, pass: Pass, keep: Keep<'_>) -> Head {
        let now = self.clock.now();
        let l1 = keep.ttl.min(keep.l1_ttl.unwrap_or(self.settings.l1_ttl).as_duration());
        let early = self.settings.ask.early;
        let life = Life { age: Duration::ZERO, fresh: keep.ttl, l1, cost: keep.cost, early };
        Head::new(pass, self.floors.of(keep.tags), Term::new(now, life), None)
    }

    /// A ttl with a value's own jitter, or the cache's.
    pub(crate) fn jittered(&self, ttl: Ttl, own: Option<f64>) -> Duration {
        let jitter = own.unwrap_or(self.settings.jitter);
        if jitter > 0.0 {
            term::jittered(ttl.as_duration(), jitter, rand::random())
        } else {
            ttl.as_duration()
        }
    }

    /// How long L2 keeps a value that is fresh for `ttl`, and what its envelope must say of that.
    pub(crate) fn shared_ttl(&self, ttl: Duration) -> (Ttl, Option<Duration>) {
        let grace = self.settings.ask.grace();
        (Ttl::clamped(ttl.saturating_add(grace)), (grace > Duration::ZERO).then_some(ttl))
    }

    /// Puts something into L1, unless it would take too much of it.
    pub(crate) fn keep(&self, key: &K, kept: Kept<V>, weight: u32) {
        if weight <= self.settings.l1_value_bytes_max || !self.settings.l2 {
            let head = kept.head();
            let turn = self.floors.turn(head.pass.stripe);
            let is_late = || self.floors.admit_apart(&head.pass, &head.tags).is_none();
            if turn.is_some() && is_late() {
                return;
            }
            self.local.insert(key.clone(), L1Entry(kept), weight);
        }
    }
}
