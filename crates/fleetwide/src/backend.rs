//! What carries a role: this process, or a Redis.

use fleetwide_core_traits::Health;
use fleetwide_mem_backend::{MemBus, MemExecutor, MemStore, Memory};

use crate::health::Info;

#[cfg(feature = "redis")]
use fleetwide_core_traits::Either;
#[cfg(feature = "redis")]
use fleetwide_redis_backend::{Redis, RedisBus, RedisExecutor, RedisStore};

/// Runs the steps of a role, in memory or over Redis.
#[cfg(feature = "redis")]
pub type FleetExecutor = Either<MemExecutor, RedisExecutor>;
/// Carries the messages of a role, in memory or over Redis.
#[cfg(feature = "redis")]
pub type FleetBus = Either<MemBus, RedisBus>;
/// Stores bytes for a role, in memory or over Redis.
#[cfg(feature = "redis")]
pub type FleetStore = Either<MemStore, RedisStore>;

/// Runs the steps of a role; this build has no Redis.
#[cfg(not(feature = "redis"))]
pub type FleetExecutor = MemExecutor;
/// Carries the messages of a role; this build has no Redis.
#[cfg(not(feature = "redis"))]
pub type FleetBus = MemBus;
/// Stores bytes for a role; this build has no Redis.
#[cfg(not(feature = "redis"))]
pub type FleetStore = MemStore;

/// The backend of one role.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Memory {
        memory: Memory,
        /// Whether no other fleet has it too.
        alone: bool,
    },
    #[cfg(feature = "redis")]
    Redis(Redis),
}

#[cfg(feature = "redis")]
#[allow(dead_code, reason = "a build without any capability runs and sends nothing")]
impl Backend {
    pub(crate) fn executor(&self) -> FleetExecutor {
        match self {
            Self::Memory { memory, .. } => Either::Left(memory.executor().clone()),
            Self::Redis(redis) => Either::Right(redis.executor()),
        }
    }

    pub(crate) fn bus(&self) -> FleetBus {
        match self {
            Self::Memory { memory, .. } => Either::Left(memory.bus().clone()),
            Self::Redis(redis) => Either::Right(redis.bus()),
        }
    }

    pub(crate) fn store(&self) -> FleetStore {
        match self {
            Self::Memory { memory, .. } => Either::Left(memory.store().clone()),
            Self::Redis(redis) => Either::Right(redis.store()),
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Memory { alone: true, .. })
    }

    pub(crate) fn health(&self) -> Health {
        match self {
            Self::Memory { .. } => Health::Up,
            Self::Redis(redis) => redis.health(),
        }
    }

    pub(crate) async fn info(&self) -> Option<Info> {
        match self {
            Self::Memory { .. } => None,
            Self::Redis(redis) => {
                let silent = |error| tracing::debug!(%error, "no answer to INFO");
                redis.info().await.map_err(silent).ok()
            }
        }
    }

    pub(crate) async fn settled(&self) {
        if let Self::Redis(redis) = self {
            // A handle begins as down; the first attempt makes it up, or gives another reason. An
            // error means that the handle is gone, and then there is nothing to wait for.
            let mut health = redis.health_watch();
            if !health.borrow_and_update().is_up() {
                let _ = health.changed().await;
            }
        }
    }

    pub(crate) async fn shutdown(&self) {
        if let Self::Redis(redis) = self {
            redis.shutdown().await;
        }
    }
}

#[cfg(not(feature = "redis"))]
#[allow(dead_code, reason = "a build without any capability runs and sends nothing")]
impl Backend {
    pub(crate) fn executor(&self) -> FleetExecutor {
        let Self::Memory { memory, .. } = self;
        memory.executor().clone()
    }

    pub(crate) fn bus(&self) -> FleetBus {
        let Self::Memory { memory, .. } = self;
        memory.bus().clone()
    }

    pub(crate) fn store(&self) -> FleetStore {
        let Self::Memory { memory, .. } = self;
        memory.store().clone()
    }

    pub(crate) fn is_shared(&self) -> bool {
        false
    }

    pub(crate) fn is_alone(&self) -> bool {
        let Self::Memory { alone, .. } = self;
        *alone
    }

    pub(crate) fn health(&self) -> Health {
        Health::Up
    }

    pub(crate) async fn info(&self) -> Option<Info> {
        None
    }

    pub(crate) async fn settled(&self) {}

    pub(crate) async fn shutdown(&self) {}
}
