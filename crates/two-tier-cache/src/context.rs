//! What a loader is told, and what it can say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Ttl, TtlError};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::error::JitterError;
use crate::tags::{self, CacheTag, TagError};
use crate::term::checked_jitter;

/// What a loader says about a key.
///
/// A plain value and an `Option` of one turn into it: `Ok(user)`, `Ok(Some(user))`, `Ok(None)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded<V> {
    /// The origin has this value.
    Value(V),
    /// The origin has none, which is remembered for the cache's
    /// [`negative_ttl`](crate::CacheBuilder::negative_ttl).
    Absent,
    /// The [`previous`](LoadContext::previous) value is still the one that the origin has. It is
    /// kept for another ttl.
    NotModified,
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Self {
        Self::Value(value)
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }
}

/// What the loader of [`Cache::get_or_load_with`](crate::Cache::get_or_load_with) is handed.
///
/// Through it the loader says how the value is to be kept, once it knows the value.
pub struct LoadContext<K, V> {
    key: K,
    previous: Option<Arc<V>>,
    said: Arc<Mutex<Said>>,
}

/// What a loader has said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) l1_ttl: Option<Ttl>,
    pub(crate) jitter: Option<f64>,
    pub(crate) tags: Vec<CacheTag>,
    pub(crate) no_store: bool,
}

/// What a loader fails with.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A loader whose type nobody needs to know any more.
pub(crate) type Loader<K, V> =
    Box<dyn FnOnce(LoadContext<K, V>) -> BoxFuture<'static, Result<Loaded<V>, BoxError>> + Send>;

/// Forgets the type of a loader.
pub(crate) fn erased<K, V, L, F, T, R>(loader: L) -> Loader<K, V>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
    F: Future<Output = Result<T, R>> + Send + 'static,
    T: Into<Loaded<V>>,
    R: Into<BoxError>,
{
    Box::new(|context| {
        // The loader's own code runs inside the future, where a panic of it is caught.
        Box::pin(async move { loader(context).await.map(Into::into).map_err(Into::into) })
    })
}

impl<K, V> LoadContext<K, V> {
    pub(crate) fn new(key: K, previous: Option<Arc<V>>) -> (Self, Arc<Mutex<Said>>) {
        let said = Arc::new(Mutex::new(Said::default()));
        (Self { key, previous, said: Arc::clone(&said) }, said)
    }

    /// The key that is to be loaded.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The key, for a loader that needs nothing else.
    pub fn into_key(self) -> K {
        self.key
    }

    /// The value that is to be renewed, for an origin that can say whether it has changed: see
    /// [`Loaded::NotModified`]. `None` when there was none, or it was invalidated.
    pub fn previous(&self) -> Option<&Arc<V>> {
        self.previous.as_ref()
    }

    /// Sets how long this value lives, in the place of the cache's ttl.
    ///
    /// # Errors
    /// [`TtlError`] if it is zero or too long; the ttl stays as it was.
    pub fn ttl(&self, ttl: Duration) -> Result<(), TtlError> {
        self.said.lock().ttl = Some(Ttl::new(ttl)?);
        Ok(())
    }

    /// Sets how long this value lives in this process before the shared tier is asked again, in the
    /// place of the cache's [`l1_ttl`](crate::CacheBuilder::l1_ttl). Other instances keep it as
    /// long as their caches say.
    ///
    /// # Errors
    /// [`TtlError`] if it is zero or too long; it stays as it was.
    pub fn l1_ttl(&self, l1_ttl: Duration) -> Result<(), TtlError> {
        self.said.lock().l1_ttl = Some(Ttl::new(l1_ttl)?);
        Ok(())
    }

    /// Sets by what share, 0 to 1, this value's ttl is shortened at random, in the place of the
    /// cache's [`jitter`](crate::CacheBuilder::jitter).
    ///
    /// # Errors
    /// [`JitterError`] if it is not from 0 to 1; it stays as it was.
    pub fn jitter(&self, share: f64) -> Result<(), JitterError> {
        self.said.lock().jitter = Some(checked_jitter(share)?);
        Ok(())
    }

    /// Lets the value carry a tag.
    ///
    /// # Errors
    /// [`TagError`] if it is no tag, or one too many; the value does not carry it then.
    pub fn tag(&self, tag: impl AsRef<[u8]>) -> Result<(), TagError> {
        let mut said = self.said.lock();
        let mut tags = said.tags.clone();
        tags.push(CacheTag::new(tag)?);
        tags::checked(tags.clone())?;
        said.tags = tags;
        Ok(())
    }

    /// Keeps the value out of the cache: it goes to those who wait, and nowhere else.
    pub fn no_store(&self) {
        self.said.lock().no_store = true;
    }
}

impl Said {
    /// The tags as an entry carries them. They were checked as they came.
    pub(crate) fn take_tags(&mut self) -> Vec<Bytes> {
        tags::checked(std::mem::take(&mut self.tags)).unwrap_or_default()
    }
}

impl<K: fmt::Debug, V> fmt::Debug for LoadContext<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadContext").field("key", &self.key).finish_non_exhaustive()
    }
}
