//! Connections of one's own, for what blocks or belongs together.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime, TimeoutType};
use fleetwide_core_traits::{ArgSink, BackendError, Outage, Wire};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisWrite, Value,
};
use socket2::TcpKeepalive;
use tokio::time::timeout;

use crate::dial::Target;
use crate::error::BuildError;
use crate::reply;
use crate::trouble::Trouble;
use crate::url::{Address, Protocol};

/// How many exclusive connections there may be, and how long one is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolSettings {
    pub(crate) connections_max: usize,
    pub(crate) wait_timeout: Duration,
}

/// The pool of exclusive connections: ours, or the application's.
pub(crate) struct ExclusivePool {
    pool: Pool,
    ours: bool,
    /// How long [`get`](Self::get) takes at most, whatever the pool does meanwhile.
    patience: Duration,
}

impl ExclusivePool {
    /// `check_timeout` bounds the `PING` before a connection is given out once more.
    pub(crate) fn new(
        target: &Target,
        settings: PoolSettings,
        check_timeout: Duration,
    ) -> Result<Self, BuildError> {
        // No response timeout: each command brings its own deadline, and some are long.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(target.connect_timeout))
            .set_response_timeout(None);
        let refused = |takes| BuildError::Setting { name: "exclusive connections", takes };
        let info = connection_info(target).map_err(|_| refused("for an address that exists"))?;
        let manager = Manager::new_with_config(info, config);
        let pool = Pool::builder(manager.map_err(|_| refused("for an address that exists"))?)
            .max_size(settings.connections_max)
            .wait_timeout(Some(settings.wait_timeout))
            .create_timeout(Some(target.connect_timeout))
            .recycle_timeout(Some(check_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| refused("built inside of a runtime"))?;
        let patience = settings.wait_timeout + target.connect_timeout;
        Ok(Self { pool, ours: true, patience })
    }

    pub(crate) fn from_pool(pool: Pool, settings: PoolSettings, target: &Target) -> Self {
        let patience = settings.wait_timeout + target.connect_timeout;
        Self { pool, ours: false, patience }
    }

    pub(crate) async fn get(&self) -> Result<Exclusive, BackendError> {
        // A pool tries its idle connections one after the other; when a server hangs, each costs
        // a timeout. So the whole has a limit, and what was idle then is not tried again.
        match timeout(self.patience, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(Exclusive { connection: Some(connection), dirty: false }),
            Ok(Err(error)) => Err(BackendError::NotSent(self.outage(&error))),
            Err(_) => {
                self.pool.retain(|_, _| false);
                Err(BackendError::NotSent(Outage::Deadline(self.patience)))
            }
        }
    }

    fn outage(&self, error: &PoolError) -> Outage {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Outage::Saturated(self.pool.status().max_size),
            PoolError::Timeout(_) => Outage::Deadline(self.patience),
            PoolError::Closed => Outage::Down(Trouble::ShutDown.to_string()),
            PoolError::Backend(error) if error.is_connection_refusal() => {
                Outage::Down("connection refused".to_owned())
            }
            PoolError::Backend(error) if error.is_timeout() => Outage::Deadline(self.patience),
            PoolError::Backend(error) => Outage::Down(Trouble::from_library(error).to_string()),
            other => Outage::Down(other.to_string()),
        }
    }

    /// Closes the pool, unless it is the application's own.
    pub(crate) fn close(&self) {
        if self.ours {
            self.pool.close();
        }
    }
}

