//! How a session cache is put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{
    Clock, Codec, CodecError, Executor, FormatId, Local, Namespace, SystemClock, Ttl,
};
use fleetwide_two_tier_cache::{Cache, CacheBuilder, L1Entry};

use crate::cache::{Inner, SessionCache};
use crate::changes::Hub;
use crate::directory::Directory;
use crate::error::ConfigError;
use crate::follow::Following;
use crate::ops;
use crate::place::Place;
use crate::record::{Record, RecordCodec};
use crate::roster::{Limits, Roster};
use crate::telemetry::Telemetry;
use crate::tier::Tier;

/// Fifteen minutes, as for any cache: a session that pauses for longer starts again.
const TTL_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Five seconds: a hot entry costs the server one read in that time and instance.
const L1_TTL_DEFAULT: Duration = Duration::from_secs(5);
/// What one session may have in a process: a conversation, and not an archive.
const L1_ENTRIES_DEFAULT: usize = 50;
/// Sessions that one process follows; with 50 entries each, half a million.
const SESSIONS_MAX_DEFAULT: usize = 10_000;
/// An id can be quoted a while after its entry is gone, and must not name another one then.
const ID_GRACE_DEFAULT: Duration = Duration::from_secs(3600);
/// Changes that wait for one slow subscriber.
const CHANGES_MAX_DEFAULT: usize = 256;
/// A session that is watched takes room for all of them at once: some MiB then.
const CHANGES_MAX_LIMIT: usize = 1 << 16;

/// Options of a [`SessionCache`]. Setters never fail: only [`build`](Self::build) sees how they fit.
///
/// | option | default |
/// | --- | --- |
/// | [`ttl`](Self::ttl) | 15 min |
/// | [`l1_ttl`](Self::l1_ttl) | 5 s, or the ttl without L2 |
/// | [`l1_entries`](Self::l1_entries) | 50 for each session; without L2 no limit but bytes |
/// | [`sessions_max`](Self::sessions_max) | 10,000 |
/// | [`id_grace`](Self::id_grace) | 1 h |
/// | [`changes_max`](Self::changes_max) | 256 |
/// | [`shared`](Self::shared) | yes |
/// | [`alone`](Self::alone) | no |
#[must_use = "a builder does nothing until `build`"]
pub struct SessionCacheBuilder<V, E> {
    executor: E,
    namespace: Namespace,
    name: String,
    local: Box<dyn FnOnce(Arc<Roster>) -> Tier<V>>,
    codec: Box<dyn Codec<Record<V>>>,
    clock: Arc<dyn Clock>,
    ttl: Duration,
    l1_ttl: Option<Duration>,
    l1_entries: Option<usize>,
    sessions_max: usize,
    id_grace: Duration,
    changes_max: usize,
    shared: bool,
    alone: bool,
    rest: Options<V, E>,
}

/// What [`SessionCacheBuilder::options`] was given.
type Options<V, E> = Box<dyn FnOnce(Below<V, E>) -> Below<V, E>>;
/// The builder of the cache below.
type Below<V, E> = CacheBuilder<Place, Record<V>, E>;

