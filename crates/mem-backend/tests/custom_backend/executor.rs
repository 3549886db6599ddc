//! `Executor`: a script, its keys, its arguments.

use std::sync::Arc;

use fleetwide_core_traits::{
    ArgSink, BackendError, Clock, ErasedOp, Executor, Script, ScriptClock, SystemClock,
};

use crate::client::Client;

#[derive(Clone)]
pub(crate) struct TinyExecutor {
    client: Client,
    /// Where timed scripts take `now` from, and what it is if it is an argument.
    time: (ScriptClock, Arc<dyn Clock>),
}

impl TinyExecutor {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, time: (ScriptClock::Server, Arc::new(SystemClock)) }
    }

    /// An executor whose scripts are told the time, for comparing them with their pure twins.
    pub(crate) fn with_clock(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, time: (ScriptClock::Argument, clock) }
    }
}

impl Executor for TinyExecutor {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let (source, clock) = &self.time;
        let script = op.script();
        let mut command: Vec<Vec<u8>> = Vec::new();
        if script.is_command() {
            command.bytes(script.name().as_bytes());
        } else {
            // Real backends send the hash (`EVALSHA`), and the source only when it is not known.
            command.bytes(b"EVAL");
            command.bytes(script.source(*source).as_bytes());
            command.uint(op.keys().len() as u64);
        }
        command.extend(op.keys().iter().map(|key| key.as_bytes().to_vec()));
        op.args(&mut command);
        if script.is_timed() && *source == ScriptClock::Argument {
            command.uint(clock.server_time().as_micros());
        }
        let reply = self.client.command(&command).await?;
        Ok(op.decode(reply)?)
    }

    fn prepare(&self, _: &[&'static Script]) {}
}
