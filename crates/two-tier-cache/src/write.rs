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
use crate::recovery::Target;
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
    /// *Not* cancel safe: a dropped call may or may not be carried out, and is not queued. If it is,
    /// this instance learns of it like the others, through the log.
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
        let answer = if inner.settings.l2 {
            // A put that was given up must not store its value when it arrives late all the same.
            let until = inner.server_deadline(WRITE_TIMEOUT);
            let op = Put::new(&keys, append, sealed.envelope, ttl, !tags.is_empty(), until);
            inner.ask(&op).await.map(|done| done.meta)
        } else {
            inner.ask(&Invalidate::new(&keys, append)).await
        };
        let written = inner.settle(answer, &Target::Key(wire.clone()));
        // After the floor was raised: the new entry must stand at or above it.
        let stripe = inner.stripe(&wire);
        let (here, fence) = inner.floors.here();
        let numbered = written.as_ref().ok().filter(|_| !inner.settings.alone);
        let stamp = numbered.copied().unwrap_or(here);
        let keep = Keep { ttl, weight, tags: &tags };
        let _entry = inner.keep_local(key, value, Pass { stamp, fence, stripe }, keep);
        written
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
    pub async fn invalidate(&self, key: &K) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let wire = checked_wire(key)?;
        let op = inner.invalidation(&wire)?;
        inner.settle(inner.ask(&op).await, &Target::Key(wire))
    }

    /// Removes everything that carries `tag`, on every instance, at the cost of one step however
    /// much it is.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn invalidate_tag(&self, tag: &CacheTag) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let op = inner.bump(tag.bytes())?;
        inner.settle(inner.ask(&op).await, &Target::Tag(tag.bytes().clone()))
    }

    /// Removes everything that any instance has, at the cost of one step however much it is.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn clear(&self) -> Result<Stamp, WriteError> {
        let inner = &self.inner;
        let op = inner.clearing()?;
        let written = inner.settle(inner.ask(&op).await, &Target::Everything);
        inner.local.clear();
        written
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

    /// Makes this process agree with a write before anybody is told what came of it.
    fn settle(
        self: &Arc<Self>,
        answer: Result<Meta, BackendError>,
        target: &Target,
    ) -> Result<Stamp, WriteError> {
        let result = match answer {
            Ok(meta) => {
                self.telemetry.writes_ok.add();
                Ok(meta.at)
            }
            Err(error) => {
                // Queued before it is fenced: a read that has seen the new fence must also see
                // that what the server has is not to be used.
                if self.recovery.queue(target) {
                    self.start_repeating();
                }
                Err(self.queued(error))
            }
        };
        self.agree(target, result.as_ref().ok().copied());
        result
    }

    /// Voids what is here, and what is under way, of something that was written: by its number, or
    /// without one if the server has given none, or if there is nobody to agree with.
    fn agree(&self, target: &Target, at: Option<Stamp>) {
        let at = at.filter(|_| !self.settings.alone);
        match (target, at) {
            (Target::Key(wire), Some(at)) => self.floors.raise(self.stripe(wire), at),
            (Target::Key(wire), None) => self.floors.fence_key(self.stripe(wire)),
            (Target::Tag(tag), Some(at)) => self.floors.raise_tag(tag, at),
            (Target::Tag(tag), None) => self.floors.fence_tag(tag),
            (Target::Everything, Some(at)) => self.floors.raise_all(at),
            (Target::Everything, None) => self.floors.fence_all(),
        }
        // What is under way may find the old value: later callers must not join it. Which loads
        // will carry a tag is not known before they end.
        match target {
            Target::Key(wire) => self.detach(wire),
            Target::Tag(_) | Target::Everything => self.detach_all(),
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

    /// Starts the task that repeats what is queued.
    fn start_repeating(self: &Arc<Self>) {
        let running = Running { inner: Arc::downgrade(self) };
        tokio::spawn(repeat(running));
    }

    /// Repeats one write as an invalidation.
    async fn repeat_one(&self, target: &Target) -> Result<(), BackendError> {
        let meta = match target {
            Target::Key(wire) => {
                self.ask(&self.invalidation(wire).map_err(|error| unbuilt(&error))?).await?
            }
            Target::Tag(tag) => self.ask(&self.bump(tag).map_err(|error| unbuilt(&error))?).await?,
            Target::Everything => {
                self.ask(&self.clearing().map_err(|error| unbuilt(&error))?).await?
            }
        };
        self.agree(target, Some(meta.at));
        Ok(())
    }

    /// Repeats what is due once. Returns whether all of it was done.
    async fn repeat_due(&self, due: Vec<(Target, u64)>) -> bool {
        let mut all = true;
        for (target, written) in due {
            match self.repeat_one(&target).await {
                Ok(()) => self.recovery.done(&target, written),
                // Concerns this one alone; the others must not wait for it.
                Err(BackendError::Rejected(_)) => all = false,
                Err(_) => return false,
            }
        }
        all
    }
}

/// The duty to repeat what is queued. Dropping it, also with its runtime, lets the next write that
/// fails start again.
struct Running<K, V, E> {
    inner: Weak<Inner<K, V, E>>,
}

impl<K, V, E> Drop for Running<K, V, E> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.recovery.stopped();
        }
    }
}

/// Repeats what is queued until nothing is left, or the cache is gone.
async fn repeat<K, V, E>(running: Running<K, V, E>)
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
        let Some(inner) = running.inner.upgrade() else { return };
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

/// What is queued was built once before, so it can be built again; if not, it cannot be sent.
fn unbuilt(error: &WriteError) -> BackendError {
    BackendError::NotSent(Outage::Down(error.to_string()))
}

/// The body of an entry holds the key and little else, so only a huge key makes it too large.
fn too_long(AppendError::TooLarge(bytes): AppendError) -> WriteError {
    WriteError::Key(KeyError::TooLong(bytes))
}
