//! Options of a handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, ScriptClock, SystemClock};

use crate::bus::{self, Line};
use crate::dial::{SocketOptions, Target};
use crate::error::{BuildError, Feature};
use crate::exclusive::{ExclusivePool, PoolSettings};
use crate::handle::{Handle, Redis};
use crate::health::Board;
use crate::shared::{Limits, Shared};
use crate::supervise;
use crate::url::{Address, RedisUrl, Tls, Topology};

/// Long enough for a handshake over a bad network, short enough to try again soon.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// A server in the same data centre answers in about a millisecond, unless it is in trouble.
const COMMAND_TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);
/// Room for one healed script: two trips to the server.
const TOTAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// One connection carries more than one server core can answer; measured in `overhead_redis`.
const CONNECTIONS_DEFAULT: usize = 1;
/// At half a second each, more waiting calls are a server that has long stopped to answer.
const IN_FLIGHT_MAX_DEFAULT: usize = 10_000;
/// Some seconds of a busy channel.
const SUBSCRIBER_MESSAGES_MAX_DEFAULT: usize = 1024;
/// Blocking work is rare; each of it holds a connection.
const EXCLUSIVE_CONNECTIONS_MAX_DEFAULT: usize = 8;
const BACKOFF_MIN_DEFAULT: Duration = Duration::from_millis(50);
const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(1);
/// A dead peer is found after 5 s + 3 * 2 s of silence, and after 6 s with data on its way.
const SOCKET_DEFAULT: SocketOptions = SocketOptions {
    nodelay: true,
    keepalive_idle: Duration::from_secs(5),
    keepalive_interval: Duration::from_secs(2),
    keepalive_probes: 3,
    user_timeout: Duration::from_secs(6),
};

/// Options of a [`Redis`] handle. Setters never fail: only `build` sees how options fit together.
#[must_use = "a builder does nothing until `build`"]
#[derive(Clone)]
pub struct RedisBuilder {
    url: RedisUrl,
    connect_timeout: Duration,
    limits: Limits,
    connections: usize,
    subscriber_messages_max: usize,
    socket: SocketOptions,
    client_name: String,
    script_clock: ScriptClock,
    clock: Arc<dyn Clock>,
    pool: Option<deadpool_redis::Pool>,
    pool_settings: PoolSettings,
}

impl RedisBuilder {
    pub(crate) fn new(url: RedisUrl) -> Self {
        Self {
            url,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            limits: Limits {
                command_timeout: COMMAND_TIMEOUT_DEFAULT,
                total_timeout: TOTAL_TIMEOUT_DEFAULT,
                in_flight_max: IN_FLIGHT_MAX_DEFAULT,
                backoff_min: BACKOFF_MIN_DEFAULT,
                backoff_max: BACKOFF_MAX_DEFAULT,
            },
            connections: CONNECTIONS_DEFAULT,
            subscriber_messages_max: SUBSCRIBER_MESSAGES_MAX_DEFAULT,
            socket: SOCKET_DEFAULT,
            client_name: "fleetwide".to_owned(),
            script_clock: ScriptClock::Server,
            clock: Arc::new(SystemClock),
            pool: None,
            pool_settings: PoolSettings {
                connections_max: EXCLUSIVE_CONNECTIONS_MAX_DEFAULT,
                wait_timeout: CONNECT_TIMEOUT_DEFAULT,
            },
        }
    }

    /// Sets how long a new connection may take, its login included. Default: 1 s.
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets how long one trip to the server may take. Default: 500 ms.
    ///
    /// A connection that misses it is asked with `PING` whether it still answers, and replaced if
    /// that takes as long again.
    pub fn command_timeout(mut self, command_timeout: Duration) -> Self {
        self.limits.command_timeout = command_timeout;
        self
    }

    /// Sets how long one call may take as a whole: the wait for the first connection, the trip,
    /// and a second trip for a script that the server had lost. Default: 1 s.
    pub fn total_timeout(mut self, total_timeout: Duration) -> Self {
        self.limits.total_timeout = total_timeout;
        self
    }

    /// Sets how many connections all calls share. Default: 1, which carries more than one server
    /// core can answer. More spread the work of reading large replies over cores.
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Sets how many calls may wait for the server at once; one more fails as saturated.
    /// Default: 10,000.
    pub fn in_flight_max(mut self, in_flight_max: usize) -> Self {
        self.limits.in_flight_max = in_flight_max;
        self
    }

