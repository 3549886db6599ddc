//! Follows the log of a capability on the backend of its role.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::Tag;
use fleetwide_core_traits::log::Follower;
use fleetwide_pubsub_invalidation::Log;

use crate::backend::Backend;

/// Starts to follow; the log is followed for as long as the handle lives.
pub(crate) fn follow(
    backend: &Backend,
    tag: Tag,
    follower: Arc<dyn Follower>,
    heartbeat: Duration,
) -> Log {
    Log::builder(backend.executor(), backend.bus(), tag)
        .follower(follower)
        .heartbeat(heartbeat)
        .start()
}
