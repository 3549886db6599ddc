//! Options of a test server, and how one is started.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use std::{env, fs, io};

use super::{RedisServer, process};
use crate::acl::Acl;
use crate::port::ReservedPort;
use crate::resp::RespError;
use crate::temp::TempDir;

/// How often another port is tried after a lost race for one.
const PORT_ATTEMPTS: u32 = 5;

/// Who a client is that gives a password without a user, or nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultUser {
    /// Nobody: the client must name a user.
    Off,
    /// A user with the documented rights and the password of [`RedisServer::password`], as an
    /// operator has it who knows only `requirepass`.
    Documented,
}

/// Options of a [`RedisServer`].
#[must_use = "a builder does nothing until `start`"]
#[derive(Debug, Clone)]
pub struct RedisBuilder {
    port: Option<u16>,
    append_only: bool,
    default_user: DefaultUser,
    is_replica: bool,
    config: String,
}

impl RedisBuilder {
    pub(super) fn new() -> Self {
        Self {
            port: None,
            append_only: false,
            default_user: DefaultUser::Off,
            is_replica: false,
            config: String::new(),
        }
    }

    /// Listens on this `port` of the loopback interface. Default: one that the kernel picks.
    pub fn port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    /// Syncs every write to an append-only file, so that no acknowledged write is lost in a kill.
    /// Default: nothing is ever written to disk.
    pub fn append_only(self) -> Self {
        Self { append_only: true, ..self }
    }

    /// Chooses who a client without a user name is. Default: [`DefaultUser::Off`].
    pub fn default_user(self, default_user: DefaultUser) -> Self {
        Self { default_user, ..self }
    }

    /// Makes it a replica of `primary`, also after a restart. Default: a primary.
    ///
    /// [`start`](Self::start) then returns when it has the primary's data and follows its writes.
    pub fn replica_of(self, primary: &RedisServer) -> Self {
        let to = format!("127.0.0.1 {}", primary.port());
        let named = Self { is_replica: true, ..self }.config("replicaof", &to);
        named.config("masteruser", ADMIN).config("masterauth", &primary.admin_password)
    }

    /// Adds one line to the configuration file, as `.config("maxmemory", "2mb")`.
    ///
    /// Written as in `redis.conf`, so a value with spaces needs its quotes. Later lines win, also
    /// over those that this builder writes.
    pub fn config(mut self, option: &str, value: &str) -> Self {
        writeln!(self.config, "{option} {value}").expect("writing to a string cannot fail");
        self
    }

    /// Starts the server, and returns when it answers `PING`.
    ///
    /// # Errors
    /// [`SpawnError`]; no process is left behind.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call kills what it had started.
    pub async fn start(self) -> Result<RedisServer, SpawnError> {
        let binary = find_binary(env::var_os("REDIS_SERVER"))?;
        let mut attempts = if self.port.is_some() { 1 } else { PORT_ATTEMPTS };
        loop {
            attempts -= 1;
            match self.start_once(binary.clone()).await {
                Err(SpawnError::Exited { log, .. })
                    if attempts > 0 && log.contains("Address already in use") => {}
                other => return other,
            }
        }
    }

    async fn start_once(&self, binary: PathBuf) -> Result<RedisServer, SpawnError> {
        let port = match self.port {
            Some(port) => ReservedPort::exactly(port),
            None => ReservedPort::any(),
        };
        let port = port.map_err(SpawnError::io("reserve a port"))?;
        let dir = TempDir::new().map_err(SpawnError::io("create a directory"))?;
        let server = RedisServer::new(binary, dir, port, self.append_only);
        let config = self.config_file(&server);
        fs::write(server.config_path(), config).map_err(SpawnError::io("write redis.conf"))?;
        server.launch().await?;
        if self.is_replica {
            server.linked().await?;
        }
        Ok(server)
    }

    fn config_file(&self, server: &RedisServer) -> String {
        let port = server.port();
        let dir = server.dir.path().display();
        let log = server.log_path().display().to_string();
        let socket = server.socket_path().display().to_string();
        let append_only = if self.append_only { "yes" } else { "no" };
        let admin = &server.admin_password;
        let (user, rules) = (Acl::documented().user(), server.documented_rules());
        let default = match self.default_user {
            // Redis 7.0 replays what scripts wrote with the rights of this user, though it is off.
            DefaultUser::Off if self.append_only => "reset off ~* &* +@all",
            DefaultUser::Off => "reset off",
            DefaultUser::Documented => &rules,
        };
        // Without persistence a replica would still be sent a file; diskless keeps the disk out.
        format!(
            "bind 127.0.0.1\nport {port}\nunixsocket \"{socket}\"\nunixsocketperm 700\n\
             dir \"{dir}\"\nlogfile \"{log}\"\ndaemonize no\n\
             save \"\"\nappendonly {append_only}\nappendfsync always\nrdbcompression no\n\
             repl-diskless-sync yes\nrepl-diskless-sync-delay 0\n\
             user default {default}\nuser {ADMIN} reset on >{admin} ~* &* +@all\n\
             user {user} {rules}\n{}",
            self.config
        )
    }
}

/// The user of the test itself, who may do everything.
pub(super) const ADMIN: &str = "testkit";

/// Why a test has no Redis server.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no `redis-server` to run.
    #[error(
        "no redis-server in {0}; install one (Debian: apt-get install redis-server, macOS: \
         brew install redis) or name it in the variable REDIS_SERVER"
    )]
    Missing(String),
    /// The operating system refused something.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The server ended before it answered.
    #[error("redis-server ended with {status}; its log:\n{log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote into its log.
        log: String,
    },
    /// The server runs, but did not answer `PING` in time.
    #[error("redis-server did not answer within {waited:?}: {last}; its log:\n{log}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// What came of the last `PING`.
        last: RespError,
        /// What it wrote into its log.
        log: String,
    },
    /// The running server refused to prepare its restart.
    #[error("redis-server refused to prepare its restart")]
    Prepare(#[from] RespError),
}

impl SpawnError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

fn find_binary(named: Option<OsString>) -> Result<PathBuf, SpawnError> {
    const ELSEWHERE: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
    match named.map(PathBuf::from) {
        Some(named) if named.is_file() => Ok(named),
        Some(named) => Err(SpawnError::Missing(format!("REDIS_SERVER={}", named.display()))),
        None => process::find_program("redis-server", &ELSEWHERE)
            .ok_or_else(|| SpawnError::Missing(format!("PATH, {}", ELSEWHERE.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_server_is_named_and_the_error_says_what_to_do() {
        let error = find_binary(Some("/no/such/redis-server".into())).unwrap_err().to_string();
        for part in ["REDIS_SERVER=/no/such/redis-server", "apt-get install redis-server", "brew"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
