//! The session cache: its parts, and what concerns all sessions.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::{Follower, Followers};
use fleetwide_core_traits::{
    BackendError, Clock, Codec, Executor, Local, MonoTime, Namespace, Serde, Tag, Ttl,
};
use fleetwide_two_tier_cache::{
    Applied, Cache, CacheTag, Hit, L1Entry, LayoutError, LayoutWatch, PutOptions, Stats,
    Tier as CacheTier, WaitError, WriteError, WriteToken,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::builder::SessionCacheBuilder;
use crate::changes::Hub;
use crate::directory::{Directory, IdError};
use crate::error::SessionError;
use crate::found::{Answer, Found, Seen};
use crate::id::ShortId;
use crate::place::{NameError, Place, SessionId, user_tag};
use crate::record::{Body, Record, Target};
use crate::roster::{Known, Roster};
use crate::session::Session;
use crate::telemetry::{SessionsStats, Telemetry};
use crate::tier::Tier;

/// References that are followed, one from another, before what they show counts as dangling. With it
/// a circle of references ends.
const HOPS_MAX: usize = 4;

/// A cache whose entries belong to sessions. Cheap to clone; all clones are one cache.
///
/// See the [crate page](crate) for what a session is.
pub struct SessionCache<V, E> {
    pub(crate) inner: Arc<Inner<V, E>>,
}

/// The parts of a session cache.
pub(crate) struct Inner<V, E> {
    pub(crate) cache: Cache<Place, Record<V>, E>,
    pub(crate) tier: Tier<V>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) directory: Directory<E>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) follower: Arc<dyn Follower>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ttl: Ttl,
    /// Whether there is a second tier, so that this process may forget.
    pub(crate) shared: bool,
    pub(crate) name: String,
}

/// That an entry was stored, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Its short id. `None` if the server gave none, which
    /// [`Session::short_id`] can ask for again.
    pub id: Option<ShortId>,
    /// The place of the write in the log.
    pub token: WriteToken,
}

impl<V> SessionCache<V, ()>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Options for values that serde knows, stored as bincode.
    ///
    /// `name` keeps it apart from other session caches in `namespace`; instances that share one use
    /// the same. `local` is the tier in this process.
    pub fn builder<E: Executor + Clone>(
        executor: E,
        namespace: &Namespace,
        name: &str,
        local: impl Local<Place, L1Entry<Record<V>>>,
    ) -> SessionCacheBuilder<V, E> {
        SessionCacheBuilder::new(executor, namespace, name, local, Serde::default())
    }
}

impl<V: Send + Sync + 'static> SessionCache<V, ()> {
    /// The same with another codec.
    pub fn builder_with_codec<E: Executor + Clone>(
        executor: E,
        namespace: &Namespace,
        name: &str,
        local: impl Local<Place, L1Entry<Record<V>>>,
        codec: impl Codec<V>,
    ) -> SessionCacheBuilder<V, E> {
        SessionCacheBuilder::new(executor, namespace, name, local, codec)
    }
}

