//! What a test asks a server as its administrator.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RedisServer;
use super::builder::ADMIN;
use crate::acl::Acl;
use crate::resp::{Reply, RespConnection, RespError};

/// Far more than any command here takes; a stopped server is found out by it.
const ADMIN_DEADLINE: Duration = Duration::from_secs(5);

/// Which connections [`RedisServer::client_kill`] closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Connections that send commands.
    Normal,
    /// Connections that subscribe to at least one channel.
    Pubsub,
    /// Replicas of this server.
    Replica,
    /// The connection to this server's own primary.
    Primary,
}

/// Every call opens a connection of its own, as the all-powerful user, and waits 5 s at most.
impl RedisServer {
    /// Sends any command, as `&["CONFIG", "GET", "maxmemory"]`.
    pub async fn admin<A: AsRef<[u8]>>(&self, words: &[A]) -> Result<Reply, RespError> {
        self.connect_admin().await?.command(words).await
    }

    /// Opens a connection as the all-powerful user.
    pub async fn connect_admin(&self) -> Result<RespConnection, RespError> {
        self.connect_within(ADMIN_DEADLINE).await
    }

    /// Opens a connection with the documented rights, as [`url`](RedisServer::url) does.
    pub async fn connect(&self) -> Result<RespConnection, RespError> {
        let mut connection = RespConnection::connect(self.addr(), ADMIN_DEADLINE).await?;
        connection.auth(Acl::documented().user(), self.password()).await?;
        Ok(connection)
    }

    pub(super) async fn connect_within(
        &self,
        deadline: Duration,
    ) -> Result<RespConnection, RespError> {
        let mut connection = RespConnection::connect(self.addr(), deadline).await?;
        connection.auth(ADMIN, &self.admin_password).await?;
        Ok(connection)
    }

    /// Forgets all scripts, so that the next `EVALSHA` answers `NOSCRIPT`.
    pub async fn script_flush(&self) -> Result<(), RespError> {
        self.admin(&["SCRIPT", "FLUSH", "SYNC"]).await.map(drop)
    }

    /// Closes all connections of one kind, and returns how many they were.
    pub async fn client_kill(&self, kind: ClientKind) -> Result<u64, RespError> {
        let kind = match kind {
            ClientKind::Normal => "normal",
            ClientKind::Pubsub => "pubsub",
            ClientKind::Replica => "replica",
            ClientKind::Primary => "master",
        };
        let killed = self.admin(&["CLIENT", "KILL", "TYPE", kind]).await?;
        Ok(killed.as_integer().unwrap_or_default().unsigned_abs())
    }

    /// Changes the configuration of the running server; a restart undoes it.
    pub async fn config_set(&self, option: &str, value: &str) -> Result<(), RespError> {
        self.admin(&["CONFIG", "SET", option, value]).await.map(drop)
    }

    /// Returns the fields of one section of `INFO`, or of `everything`.
    pub async fn info(&self, section: &str) -> Result<BTreeMap<String, String>, RespError> {
        let reply = self.admin(&["INFO", section]).await?;
        let fields = reply.as_str().unwrap_or_default().lines().filter_map(|l| l.split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Returns how often each command ran since the start or the last
    /// [`reset_stats`](Self::reset_stats), by its lower-case name, as `evalsha` or `script|load`.
    ///
    /// Commands that a script calls count too, and so do the testkit's own `auth` and `info`.
    pub async fn command_stats(&self) -> Result<BTreeMap<String, u64>, RespError> {
        let lines = self.info("commandstats").await?;
        let calls = lines.iter().filter_map(|(name, fields)| {
            let calls = fields.split(',').find_map(|field| field.strip_prefix("calls="))?;
            Some((name.strip_prefix("cmdstat_")?.to_owned(), calls.parse().ok()?))
        });
        Ok(calls.collect())
    }

    /// Sets all counts of [`command_stats`](Self::command_stats) back to nothing.
    pub async fn reset_stats(&self) -> Result<(), RespError> {
        self.admin(&["CONFIG", "RESETSTAT"]).await.map(drop)
    }

    /// Makes this server a replica of `host:port`, which need not exist: writes are refused with
    /// `READONLY` at once.
    pub async fn replicaof(&self, host: &str, port: u16) -> Result<(), RespError> {
        self.admin(&["REPLICAOF", host, &port.to_string()]).await.map(drop)
    }

    /// Makes this server a replica of `primary`, with the password that needs. The data follows
    /// later; `master_link_status` in `info("replication")` turns `up` then.
    pub async fn replicate(&self, primary: &Self) -> Result<(), RespError> {
        self.config_set("masteruser", ADMIN).await?;
        self.config_set("masterauth", &primary.admin_password).await?;
        self.replicaof("127.0.0.1", primary.port()).await
    }

    /// Whether this replica has its primary's data and follows its writes.
    pub async fn is_linked(&self) -> Result<bool, RespError> {
        let replication = self.info("replication").await?;
        Ok(replication.get("master_link_status").is_some_and(|status| status == "up"))
    }

    /// Makes this server a primary, with the data it has.
    pub async fn promote(&self) -> Result<(), RespError> {
        self.admin(&["REPLICAOF", "NO", "ONE"]).await.map(drop)
    }
}
