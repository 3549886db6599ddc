//! One atomic step, its pure twin and its script.
//!
//! An [`AtomicOp`] is written once per step of a capability. Executors see it through
//! [`ErasedOp`], which is object safe, so a backend implements one method for all ops. The reply
//! lands in a slot on the caller's stack: neither way allocates for it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    ArgSink, BackendError, Channel, Epoch, Epochs, Key, Malformed, Replicas, Replicated, Script,
    ServerTime, Told, Wire,
};

/// One atomic step on shared state: a script for a server, and a pure twin of it for this process.
///
/// The contract that the differential tests check: after the same history, [`apply`](Self::apply)
/// and the script give the same reply and leave the same state.
///
/// - A ttl is garbage collection only. `apply` with a state whose time is over must act as if it
///   had got `None`, so it does not matter when a backend really drops it; deadlines that count
///   live in the state.
/// - Nothing put means nothing written: a refusal costs a server no replication.
/// - Times are µs by the executor's clock; numbers stay below 2^53.
pub trait AtomicOp: Send + Sync {
    /// What a cell holds, as this process keeps it. Ops that share cells share this type.
    type State: Send + Sync + 'static;
    /// What the step answers.
    type Reply: Send;

    /// The step as the server runs it.
    fn script(&self) -> &'static Script;

    /// The keys of the script, all with the same [`Tag`](crate::Tag).
    ///
    /// The first [`cells`](Self::cells) of them name the cells; further ones exist only on the
    /// wire (a stream beside its counter, say) and belong to one of those cells.
    fn keys(&self) -> &[Key];

    /// How many of the keys are cells. Default: all of them.
    fn cells(&self) -> usize {
        self.keys().len()
    }

    /// Writes the script's arguments, in their order.
    fn args(&self, to: &mut dyn ArgSink);

    /// Decides. Pure: the same inputs always give the same outputs.
    fn apply(
        &self,
        cells: &[Option<&Self::State>],
        now: ServerTime,
        out: &mut Effects<Self::State>,
    ) -> Self::Reply;

    /// Reads the script's reply.
    ///
    /// # Errors
    /// [`Malformed`] if the reply has another form. Never panics, whatever the server says.
    fn decode(&self, reply: Wire) -> Result<Self::Reply, Malformed>;
}

/// What a step changes, collected by [`AtomicOp::apply`] and carried out by the executor.
pub struct Effects<S> {
    writes: SmallVec<[(usize, Write<S>); 2]>,
    messages: Vec<Message>,
}

/// One change of one cell.
pub enum Write<S> {
    /// The cell holds this from now on.
    Put(S, Duration),
    /// What the cell holds is changed in place, or made by [`Default`]-like `start` first.
    Update {
        /// Makes the state if the cell is empty.
        start: fn() -> S,
        /// Changes it. It decides nothing: `apply` has decided already.
        change: Box<dyn FnOnce(&mut S) + Send>,
        /// How long the cell lives from now on.
        ttl: Duration,
    },
    /// The cell is empty from now on.
    Delete,
}

/// A message that a step publishes, in the order of its decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub channel: Channel,
    /// What.
    pub payload: Bytes,
}

impl<S> Effects<S> {
    /// No effects yet.
    pub fn new() -> Self {
        Self { writes: SmallVec::new(), messages: Vec::new() }
    }

    /// Makes `cell` hold `state`, which may be dropped after `ttl`.
    pub fn put(&mut self, cell: usize, state: S, ttl: Duration) {
        self.writes.push((cell, Write::Put(state, ttl)));
    }

    /// Changes a large state in place instead of replacing it.
    pub fn update(
        &mut self,
        cell: usize,
        ttl: Duration,
        start: fn() -> S,
        change: impl FnOnce(&mut S) + Send + 'static,
    ) {
        self.writes.push((cell, Write::Update { start, change: Box::new(change), ttl }));
    }

    /// Empties `cell`.
    pub fn delete(&mut self, cell: usize) {
        self.writes.push((cell, Write::Delete));
    }