impl<V, E> SessionCache<V, E>
where
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(inner: Inner<V, E>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The session called `id`. It costs nothing: a session begins with its first entry.
    ///
    /// # Errors
    /// [`NameError`] if `id` is empty or longer than [`SessionId::BYTES_MAX`].
    pub fn session(&self, id: &str) -> Result<Session<V, E>, NameError> {
        Ok(Session::new(Arc::clone(&self.inner), SessionId::new(id)?))
    }

    /// What the entry with this short id holds, whatever its session. One round trip more than a
    /// read by key.
    ///
    /// An entry that has expired, was removed, or whose session was ended is
    /// [`Answer::Absent`], like an id that nothing has.
    ///
    /// # Errors
    /// [`BackendError`] if nobody could be asked what has the id.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn resolve(&self, id: &ShortId) -> Result<Answer<V>, BackendError> {
        match self.locate(id).await? {
            Some(place) => Ok(self.inner.read(&place).await),
            None => Ok(Answer::Absent),
        }
    }

    /// The place that has this short id, whether or not there is an entry now.
    ///
    /// # Errors
    /// [`BackendError`] if nobody could be asked.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn locate(&self, id: &ShortId) -> Result<Option<Place>, BackendError> {
        self.inner.directory.place_of(id).await
    }

    /// Removes the entries that carry `tag`, from all sessions, in one step.
    ///
    /// # Errors
    /// [`WriteError`], as for [`Cache::invalidate_tag`]; also for a tag longer than 511 bytes.
    ///
    /// # Cancel safety
    /// As for [`Cache::put`].
    pub async fn invalidate_tag(&self, tag: &CacheTag) -> Result<WriteToken, WriteError> {
        self.inner.cache.invalidate_tag(&user_tag(tag)?).await
    }

    /// Removes everything from all sessions, in one step.
    ///
    /// # Errors
    /// [`WriteError`], as for [`Cache::clear`].
    ///
    /// # Cancel safety
    /// As for [`Cache::put`].
    pub async fn clear(&self) -> Result<WriteToken, WriteError> {
        self.inner.cache.clear().await
    }

    /// The tag of the log: hand it to whatever follows logs, together with
    /// [`follower`](Self::follower).
    pub fn tag(&self) -> &Tag {
        self.inner.cache.tag()
    }

    /// What must be told about the log. Without it there are no changes to watch, and no tier in
    /// this process.
    pub fn follower(&self) -> Arc<dyn Follower> {
        Arc::clone(&self.inner.follower)
    }

    /// Keeps something, such as the task that follows the log, for as long as the cache lives.
    ///
    /// # Errors
    /// What was handed in, if something is kept already.
    pub fn keep(&self, what: Box<dyn Any + Send + Sync>) -> Result<(), Box<dyn Any + Send + Sync>> {
        self.inner.cache.keep(what)
    }

    /// Introduces who knows how far all instances have come; see [`Cache::introduce`].
    ///
    /// # Errors
    /// What was handed in, if somebody was introduced before.
    pub fn introduce(&self, followers: Arc<dyn Followers>) -> Result<(), Arc<dyn Followers>> {
        self.inner.cache.introduce(followers)
    }

    /// Waits until all live instances have applied the write that returned `token`, such as the end
    /// of a session; see [`Cache::wait_applied`].
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
        self.inner.cache.wait_applied(token, within).await
    }

    /// Waits until the log is followed: from then on subscribers miss nothing silently that happens.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn followed(&self) {
        let mut followed = self.inner.hub.followed();
        // The sender lives in `self`, so the wait can only end well.
        let _ = followed.wait_for(|followed| *followed).await;
    }

    /// Counts over all sessions since the cache was built, and sizes now.
    pub fn stats(&self) -> SessionsStats {
        let telemetry = &self.inner.telemetry;
        SessionsStats {
            active: self.inner.roster.active(),
            ended: telemetry.ended.read(),
            hits: telemetry.hits.read(),
            misses: telemetry.misses.read(),
            evictions: telemetry.evictions.read(),
            dangling: telemetry.dangling.read(),
            ids_failed: telemetry.ids_failed.read(),
            lagged: telemetry.lagged.read(),
        }
    }

    /// Asks the server whether all instances that share the cache lay it out as this one does; see
    /// [`Cache::check_layout`].
    ///
    /// # Errors
    /// [`LayoutError`] if they do not.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn check_layout(&self) -> impl Future<Output = Result<(), LayoutError>> + Send + use<V, E> {
        self.inner.cache.check_layout()
    }

    /// What says at any time whether the layouts differ, without keeping the cache alive.
    pub fn layout_watch(&self) -> LayoutWatch {
        self.inner.cache.layout_watch()
    }

    /// What the cache below counts: a reference that is read is two reads there.
    pub fn cache_stats(&self) -> Stats {
        self.inner.cache.stats()
    }

    /// The name that the cache was built with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }
}

