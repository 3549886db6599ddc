//! Writes of many keys: one step and one entry of the log for up to 128 of them, all steps in one
//! round trip.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{LogCell, Meta, Stamp};
use fleetwide_core_traits::{
    AtomicOp, BackendError, Executor, ExecutorExt, Outage, ServerTime, Ttl,
};
use indexmap::{IndexMap, IndexSet};
use tokio::time::timeout;

use super::error::BulkWriteError;
use super::item::BulkItem;
use super::trips::{BYTES_PER_TRIP, KEYS_PER_STEP, STEPS_PER_TRIP, grouped};
use crate::body;
use crate::cache::{Cache, Inner, checked_wire};
use crate::error::WriteError;
use crate::keep::Keep;
use crate::key::CacheKey;
use crate::ops::{InvalidateMany, OnePut, PutMany};
use crate::recovery::Target;
use crate::settle::{Inside, WRITE_TIMEOUT};
use crate::token::WriteToken;
use crate::write::too_long;

/// Bytes that one step carries, unless a single value has more: what a server copies well within a
/// millisecond.
const BYTES_PER_STEP: usize = 1 << 20;

/// A byte of a key counts as so many, because the entry of the log that names the keys must stay
/// well below what an entry may have.
const KEY_BYTE_WEIGHT: usize = 8;

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Writes many values through, and removes what any instance has for their keys.
    ///
    /// The same as a [`put`](Self::put) of each, in one round trip for 4,096 values or 4 MiB, and
    /// with one message to the other instances for 128 of them. Up to 128 values at a time are
    /// written in one step, so that they are seen together or not at all; there is no such promise
    /// for more. Of a key that comes twice the last value counts. The token covers all writes; for
    /// none it covers what this instance knows of.
    ///
    /// # Errors
    /// [`BulkWriteError`] with the keys that failed, each with its reason as of
    /// [`put`](Self::put). The others are done.
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    ///
    /// # Examples
    /// ```
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_mem_backend::{Memory, MokaLocal};
    /// # use fleetwide_two_tier_cache::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let memory = Memory::new();
    /// # let local = MokaLocal::builder().bytes_max(64 << 20).build();
    /// # let executor = memory.executor().clone();
    /// # let users: Cache<u64, String, _> =
    /// #     Cache::builder(executor, &Namespace::new("shop")?, "users", local).build()?;
    /// users.put_many([(7, "Ada".to_owned()), (8, "Grace".to_owned())]).await?;
    /// users.invalidate_many(&[7, 8]).await?;
    /// # Ok(()) }
    /// ```
    pub async fn put_many<I, T>(&self, entries: I) -> Result<WriteToken, BulkWriteError<K>>
    where
        I: IntoIterator<Item = (K, T)> + Send,
        T: Into<BulkItem<V>>,
    {
        let inner = &self.inner;
        let entries: IndexMap<K, BulkItem<V>> =
            entries.into_iter().map(|(key, item)| (key, item.into())).collect();
        let mut written = Written::new();
        let mut puts = Vec::with_capacity(entries.len());
        for (key, item) in entries {
            match inner.ready(&key, item) {
                Ok(put) => puts.push((key, put)),
                Err(error) => written.failed.push((key, error)),
            }
        }
        Box::pin(inner.put_all(puts, &mut written)).await;
        written.result(WriteToken::new(inner.floors.here().0))
    }

    /// Removes what any instance has for many keys.
    ///
    /// The same as an [`invalidate`](Self::invalidate) of each, in one round trip for 4,096 keys,
    /// and with one message to the other instances for 128 of them. The token covers all of them;
    /// for none it covers what this instance knows of.
    ///
    /// # Errors
    /// [`BulkWriteError`] with the keys that failed, each with its reason as of
    /// [`invalidate`](Self::invalidate). The others are done.
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put).
    pub async fn invalidate_many(&self, keys: &[K]) -> Result<WriteToken, BulkWriteError<K>> {
        let inner = &self.inner;
        let mut written = Written::new();
        let mut targets = Vec::with_capacity(keys.len());
        for key in keys.iter().collect::<IndexSet<_>>() {
            match checked_wire(key) {
                Ok(wire) => targets.push((key.clone(), wire)),
                Err(error) => written.failed.push((key.clone(), error.into())),
            }
        }
        Box::pin(inner.invalidate_all(targets, &mut written)).await;
        written.result(WriteToken::new(inner.floors.here().0))
    }
}

