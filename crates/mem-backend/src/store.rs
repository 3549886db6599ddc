//! The in-process store.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Clock, Key, MonoTime, Store, SystemClock, Ttl};
use moka::Expiry;
use moka::notification::RemovalCause;

use crate::bounded::{Bounded, Weighed};

/// What an entry costs beside the bytes of its key and value: 256 as in any tier, and its timer and
/// the headers of both. Measured.
const ENTRY_BYTES: u32 = 384;

/// A [`Store`] in this process, bounded in bytes. Cheap to clone: all clones are one store.
///
/// Made by [`Memory`](crate::Memory). When it is full it evicts, first what is asked for least. An
/// entry is gone when its ttl is over by the memory's clock, to the microsecond; its bytes are
/// freed soon after, or, when the clock is not the system's, once there is no room.
///
/// An entry weighs the bytes of its key and value, and 384 more for its place in the tables. One
/// that is heavier than 15/16 of the budget is not kept.
#[derive(Clone)]
pub struct MemStore {
    values: Bounded<Key, Value>,
    clock: Arc<dyn Clock>,
    departures: Arc<Counts>,
}

#[derive(Clone)]
struct Value {
    bytes: Bytes,
    ttl: Duration,
    expires_at: MonoTime,
}

/// Why an entry left a [`MemStore`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Departure {
    /// There was no room for it.
    Evicted,
    /// Its time was over.
    Expired,
    /// Its key got another value.
    Replaced,
    /// The caller removed it.
    Removed,
}

/// What is told of each departure.
pub(crate) type Listener = Box<dyn Fn(&Key, Departure) + Send + Sync>;

#[derive(Default)]
struct Counts {
    evicted: AtomicU64,
    expired: AtomicU64,
    replaced: AtomicU64,
    removed: AtomicU64,
}

impl MemStore {
    /// `clock` is `None` for the system's.
    pub(crate) fn new(
        bytes_max: u64,
        clock: Option<Arc<dyn Clock>>,
        listener: Option<Listener>,
    ) -> Self {
        let departures = Arc::new(Counts::default());
        let counts = Arc::clone(&departures);
        let departed = move |key: Arc<Key>, _value, cause| {
            let cause = Departure::from(cause);
            counts.of(cause).fetch_add(1, Relaxed);
            if let Some(listener) = &listener {
                listener(&key, cause);
            }
        };
        // Moka frees by real time. Under a clock that a test moves that would be too early.
        let frees_by_time = clock.is_none();
        let values = Bounded::new(bytes_max, |cache| {
            let cache = cache.eviction_listener(departed);
            if frees_by_time { cache.expire_after(FreeAfterTtl) } else { cache }
        });
        Self { values, clock: clock.unwrap_or_else(|| Arc::new(SystemClock)), departures }
    }

    /// How many entries have left for this reason. An entry is counted when its bytes are freed.
    pub fn departures(&self, cause: Departure) -> u64 {
        self.departures.of(cause).load(Relaxed)
    }

    /// How many entries there are, roughly, the expired that are not freed yet included.
    pub fn len(&self) -> u64 {
        self.values.len()
    }

    /// Whether there is no entry, roughly.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that all entries take together, roughly.
    pub fn weight(&self) -> u64 {
        self.values.weight()
    }

    /// Evicts what is over the budget now, so that the numbers are exact. For tests: it happens by
    /// itself.
    pub fn settle(&self) {
        self.values.settle();
    }

    fn living(&self, key: &Key, now: MonoTime) -> Option<Bytes> {
        self.values.get(key).filter(|value| value.lives(now)).map(|value| value.bytes)
    }
}

impl Store for MemStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        Ok(self.living(key, self.clock.now()))
    }

    async fn set(&self, key: &Key, value: Bytes, ttl: Ttl) -> Result<(), BackendError> {
        let bytes = (key.as_bytes().len() + value.len()).try_into().unwrap_or(u32::MAX);
        let ttl = ttl.as_duration();
        let value = Value { bytes: value, ttl, expires_at: self.clock.now().plus(ttl) };
        self.values.insert(key.clone(), value, ENTRY_BYTES.saturating_add(bytes));
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<bool, BackendError> {
        let now = self.clock.now();
        Ok(self.values.remove(key).is_some_and(|value| value.lives(now)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BackendError> {
        let now = self.clock.now();
        Ok(keys.iter().map(|key| self.living(key, now)).collect())
    }
}

impl Value {
    fn lives(&self, now: MonoTime) -> bool {
        now < self.expires_at
    }
}

impl Counts {
    fn of(&self, cause: Departure) -> &AtomicU64 {
        match cause {
            Departure::Evicted => &self.evicted,
            Departure::Expired => &self.expired,
            Departure::Replaced => &self.replaced,
            Departure::Removed => &self.removed,
        }
    }
}

impl From<RemovalCause> for Departure {
    fn from(cause: RemovalCause) -> Self {
        match cause {
            RemovalCause::Size => Self::Evicted,
            RemovalCause::Expired => Self::Expired,
            RemovalCause::Replaced => Self::Replaced,
            RemovalCause::Explicit => Self::Removed,
        }
    }
}

/// Frees the bytes of what has expired without waiting for somebody to need the room.
struct FreeAfterTtl;

impl Expiry<Key, Weighed<Value>> for FreeAfterTtl {
    fn expire_after_create(&self, _: &Key, new: &Weighed<Value>, _: Instant) -> Option<Duration> {
        Some(new.value.ttl)
    }

    /// A value that is set again has a new ttl; moka's default would keep the old one.
    fn expire_after_update(
        &self,
        _: &Key,
        new: &Weighed<Value>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(new.value.ttl)
    }
}

impl fmt::Debug for MemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemStore")
            .field("entries", &self.len())
            .field("weight", &self.weight())
            .finish_non_exhaustive()
    }
}