fn connection_info(target: &Target) -> redis::RedisResult<ConnectionInfo> {
    let addr = match &target.address {
        Address::Tcp(host) => ConnectionAddr::Tcp(host.name.clone(), host.port),
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let protocol = match target.protocol {
        Protocol::Resp2 => ProtocolVersion::RESP2,
        Protocol::Resp3 => ProtocolVersion::RESP3,
    };
    let mut info = RedisConnectionInfo::default()
        .set_db(i64::from(target.db))
        .set_protocol(protocol)
        .set_skip_set_lib_name();
    if let Some(user) = &target.credentials.user {
        info = info.set_username(user);
    }
    if let Some(password) = &target.credentials.password {
        info = info.set_password(password);
    }
    let socket = &target.socket;
    let keepalive = TcpKeepalive::new()
        .with_time(socket.keepalive_idle)
        .with_interval(socket.keepalive_interval);
    #[cfg(not(any(target_os = "openbsd", target_os = "haiku", target_os = "nto")))]
    let keepalive = keepalive.with_retries(socket.keepalive_probes);
    let tcp = TcpSettings::default().set_nodelay(socket.nodelay).set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(socket.user_timeout);
    Ok(addr.into_connection_info()?.set_redis_settings(info).set_tcp_settings(tcp))
}

/// A connection that nobody else uses, from [`Redis::exclusive`](crate::Redis::exclusive).
///
/// It goes back to its pool when it is dropped, unless its last command had no answer: a reply that
/// comes late would be taken for the reply to the next command, so such a connection is closed.
pub struct Exclusive {
    /// `None` only inside of `drop`.
    connection: Option<Connection>,
    /// Whether a command has had no answer.
    dirty: bool,
}

impl Exclusive {
    /// Runs `command`, which may block, and waits for its reply until `deadline` has passed.
    ///
    /// Give a command that blocks by itself a shorter time than `deadline`.
    ///
    /// # Errors
    /// [`BackendError`]. After [`BackendError::Unknown`] the connection is of no more use.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out; the connection is closed then.
    pub async fn run(
        &mut self,
        command: Command,
        deadline: Duration,
    ) -> Result<Wire, BackendError> {
        reply::answer(self.send(&command.0, deadline).await?)
    }

    /// The same with what the server says, which may be an error reply.
    pub(crate) async fn send(
        &mut self,
        command: &Cmd,
        deadline: Duration,
    ) -> Result<Value, BackendError> {
        let gone = || BackendError::NotSent(Outage::Disconnected("a call had no answer".into()));
        let Some(connection) = self.connection.as_mut().filter(|_| !self.dirty) else {
            return Err(gone());
        };
        // Until the reply is here; a dropped call leaves it so.
        self.dirty = true;
        match timeout(deadline, connection.send_packed_command(command)).await {
            Ok(Ok(value)) => {
                self.dirty = false;
                Ok(value)
            }
            Ok(Err(error)) => Err(reply::failure(&error)),
            Err(_) => Err(BackendError::Unknown(Outage::Deadline(deadline))),
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if self.dirty {
            // Taken out of the pool and closed.
            drop(self.connection.take().map(Connection::take));
        }
    }
}

impl fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("dirty", &self.dirty).finish_non_exhaustive()
    }
}

/// One command with its arguments, for [`Exclusive::run`]. `Debug` does not show the arguments.
///
/// # Examples
/// ```
/// # use fleetwide_redis_backend::Command;
/// let wait = Command::new("WAIT").int(1).int(100);
/// let read = Command::new("BLPOP").arg("queue").int(1);
/// ```
#[derive(Clone)]
pub struct Command(Cmd);

impl Command {
    /// The command `name`, one word.
    pub fn new(name: &str) -> Self {
        Self(redis::cmd(name))
    }

    /// Adds one argument of any bytes.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.bytes(arg.as_ref());
        self
    }

    /// Adds one integer, as decimal text.
    #[must_use]
    pub fn int(mut self, arg: i64) -> Self {
        ArgSink::int(&mut self, arg);
        self
    }
}

impl ArgSink for Command {
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

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0.args_iter().next() {
            Some(redis::Arg::Simple(name)) => Bytes::copy_from_slice(name),
            _ => Bytes::new(),
        };
        let arguments = self.0.args_iter().count().saturating_sub(1);
        f.debug_struct("Command").field("name", &name).field("arguments", &arguments).finish()
    }
}
