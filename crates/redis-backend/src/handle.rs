//! The handle that an application holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Health, Outage};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::builder::RedisBuilder;
use crate::bus::RedisBus;
use crate::exclusive::{Exclusive, ExclusivePool};
use crate::executor::RedisExecutor;
use crate::info::Info;
use crate::shared::Shared;
use crate::store::RedisStore;
use crate::url::RedisUrl;

/// A Redis server, however it is doing at the moment. Cheap to clone.
///
/// It reconnects for ever and by itself. While there is no connection, calls fail at once with
/// [`BackendError::NotSent`]; only while the very first attempt runs do they wait for it.
///
/// All tasks behind it end after [`shutdown`](Self::shutdown), and also when the last clone and
/// everything made from one is dropped.
#[derive(Clone)]
pub struct Redis {
    handle: Arc<Handle>,
}

/// Ends the tasks when the last owner is gone.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) bus: crate::bus::Line,
    pub(crate) pool: ExclusivePool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.pool.close();
    }
}

impl Redis {
    /// Returns the options of a handle on the server at `url`.
    pub fn builder(url: RedisUrl) -> RedisBuilder {
        RedisBuilder::new(url)
    }

    pub(crate) fn from_handle(handle: Handle) -> Self {
        Self { handle: Arc::new(handle) }
    }

    /// Runs atomic steps.
    pub fn executor(&self) -> RedisExecutor {
        RedisExecutor::new(Arc::clone(&self.handle))
    }

    /// Reads and writes plain values.
    pub fn store(&self) -> RedisStore {
        RedisStore::new(Arc::clone(&self.handle))
    }

    /// Publishes and subscribes.
    pub fn bus(&self) -> RedisBus {
        RedisBus::new(Arc::clone(&self.handle))
    }

    /// A connection of one's own, for commands that block or that belong together.
    ///
    /// # Errors
    /// [`BackendError::NotSent`]: none was free, or none could be made.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn exclusive(&self) -> Result<Exclusive, BackendError> {
        self.handle.pool.get().await
    }

    /// How the server is doing, as the last requests and looks showed it.
    pub fn health(&self) -> Health {
        self.handle.shared.board.health()
    }

    /// Follows [`health`](Self::health). Each change comes once; the receiver outlives the handle.
    pub fn health_watch(&self) -> watch::Receiver<Health> {
        self.handle.shared.board.watch()
    }

    /// Waits until there is a connection, `deadline` at most.
    ///
    /// # Errors
    /// [`BackendError::NotSent`] with the reason. The handle goes on trying.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self, deadline: Duration) -> Result<(), BackendError> {
        let mut health = self.health_watch();
        let by = Instant::now() + deadline;
        let stands = |health: &Health| !matches!(health, Health::Down { .. });
        if let Ok(Ok(_)) = timeout_at(by, health.wait_for(stands)).await {
            return Ok(());
        }
        Err(BackendError::NotSent(Outage::Down(self.handle.shared.board.why_down())))
    }

    /// Asks the server for the numbers that people look at first.
    ///
    /// # Errors
    /// [`BackendError`] on an outage. Asking changes nothing.
    pub async fn info(&self) -> Result<Info, BackendError> {
        let shared = &self.handle.shared;
        let reply = shared.command(redis::cmd("INFO"), shared.budget()).await?;
        Info::parse(&reply.into_bytes()?)
    }

    /// Ends all connections and tasks, and returns when they have ended.
    ///
    /// Calls under way fail with [`BackendError::Unknown`], later ones with
    /// [`BackendError::NotSent`]; subscriptions end.
    ///
    /// # Cancel safety
    /// A dropped call has begun to end everything, and it goes on.
    pub async fn shutdown(&self) {
        let shared = &self.handle.shared;
        shared.stop.cancel();
        self.handle.pool.close();
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("address", &self.handle.shared.target.address)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}
