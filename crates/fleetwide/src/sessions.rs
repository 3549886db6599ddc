//! The session cache: entries that live and end together, with short ids, shared by the fleet.
//!
//! # Examples
//! ```
//! use fleetwide::Fleetwide;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory();
//! let chats = fleet.sessions::<String>("chats").build()?;
//! let session = chats.session("alice-7")?;
//!
//! let stored = session.put("plan", "buy milk".to_owned()).await?;
//! let id = stored.id.expect("Redis was there to give one");
//! let found = chats.resolve(&id).await?.found().expect("on any instance");
//! assert_eq!(*found, "buy milk");
//! session.end().await?; // on every instance
//! assert!(!chats.resolve(&id).await?.is_found());
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Codec, Serde};
use fleetwide_mem_backend::MokaLocal;
use fleetwide_session_cache::{self as session_cache, SessionCache};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use fleetwide_session_cache::{
    Answer, Changed, ConfigError, Found, Gap, IdError, NameError, Place, ReferenceError,
    SessionChange, SessionError, SessionId, SessionLoadError, SessionStats, SessionsStats, ShortId,
    ShortIdError, ShortIdFailed, Stored, Target, Warmed,
};

use crate::backend::FleetExecutor;
use crate::cache::{BEATS_PER_BOUND, Bytes};
use crate::{Fleetwide, log};

/// A session cache of a fleet. Cheap to clone; it follows its log for as long as a clone lives.
pub type Sessions<V> = SessionCache<V, FleetExecutor>;
/// One session of it.
pub type Session<V> = session_cache::Session<V, FleetExecutor>;
/// What is done to one session.
pub type Changes = session_cache::Changes<FleetExecutor>;

impl Fleetwide {
    /// Options of the session cache called `name`, on the backend of the caches, preset by their
    /// settings.
    ///
    /// Instances that use the same name share it, so they use it for the same type. Values are
    /// stored as bincode.
    pub fn sessions<V>(&self, name: &str) -> SessionsBuilder<V>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.sessions_with_codec(name, Serde::default())
    }

    /// The same with another codec.
    pub fn sessions_with_codec<V, C>(&self, name: &str, codec: C) -> SessionsBuilder<V, C>
    where
        V: Send + Sync + 'static,
        C: Codec<V>,
    {
        SessionsBuilder::new(self, name, codec)
    }
}

/// Options of [`Sessions`], preset by the fleet's settings. Made by [`Fleetwide::sessions`].
#[must_use = "a builder does nothing until `build`"]
pub struct SessionsBuilder<V, C = Serde> {
    fleet: Fleetwide,
    name: String,
    codec: C,
    bytes: Bytes,
    ttl: Duration,
    l1_ttl: Option<Duration>,
    l1_entries: Option<usize>,
    staleness_bound: Duration,
    rest: Options<V>,
}

/// What [`SessionsBuilder::options`] was given.
type Options<V> = Box<dyn FnOnce(Rest<V>) -> Rest<V>>;
/// The builder of the session cache's own crate.
type Rest<V> = session_cache::SessionCacheBuilder<V, FleetExecutor>;

impl<V, C> SessionsBuilder<V, C>
where
    V: Send + Sync + 'static,
    C: Codec<V>,
{
    fn new(fleet: &Fleetwide, name: &str, codec: C) -> Self {
        let settings = fleet.settings().cache;
        Self {
            fleet: fleet.clone(),
            name: name.to_owned(),
            codec,
            bytes: Bytes::default(),
            ttl: settings.ttl,
            l1_ttl: fleet.cache_backend().is_shared().then_some(settings.l1_ttl),
            l1_entries: None,
            staleness_bound: settings.staleness_bound,
            rest: Box::new(|rest| rest),
        }
    }

    /// Sets how long an entry lives after it was stored. Default: `CACHE_TTL_MS`, 15 min.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Sets how long a process keeps an entry before it asks Redis again. Default:
    /// `CACHE_L1_TTL_MS`, 5 s; in memory the ttl.
    pub fn l1_ttl(self, l1_ttl: Duration) -> Self {
        Self { l1_ttl: Some(l1_ttl), ..self }
    }

    /// Sets how many entries of one session a process keeps, those used last. Default: 50; in memory
    /// there is no limit but bytes, because what leaves would be lost.
    pub fn l1_entries(self, entries: usize) -> Self {
        Self { l1_entries: Some(entries), ..self }
    }

    /// Sets how many bytes all sessions together may take in this process, as
    /// [`CacheBuilder::bytes_max`](crate::cache::CacheBuilder::bytes_max). Default: 64 MiB.
    pub fn bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes: Bytes(bytes_max), ..self }
    }

    /// Sets how old what is marked as verified may be. Default: `CACHE_STALENESS_MS`, 1 s.
    pub fn staleness_bound(self, staleness_bound: Duration) -> Self {
        Self { staleness_bound, ..self }
    }

    /// Sets any other option, as [`fleetwide_session_cache::SessionCacheBuilder`] has it.
    pub fn options(self, set: impl FnOnce(Rest<V>) -> Rest<V> + 'static) -> Self {
        let rest = self.rest;
        Self { rest: Box::new(move |builder| set(rest(builder))), ..self }
    }

    /// Builds the session cache, and follows what other instances do to it.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is empty or too long, a time is out of range, or a number is
    /// zero.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn build(self) -> Result<Sessions<V>, ConfigError> {
        let Self { fleet, name, codec, rest, staleness_bound, bytes, .. } = self;
        let backend = fleet.cache_backend();
        let local = MokaLocal::builder().bytes_max(self.bytes.l1()).build();
        let namespace = fleet.namespace();
        let executor = backend.executor();
        let mut builder =
            SessionCache::builder_with_codec(executor, namespace, &name, local, codec)
                .ttl(self.ttl)
                .shared(backend.is_shared())
                .alone(backend.is_alone())
                .options(move |below| {
                    below.staleness_bound(staleness_bound).pending_bytes_max(bytes.pending())
                });
        if let Some(l1_ttl) = self.l1_ttl {
            builder = builder.l1_ttl(l1_ttl);
        }
        if let Some(entries) = self.l1_entries {
            builder = builder.l1_entries(entries);
        }
        let sessions = rest(builder).build()?;
        let heartbeat = staleness_bound / BEATS_PER_BOUND;
        let tag = sessions.tag().clone();
        let following = log::follow(backend, tag, sessions.follower(), heartbeat);
        let check = sessions.check_layout();
        fleet.beginnings().watch(following.clone(), async { drop(check.await) });
        fleet.layouts().add(sessions.layout_watch());
        let first = sessions.introduce(Arc::new(following.clone())).is_ok();
        if !first || sessions.keep(Box::new(following)).is_err() {
            unreachable!("nobody else has seen this cache yet");
        }
        Ok(sessions)
    }
}

impl<V, C> fmt::Debug for SessionsBuilder<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsBuilder")
            .field("name", &self.name)
            .field("bytes_max", &self.bytes.0)
            .field("ttl", &self.ttl)
            .field("l1_ttl", &self.l1_ttl)
            .field("l1_entries", &self.l1_entries)
            .field("staleness_bound", &self.staleness_bound)
            .finish_non_exhaustive()
    }
}
