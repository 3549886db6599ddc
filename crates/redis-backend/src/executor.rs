//! Atomic steps as scripts on the server.

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{
    ArgSink, BackendError, Epoch, Epochs, ErasedOp, Executor, Malformed, Replicas, Script,
    ScriptClock,
};
use redis::{Cmd, Pipeline, RedisWrite, Value};

use crate::exclusive::{Command, Exclusive};
use crate::handle::Handle;
use crate::shared::{Budget, Shared};

/// Runs ops on the server: `EVALSHA` for a script, the command itself for a command.
///
/// A script that the server does not know (it was restarted, or somebody ran `SCRIPT FLUSH`) was
/// not run, so it is sent once more in full, with `EVAL`; each op is still carried out once.
///
/// # Cancel safety
/// A dropped call may still be carried out. It never takes the reply of another call.
#[derive(Clone)]
pub struct RedisExecutor {
    handle: Arc<Handle>,
    deadline: Option<Duration>,
}

impl RedisExecutor {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle, deadline: None }
    }

    /// The same with another limit for each call as a whole. Default: the handle's
    /// [`total_timeout`](crate::RedisBuilder::total_timeout).
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    fn budget(&self) -> Budget {
        match self.deadline {
            None => self.handle.shared.budget(),
            Some(total) => Budget::new(total, self.handle.shared.limits.command_timeout),
        }
    }

    /// Sends `steps` in one trip.
    async fn trip(&self, steps: Pipeline, budget: Budget) -> Result<Vec<Said>, BackendError> {
        let (values, epoch) = self.handle.shared.send_all(&steps, budget).await?;
        if values.len() != steps.len() {
            return Err(miscounted());
        }
        Ok(values.into_iter().map(|value| (value, epoch)).collect())
    }

    /// The steps of those `ops` that `indexes` names, those that are scripts in the given `form`.
    fn steps(&self, ops: &[&mut dyn ErasedOp], indexes: &[usize], form: Form) -> Pipeline {
        let mut steps = Pipeline::with_capacity(indexes.len());
        for &index in indexes {
            steps.add_command(command_for(&self.handle.shared, &*ops[index], form));
        }
        steps
    }
}

impl Executor for RedisExecutor {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let shared = &self.handle.shared;
        let budget = self.budget();
        let mut said = shared.send(command_for(shared, op, Form::Hash), budget).await?;
        if is_missing(&said.0) {
            shared.scripts.reload();
            said = shared.send(command_for(shared, op, Form::Text), budget.rest()).await?;
        }
        answer(shared, op, said)
    }

    async fn execute_many(&self, ops: &mut [&mut dyn ErasedOp]) -> Vec<Result<(), BackendError>> {
        if ops.is_empty() {
            return Vec::new();
        }
        let budget = self.budget();
        let all: Vec<usize> = (0..ops.len()).collect();
        let values = match self.trip(self.steps(ops, &all, Form::Hash), budget).await {
            Ok(values) => values,
            Err(error) => return vec![Err(error); ops.len()],
        };
        let missing: Vec<usize> =
            all.into_iter().filter(|&index| is_missing(&values[index].0)).collect();
        let mut values: Vec<Result<Said, BackendError>> = values.into_iter().map(Ok).collect();
        if !missing.is_empty() {
            // The others were carried out; only these are sent again.
            self.handle.shared.scripts.reload();
            let healed = self.trip(self.steps(ops, &missing, Form::Text), budget.rest()).await;
            let mut healed = healed.map(Vec::into_iter);
            for index in missing {
                values[index] = match &mut healed {
                    Ok(again) => again.next().ok_or_else(miscounted),
                    Err(error) => Err(error.clone()),
                };
            }
        }
        let shared = &self.handle.shared;
        ops.iter_mut().zip(values).map(|(op, said)| answer(shared, &mut **op, said?)).collect()
    }

    /// On a connection of its own: `WAIT` speaks of the writes of the connection that sends it.
    async fn execute_replicated(
        &self,
        op: &mut dyn ErasedOp,
        replicas: Replicas,
    ) -> Result<usize, BackendError> {
        let shared = &self.handle.shared;
        let within = shared.limits.command_timeout;
        let mut own = self.handle.pool.get().await?;
        let mut value = own.send(&command_for(shared, op, Form::Hash), within).await?;
        if is_missing(&value) {
            shared.scripts.reload();
            value = own.send(&command_for(shared, op, Form::Text), within).await?;
        }
        op.decode(shared.answer(value)?)?;
        Ok(acknowledged(&mut own, replicas, within).await)
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.handle.shared.scripts.add(scripts);
    }

    fn epoch(&self) -> Epoch {
        self.handle.shared.histories.latest()
    }

    fn epochs(&self) -> Epochs {
        self.handle.shared.histories.watch()
    }
}

