//! The script of an op, sent without us: the floor of every atomic step over the wire.

use fleetwide_core_traits::{AtomicOp, ScriptClock};
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

/// A script that the server has loaded, with the arguments of one op.
pub struct BareScript {
    sha: String,
    args: Vec<Vec<u8>>,
}

impl BareScript {
    /// Loads the text that our executor would send for `op`, and keeps the op's arguments.
    ///
    /// # Panics
    /// If the server does not load it.
    pub async fn of(op: &impl AtomicOp, mut connection: MultiplexedConnection) -> Self {
        let mut args = Vec::new();
        op.args(&mut args);
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(op.script().source(ScriptClock::Server));
        let sha = load.query_async(&mut connection).await.expect("the server loads it");
        Self { sha, args }
    }

    /// Runs it on `key` and reads the reply as a `T`.
    ///
    /// # Panics
    /// If the server refuses, or answers something else.
    pub async fn call<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
    ) -> T {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.sha).arg(1).arg(key);
        for arg in &self.args {
            call.arg(arg.as_slice());
        }
        call.query_async(connection).await.expect("the server runs it")
    }
}
