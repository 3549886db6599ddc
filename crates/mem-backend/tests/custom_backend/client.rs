//! One connection, and what its errors mean.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Malformed, Outage, Rejection, Wire};
use fleetwide_testkit::{RedisServer, Reply, RespConnection, RespError};
use tokio::sync::Mutex;

const DEADLINE: Duration = Duration::from_secs(5);

/// Sends one command at a time. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Client {
    addr: SocketAddr,
    user: (String, String),
    idle: Arc<Mutex<Option<RespConnection>>>,
}

impl Client {
    pub(crate) fn of(server: &RedisServer) -> Self {
        let user = (server.user().to_owned(), server.password().to_owned());
        Self { addr: server.addr(), user, idle: Arc::default() }
    }

    /// Sends a command and returns the reply.
    pub(crate) async fn command(&self, words: &[Vec<u8>]) -> Result<Wire, BackendError> {
        let mut idle = self.idle.lock().await;
        // Taken out while it is in use: if this call is dropped half-way, so is the connection,
        // and nobody reads the reply of this call as their own.
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => self.connect().await.map_err(|error| not_sent(&error))?,
        };
        let reply = connection.command(words).await;
        if matches!(reply, Ok(_) | Err(RespError::Refused(_))) {
            *idle = Some(connection);
        }
        wire(reply.map_err(unknown)?)
    }

    /// A connection of the caller's own.
    pub(crate) async fn connect(&self) -> Result<RespConnection, RespError> {
        let mut connection = RespConnection::connect(self.addr, DEADLINE).await?;
        connection.auth(&self.user.0, &self.user.1).await?;
        Ok(connection)
    }
}

/// Nothing was sent without a connection, so nothing has changed.
fn not_sent(error: &RespError) -> BackendError {
    BackendError::NotSent(Outage::Down(error.to_string()))
}

/// Once a command is on its way, only an error *reply* says that it was not carried out.
fn unknown(error: RespError) -> BackendError {
    match error {
        RespError::Refused(text) => {
            let code = text.split(' ').next().unwrap_or_default();
            BackendError::Rejected(Rejection::new(code, &text))
        }
        RespError::Timeout(after) => BackendError::Unknown(Outage::Deadline(after)),
        other => BackendError::Unknown(Outage::Disconnected(other.to_string())),
    }
}

fn wire(reply: Reply) -> Result<Wire, BackendError> {
    Ok(match reply {
        Reply::Nil => Wire::Nil,
        Reply::Integer(int) => Wire::Int(int),
        Reply::Bulk(bytes) => Wire::Bytes(bytes),
        Reply::Status(text) => Wire::Bytes(Bytes::from(text)),
        Reply::Array(items) => Wire::Array(items.into_iter().map(wire).collect::<Result<_, _>>()?),
        Reply::Error(_) => return Err(Malformed::new("a reply", "an error inside one").into()),
    })
}