    /// Publishes `payload` after the step.
    pub fn publish(&mut self, channel: Channel, payload: Bytes) {
        self.messages.push(Message { channel, payload });
    }

    /// The changes so far, for tests of an op.
    pub fn writes(&self) -> &[(usize, Write<S>)] {
        &self.writes
    }
}

impl<S> Default for Effects<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Effects<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects")
            .field("writes", &self.writes.len())
            .field("messages", &self.messages)
            .finish()
    }
}

/// The cells of one step as an in-process backend holds them, while it holds their lock.
pub trait Cells {
    /// What cell `index` holds, unless it is empty or expired.
    fn get(&self, index: usize) -> Option<&(dyn Any + Send + Sync)>;

    /// The same, to change it in place. Returns `None` exactly when [`get`](Self::get) does.
    fn get_mut(&mut self, index: usize) -> Option<&mut (dyn Any + Send + Sync)>;

    /// Says that `new` cells which hold nothing now are about to be put.
    ///
    /// # Errors
    /// [`BackendError::Full`] if there is no room for them; then nothing may be written.
    fn admit(&mut self, new: usize) -> Result<(), BackendError>;

    /// Makes cell `index` hold `state`.
    fn put(&mut self, index: usize, state: Box<dyn Any + Send + Sync>);

    /// Says until when cell `index`, which holds something, must be kept.
    fn keep(&mut self, index: usize, ttl: Duration);

    /// Empties cell `index`.
    fn delete(&mut self, index: usize);
}

/// An [`AtomicOp`] without its types, on its way through an executor.
///
/// Made by [`ExecutorExt::run`]; a backend only consumes it.
pub trait ErasedOp: Send {
    /// See [`AtomicOp::script`].
    fn script(&self) -> &'static Script;

    /// See [`AtomicOp::keys`].
    fn keys(&self) -> &[Key];

    /// See [`AtomicOp::cells`].
    fn cells(&self) -> usize;

    /// See [`AtomicOp::args`].
    fn args(&self, to: &mut dyn ArgSink);

    /// Runs the pure twin on `cells`, carries out its writes, and adds what it publishes to
    /// `messages`. The reply is kept for the caller.
    ///
    /// # Errors
    /// [`ApplyError`]; then nothing was written and nothing is to be published.
    fn apply(
        &mut self,
        cells: &mut dyn Cells,
        now: ServerTime,
        messages: &mut Vec<Message>,
    ) -> Result<(), ApplyError>;

    /// Decodes the server's reply and keeps it for the caller.
    ///
    /// # Errors
    /// [`Malformed`] if the reply has another form.
    fn decode(&mut self, reply: Wire) -> Result<(), Malformed>;

    /// Notes the history that the reply is from. A backend with histories says it of each reply,
    /// and never a later one than that of the server which carried the step out.
    fn answered_in(&mut self, epoch: Epoch) {
        let _ = epoch;
    }
}

/// Why an op could not be applied in this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A cell holds the state of another kind of op.
    #[error("key {0} holds a state of another kind")]
    WrongType(usize),
    /// There is no room.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Runs ops, each as one atomic step.