impl<V, E> SessionCacheBuilder<V, E>
where
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(
        executor: E,
        namespace: &Namespace,
        name: &str,
        local: impl Local<Place, L1Entry<Record<V>>>,
        codec: impl Codec<V>,
    ) -> Self {
        Self {
            executor,
            namespace: namespace.clone(),
            name: name.to_owned(),
            local: Box::new(|roster| Tier::new(local, roster)),
            codec: Box::new(RecordCodec(codec)),
            clock: Arc::new(SystemClock),
            ttl: TTL_DEFAULT,
            l1_ttl: None,
            l1_entries: None,
            sessions_max: SESSIONS_MAX_DEFAULT,
            id_grace: ID_GRACE_DEFAULT,
            changes_max: CHANGES_MAX_DEFAULT,
            shared: true,
            alone: false,
            rest: Box::new(|below| below),
        }
    }

    /// Sets how long an entry lives after it was stored; a session that nobody uses for so long is
    /// no longer tracked. Default: 15 min.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Sets how long an entry lives in this process. Default: 5 s, or the ttl without L2.
    pub fn l1_ttl(self, l1_ttl: Duration) -> Self {
        Self { l1_ttl: Some(l1_ttl), ..self }
    }

    /// Sets how many entries one session may have in this process; beyond it, the one that was used
    /// least lately leaves. Default: 50.
    ///
    /// It stays in L2. Without L2 what leaves is lost, so then there is no limit unless one is
    /// set here.
    pub fn l1_entries(self, entries: usize) -> Self {
        Self { l1_entries: Some(entries), ..self }
    }

    /// Sets how many sessions are tracked; beyond it, the one that was used least lately leaves this
    /// process, with its entries and its counts. Default: 10,000.
    pub fn sessions_max(self, sessions: usize) -> Self {
        Self { sessions_max: sessions, ..self }
    }

    /// Sets how long a short id outlives its entry at least, so that it cannot be another's at once.
    /// Default: 1 h. Each id takes about 300 bytes of the server's memory, for up to half as long
    /// again: an id is lengthened ahead, so that most rewrites need not ask for it.
    pub fn id_grace(self, grace: Duration) -> Self {
        Self { id_grace: grace, ..self }
    }

    /// Sets how many changes wait for a slow subscriber, 1 to 65,536, rounded up to a power of two.
    /// Beyond it the oldest are dropped, and the subscriber is told. Default: 256.
    ///
    /// A session that is watched takes the room for all of them at once.
    pub fn changes_max(self, changes: usize) -> Self {
        Self { changes_max: changes, ..self }
    }

    /// Sets whether entries are kept in a shared tier, as [`CacheBuilder::l2`]. Default: yes.
    pub fn shared(self, shared: bool) -> Self {
        Self { shared, ..self }
    }

    /// Says that nobody else can write, as [`CacheBuilder::alone`]. Default: no.
    pub fn alone(self, alone: bool) -> Self {
        Self { alone, ..self }
    }

    /// Sets where time comes from. Default: the operating system.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sets any other option of the cache below.
    pub fn options(self, set: impl FnOnce(Below<V, E>) -> Below<V, E> + 'static) -> Self {
        let rest = self.rest;
        Self { rest: Box::new(move |below| set(rest(below))), ..self }
    }

    /// Builds the cache.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is empty or too long, a time is out of range, or a number is
    /// zero or too large.
    pub fn build(self) -> Result<SessionCache<V, E>, ConfigError> {
        for (what, number) in [
            ("l1_entries", self.l1_entries.unwrap_or(1)),
            ("sessions_max", self.sessions_max),
            ("changes_max", self.changes_max),
        ] {
            if number == 0 {
                return Err(ConfigError::Zero(what));
            }
        }
        if self.changes_max > CHANGES_MAX_LIMIT {
            let (setting, max) = ("changes_max", CHANGES_MAX_LIMIT);
            return Err(ConfigError::TooMany { setting, max });
        }
        self.namespace.tag("session-ids", self.name.as_bytes()).map_err(ConfigError::Name)?;
        // Whatever the id, its shard has a name of this length.
        ops::shard(&self.namespace, &self.name, "00").map_err(ConfigError::Name)?;
        let telemetry = Arc::new(Telemetry::new(&self.name));
        let shared = self.shared && !self.alone;
        let limits = Limits {
            sessions: self.sessions_max,
            entries: self.l1_entries.or(shared.then_some(L1_ENTRIES_DEFAULT)),
            idle: self.ttl,
        };
        let roster = Arc::new(Roster::new(limits, Arc::clone(&self.clock), Arc::clone(&telemetry)));
        let tier = (self.local)(Arc::clone(&roster));
        let mut below = Cache::builder_with_codec(
            self.executor.clone(),
            &self.namespace,
            // Apart from what a plain cache of this name would keep.
            &format!("sessions/{}", self.name),
            tier.clone(),
            Boxed(self.codec),
        )
        .ttl(self.ttl)
        .clock(Arc::clone(&self.clock))
        .l2(self.shared)
        .alone(self.alone);
        if let Some(l1_ttl) = self.l1_ttl.or(shared.then_some(L1_TTL_DEFAULT)) {
            below = below.l1_ttl(l1_ttl);
        }
        let cache = (self.rest)(below).build()?;
        let directory = Directory::new(self.executor, self.namespace, &self.name, self.id_grace);
        let hub = Arc::new(Hub::new(self.changes_max));
        let follower = Arc::new(Following {
            below: cache.follower(),
            hub: Arc::clone(&hub),
            tier: tier.clone(),
            roster: Arc::clone(&roster),
            shared,
        });
        Ok(SessionCache::new(Inner {
            cache,
            tier,
            roster,
            directory,
            hub,
            follower,
            telemetry,
            clock: self.clock,
            ttl: Ttl::clamped(self.ttl),
            shared,
            name: self.name,
        }))
    }
}

/// A codec whose type is forgotten.
struct Boxed<V>(Box<dyn Codec<V>>);

impl<V: 'static> Codec<V> for Boxed<V> {
    fn encode(&self, value: &V, to: &mut Vec<u8>) -> Result<FormatId, CodecError> {
        self.0.encode(value, to)
    }

    fn decode(&self, format: FormatId, bytes: &[u8]) -> Result<V, CodecError> {
        self.0.decode(format, bytes)
    }

    fn schema(&self) -> u32 {
        self.0.schema()
    }
}

impl<V, E> fmt::Debug for SessionCacheBuilder<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCacheBuilder")
            .field("name", &self.name)
            .field("ttl", &self.ttl)
            .field("l1_ttl", &self.l1_ttl)
            .field("l1_entries", &self.l1_entries)
            .field("sessions_max", &self.sessions_max)
            .finish_non_exhaustive()
    }
}
