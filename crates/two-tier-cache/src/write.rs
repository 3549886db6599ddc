//! Writes: in L2 and for everyone at once, then in this process, before they return.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::AppendError;
use fleetwide_core_traits::{Executor, KeyError, Ttl};

use crate::body;
use crate::cache::{Cache, Inner, checked_wire};
use crate::error::WriteError;
use crate::keep::Keep;
use crate::key::CacheKey;
use crate::ops::{Bump, Clear, EntryKeys, Invalidate, Put};
use crate::options::{PutOptions, WriteOptions};
use crate::payload::{self, Label, Sealed};
use crate::recovery::Target;
use crate::settle::{Inside, WRITE_TIMEOUT};
use crate::tags::{self, CacheTag};
use crate::term;
use crate::token::WriteToken;

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Writes `value` through, and removes what any instance has for `key`.
    ///
    /// After Ok no value whose load began before this call is served here, nor by an instance
    /// that has applied this write (within the staleness bound). The [`WriteToken`] says where in
    /// the log the write stands.
    ///
    /// # Errors
    /// [`WriteError`]. If it [`is_queued`](WriteError::is_queued), this instance serves the new
    /// value for a while, and the key is invalidated everywhere when the server is back.
    ///
    /// # Cancel safety
    /// A dropped call may or may not be carried out. To be sure, its key is queued as after
    /// [`WriteError::Unknown`]: invalidated here at once, and everywhere as soon as the server takes
    /// it.
    pub async fn put(
        &self,
        key: &K,
        value: impl Into<Arc<V>> + Send,
    ) -> Result<WriteToken, WriteError> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// The same with options for this one value.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn put_with(
        &self,
        key: &K,
        value: impl Into<Arc<V>> + Send,
        options: PutOptions,
    ) -> Result<WriteToken, WriteError> {
        let inner = &self.inner;
        let ttl = options.ttl.map_or(Ok(inner.settings.ttl), Ttl::new)?;
        let l1_ttl = options.l1_ttl.map(Ttl::new).transpose()?;
        let wire = checked_wire(key)?;
        let value = value.into();
        let tags = tags::checked(options.tags)?;
        let jitter = options.jitter.map(term::checked_jitter).transpose()?;
        let ttl = inner.jittered(ttl, jitter);
        let (shared_ttl, soft_ttl) = inner.shared_ttl(ttl);
        let sealed = inner.seal(&wire, &value, soft_ttl, &tags)?;
        let weight = Some(sealed.plain_len);
        let keys = EntryKeys::new(&inner.tag, &wire)?;
        let append = inner.append(body::put(&wire)).map_err(too_long)?;
        let (target, inside) = (Target::Key(wire.clone()), Inside::Replaced);
        let replicas = options.replicas;
        let written = if inner.settings.l2 {
            // A put that was given up must not store its value when it arrives late all the same.
            let until = inner.server_deadline(WRITE_TIMEOUT);
            let op = Put::new(&keys, append, sealed.envelope, shared_ttl, !tags.is_empty(), until);
            inner.carry_out(&op, (target, inside), replicas, |done| done.meta).await
        } else {
            let op = Invalidate::new(&keys, append);
            inner.carry_out(&op, (target, inside), replicas, |meta| meta).await
        };
        let (cost, key_bytes) = (Duration::ZERO, wire.len());
        let keep = Keep { ttl, l1_ttl, cost, weight, key_bytes, tags: &tags };
        inner.replace((key, &wire), value, keep, written.as_ref().ok().map(|written| written.at));
        written?.token(replicas)
    }

    /// Removes what any instance has for `key`.
    ///
    /// After Ok no value whose load began before this call is stored in the shared tier, or served
    /// here, or by an instance that has applied it (within the staleness bound).
    ///
    /// # Errors
    /// [`WriteError`]. If it [`is_queued`](WriteError::is_queued), this instance does not serve the
    /// old value any more, and the others follow when the server is back.
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn invalidate(&self, key: &K) -> Result<WriteToken, WriteError> {
        self.invalidate_with(key, WriteOptions::default()).await
    }

    /// The same with options for this one write.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate); and [`WriteError::TooFewReplicas`].
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn invalidate_with(
        &self,
        key: &K,
        options: WriteOptions,
    ) -> Result<WriteToken, WriteError> {
        let wire = checked_wire(key)?;
        let op = self.inner.invalidation(&wire)?;
        let target = (Target::Key(wire), Inside::Out(key));
        let written = self.inner.carry_out(&op, target, options.replicas, |meta| meta);
        written.await?.token(options.replicas)
    }

    /// Removes everything that carries `tag`, on every instance, at the cost of one step however
    /// much it is.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn invalidate_tag(&self, tag: &CacheTag) -> Result<WriteToken, WriteError> {
        self.invalidate_tag_with(tag, WriteOptions::default()).await
    }

    /// The same with options for this one write.
    ///
    /// # Errors
    /// As for [`invalidate_with`](Self::invalidate_with).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn invalidate_tag_with(
        &self,
        tag: &CacheTag,
        options: WriteOptions,
    ) -> Result<WriteToken, WriteError> {
        let op = self.inner.bump(tag.bytes())?;
        let target = (Target::Tag(tag.bytes().clone()), Inside::Unknown);
        let written = self.inner.carry_out(&op, target, options.replicas, |meta| meta);
        written.await?.token(options.replicas)
    }

    /// Removes everything that any instance has, at the cost of one step however much it is.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn clear(&self) -> Result<WriteToken, WriteError> {
        self.clear_with(WriteOptions::default()).await
    }

    /// The same with options for this one write.
    ///
    /// # Errors
    /// As for [`invalidate_with`](Self::invalidate_with).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn clear_with(&self, options: WriteOptions) -> Result<WriteToken, WriteError> {
        let inner = &self.inner;
        let op = inner.clearing()?;
        let target = (Target::Everything, Inside::Unknown);
        let written = inner.carry_out(&op, target, options.replicas, |meta| meta).await;
        inner.local.clear();
        written?.token(options.replicas)
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn seal(
        &self,
        wire: &[u8],
        value: &V,
        soft_ttl: Option<Duration>,
        tags: &[Bytes],
    ) -> Result<Sealed, WriteError> {
        let above = self.settings.compress_above;
        let label = Label { load_cost: Duration::ZERO, soft_ttl, tags };
        let sealed = payload::seal(&*self.codec, value, above, &label)?;
        Ok(self.codec.protect(wire, sealed)?)
    }

    pub(crate) fn bump(&self, tag: &Bytes) -> Result<Bump, WriteError> {
        let append = self.append(body::bump(tag)).map_err(too_long)?;
        Ok(Bump::new(&self.tag, append, tag.clone(), self.settings.tags_max))
    }

    pub(crate) fn invalidation(&self, wire: &Bytes) -> Result<Invalidate, WriteError> {
        let append = self.append(body::invalidate(wire)).map_err(too_long)?;
        Ok(Invalidate::new(&EntryKeys::new(&self.tag, wire)?, append))
    }

    pub(crate) fn clearing(&self) -> Result<Clear, WriteError> {
        Ok(Clear::new(&self.tag, self.append(body::clear()).map_err(too_long)?))
    }
}

/// The body of an entry holds the key and little else, so only a huge key makes it too large.
pub(crate) fn too_long(AppendError::TooLarge(bytes): AppendError) -> WriteError {
    WriteError::Key(KeyError::TooLong(bytes))
}