/// A value that is ready to be written.
struct Ready<V> {
    wire: Bytes,
    value: Arc<V>,
    ttl: Duration,
    l1_ttl: Option<Ttl>,
    /// How long L2 keeps it.
    shared_ttl: Ttl,
    tags: Vec<Bytes>,
    envelope: Bytes,
    weight: u32,
}

/// What came of the writes so far.
struct Written<K> {
    failed: Vec<(K, WriteError)>,
    token: Option<WriteToken>,
    /// Why the server was not reached. What is left then is not sent: each trip would wait for its
    /// own timeout.
    down: Option<Outage>,
}

impl<K: CacheKey> Written<K> {
    const fn new() -> Self {
        Self { failed: Vec::new(), token: None, down: None }
    }

    fn note(&mut self, key: K, done: Result<WriteToken, WriteError>) {
        match done {
            Ok(token) => self.token = Some(token),
            Err(error) => self.failed.push((key, error)),
        }
    }

    /// The last token covers all writes, because they went out in order.
    fn result(self, nothing: WriteToken) -> Result<WriteToken, BulkWriteError<K>> {
        let Self { failed, token, .. } = self;
        if failed.is_empty() {
            Ok(token.unwrap_or(nothing))
        } else {
            Err(BulkWriteError { failed, token })
        }
    }
}

