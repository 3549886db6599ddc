//! Writes: in L2 and for everyone at once, then in this process, before they return.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{AppendError, LogCell, Meta, Stamp};
use fleetwide_core_traits::{AtomicOp, BackendError, Executor, ExecutorExt, KeyError, Outage, Ttl};
use rand::Rng;
use tokio::time::{sleep, timeout};

use crate::body;
use crate::cache::{Cache, Inner, Keep, checked_wire};
use crate::error::WriteError;
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::ops::{Bump, Clear, EntryKeys, Invalidate, Put};
use crate::payload::{self, SealError, Sealed};
use crate::recovery::{Due, Target};
use crate::tags::{self, CacheTag};

/// A write waits this long for its answer: longer than any healthy server takes, shorter than a
/// caller's patience.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pauses between attempts to repeat what is queued.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Writes that are repeated before the queue is looked at again.
const REPEAT_BATCH: usize = 64;

/// What a single [`Cache::put_with`] does differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// How long this value lives. Default: the cache's ttl.
    pub ttl: Option<Duration>,
    /// What the value can be voided by, together with others. Default: nothing.
    pub tags: Vec<CacheTag>,
}

impl PutOptions {
    /// Sets how long this value lives.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Lets the value carry a tag.
    #[must_use]
    pub fn tag(mut self, tag: CacheTag) -> Self {
        self.tags.push(tag);
        self
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Writes `value` through, and removes what any instance has for `key`.
    ///
    /// After Ok no value whose load began before this call is served here, nor by an instance
    /// that has applied this write (within the staleness bound).
    ///
    /// # Errors
    /// [`WriteError`]. If it [`is_queued`](WriteError::is_queued), this instance serves the new
    /// value for a while, and the key is invalidated everywhere when the server is back.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn put(&self, key: &K, value: impl Into<Arc<V>> + Send) -> Result<Stamp, WriteError> {
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
    ) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let ttl = options.ttl.map_or(Ok(inner.settings.ttl), Ttl::new)?;
        let wire = checked_wire(key)?;
        let value = value.into();
        let tags = tags::checked(options.tags)?;
        let sealed = inner.seal(&value, &tags)?;
        let weight = Some(sealed.plain_len);
        let keys = EntryKeys::new(&inner.tag, &wire)?;
        let append = inner.append(body::put(&wire)).map_err(too_long)?;
        let written = if inner.settings.l2 {
            let op = Put::new(&keys, append, sealed.envelope, ttl, !tags.is_empty());
            inner.confirm(inner.ask(&op).await.map(|done| done.meta), &wire)
        } else {
            inner.confirm(inner.ask(&Invalidate::new(&keys, append)).await, &wire)
        };
        // After the floor was raised: the new entry must stand at or above it.
        let stripe = inner.stripe(&wire);
        let (here, fence) = inner.floors.here();
        let numbered = written.as_ref().ok().filter(|_| !inner.settings.alone);
        let stamp = numbered.map_or(here, |meta| meta.at);
        let keep = Keep { ttl, weight, tags: &tags };
        let _entry = inner.keep_local(key, value, Pass { stamp, fence, stripe }, keep);
        inner.answer(written, &Target::Key(wire))
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
    /// A dropped call may still be carried out.
    pub async fn invalidate(&self, key: &K) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let wire = checked_wire(key)?;
        let op = inner.invalidation(&wire)?;
        let written = inner.confirm(inner.ask(&op).await, &wire);
        inner.answer(written, &Target::Key(wire))
    }

    /// Removes everything that carries `tag`, on every instance, at the cost of one step however
    /// much it is.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn invalidate_tag(&self, tag: &CacheTag) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let written = inner.ask(&inner.bump(tag.bytes())?).await;
        match &written {
            Ok(meta) if !inner.settings.alone => inner.raise_tag(tag.bytes(), meta.at),
            _ => inner.fence_tag(tag.bytes()),
        }
        inner.detach_all();
        inner.answer(written, &Target::Tag(tag.bytes().clone()))
    }

    /// Removes everything that any instance has, at the cost of one step however much it is.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn clear(&self) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let written = inner.ask(&inner.clearing()?).await;
        match &written {
            Ok(meta) if !inner.settings.alone => inner.floors.raise_all(meta.at),
            _ => inner.floors.fence_all(),
        }
        inner.detach_all();
        inner.local.clear();
        match written {
            Ok(meta) => {
                inner.telemetry.writes_ok.add();
                Ok(meta.at)
            }
            Err(error) => {
                if inner.recovery.queue_all() {
                    tokio::spawn(repeat(Arc::downgrade(inner)));
                }
                Err(inner.queued(error))
            }
        }
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn seal(&self, value: &V, tags: &[Bytes]) -> Result<Sealed, WriteError> {
        let above = self.settings.compress_above;
        payload::seal(&*self.codec, value, above, Duration::ZERO, tags).map_err(|error| match error
        {
            SealError::Codec(error) => error.into(),
            SealError::Envelope(error) => error.into(),
        })
    }

    fn bump(&self, tag: &Bytes) -> Result<Bump, WriteError> {
        let append = self.append(body::bump(tag)).map_err(too_long)?;
        Ok(Bump::new(&self.tag, append, tag.clone(), self.settings.tags_max))
    }

    fn invalidation(&self, wire: &Bytes) -> Result<Invalidate, WriteError> {
        let append = self.append(body::invalidate(wire)).map_err(too_long)?;
        Ok(Invalidate::new(&EntryKeys::new(&self.tag, wire)?, append))
    }

    fn clearing(&self) -> Result<Clear, WriteError> {
        Ok(Clear::new(&self.tag, self.append(body::clear()).map_err(too_long)?))
    }

    async fn ask<O: AtomicOp<State = LogCell>>(&self, op: &O) -> Result<O::Reply, BackendError> {
        match timeout(WRITE_TIMEOUT, self.executor.run(op)).await {
            Ok(answer) => answer,
            Err(_late) => Err(BackendError::Unknown(Outage::Deadline(WRITE_TIMEOUT))),
        }
    }

    /// Makes this process agree with the write before anybody is told that it is done.
    fn confirm(
        &self,
        answer: Result<Meta, BackendError>,
        wire: &Bytes,
    ) -> Result<Meta, BackendError> {
        let stripe = self.stripe(wire);
        match &answer {
            Ok(meta) if !self.settings.alone => self.floors.raise(stripe, meta.at),
            _ => self.floors.fence_key(stripe),
        }
        // What is under way may find the old value: later callers must not join it.
        self.detach(wire);
        answer
    }

    /// Turns an answer into what the caller is told, and queues what is not sure.
    fn answer(
        self: &Arc<Self>,
        answer: Result<Meta, BackendError>,
        target: &Target,
    ) -> Result<Stamp, WriteError> {
        match answer {
            Ok(meta) => {
                self.telemetry.writes_ok.add();
                Ok(meta.at)
            }
            Err(error) => {
                if self.recovery.queue(target) {
                    tokio::spawn(repeat(Arc::downgrade(self)));
                }
                Err(self.queued(error))
            }
        }
    }

    fn queued(&self, error: BackendError) -> WriteError {
        if error.may_have_happened() {
            self.telemetry.writes_unknown.add();
            WriteError::Unknown(error)
        } else {
            self.telemetry.writes_queued.add();
            WriteError::Queued(error)
        }
    }

    /// Repeats one write as an invalidation. Returns whether the server answered.
    async fn repeat_one(&self, target: &Target) -> bool {
        match target {
            Target::Key(wire) => {
                let Ok(op) = self.invalidation(wire) else { return false };
                let Ok(meta) = self.ask(&op).await else { return false };
                self.floors.raise(self.stripe(wire), meta.at);
                self.detach(wire);
            }
            Target::Tag(tag) => {
                let Ok(op) = self.bump(tag) else { return false };
                let Ok(meta) = self.ask(&op).await else { return false };
                self.raise_tag(tag, meta.at);
                self.detach_all();
            }
        }
        true
    }

    /// Repeats what is due once. Returns whether the server answered.
    async fn repeat_due(&self, due: Due) -> bool {
        match due {
            Due::Everything(written) => {
                let Ok(op) = self.clearing() else { return false };
                let Ok(meta) = self.ask(&op).await else { return false };
                self.floors.raise_all(meta.at);
                self.recovery.done_all(written);
            }
            Due::Targets(targets) => {
                for (target, written) in &targets {
                    if !self.repeat_one(target).await {
                        return false;
                    }
                    self.recovery.done(target, *written);
                }
            }
        }
        true
    }
}

/// Repeats what is queued until nothing is left, or the cache is gone.
async fn repeat<K, V, E>(inner: Weak<Inner<K, V, E>>)
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    let mut pause = RETRY_MIN;
    let mut repeated = 0_usize;
    loop {
        let jitter = rand::rng().random_range(0.5..1.0);
        sleep(pause.mul_f64(jitter)).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(due) = inner.recovery.due(REPEAT_BATCH) else {
            tracing::info!(cache = %inner.name, batches = repeated, "queued invalidations are done");
            return;
        };
        if inner.repeat_due(due).await {
            repeated += 1;
            pause = Duration::from_millis(1);
        } else {
            pause = (pause * 2).clamp(RETRY_MIN, RETRY_MAX);
        }
    }
}

/// The body of an entry holds the key and little else, so only a huge key makes it too large.
fn too_long(AppendError::TooLarge(bytes): AppendError) -> WriteError {
    WriteError::Key(KeyError::TooLong(bytes))
}
