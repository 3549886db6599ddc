//! What the cache does with its log, inside the receive loop.

use std::sync::{Arc, Weak};

use fleetwide_core_traits::log::{Begin, Entry, Follower, Meta, Stamp};
use fleetwide_core_traits::{Executor, MonoTime, ServerTime};

use crate::body::{self, Said};
use crate::cache::Inner;
use crate::key::CacheKey;

/// The cache as a follower. It does not keep the cache alive: the task that drives it is itself
/// kept by the cache.
pub(crate) struct Following<K, V, E>(Weak<Inner<K, V, E>>);

impl<K, V, E> Following<K, V, E> {
    pub(crate) fn new(inner: &Arc<Inner<K, V, E>>) -> Self {
        Self(Arc::downgrade(inner))
    }
}

impl<K, V, E> Follower for Following<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn begin(&self, at: Stamp, why: Begin) {
        let Some(cache) = self.0.upgrade() else { return };
        if cache.settings.alone {
            return;
        }
        cache.floors.begin(at);
        cache.detach_all();
        if why == Begin::Reset {
            // What the server has lost may be the layout as well.
            cache.executor.doubt();
        }
        if why != Begin::First {
            cache.telemetry.resets.add();
            // Nothing in it counts any more; this only gives the memory back.
            cache.local.clear();
        }
    }

    fn apply(&self, entry: &Entry) {
        let Some(cache) = self.0.upgrade() else { return };
        // Alone, every entry is our own, and was seen to before its write returned: doing it again
        // would void what has been put since.
        if cache.settings.alone {
            return;
        }
        match body::read(&entry.body) {
            Said::Changed(key) => changed(&cache, &key, entry.stamp),
            Said::ChangedMany(keys) => {
                for key in keys {
                    changed(&cache, &key, entry.stamp);
                }
            }
            Said::Bumped(tag) => {
                cache.floors.raise_tag(&tag, entry.stamp);
                // Which of the loads under way will carry the tag is not known yet.
                cache.detach_all();
            }
            Said::Cleared => {
                cache.floors.raise_all(entry.stamp);
                cache.detach_all();
            }
        }
        // Last: who sees the number must see the floor.
        cache.floors.seen(entry.stamp);
        cache.telemetry.applied.add();
    }

    fn verified(&self, _at: Stamp, as_of: MonoTime) {
        let Some(cache) = self.0.upgrade() else { return };
        if cache.executor.has_agreed() {
            cache.floors.verified(as_of);
        } else {
            cache.floors.verified_if_confirmed(as_of);
        }
    }

    fn known(&self) -> Option<Meta> {
        self.0.upgrade()?.floors.own()
    }

    fn server_clock(&self, sent: MonoTime, server: ServerTime) {
        if let Some(cache) = self.0.upgrade() {
            cache.server_clock(sent, server);
        }
    }

    fn tick(&self) {
        if let Some(cache) = self.0.upgrade() {
            cache.telemetry.verified_age(cache.verified_age());
            cache.telemetry.bytes(cache.local.weight(), &cache.ledger);
            cache.executor.tick();
        }
    }

    fn signal(&self, key: &[u8]) {
        if let Some(cache) = self.0.upgrade() {
            cache.wakes.wake(key);
        }
    }
}

/// A key was written or removed.
fn changed<K, V, E>(cache: &Inner<K, V, E>, key: &[u8], at: Stamp)
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    cache.floors.raise(cache.stripe(key), at);
    cache.detach(key);
    cache.wakes.wake(key);
}