/// What came of one step: nothing was sent because it could not be built, or what the server said.
type Answer = Result<Result<Meta, BackendError>, WriteError>;

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn ready(&self, key: &K, mut item: BulkItem<V>) -> Result<Ready<V>, WriteError> {
        let wire = checked_wire(key)?;
        let tags = item.said.take_tags();
        let ttl = self.jittered(item.said.ttl.unwrap_or(self.settings.ttl), item.said.jitter);
        let (shared_ttl, soft_ttl) = self.shared_ttl(ttl);
        let sealed = self.seal(&wire, &item.value, soft_ttl, &tags)?;
        let (envelope, weight) = (sealed.envelope, sealed.plain_len);
        let (value, l1_ttl) = (item.value, item.said.l1_ttl);
        Ok(Ready { wire, value, ttl, l1_ttl, shared_ttl, tags, envelope, weight })
    }

    async fn put_all(self: &Arc<Self>, puts: Vec<(K, Ready<V>)>, written: &mut Written<K>) {
        for trip in in_trips(puts, |put| put.wire.len() * KEY_BYTE_WEIGHT + put.envelope.len()) {
            let targets = trip.iter().flatten().map(|(_, put)| Target::Key(put.wire.clone()));
            let undecided = self.undecided(targets);
            let answers = if self.settings.l2 {
                // What was given up must not store its values when it arrives late all the same.
                let until = self.server_deadline(WRITE_TIMEOUT);
                let op = |step: &Vec<(K, Ready<V>)>| self.putting(step, until);
                self.ask_many(&trip, op, written).await
            } else {
                let op = |step: &Vec<(K, Ready<V>)>| self.voiding(step, |put| &put.wire);
                self.ask_many(&trip, op, written).await
            };
            undecided.decided();
            for (step, answer) in trip.into_iter().zip(answers) {
                for (key, put) in step {
                    let target = Target::Key(put.wire.clone());
                    let settled = |answer| self.settle(answer, &target, Inside::Replaced);
                    let stamp = answer.clone().and_then(settled);
                    self.keep_put(&key, put, stamp.as_ref().ok().copied());
                    written.note(key, stamp.map(WriteToken::new));
                }
            }
        }
    }

    async fn invalidate_all(self: &Arc<Self>, keys: Vec<(K, Bytes)>, written: &mut Written<K>) {
        for trip in in_trips(keys, |wire| wire.len() * KEY_BYTE_WEIGHT) {
            let op = |step: &Vec<(K, Bytes)>| self.voiding(step, |wire| wire);
            let targets = trip.iter().flatten().map(|(_, wire)| Target::Key(wire.clone()));
            let undecided = self.undecided(targets);
            let answers = self.ask_many(&trip, op, written).await;
            undecided.decided();
            for (step, answer) in trip.into_iter().zip(answers) {
                for (key, wire) in step {
                    let target = Target::Key(wire);
                    let settled = |answer| self.settle(answer, &target, Inside::Out(&key));
                    let stamp = answer.clone().and_then(settled);
                    written.note(key, stamp.map(WriteToken::new));
                }
            }
        }
    }

    /// One trip. An error of the server concerns its own step, an outage all that follows too.
    async fn ask_many<T, O>(
        &self,
        trip: &[T],
        op: impl Fn(&T) -> Result<O, WriteError>,
        written: &mut Written<K>,
    ) -> Vec<Answer>
    where
        O: AtomicOp<State = LogCell, Reply = Meta>,
    {
        let all = |answer: Answer| vec![answer; trip.len()];
        if let Some(outage) = &written.down {
            return all(Ok(Err(BackendError::NotSent(outage.clone()))));
        }
        let ops = match trip.iter().map(op).collect::<Result<Vec<_>, _>>() {
            Ok(ops) => ops,
            Err(error) => return all(Err(error)),
        };
        let Ok(answers) = timeout(WRITE_TIMEOUT, self.executor.run_many(&ops)).await else {
            let outage = Outage::Deadline(WRITE_TIMEOUT);
            written.down = Some(outage.clone());
            return all(Ok(Err(BackendError::Unknown(outage))));
        };
        written.down = answers.iter().find_map(|answer| match answer {
            Err(BackendError::NotSent(outage) | BackendError::Unknown(outage)) => {
                Some(outage.clone())
            }
            _ => None,
        });
        answers.into_iter().map(Ok).collect()
    }

    fn putting(
        &self,
        step: &[(K, Ready<V>)],
        until: Option<ServerTime>,
    ) -> Result<PutMany, WriteError> {
        let one = |(_, put): &(K, Ready<V>)| OnePut {
            wire: put.wire.clone(),
            envelope: put.envelope.clone(),
            ttl: put.shared_ttl,
            tagged: !put.tags.is_empty(),
        };
        let body = body::put_many(step.iter().map(|(_, put)| &put.wire));
        let append = self.append(body).map_err(too_long)?;
        Ok(PutMany::new(&self.tag, step.iter().map(one).collect(), append, until)?)
    }

    fn voiding<T>(
        &self,
        step: &[(K, T)],
        wire: impl Fn(&T) -> &Bytes,
    ) -> Result<InvalidateMany, WriteError> {
        self.invalidation_of(step.iter().map(|(_, item)| wire(item)))
    }

    /// Invalidates several keys in one step: as many as [`in_steps`] says.
    pub(crate) fn invalidation_of<'a>(
        &self,
        wires: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<InvalidateMany, WriteError> {
        let append = self.append(body::invalidate_many(wires.clone())).map_err(too_long)?;
        Ok(InvalidateMany::new(&self.tag, wires.map(|wire| &wire[..]), append)?)
    }

    /// The writer reads its own write, also if the server has not taken it.
    fn keep_put(&self, key: &K, put: Ready<V>, written: Option<Stamp>) {
        let (ttl, l1_ttl, cost) = (put.ttl, put.l1_ttl, Duration::ZERO);
        let (weight, key_bytes) = (Some(put.weight), put.wire.len());
        let keep = Keep { ttl, l1_ttl, cost, weight, key_bytes, tags: &put.tags };
        self.replace((key, &put.wire), put.value, keep, written);
    }
}

/// Trips of steps of keys, each within its bounds.
fn in_trips<K, T>(keys: Vec<(K, T)>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<Vec<(K, T)>>> {
    let steps = in_steps(keys, |(_, item)| bytes(item));
    let step_bytes = |step: &Vec<(K, T)>| step.iter().map(|(_, item)| bytes(item)).sum();
    grouped(steps, STEPS_PER_TRIP, BYTES_PER_TRIP, step_bytes)
}

/// Steps of keys, each within its bounds.
pub(crate) fn in_steps<T>(keys: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    grouped(keys, KEYS_PER_STEP, BYTES_PER_STEP, bytes)
}