pub trait Executor: Send + Sync + 'static {
    /// Runs one op. Callers use [`ExecutorExt::run`], which keeps the types.
    ///
    /// # Errors
    /// [`BackendError`]; it says whether the step may have been carried out.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out: treat it as [`BackendError::Unknown`].
    fn execute(
        &self,
        op: &mut dyn ErasedOp,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Runs several ops in one round trip where the backend can. Each is atomic by itself; between
    /// them anything may happen. One that fails does not stop the others.
    ///
    /// # Errors
    /// One [`BackendError`] per failed op, in the order of the ops.
    ///
    /// # Cancel safety
    /// As for [`execute`](Self::execute).
    fn execute_many(
        &self,
        ops: &mut [&mut dyn ErasedOp],
    ) -> impl Future<Output = Vec<Result<(), BackendError>>> + Send {
        async move {
            let mut results = Vec::with_capacity(ops.len());
            for op in ops {
                results.push(self.execute(&mut **op).await);
            }
            results
        }
    }

    /// Runs one op, and then waits until so many replicas have it. Returns how many have
    /// acknowledged that they do, also when they are too few; 0 where there is no replica, or where
    /// it cannot be known, which is what an executor that does not override this says.
    ///
    /// # Errors
    /// As for [`execute`](Self::execute), and only for the op itself: when the wait fails, the op
    /// was carried out all the same, and nobody is known to have it.
    ///
    /// # Cancel safety
    /// As for [`execute`](Self::execute).
    fn execute_replicated(
        &self,
        op: &mut dyn ErasedOp,
        replicas: Replicas,
    ) -> impl Future<Output = Result<usize, BackendError>> + Send {
        let _ = replicas;
        async move {
            self.execute(op).await?;
            Ok(0)
        }
    }

    /// Names scripts that will be used, so that a backend can load them on each new connection.
    fn prepare(&self, scripts: &[&'static Script]);

    /// The latest history of the data that this executor has met, for the cost of a load. Replies
    /// may still come from earlier ones; [`ExecutorExt::run_told`] says from which.
    ///
    /// Default: one for ever, which is right where what was acknowledged is lost only with this
    /// process.
    fn epoch(&self) -> Epoch {
        Epoch::default()
    }

    /// The histories that it meets from now on. They keep nothing of the executor alive. Default:
    /// none.
    fn epochs(&self) -> Epochs {
        Epochs::none()
    }
}

/// Typed ops on any [`Executor`].
pub trait ExecutorExt: Executor {
    /// Runs `op` as one atomic step.
    ///
    /// # Errors
    /// [`BackendError`]; it says whether the step may have been carried out.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out: treat it as [`BackendError::Unknown`].
    fn run<O: AtomicOp>(
        &self,
        op: &O,
    ) -> impl Future<Output = Result<O::Reply, BackendError>> + Send {
        async move {
            let mut call = Call::new(op);
            self.execute(&mut call).await?;
            call.take()
        }
    }

    /// Runs `op` as [`run`](Self::run) does, and says which history of the data its reply is from.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As for [`run`](Self::run).
    fn run_told<O: AtomicOp>(
        &self,
        op: &O,
    ) -> impl Future<Output = Result<Told<O::Reply>, BackendError>> + Send {
        async move {
            let mut call = Call::new(op);
            self.execute(&mut call).await?;
            let epoch = call.epoch;
            Ok(Told { reply: call.take()?, epoch })
        }
    }

    /// Runs `op`, and then waits until so many replicas have it.
    ///
    /// # Errors
    /// [`BackendError`] of the op itself. Too few replicas are no error here: the answer says how
    /// many they are.
    ///
    /// # Cancel safety
    /// As for [`run`](Self::run).
    fn run_replicated<O: AtomicOp>(
        &self,
        op: &O,
        replicas: Replicas,
    ) -> impl Future<Output = Result<Replicated<O::Reply>, BackendError>> + Send {
        async move {
            let mut call = Call::new(op);
            let acknowledged = self.execute_replicated(&mut call, replicas).await?;
            Ok(Replicated { reply: call.take()?, acknowledged })
        }
    }

    /// Runs several ops of one kind, in one round trip where the backend can.
    ///
    /// # Errors
    /// One [`BackendError`] per failed op, in the order of the ops.
    ///
    /// # Cancel safety
    /// As for [`run`](Self::run).
    fn run_many<O: AtomicOp>(
        &self,
        ops: &[O],
    ) -> impl Future<Output = Vec<Result<O::Reply, BackendError>>> + Send {
        async move {
            let told = self.run_many_told(ops).await.into_iter();
            told.map(|done| done.map(|told| told.reply)).collect()
        }
    }

    /// Runs several ops as [`run_many`](Self::run_many) does, and says which history of the data
    /// each reply is from.
    ///
    /// # Errors
    /// As for [`run_many`](Self::run_many).
    ///
    /// # Cancel safety
    /// As for [`run`](Self::run).
    fn run_many_told<O: AtomicOp>(
        &self,
        ops: &[O],
    ) -> impl Future<Output = Vec<Result<Told<O::Reply>, BackendError>>> + Send {
        async move {
            let mut calls: Vec<_> = ops.iter().map(Call::new).collect();
            let mut erased: Vec<&mut dyn ErasedOp> =
                calls.iter_mut().map(|call| call as &mut dyn ErasedOp).collect();
            let results = self.execute_many(&mut erased).await;
            drop(erased);
            let told = |call: Call<'_, O>| {
                let epoch = call.epoch;
                Ok(Told { reply: call.take()?, epoch })
            };
            let each = calls.into_iter().zip(results);
            each.map(|(call, done)| done.and_then(|()| told(call))).collect()
        }
    }
}

impl<E: Executor> ExecutorExt for E {}

/// One call of an op: the op, and the place for its reply.
struct Call<'a, O: AtomicOp> {
    op: &'a O,
    reply: Option<O::Reply>,
    epoch: Epoch,
}