/// What the server said, and in which history of its data.
type Said = (Value, Epoch);

fn answer(
    shared: &Shared,
    op: &mut dyn ErasedOp,
    (value, epoch): Said,
) -> Result<(), BackendError> {
    op.answered_in(epoch);
    op.decode(shared.answer(value)?)?;
    Ok(())
}

/// How many replicas have what `own` has written. The write was carried out, so no answer is not
/// its failure: then nobody is known to have it.
async fn acknowledged(own: &mut Exclusive, replicas: Replicas, trip: Duration) -> usize {
    // 0 would be for ever.
    let millis = i64::try_from(replicas.within.as_millis()).unwrap_or(i64::MAX).max(1);
    let wait = Command::new("WAIT").int(replicas.count.into()).int(millis);
    let deadline = replicas.within.saturating_add(trip);
    let answer = own.run(wait, deadline).await.and_then(|reply| Ok(reply.into_unsigned()?));
    match answer {
        Ok(count) => usize::try_from(count).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::debug!(%error, "it is not known which replicas have a write");
            0
        }
    }
}

pub(crate) fn miscounted() -> BackendError {
    Malformed::new("a reply for each step", "another number of them").into()
}

/// How a script is sent.
#[derive(Clone, Copy)]
enum Form {
    Hash,
    Text,
}

fn command_for<O: ErasedOp + ?Sized>(shared: &Shared, op: &O, form: Form) -> Cmd {
    /// Room for the arguments of most ops, so that a command is built without growing.
    const ARGS: usize = 12;
    const BYTES: usize = 256;
    let script = op.script();
    let keys = op.keys();
    let mut command = Cmd::with_capacity(keys.len() + ARGS, BYTES);
    if script.is_command() {
        command.write_arg(script.name().as_bytes());
    } else {
        let (verb, program) = match form {
            Form::Hash => ("EVALSHA", script.sha(shared.script_clock)),
            Form::Text => ("EVAL", script.source(shared.script_clock)),
        };
        command.write_arg(verb.as_bytes());
        command.write_arg(program.as_bytes());
        command.write_arg_fmt(keys.len());
    }
    for key in keys {
        command.write_arg(key.as_bytes());
    }
    op.args(&mut CommandArgs(&mut command));
    if shared.script_clock == ScriptClock::Argument && script.is_timed() {
        command.write_arg_fmt(shared.clock.server_time().as_micros());
    }
    command
}

/// Writes an op's arguments straight into the command.
pub(crate) struct CommandArgs<'a>(pub(crate) &'a mut Cmd);

impl ArgSink for CommandArgs<'_> {
    fn bytes(&mut self, arg: &[u8]) {
        self.0.write_arg(arg);
    }

    fn int(&mut self, arg: i64) {
        self.0.write_arg_fmt(arg);
    }

    fn uint(&mut self, arg: u64) {
        self.0.write_arg_fmt(arg);
    }
}

/// Whether the server does not know the script, and so did nothing.
fn is_missing(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
