//! The handle that an application holds.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "events")]
use std::sync::OnceLock;
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::backend::{Backend, FleetStore};
use crate::builder::{FleetwideBuilder, Role, StartError};
use crate::env::Settings;
#[cfg(feature = "events")]
use crate::events::Events;
use crate::health::{FleetHealth, Info, Mode, RoleHealth};
#[cfg(feature = "cache")]
use crate::layouts::Layouts;
#[cfg(any(feature = "cache", feature = "events"))]
use crate::log::Beginnings;
#[cfg(feature = "cache")]
use fleetwide_two_tier_cache::LayoutError;

/// The capabilities of one instance of a fleet. Cheap to clone; all clones are one instance.
///
/// See the [crate page](crate) for how to come by one and what to do with it.
#[derive(Clone)]
pub struct Fleetwide {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    cache: Backend,
    events: Backend,
    limiter: Backend,
    #[cfg(any(feature = "cache", feature = "events"))]
    beginnings: Beginnings,
    #[cfg(feature = "cache")]
    layouts: Layouts,
    #[cfg(feature = "events")]
    bus: OnceLock<Events>,
}

/// How long events that wait for Redis may take to leave before the end.
#[cfg(feature = "events")]
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of the connections may take before it goes on alone.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

impl Fleetwide {
    /// A fleet as the variables of this process say; see [`env`](crate::env).
    ///
    /// Nothing set is in memory. A Redis that is away is no error: the fleet starts degraded, and
    /// joins when it comes.
    ///
    /// # Errors
    /// [`StartError`] names the first variable with a value that it does not take.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if a Redis is configured.
    pub fn from_env() -> Result<Self, StartError> {
        Ok(FleetwideBuilder::new(Settings::from_env()?).build()?)
    }

    /// A fleet as `settings` say.
    ///
    /// # Errors
    /// [`StartError::Build`] if a Redis is configured that this version cannot speak to.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if a Redis is configured.
    pub fn from_settings(settings: Settings) -> Result<Self, StartError> {
        Ok(FleetwideBuilder::new(settings).build()?)
    }

    /// A fleet of one, in memory.
    pub fn memory() -> Self {
        let memory = fleetwide_mem_backend::Memory::new();
        let memory = Backend::Memory { memory, alone: true };
        Self::new(Settings::default(), [memory.clone(), memory.clone(), memory])
    }

    /// Options.
    pub fn builder() -> FleetwideBuilder {
        FleetwideBuilder::default()
    }

    pub(crate) fn new(settings: Settings, [cache, events, limiter]: [Backend; 3]) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                cache,
                events,
                limiter,
                #[cfg(any(feature = "cache", feature = "events"))]
                beginnings: Beginnings::default(),
                #[cfg(feature = "cache")]
                layouts: Layouts::default(),
                #[cfg(feature = "events")]
                bus: OnceLock::new(),
            }),
        }
    }

    /// What the fleet is configured with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// What keeps its keys apart from others on the same server.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.settings.namespace
    }

    /// A plain store on the cache's backend. Users bring keys of their own, made from
    /// [`namespace`](Self::namespace).
    pub fn store(&self) -> FleetStore {
        self.inner.cache.store()
    }

    /// Whether any role is shared over Redis.
    pub fn mode(&self) -> Mode {
        let shared = self.inner.roles().into_iter().any(|(_, backend)| backend.is_shared());
        if shared { Mode::Redis } else { Mode::Memory }
    }

    /// How the backend of each role is doing, as the last requests showed it. Asks nobody.
    pub fn health(&self) -> FleetHealth {
        let role = |(role, backend): (Role, &Backend)| RoleHealth {
            name: role.name(),
            enabled: backend.is_shared(),
            health: backend.health(),
        };
        let mut roles: Vec<_> = self.inner.roles().into_iter().map(role).collect();
        #[cfg(feature = "cache")]
        for role in roles.iter_mut().filter(|role| role.name == Role::Cache.name()) {
            if role.health.is_up() {
                role.health = self.inner.layouts.health();
            }
        }
        FleetHealth { roles }
    }

    /// Why a cache of this instance does not use the shared tier, if it is because other instances
    /// lay it out in another way. Asks nobody: what is known after [`settled`](Self::settled) is
    /// what a service looks at before it takes requests.
    #[cfg(feature = "cache")]
    pub fn layout_conflict(&self) -> Option<LayoutError> {
        self.inner.layouts.refused()
    }

    /// What `INFO` says of each role's server, in the order of [`FleetHealth::roles`]; `None` for
    /// a role in memory, and for a server that does not answer.
    pub async fn infos(&self) -> Vec<Option<Info>> {
        let roles = self.inner.roles();
        join_all(roles.iter().map(|(_, backend)| backend.info())).await
    }

    /// Waits until each Redis has been reached or has turned out to be away; and if all were reached,
    /// until the caches and the event bus that were made so far follow their logs. `limit` at most.
    ///
    /// Nothing depends on it. A service that calls it before it takes requests does not tell its
    /// first caller that it is degraded, when it has only just begun to connect.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self, limit: Duration) {
        let roles = self.inner.roles();
        let all = async {
            join_all(roles.iter().map(|(_, backend)| backend.settled())).await;
            #[cfg(any(feature = "cache", feature = "events"))]
            if self.health().overall().is_up() {
                self.inner.beginnings.all().await;
            }
        };
        // Whatever it is by then, it is told as it is.
        let _ = timeout(limit, all).await;
    }

    /// Sends the events that wait for Redis, for 1 s at most, and then ends all connections, within
    /// 2 s.
    ///
    /// Calls under way and later ones fail or answer as in an outage.
    ///
    /// # Cancel safety
    /// A dropped call has begun to end everything, and it goes on.
    pub async fn shutdown(&self) {
        #[cfg(feature = "events")]
        if let Some(bus) = self.inner.bus.get() {
            // What could not be sent by then is counted and logged when the bus ends.
            let _ = timeout(FLUSH_TIMEOUT, bus.flushed()).await;
        }
        let roles = self.inner.roles();
        let all = join_all(roles.iter().map(|(_, backend)| backend.shutdown()));
        if timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            tracing::warn!(
                "connections still stood {SHUTDOWN_TIMEOUT:?} after their end had begun"
            );
        }
    }

    #[cfg(feature = "cache")]
    pub(crate) fn cache_backend(&self) -> &Backend {
        &self.inner.cache
    }

    #[cfg(feature = "cache")]
    pub(crate) fn layouts(&self) -> &Layouts {
        &self.inner.layouts
    }

    #[cfg(any(feature = "cache", feature = "events"))]
    pub(crate) fn beginnings(&self) -> &Beginnings {
        &self.inner.beginnings
    }

    #[cfg(feature = "events")]
    pub(crate) fn events_once(&self, start: impl FnOnce() -> Events) -> Events {
        self.inner.bus.get_or_init(start).clone()
    }

    #[cfg(feature = "events")]
    pub(crate) fn events_backend(&self) -> &Backend {
        &self.inner.events
    }

    #[cfg(feature = "limiter")]
    pub(crate) fn limiter_backend(&self) -> &Backend {
        &self.inner.limiter
    }
}

impl Inner {
    fn roles(&self) -> [(Role, &Backend); 3] {
        [(Role::Cache, &self.cache), (Role::Events, &self.events), (Role::Limiter, &self.limiter)]
    }
}

impl fmt::Debug for Fleetwide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleetwide")
            .field("namespace", &self.inner.settings.namespace)
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
