//! What a loader is told, and what it can say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Ttl, TtlError};
use parking_lot::Mutex;

use crate::tags::{self, CacheTag, TagError};

/// What the loader of [`Cache::get_or_load_with`](crate::Cache::get_or_load_with) is handed.
///
/// Through it the loader says how the value is to be kept, once it knows the value.
pub struct LoadContext<K> {
    key: K,
    said: Arc<Mutex<Said>>,
}

/// What a loader has said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) tags: Vec<CacheTag>,
    pub(crate) no_store: bool,
}

impl<K> LoadContext<K> {
    pub(crate) fn new(key: K) -> (Self, Arc<Mutex<Said>>) {
        let said = Arc::new(Mutex::new(Said::default()));
        (Self { key, said: Arc::clone(&said) }, said)
    }

    /// The key that is to be loaded.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The key, for a loader that needs nothing else.
    pub fn into_key(self) -> K {
        self.key
    }

    /// Sets how long this value lives, in the place of the cache's ttl.
    ///
    /// # Errors
    /// [`TtlError`] if it is zero or too long; the ttl stays as it was.
    pub fn ttl(&self, ttl: Duration) -> Result<(), TtlError> {
        self.said.lock().ttl = Some(Ttl::new(ttl)?);
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

impl<K: fmt::Debug> fmt::Debug for LoadContext<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadContext").field("key", &self.key).finish_non_exhaustive()
    }
}