    /// Sets the pauses between attempts to connect: drawn from nothing to a limit that doubles
    /// from `min` to `max`. Defaults: 50 ms and 1 s.
    pub fn reconnect_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.limits.backoff_min = min;
        self.limits.backoff_max = max;
        self
    }

    /// Sets whether small writes go out at once (`TCP_NODELAY`). Default: they do.
    ///
    /// Off, the system holds a small write back until the one before is acknowledged: on a real
    /// network that is up to a round trip more for each call that comes second. What it saves, a
    /// system call for each write, is saved here too: the writes of all tasks that are ready go out
    /// as one.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.socket.nodelay = nodelay;
        self
    }

    /// Sets TCP keep-alive: after `idle` without traffic, probes `interval` apart, and `probes` of
    /// them without an answer end the connection. Defaults: 5 s, 2 s, 3.
    pub fn keepalive(mut self, idle: Duration, interval: Duration, probes: u32) -> Self {
        self.socket.keepalive_idle = idle;
        self.socket.keepalive_interval = interval;
        self.socket.keepalive_probes = probes;
        self
    }

    /// Sets how long sent data may stay without the peer's acknowledgement (`TCP_USER_TIMEOUT`,
    /// Linux). Default: 6 s.
    pub fn user_timeout(mut self, user_timeout: Duration) -> Self {
        self.socket.user_timeout = user_timeout;
        self
    }

    /// Sets what `CLIENT LIST` calls the shared connections, without spaces. A server that refuses
    /// the name is served all the same. Default: `fleetwide`.
    pub fn client_name(self, client_name: impl Into<String>) -> Self {
        Self { client_name: client_name.into(), ..self }
    }

    /// Sets how many messages wait for a slow subscriber before it misses some. Default: 1024.
    pub fn subscriber_messages_max(self, subscriber_messages_max: usize) -> Self {
        Self { subscriber_messages_max, ..self }
    }

    /// Sets how many exclusive connections there may be at once, and how long one is waited for
    /// when all are taken. Defaults: 8 and 1 s. Getting one takes at most this wait and the
    /// [`connect_timeout`](Self::connect_timeout) together, whatever hangs.
    pub fn exclusive_connections(mut self, connections_max: usize, wait: Duration) -> Self {
        self.pool_settings.connections_max = connections_max;
        self.pool_settings.wait_timeout = wait;
        self
    }

    /// Takes exclusive connections from a pool that the application has already.
    ///
    /// This is the one place where a type of a client library is part of this crate's interface. The
    /// pool keeps its own settings: set all its timeouts, and let its connections have no response
    /// timeout shorter than the longest blocking command. It stays open after
    /// [`Redis::shutdown`].
    pub fn exclusive_pool(self, pool: deadpool_redis::Pool) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// Sets where timed scripts take the time from. Default: the server. For tests:
    /// [`ScriptClock::Argument`] sends the time of [`clock`](Self::clock) with each call.
    pub fn script_clock(self, script_clock: ScriptClock) -> Self {
        Self { script_clock, ..self }
    }

    /// Sets the clock that dates the changes of health, and that gives scripts their time under
    /// [`ScriptClock::Argument`]. Default: the operating system's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Builds the handle at once, whether the server can be reached or not, and begins to connect.
    ///
    /// # Errors
    /// [`BuildError`] on a setting that makes no sense, or an address of a kind that is not
    /// supported yet.
    ///
    /// # Panics
    /// If called outside a Tokio runtime with I/O and time drivers.
    pub fn build(self) -> Result<Redis, BuildError> {
        self.check()?;
        let target = self.target()?;
        let pool = match self.pool {
            Some(pool) => ExclusivePool::from_pool(pool, self.pool_settings, &target),
            None => ExclusivePool::new(&target, self.pool_settings, self.limits.command_timeout)?,
        };
        let board = Board::new(self.url.to_string(), self.connections, Arc::clone(&self.clock));
        let shared = Arc::new(Shared::new(
            target,
            self.limits,
            self.connections,
            self.script_clock,
            self.clock,
            board,
        ));
        let (bus, orders) = Line::new(self.subscriber_messages_max);
        for index in 0..self.connections {
            shared.tasks.spawn(supervise::lane(Arc::clone(&shared), index));
        }
        shared.tasks.spawn(supervise::refusals(Arc::clone(&shared)));
        shared.tasks.spawn(bus::run(Arc::clone(&shared), orders));
        Ok(Redis::from_handle(Handle { shared, bus, pool }))
    }

    fn check(&self) -> Result<(), BuildError> {
        let longer = "longer than zero";
        let more = "at least 1";
        let checks = [
            ("connect_timeout", !self.connect_timeout.is_zero(), longer),
            ("command_timeout", !self.limits.command_timeout.is_zero(), longer),
            (
                "total_timeout",
                self.limits.total_timeout >= self.limits.command_timeout,
                "at least as long as command_timeout",
            ),
            ("connections", (1..=64).contains(&self.connections), "from 1 to 64"),
            ("in_flight_max", self.limits.in_flight_max > 0, more),
            (
                "reconnect_backoff",
                !self.limits.backoff_min.is_zero()
                    && self.limits.backoff_min <= self.limits.backoff_max,
                "longer than zero, the first at most the second",
            ),
            ("subscriber_messages_max", self.subscriber_messages_max > 0, more),
            ("exclusive_connections", self.pool_settings.connections_max > 0, more),
            (
                "client_name",
                self.client_name.bytes().all(|byte| byte.is_ascii_graphic()),
                "printable ASCII without spaces",
            ),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, takes)) => Err(BuildError::Setting { name, takes }),
            None => Ok(()),
        }
    }

    fn target(&self) -> Result<Target, BuildError> {
        let address: &Address = match &self.url.topology {
            Topology::Single(address) => address,
            Topology::Sentinel { .. } => {
                return Err(BuildError::NotSupportedYet(Feature::Sentinel));
            }
            Topology::Cluster(_) => return Err(BuildError::NotSupportedYet(Feature::Cluster)),
        };
        if self.url.tls != Tls::Off {
            return Err(BuildError::NotSupportedYet(Feature::Tls));
        }
        Ok(Target {
            address: address.clone(),
            credentials: self.url.credentials.clone(),
            db: self.url.db,
            protocol: self.url.protocol,
            client_name: self.client_name.clone(),
            connect_timeout: self.connect_timeout,
            socket: self.socket,
            in_flight: Arc::default(),
        })
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("url", &self.url)
            .field("connect_timeout", &self.connect_timeout)
            .field("limits", &self.limits)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
