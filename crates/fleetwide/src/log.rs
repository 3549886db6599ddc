//! Follows the log of a capability on the backend of its role.

#[cfg(feature = "cache")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cache")]
use fleetwide_core_traits::{Tag, log::Follower};
use fleetwide_pubsub_invalidation::Log;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

#[cfg(feature = "cache")]
use crate::backend::Backend;

/// How long the beginning of a log is watched for. It may come later, but nobody waits that long.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The logs that have just been started.
#[derive(Debug, Default)]
pub(crate) struct Beginnings(Mutex<Vec<JoinHandle<()>>>);

impl Beginnings {
    /// Watches for the beginning of `log`, and for what is to be asked then.
    pub(crate) fn watch(&self, log: Log, then: impl Future<Output = ()> + Send + 'static) {
        let begun = async move {
            // Late or never is no news: the log says so itself.
            let _ = timeout(BEGIN_TIMEOUT, log.begun()).await;
            drop(log);
            then.await;
        };
        let mut watched = self.0.lock();
        watched.retain(|task| !task.is_finished());
        watched.push(tokio::spawn(begun));
    }

    /// Waits until all that were started before have begun, or are not watched any more.
    pub(crate) async fn all(&self) {
        let watched = std::mem::take(&mut *self.0.lock());
        for task in watched {
            // A task can only fail by a panic, which it has told by itself.
            let _ = task.await;
        }
    }
}

/// Starts to follow; the log is followed for as long as the handle lives.
#[cfg(feature = "cache")]
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
