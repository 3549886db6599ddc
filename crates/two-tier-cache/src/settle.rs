//! What every write goes through: it is sent, and this process agrees with whatever came of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{LogCell, Meta, Stamp};
use fleetwide_core_traits::{
    AtomicOp, BackendError, Executor, ExecutorExt, Outage, Replicas, Replicated,
};
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::cache::Inner;
use crate::entry::{Kept, L1Entry};
use crate::error::WriteError;
use crate::floors::Pass;
use crate::keep::Keep;
use crate::key::CacheKey;
use crate::recovery::Target;
use crate::token::WriteToken;

/// A write waits this long for its answer: longer than any healthy server takes, shorter than a
/// caller's patience.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is done about a written key that L1 of a cache alone may have. A cache with others needs no
/// more than the floors.
pub(crate) enum Inside<'a, K> {
    /// It is taken out.
    Out(&'a K),
    /// The writer sees to it at once, with [`replace`](Inner::replace).
    Replaced,
    /// Only its bytes are known, or it is none: all of its stripe is void.
    Unknown,
}

/// A write that the server has confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Its place in the log.
    pub(crate) at: Stamp,
    /// Replicas that are known to have it, if any were waited for.
    acknowledged: usize,
}

impl Written {
    /// What the caller gets, who may have asked for replicas.
    pub(crate) fn token(self, replicas: Option<Replicas>) -> Result<WriteToken, WriteError> {
        let (token, acknowledged) = (WriteToken::new(self.at), self.acknowledged);
        match replicas.map(|replicas| replicas.count) {
            Some(wanted) if acknowledged < wanted as usize => {
                Err(WriteError::TooFewReplicas { token, acknowledged, wanted })
            }
            _ => Ok(token),
        }
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Sends a write, and makes this process agree with what came of it, also if the caller leaves.
    pub(crate) async fn carry_out<O: AtomicOp<State = LogCell>>(
        self: &Arc<Self>,
        op: &O,
        (target, inside): (Target, Inside<'_, K>),
        replicas: Option<Replicas>,
        place: impl FnOnce(O::Reply) -> Meta,
    ) -> Result<Written, WriteError> {
        let undecided = self.undecided([target.clone()]);
        let answer = match replicas {
            None => self.ask(op).await.map(|reply| Replicated { reply, acknowledged: 0 }),
            // Apart, so that the future of an ordinary write stays small.
            Some(replicas) => Box::pin(self.ask_replicated(op, replicas)).await,
        };
        let acknowledged = answer.as_ref().map_or(0, |done| done.acknowledged);
        undecided.decided();
        let at = self.settle(answer.map(|done| place(done.reply)), &target, inside)?;
        Ok(Written { at, acknowledged })
    }

    /// From here on, writes of `targets` are settled also if the caller leaves.
    pub(crate) fn undecided(
        self: &Arc<Self>,
        targets: impl IntoIterator<Item = Target>,
    ) -> Undecided<K, V, E> {
        let targets = targets.into_iter().collect();
        Undecided { inner: Arc::clone(self), targets, runtime: Handle::try_current().ok() }
    }

    async fn ask_replicated<O: AtomicOp<State = LogCell>>(
        &self,
        op: &O,
        replicas: Replicas,
    ) -> Result<Replicated<O::Reply>, BackendError> {
        let within = WRITE_TIMEOUT.saturating_add(replicas.within);
        match timeout(within, self.executor.run_replicated(op, replicas)).await {
            Ok(answer) => answer,
            Err(_late) => Err(BackendError::Unknown(Outage::Deadline(within))),
        }
    }

    pub(crate) async fn ask<O: AtomicOp<State = LogCell>>(
        &self,
        op: &O,
    ) -> Result<O::Reply, BackendError> {
        match timeout(WRITE_TIMEOUT, self.executor.run(op)).await {
            Ok(answer) => answer,
            Err(_late) => Err(BackendError::Unknown(Outage::Deadline(WRITE_TIMEOUT))),
        }
    }

    /// Makes this process agree with a write before anybody is told what came of it.
    pub(crate) fn settle(
        self: &Arc<Self>,
        answer: Result<Meta, BackendError>,
        target: &Target,
        inside: Inside<'_, K>,
    ) -> Result<Stamp, WriteError> {
        let result = match answer {
            Ok(meta) => {
                self.telemetry.writes_ok.add();
                self.floors.wrote(meta);
                Ok(meta.at)
            }
            Err(error) => {
                self.enqueue(target);
                Err(self.queued(error))
            }
        };
        self.agree(target, inside, result.as_ref().ok().copied());
        result
    }

    /// Nobody waits for a write any more, which may have been carried out or not.
    pub(crate) fn give_up(self: &Arc<Self>, target: &Target) {
        self.enqueue(target);
        self.telemetry.writes_unknown.add();
        self.agree(target, Inside::Unknown, None);
    }

    /// Has something invalidated as soon as the server takes it. To be done before it is fenced: a
    /// read that has seen the new fence must also see that what the server has is not to be used.
    fn enqueue(self: &Arc<Self>, target: &Target) {
        if self.recovery.queue(target) {
            self.start_repeating();
        }
    }

    /// Voids what is here, and what is under way, of something that was written: by its number, if
    /// the server has given one and there is somebody to agree with, and by a fence of our own.
    pub(crate) fn agree(&self, target: &Target, inside: Inside<'_, K>, at: Option<Stamp>) {
        if let Some(at) = at.filter(|_| !self.settings.alone) {
            match target {
                Target::Key(wire) => self.floors.raise(self.stripe(wire), at),
                Target::Tag(tag) => self.floors.raise_tag(tag, at),
                Target::Everything => self.floors.raise_all(at),
            }
        }
        // Also what has a number: a server that was restored from an older state, and has not been
        // found out yet, gives numbers below those of what is here.
        match target {
            Target::Key(wire) => self.fence(self.stripe(wire), inside),
            Target::Tag(tag) => self.floors.fence_tag(tag),
            Target::Everything => self.floors.fence_all(),
        }
        // What is under way may find the old value: later callers must not join it. Which loads
        // will carry a tag is not known before they end.
        match target {
            Target::Key(wire) => self.detach(wire),
            Target::Tag(_) | Target::Everything => self.detach_all(),
        }
    }

    fn fence(&self, stripe: u32, inside: Inside<'_, K>) {
        match (self.floors.turn(stripe), inside) {
            (Some(_turn), Inside::Out(key)) => {
                self.floors.fence_key_apart(stripe);
                self.local.remove(key);
            }
            (Some(_), Inside::Replaced) => {}
            _ => self.floors.fence_key(stripe),
        }
    }

    /// Puts into L1 what was just written under `key`: the writer reads its own write, also if the
    /// server has not taken it.
    pub(crate) fn replace(
        &self,
        (key, wire): (&K, &Bytes),
        value: Arc<V>,
        keep: Keep<'_>,
        written: Option<Stamp>,
    ) {
        let stripe = self.stripe(wire);
        let Some(_turn) = self.floors.turn(stripe) else {
            // After the floor was raised: the new entry must stand at or above it.
            let (here, fence) = self.floors.here();
            let stamp = written.unwrap_or(here);
            self.keep_local(key, value, Pass { stamp, fence, stripe }, keep);
            return;
        };
        self.floors.fence_key_apart(stripe);
        let (stamp, fence) = self.floors.here();
        let entry = self.own_entry(value, Pass { stamp, fence, stripe }, keep);
        if let Some(weight) = keep.full_weight() {
            self.local.insert(key.clone(), L1Entry(Kept::Value(Arc::clone(&entry))), weight);
        }
        // A tier may turn away what it is given and keep what it has.
        let is_in = self.local.get(key).is_some_and(|kept| kept.0.is(&entry));
        if !is_in {
            self.local.remove(key);
        }
        // Who began to load since the write was sent may still bring the old value.
        self.detach(wire);
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
}

/// Writes on their way. Dropped without an answer, because their caller has left, they count as
/// unknown: they are queued to be invalidated, and what this process has is void at once.
#[must_use = "dropped at once, it says that the caller has left"]
pub(crate) struct Undecided<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    inner: Arc<Inner<K, V, E>>,
    /// Empty once they are decided.
    targets: SmallVec<[Target; 1]>,
    /// Where they began: they may be dropped outside of any runtime.
    runtime: Option<Handle>,
}

impl<K, V, E> Undecided<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// There is an answer, and whoever has it settles them before it waits for anything else.
    pub(crate) fn decided(mut self) {
        self.targets.clear();
    }
}

impl<K, V, E> Drop for Undecided<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn drop(&mut self) {
        if !self.targets.is_empty() {
            let _runtime = self.runtime.as_ref().map(Handle::enter);
            self.targets.iter().for_each(|target| self.inner.give_up(target));
        }
    }
}
