//! A value on its way into the cache, and how it is to be kept.

use std::sync::Arc;

use fleetwide_core_traits::Ttl;

use crate::context::Said;
use crate::error::JitterError;
use crate::tags::{self, CacheTag, TagError};
use crate::term::checked_jitter;

/// A value for the cache, and how it is to be kept. Made from a value, or from an [`Arc`] of one.
#[derive(Debug)]
pub struct BulkItem<V> {
    pub(crate) value: Arc<V>,
    pub(crate) said: Said,
}

impl<V> BulkItem<V> {
    /// A value that is kept as the cache's options say.
    pub fn new(value: impl Into<Arc<V>>) -> Self {
        Self { value: value.into(), said: Said::default() }
    }

    /// Sets how long this value lives. Default: the cache's ttl.
    #[must_use]
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.said.ttl = Some(ttl);
        self
    }

    /// Sets how long this value lives in this process before the shared tier is asked again.
    /// Default: the cache's. Other instances keep it as long as their caches say.
    #[must_use]
    pub fn l1_ttl(mut self, l1_ttl: Ttl) -> Self {
        self.said.l1_ttl = Some(l1_ttl);
        self
    }

    /// Sets by what share, 0 to 1, this value's ttl is shortened at random. Default: the cache's.
    ///
    /// # Errors
    /// [`JitterError`] if it is not from 0 to 1.
    pub fn jitter(mut self, share: f64) -> Result<Self, JitterError> {
        self.said.jitter = Some(checked_jitter(share)?);
        Ok(self)
    }

    /// Lets the value carry a tag. Default: none.
    ///
    /// # Errors
    /// [`TagError::TooMany`] if it carries as many as a value may.
    pub fn tag(mut self, tag: CacheTag) -> Result<Self, TagError> {
        self.said.tags.push(tag);
        tags::checked(self.said.tags.clone())?;
        Ok(self)
    }

    /// Keeps a loaded value out of the cache: it goes to those who wait, and nowhere else. A write
    /// takes no notice of it.
    #[must_use]
    pub fn no_store(mut self) -> Self {
        self.said.no_store = true;
        self
    }
}

impl<V> From<V> for BulkItem<V> {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}

impl<V> From<Arc<V>> for BulkItem<V> {
    fn from(value: Arc<V>) -> Self {
        Self::new(value)
    }
}

impl<V> Clone for BulkItem<V> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), said: self.said.clone() }
    }
}