impl<V, E> Inner<V, E>
where
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Reads an entry, and what it refers to.
    pub(crate) async fn read(&self, place: &Place) -> Answer<V> {
        let answer = match self.cache.get(place).await {
            Some(hit) => self.follow(place, hit).await,
            None => Answer::Absent,
        };
        self.count(place.session(), &answer);
        answer
    }

    /// What an entry shows: its value, or that of the entry at the end of its references.
    ///
    /// Each is read as it is now, so what is invalidated anywhere on the way is not shown.
    pub(crate) async fn follow(&self, place: &Place, first: Hit<Record<V>>) -> Answer<V> {
        let (id, mut seen) = (first.id, Seen::of(&first));
        let (mut hit, mut target) = (first, None::<Target>);
        for _ in 0..=HOPS_MAX {
            let next = match &hit.body {
                Body::Value(value) => {
                    let (value, place) = (Arc::clone(value), place.clone());
                    return Answer::Found(Found { value, place, id, target, seen });
                }
                Body::Reference(next) => next.clone(),
            };
            let Some(found) = self.cache.get(&next.place).await else {
                return Answer::Dangling(next);
            };
            seen = seen.then(Seen::of(&found));
            (hit, target) = (found, Some(next));
        }
        target.map_or(Answer::Absent, Answer::Dangling)
    }

    pub(crate) fn count(&self, session: &SessionId, answer: &Answer<V>) {
        let hit = matches!(answer, Answer::Found(found) if found.tier() != CacheTier::Load);
        let count = if hit { &self.telemetry.hits } else { &self.telemetry.misses };
        count.add();
        if matches!(answer, Answer::Dangling(_)) {
            self.telemetry.dangling.add();
        }
        self.tier.count(session, hit);
    }

    /// Stores an entry, with its short id in it.
    pub(crate) async fn store(
        &self,
        place: &Place,
        body: Body<V>,
        options: PutOptions,
    ) -> Result<Stored, SessionError> {
        let ttl = self.ttl_of(&options)?;
        let known = self.id_for(place, ttl).await;
        self.store_as(place, known, body, options).await
    }

    /// The same once it is known which id the entry has.
    pub(crate) async fn store_as(
        &self,
        place: &Place,
        known: Option<Known>,
        body: Body<V>,
        options: PutOptions,
    ) -> Result<Stored, SessionError> {
        let id = known.map(|known| known.id);
        let options = tagged(place.session(), options)?;
        let written = self.cache.put_with(place, Record { id, body }, options).await;
        if let Some(known) = known {
            self.roster.learn(place, known);
        }
        Ok(Stored { id, token: written? })
    }

    /// The id of an entry that is about to be stored. `None` if the server gives none: the entry is
    /// worth more than its id.
    pub(crate) async fn id_for(&self, place: &Place, ttl: Ttl) -> Option<Known> {
        let now = self.clock.now();
        // An id that was lengthened lately need not be again: most rewrites save a round trip.
        let needed = now.plus(self.directory.needed(ttl));
        if let Some(known) = self.roster.known(place, needed) {
            return Some(known);
        }
        let id = self.directory.allot(place, ttl).await;
        self.told(place, id, ttl, now)
    }

    /// The same for a load, which must not wait for it for long.
    pub(crate) async fn id_within(
        &self,
        place: &Place,
        ttl: Ttl,
        limit: Duration,
    ) -> Option<ShortId> {
        let known = timeout(limit, self.id_for(place, ttl)).await;
        known.ok().flatten().map(|known| known.id)
    }

    pub(crate) fn told(
        &self,
        place: &Place,
        id: Result<ShortId, IdError>,
        ttl: Ttl,
        asked: MonoTime,
    ) -> Option<Known> {
        match id {
            Ok(id) => {
                let until = asked.plus(self.directory.life(ttl).as_duration());
                Some(Known { id, until })
            }
            Err(error) => {
                tracing::debug!(sessions = %self.name, session = %place.session(), %error, "no short id");
                self.telemetry.ids_failed.add();
                None
            }
        }
    }

    pub(crate) fn ttl_of(&self, options: &PutOptions) -> Result<Ttl, SessionError> {
        let ttl = options.ttl.map_or(Ok(self.ttl), Ttl::new);
        Ok(ttl.map_err(WriteError::from)?)
    }
}

/// What an entry carries: its session's tag, and the user's in a form that is no session's.
pub(crate) fn tagged(
    session: &SessionId,
    mut options: PutOptions,
) -> Result<PutOptions, WriteError> {
    let tags: Result<Vec<_>, _> = options.tags.iter().map(user_tag).collect();
    options.tags = tags?;
    options.tags.push(session.tag());
    Ok(options)
}

impl<V, E> Clone for SessionCache<V, E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<V, E> fmt::Debug for SessionCache<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCache").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
