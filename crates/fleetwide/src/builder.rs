//! How a fleet is put together.

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::Memory;

use crate::backend::Backend;
use crate::env::{EnvError, RedisUrl, Servers, Settings};
use crate::fleet::Fleetwide;

/// Options of a [`Fleetwide`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// Nothing set is in memory, with the defaults of [`Settings`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct FleetwideBuilder {
    settings: Settings,
    memory: Option<Memory>,
}

impl FleetwideBuilder {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, memory: None }
    }

    /// Sets what keeps this fleet's keys apart from others on the same server. Default:
    /// `fleetwide`.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.settings.namespace = namespace;
        self
    }

    /// Sets one Redis for all roles. Default: none.
    pub fn redis(mut self, url: &RedisUrl) -> Self {
        self.settings.servers = Servers::all(url);
        self
    }

    /// Sets the Redis of each role. Default: none.
    pub fn servers(mut self, servers: Servers) -> Self {
        self.settings.servers = servers;
        self
    }

    /// Changes any other setting.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets the memory of roles that have no Redis. Default: one of its own.
    ///
    /// Two fleets with the same memory share state as over a server, which is how a test runs a
    /// fleet in one process.
    pub fn memory(self, memory: Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Builds the fleet, and begins to connect.
    ///
    /// A Redis that is away is no error: the fleet starts degraded, and joins when it comes.
    ///
    /// # Errors
    /// [`BuildError`] if a Redis is configured that this version cannot speak to.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if a Redis is configured.
    pub fn build(self) -> Result<Fleetwide, BuildError> {
        let alone = self.memory.is_none();
        let memory = Backend::Memory { memory: self.memory.unwrap_or_default(), alone };
        let mut backends = Backends { memory, shared: Vec::new() };
        let servers = &self.settings.servers;
        let cache = backends.of(Role::Cache, servers.cache.as_ref())?;
        let events = backends.of(Role::Events, servers.events.as_ref())?;
        let limiter = backends.of(Role::Limiter, servers.limiter.as_ref())?;
        Ok(Fleetwide::new(self.settings, [cache, events, limiter]))
    }
}

/// One client for each distinct URL.
struct Backends {
    memory: Backend,
    shared: Vec<(RedisUrl, Backend)>,
}

impl Backends {
    fn of(&mut self, role: Role, url: Option<&RedisUrl>) -> Result<Backend, BuildError> {
        let Some(url) = url else { return Ok(self.memory.clone()) };
        if let Some((_, backend)) = self.shared.iter().find(|(held, _)| held == url) {
            return Ok(backend.clone());
        }
        let backend = connect(role, url)?;
        self.shared.push((url.clone(), backend.clone()));
        Ok(backend)
    }
}

#[cfg(feature = "redis")]
fn connect(role: Role, url: &RedisUrl) -> Result<Backend, BuildError> {
    let redis = fleetwide_redis_backend::Redis::builder(url.clone()).build();
    redis.map(Backend::Redis).map_err(|error| BuildError { role, why: error.to_string() })
}

#[cfg(not(feature = "redis"))]
fn connect(role: Role, _: &RedisUrl) -> Result<Backend, BuildError> {
    Err(BuildError { role, why: "this build is without the feature `redis`".to_owned() })
}

/// What a Redis can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// The shared tier and the log of the caches.
    Cache,
    /// The log of the events.
    Events,
    /// The rate limits.
    Limiter,
}

impl Role {
    /// `cache`, `events` or `limiter`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Events => "events",
            Self::Limiter => "limiter",
        }
    }

    /// The variable that holds the URL of its Redis.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Cache => "FLEETWIDE_CACHE_URL",
            Self::Events => "FLEETWIDE_EVENTS_URL",
            Self::Limiter => "FLEETWIDE_LIMITER_URL",
        }
    }
}

/// Why a [`FleetwideBuilder`] built nothing: a Redis that this version cannot speak to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} (or else REDIS_URL) takes a server that this version can speak to: {why}",
    role.variable()
)]
pub struct BuildError {
    role: Role,
    why: String,
}

impl BuildError {
    /// Whose Redis it is.
    pub fn role(&self) -> Role {
        self.role
    }
}

/// Why [`Fleetwide::from_env`] gave no fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A variable has a value that it does not take.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// A Redis is configured that this version cannot speak to.
    #[error(transparent)]
    Build(#[from] BuildError),
}
