//! Waiting until every instance has applied a write.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::Executor;
use fleetwide_core_traits::log::{Applied, Followers, WaitError};

use crate::cache::Cache;
use crate::key::CacheKey;
use crate::token::WriteToken;

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Introduces who knows how far all instances have come: whatever follows the cache's log.
    ///
    /// # Errors
    /// What was handed in, if somebody was introduced before.
    pub fn introduce(&self, followers: Arc<dyn Followers>) -> Result<(), Arc<dyn Followers>> {
        self.inner.followers.set(followers)
    }

    /// Waits until all live instances have applied the write that returned `token`, for `within`
    /// at most.
    ///
    /// After Ok no read that begins later gets, on any of the [`nodes`](Applied::nodes) instances,
    /// a value whose load began before the write. Any other instance has not been heard of by the
    /// server for its life (two staleness bounds, with the facade): what it serves from
    /// its L1 is [`Unverified`](crate::Freshness::Unverified), for the L1 ttl at most.
    ///
    /// It costs a few round trips when all are well: the others are nudged to say how far they are.
    /// An instance that is frozen, cut off or gone delays it by its life at most. One that joins
    /// later begins after the write. For one life after the log itself has begun, or its server has
    /// lost the list of the instances, it waits for those who could not have been heard of yet.
    ///
    /// Outside of it: an instance whose first sign of life was lost by a failover to a replica that
    /// had not received it, until its next beat.
    ///
    /// # Errors
    /// [`WaitError`]. The write stands; only that all have applied it is not known.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn wait_applied(
        &self,
        token: WriteToken,
        within: Duration,
    ) -> Result<Applied, WaitError> {
        let inner = &self.inner;
        if inner.settings.alone {
            return Ok(Applied::by(1));
        }
        let followers = inner.followers.get().ok_or(WaitError::NotFollowed)?;
        followers.applied(token.stamp(), within).await
    }
}
