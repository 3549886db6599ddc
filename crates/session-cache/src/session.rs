//! One session: what a caller holds.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Executor};
use fleetwide_two_tier_cache::{LoadContext, Loaded, PutOptions, WriteError, WriteToken};
use futures_util::future::join;

use crate::cache::{Inner, Stored};
use crate::changes::Changes;
use crate::error::{ReferenceError, SessionError, SessionLoadError, ShortIdFailed};
use crate::found::Answer;
use crate::id::ShortId;
use crate::place::{NameError, Place, SessionId};
use crate::record::{Body, Record, Target};
use crate::roster::SessionStats;

/// A load waits for its short id no longer than a read waits for the shared tier.
const LOAD_ID_LIMIT: Duration = Duration::from_millis(100);

/// A session of a [`SessionCache`](crate::SessionCache). Cheap to clone, and to make again.
pub struct Session<V, E> {
    pub(crate) inner: Arc<Inner<V, E>>,
    pub(crate) id: SessionId,
}

impl<V, E> Session<V, E>
where
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(inner: Arc<Inner<V, E>>, id: SessionId) -> Self {
        Self { inner, id }
    }

    /// Its name.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn place(&self, key: &str) -> Result<Place, NameError> {
        Place::new(&self.id, key)
    }

    /// What the entry under `key` holds, or what it refers to.
    ///
    /// Trouble with the server is [`Answer::Absent`], and adds at most the budget of the cache below.
    /// So is a key that cannot be one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get(&self, key: &str) -> Answer<V> {
        match self.place(key) {
            Ok(place) => self.inner.read(&place).await,
            Err(_) => Answer::Absent,
        }
    }

    /// What the entry with this short id holds, if it is in this session; for any session see
    /// [`SessionCache::resolve`](crate::SessionCache::resolve).
    ///
    /// # Errors
    /// [`BackendError`] if nobody could be asked what has the id.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn resolve(&self, id: &ShortId) -> Result<Answer<V>, BackendError> {
        match self.inner.directory.place_of(id).await? {
            Some(place) if *place.session() == self.id => Ok(self.inner.read(&place).await),
            _ => Ok(Answer::Absent),
        }
    }

    /// What the entry under `key` holds, loaded by `loader` if no tier has it: once, however many
    /// ask, in however many instances. A loader that says `Ok(None)` makes it [`Answer::Absent`].
    ///
    /// A load is no change of the session: subscribers are not told. A reference whose target is gone
    /// is [`Answer::Dangling`], and nothing is loaded.
    ///
    /// # Errors
    /// [`SessionLoadError`] if the key is none, or the loader fails. Trouble with the server is no
    /// error.
    ///
    /// # Cancel safety
    /// Cancel safe: a load that has begun goes on for the others, and fills the cache.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn get_or_load<L, F, T, R>(
        &self,
        key: &str,
        loader: L,
    ) -> Result<Answer<V>, SessionLoadError>
    where
        L: FnOnce(Place) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>> + Send,
        R: Into<Box<dyn Error + Send + Sync>> + Send,
    {
        let place = self.place(key)?;
        let (inner, at) = (Arc::clone(&self.inner), place.clone());
        let load = move |context: LoadContext<Place, Record<V>>| async move {
            if context.tag(at.session().tag().as_bytes()).is_err() {
                // Without its tag it would outlive its session.
                context.no_store();
            }
            let id = inner.id_within(&at, inner.ttl, LOAD_ID_LIMIT);
            let (said, id) = join(loader(at.clone()), id).await;
            said.map(|said| record(said.into(), id))
        };
        let hit = self.inner.cache.try_get_or_load(&place, load).await?;
        let answer = match hit {
            Some(hit) => self.inner.follow(&place, hit).await,
            None => Answer::Absent,
        };
        self.inner.count(&self.id, &answer);
        Ok(answer)
    }

    /// Writes `value` under `key`, on every instance, and gives the entry its short id.
    ///
    /// The id is the same on every instance, and stays when the entry is written again.
    ///
    /// # Errors
    /// [`SessionError`]. If it [`is_queued`](SessionError::is_queued), this instance serves the new
    /// value for a while, and the entry is removed everywhere when the server is back.
    ///
    /// # Cancel safety
    /// *Not* cancel safe: a dropped call may or may not be carried out. An id that was given stays.
    pub async fn put(&self, key: &str, value: impl Into<Arc<V>>) -> Result<Stored, SessionError> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// The same with options for this entry. Tags are shared by all sessions, and void entries with
    /// [`SessionCache::invalidate_tag`](crate::SessionCache::invalidate_tag); an entry takes 31.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn put_with(
        &self,
        key: &str,
        value: impl Into<Arc<V>>,
        options: PutOptions,
    ) -> Result<Stored, SessionError> {
        let (place, body) = (self.place(key)?, Body::Value(value.into()));
        self.inner.store(&place, body, options).await
    }

    /// Writes under `key` a reference to the entry that has the short id `target`, in any session.
    ///
    /// Reading it gives what the target holds at that moment. If the target expires, is removed, or
    /// its session is ended, the reference dangles. References are followed four deep, so a circle of
    /// them dangles too.
    ///
    /// # Errors
    /// [`ReferenceError`].
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn put_reference(
        &self,
        key: &str,
        target: &ShortId,
    ) -> Result<Stored, ReferenceError> {
        self.put_reference_with(key, target, PutOptions::default()).await
    }

    /// The same with options for this entry.
    ///
    /// # Errors
    /// As for [`put_reference`](Self::put_reference).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn put_reference_with(
        &self,
        key: &str,
        target: &ShortId,
        options: PutOptions,
    ) -> Result<Stored, ReferenceError> {
        let place = self.place(key).map_err(SessionError::from)?;
        let located = self.inner.directory.place_of(target).await;
        let shown = located.map_err(ReferenceError::Directory)?;
        let shown = shown.ok_or(ReferenceError::Unknown(*target))?;
        if shown == place {
            return Err(ReferenceError::Itself);
        }
        let body = Body::Reference(Target { id: *target, place: shown });
        Ok(self.inner.store(&place, body, options).await?)
    }

    /// Removes the entry under `key`, on every instance.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn remove(&self, key: &str) -> Result<WriteToken, SessionError> {
        Ok(self.inner.cache.invalidate(&self.place(key)?).await?)
    }

    /// The short id of the entry under `key`, which is given one if it has none. For an entry that
    /// was stored without, or loaded.
    ///
    /// # Errors
    /// [`ShortIdFailed`] if the key is none, or the server gave no id.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn short_id(&self, key: &str) -> Result<ShortId, ShortIdFailed> {
        let place = self.place(key)?;
        Ok(self.inner.directory.allot(&place, self.inner.ttl).await?)
    }

    /// Ends the session: all its entries are gone on every instance, in one step however many they
    /// are. Short ids of them no longer resolve, references to them dangle, subscribers are told.
    ///
    /// What is written afterwards begins the session anew. Under its old keys it has its old ids.
    ///
    /// # Errors
    /// [`WriteError`]. If it [`is_queued`](WriteError::is_queued), this instance no longer serves the
    /// session's entries, and the others follow when the server is back.
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn end(&self) -> Result<WriteToken, WriteError> {
        let ended = self.inner.cache.invalidate_tag(&self.id.tag()).await;
        if self.inner.shared {
            self.inner.tier.end(&self.id);
        }
        self.inner.telemetry.ended.add();
        ended
    }

    /// What any instance does to the session from now on. None is lost silently: see
    /// [`SessionChange::Gap`](crate::SessionChange::Gap).
    ///
    /// 'Now' is the place that the log is followed to; before it is followed at all, the place where
    /// that begins, which is told as [`Gap::NotFollowed`](crate::Gap::NotFollowed).
    pub fn changes(&self) -> Changes<E> {
        let subscription = self.inner.hub.subscribe(&self.id);
        let telemetry = Arc::clone(&self.inner.telemetry);
        Changes::new(subscription, self.inner.directory.clone(), telemetry)
    }

    /// How the session fares in this process; `None` if it was not used here lately.
    pub fn stats(&self) -> Option<SessionStats> {
        self.inner.roster.stats(&self.id)
    }
}

fn record<V>(loaded: Loaded<V>, id: Option<ShortId>) -> Loaded<Record<V>> {
    match loaded {
        Loaded::Value(value) => Loaded::Value(Record { id, body: Body::Value(Arc::new(value)) }),
        Loaded::Absent => Loaded::Absent,
        Loaded::NotModified => Loaded::NotModified,
    }
}

impl<V, E> Clone for Session<V, E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), id: self.id.clone() }
    }
}

impl<V, E> fmt::Debug for Session<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.id).finish()
    }
}