impl<'a, O: AtomicOp> Call<'a, O> {
    fn new(op: &'a O) -> Self {
        Self { op, reply: None, epoch: Epoch::default() }
    }

    fn take(self) -> Result<O::Reply, BackendError> {
        // An executor that answers Ok without a reply is broken; its caller must not panic for it.
        self.reply.ok_or(BackendError::Malformed(Malformed::new("a reply", "none")))
    }
}

impl<O: AtomicOp> ErasedOp for Call<'_, O> {
    fn script(&self) -> &'static Script {
        self.op.script()
    }

    fn keys(&self) -> &[Key] {
        let keys = self.op.keys();
        debug_assert!(
            keys.windows(2).all(|pair| pair[0].tag() == pair[1].tag()),
            "the keys of one op share a tag: {keys:?}"
        );
        keys
    }

    fn cells(&self) -> usize {
        self.op.cells()
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.op.args(to);
    }

    fn apply(
        &mut self,
        cells: &mut dyn Cells,
        now: ServerTime,
        messages: &mut Vec<Message>,
    ) -> Result<(), ApplyError> {
        let mut effects = Effects::new();
        let reply = {
            let mut states: SmallVec<[Option<&O::State>; 4]> = SmallVec::new();
            for index in 0..self.op.cells() {
                states.push(match cells.get(index) {
                    None => None,
                    Some(any) => Some(any.downcast_ref().ok_or(ApplyError::WrongType(index))?),
                });
            }
            self.op.apply(&states, now, &mut effects)
        };
        write(cells, effects.writes)?;
        messages.append(&mut effects.messages);
        self.reply = Some(reply);
        Ok(())
    }

    fn decode(&mut self, reply: Wire) -> Result<(), Malformed> {
        self.reply = Some(self.op.decode(reply)?);
        Ok(())
    }

    fn answered_in(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }
}

fn write<S: Send + Sync + 'static>(
    cells: &mut dyn Cells,
    writes: SmallVec<[(usize, Write<S>); 2]>,
) -> Result<(), BackendError> {
    let empty = |index: &usize| cells.get(*index).is_none();
    let makes = |write: &Write<S>| !matches!(write, Write::Delete);
    let new = writes.iter().filter(|(index, write)| makes(write) && empty(index)).count();
    // Checked before the first write, so that a full table refuses a step as a whole.
    cells.admit(new)?;
    for (index, write) in writes {
        match write {
            Write::Delete => cells.delete(index),
            Write::Put(state, ttl) => {
                // In place where it can be: most puts replace a state of the same type.
                match cells.get_mut(index).and_then(|any| any.downcast_mut()) {
                    Some(held) => *held = state,
                    None => cells.put(index, Box::new(state)),
                }
                cells.keep(index, ttl);
            }
            Write::Update { start, change, ttl } => {
                if let Some(held) = cells.get_mut(index).and_then(|any| any.downcast_mut()) {
                    change(held);
                } else {
                    let mut state = start();
                    change(&mut state);
                    cells.put(index, Box::new(state));
                }
                cells.keep(index, ttl);
            }
        }
    }
    Ok(())
}
