//! What a single write does differently.

use std::time::Duration;

use fleetwide_core_traits::Replicas;

use crate::tags::CacheTag;

/// What a single [`Cache::put_with`](crate::Cache::put_with) does differently.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PutOptions {
    /// How long this value lives. Default: the cache's ttl.
    pub ttl: Option<Duration>,
    /// How long this process keeps it before the shared tier is asked again. Default: the cache's
    /// [`l1_ttl`](crate::CacheBuilder::l1_ttl).
    pub l1_ttl: Option<Duration>,
    /// By what share, 0 to 1, its ttl is shortened at random. Default: the cache's
    /// [`jitter`](crate::CacheBuilder::jitter).
    pub jitter: Option<f64>,
    /// What the value can be voided by, together with others. Default: nothing.
    pub tags: Vec<CacheTag>,
    /// Replicas that must have it before the call returns Ok. Default: none.
    pub replicas: Option<Replicas>,
}

impl PutOptions {
    /// Sets how long this value lives.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Sets how long this process keeps this value before the shared tier is asked again. Other
    /// instances keep it as long as their caches say.
    #[must_use]
    pub fn l1_ttl(self, l1_ttl: Duration) -> Self {
        Self { l1_ttl: Some(l1_ttl), ..self }
    }

    /// Sets by what share, 0 to 1, this value's ttl is shortened at random.
    #[must_use]
    pub fn jitter(self, share: f64) -> Self {
        Self { jitter: Some(share), ..self }
    }

    /// Lets the value carry a tag.
    #[must_use]
    pub fn tag(mut self, tag: CacheTag) -> Self {
        self.tags.push(tag);
        self
    }

    /// As [`WriteOptions::replicas`].
    #[must_use]
    pub fn replicas(self, count: u32, within: Duration) -> Self {
        Self { replicas: Some(Replicas { count, within }), ..self }
    }
}

/// What a single invalidation does differently: see
/// [`Cache::invalidate_with`](crate::Cache::invalidate_with).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Replicas that must have it before the call returns Ok. Default: none.
    pub replicas: Option<Replicas>,
}

impl WriteOptions {
    /// Waits until so many replicas of the server have the write, for `within` at most.
    ///
    /// A write that returned Ok then survives the loss of the primary if one of those replicas takes
    /// its place. Redis does not promise that one of them does: so ask for as many as there are, or
    /// know how yours are elected. It takes a connection of its own, and one more round trip.
    #[must_use]
    pub const fn replicas(self, count: u32, within: Duration) -> Self {
        Self { replicas: Some(Replicas { count, within }) }
    }
}
