//! A real `redis-server` of the test's own.

mod admin;
mod builder;
pub(crate) mod process;

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::time::sleep;

pub use admin::ClientKind;
use builder::ADMIN;
pub use builder::{DefaultUser, RedisBuilder, SpawnError};
use process::Process;

use crate::acl::Acl;
use crate::port::ReservedPort;
use crate::resp::RespError;
use crate::temp::TempDir;

/// How long a server may take until it answers; it takes milliseconds on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a server may take to end by itself, before it is killed.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);
/// How often the process is looked at while one of the deadlines runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many keys [`RedisServer::restart_loading`] adds: each is one step of the slow load.
const LOADING_KEYS: usize = 200;

/// A `redis-server` on a loopback port, with its data in a directory of its own.
///
/// The `default` user is off, and [`url`](Self::url) is the URL of a user who may do only what
/// `docs/redis-acl.md` lists. The process and the directory are gone when this value is dropped;
/// the process also when the test panics, or when the test's process is killed.
///
/// All methods take `&self`, so that a test can break the server under code that is running.
pub struct RedisServer {
    // Before the directory, so that the process ends first.
    process: Mutex<Option<Process>>,
    /// Held by whoever starts the process, so that no two are started on one port.
    starting: tokio::sync::Mutex<()>,
    binary: PathBuf,
    dir: TempDir,
    port: ReservedPort,
    append_only: bool,
    password: String,
    admin_password: String,
}

impl RedisServer {
    /// Starts a server with default options.
    ///
    /// # Errors
    /// [`SpawnError`], which shows the server's log and says what to do when Redis is missing.
    pub async fn start() -> Result<Self, SpawnError> {
        Self::builder().start().await
    }

    /// Returns the options of a server.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::new()
    }

    /// Returns the URL of the user with the documented rights.
    pub fn url(&self) -> String {
        format!("redis://{}:{}@{}", Acl::documented().user(), self.password, self.addr())
    }

    /// Returns the URL of the user who may do everything; for a test's own checks only.
    pub fn admin_url(&self) -> String {
        format!("redis://{ADMIN}:{}@{}", self.admin_password, self.addr())
    }

    /// Returns a URL with a password and no user, for [`DefaultUser::Documented`].
    pub fn url_without_user(&self) -> String {
        format!("redis://:{}@{}", self.password, self.addr())
    }

    /// Returns the name of the user with the documented rights.
    pub fn user(&self) -> &'static str {
        Acl::documented().user()
    }

    /// Returns the password of the user with the documented rights.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Returns where the server listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Returns the port, which stays the same over restarts and while the server is down.
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// Returns the path of the unix socket, on which the server listens too.
    pub fn socket_path(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Returns the process id of the `redis-server` itself, or `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().as_ref().map(Process::pid)
    }

    /// Returns what the server has written into its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Kills the server with SIGKILL, and returns when it is gone and its connections are closed.
    /// Does nothing while it is down.
    pub fn kill(&self) {
        self.process.lock().take();
    }

    /// Freezes the server with SIGSTOP: its connections stay open and nothing answers.
    ///
    /// # Panics
    /// If the server is down.
    pub fn stop(&self) {
        self.with_process(|process| process.stop().expect("a process of ours can be stopped"));
    }

    /// Lets a frozen server go on; it then answers all it was sent meanwhile.
    ///
    /// # Panics
    /// If the server is down.
    pub fn cont(&self) {
        let go_on = |process: &Process| process.signal(Signal::CONT);
        self.with_process(go_on).expect("a process of ours can be continued");
    }

    /// Ends the server as an operator does, with SIGTERM: clients see their connections close.
    ///
    /// Kills it after 5 s. Does nothing while it is down.
    ///
    /// # Cancel safety
    /// A dropped call has killed the server.
    pub async fn shutdown(&self) {
        let Some(mut process) = self.process.lock().take() else { return };
        let deadline = Instant::now() + SHUTDOWN_DEADLINE;
        let mut ended = process.signal(Signal::CONT).and(process.signal(Signal::TERM)).is_err();
        while !ended && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
            ended = !matches!(process.exit_status(), Ok(None));
        }
    }

    /// Kills the server if it runs, and starts it again on the same port.
    ///
    /// All data is lost, except with [`RedisBuilder::append_only`]. Returns when it answers.
    ///
    /// # Cancel safety
    /// A dropped call leaves the server down.
    pub async fn restart(&self) -> Result<(), SpawnError> {
        self.kill();
        let snapshot = self.snapshot_path();
        if !self.append_only && snapshot.exists() {
            fs::remove_file(snapshot).map_err(SpawnError::io("remove the old data"))?;
        }
        self.launch().await
    }

    /// Kills the server if it runs, and starts it again on the same port with nothing, also with
    /// [`RedisBuilder::append_only`].
    ///
    /// # Cancel safety
    /// A dropped call leaves the server down.
    pub async fn restart_empty(&self) -> Result<(), SpawnError> {
        self.kill();
        remove(&self.snapshot_path()).map_err(SpawnError::io("remove the old data"))?;
        remove(&self.append_only_path()).map_err(SpawnError::io("remove the old data"))?;
        self.launch().await
    }

    /// Copies what the append-only file holds now, for [`restart_from_copy`](Self::restart_from_copy).
    ///
    /// # Errors
    /// [`SpawnError::Io`], also without [`RedisBuilder::append_only`].
    pub fn copy_data(&self) -> Result<(), SpawnError> {
        let copying = || {
            remove(&self.copy_path())?;
            copy(&self.append_only_path(), &self.copy_path())
        };
        copying().map_err(SpawnError::io("copy the data"))
    }

    /// Kills the server, and starts it again on the same port with the data that
    /// [`copy_data`](Self::copy_data) has kept: all that was written since is lost, as after a
    /// restore from a backup.
    ///
    /// # Errors
    /// [`SpawnError::Io`], also if nothing was copied.
    ///
    /// # Cancel safety
    /// A dropped call leaves the server down.
    pub async fn restart_from_copy(&self) -> Result<(), SpawnError> {
        self.kill();
        let putting_back = || {
            remove(&self.append_only_path())?;
            copy(&self.copy_path(), &self.append_only_path())
        };
        putting_back().map_err(SpawnError::io("put the old data back"))?;
        self.launch().await
    }

    /// Saves all data, kills the server and starts it again on the same port with the data.
    ///
    /// # Errors
    /// [`SpawnError::Prepare`] when the server is down or frozen: without persistence there is
    /// nothing left to keep then.
    pub async fn restart_keeping_data(&self) -> Result<(), SpawnError> {
        self.save().await?;
        self.kill();
        self.launch().await
    }

    /// Restarts the server with its data, and returns while it still answers `-LOADING`, which it
    /// does for about `duration` from then on.
    ///
    /// Adds 200 keys that begin with `loading:`, to have something to load; each further one of the
    /// test's own makes it take 0.5 % longer.
    ///
    /// # Errors
    /// As [`restart_keeping_data`](Self::restart_keeping_data).
    pub async fn restart_loading(&self, duration: Duration) -> Result<(), SpawnError> {
        // One key is longer than the 1024 bytes after which a loading server looks at its sockets.
        let filler = "x".repeat(1100);
        let keys = (0..LOADING_KEYS).map(|number| format!("loading:{number}"));
        let mut fill = vec!["MSET".to_owned()];
        fill.extend(keys.flat_map(|key| [key, filler.clone()]));
        self.admin(&fill).await?;
        self.save().await?;
        self.kill();
        let _starting = self.starting.lock().await;
        let per_key = duration.as_micros() / LOADING_KEYS as u128;
        self.spawn(&[
            "--key-load-delay",
            &per_key.to_string(),
            "--loading-process-events-interval-bytes",
            "1024",
        ])?;
        self.wait_until(
            |answer| matches!(answer, Err(RespError::Refused(text)) if text.starts_with("LOADING")),
        )
        .await
    }

    async fn save(&self) -> Result<(), SpawnError> {
        if !self.append_only {
            self.admin(&["SAVE"]).await?;
        }
        Ok(())
    }

    fn with_process<T>(&self, act: impl FnOnce(&Process) -> T) -> T {
        act(self.process.lock().as_ref().expect("the server must run for this"))
    }
}

/// Starting the process, and what lies in its directory.
impl RedisServer {
    fn new(binary: PathBuf, dir: TempDir, port: ReservedPort, append_only: bool) -> Self {
        let secret = || format!("{:032x}", rand::random::<u128>());
        Self {
            process: Mutex::new(None),
            starting: tokio::sync::Mutex::new(()),
            binary,
            dir,
            port,
            append_only,
            password: secret(),
            admin_password: secret(),
        }
    }

    /// Starts the process, and returns when it answers. On an error none is left.
    async fn launch(&self) -> Result<(), SpawnError> {
        let _starting = self.starting.lock().await;
        self.spawn(&[])?;
        self.wait_until(Result::is_ok).await
    }

    /// Returns when a replica has its primary's data. On an error no process is left.
    async fn linked(&self) -> Result<(), SpawnError> {
        let deadline = Instant::now() + READY_DEADLINE;
        let unwanted = KillUnless::armed(self);
        while !self.is_linked().await? {
            self.check_running()?;
            if Instant::now() > deadline {
                let last = RespError::Refused("the primary was not reached".to_owned());
                return Err(SpawnError::NotReady { waited: READY_DEADLINE, last, log: self.log() });
            }
            sleep(LOOK_EVERY).await;
        }
        unwanted.disarm();
        Ok(())
    }

    fn spawn(&self, options: &[&str]) -> Result<(), SpawnError> {
        let config = self.config_path();
        let mut args = vec![config.as_path()];
        args.extend(options.iter().map(Path::new));
        let process = Process::spawn(&self.binary, &args, &self.log_path());
        *self.process.lock() = Some(process.map_err(SpawnError::io("run redis-server"))?);
        Ok(())
    }

    async fn wait_until(
        &self,
        wanted: impl Fn(&Result<(), RespError>) -> bool,
    ) -> Result<(), SpawnError> {
        let deadline = Instant::now() + READY_DEADLINE;
        let unwanted = KillUnless::armed(self);
        loop {
            let answer = self.ping().await;
            if wanted(&answer) {
                unwanted.disarm();
                return Ok(());
            }
            self.check_running()?;
            if Instant::now() > deadline {
                let last = answer.err().unwrap_or(RespError::Refused("unexpected PONG".into()));
                return Err(SpawnError::NotReady { waited: READY_DEADLINE, last, log: self.log() });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The administrator's password proves that it is our server that answers on the port.
    async fn ping(&self) -> Result<(), RespError> {
        self.connect_within(Duration::from_secs(1)).await?.command(&["PING"]).await.map(drop)
    }

    fn check_running(&self) -> Result<(), SpawnError> {
        let mut process = self.process.lock();
        let status = process.as_mut().map(Process::exit_status).transpose();
        match status.map_err(SpawnError::io("look at redis-server"))?.flatten() {
            Some(status) => Err(SpawnError::Exited { status, log: self.log() }),
            None => Ok(()),
        }
    }

    fn documented_rules(&self) -> String {
        Acl::documented().rules_with(&self.password)
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("redis.conf")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("redis.log")
    }

    fn snapshot_path(&self) -> PathBuf {
        self.dir.path().join("dump.rdb")
    }

    /// The folder that Redis calls so unless it is told otherwise.
    fn append_only_path(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }

    fn copy_path(&self) -> PathBuf {
        self.dir.path().join("copy")
    }
}

/// Removes a file, or a folder with its files, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { remove_file(path) }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// Kills the server unless its start succeeds, also when the start is dropped half-way.
struct KillUnless<'a>(Option<&'a RedisServer>);

impl<'a> KillUnless<'a> {
    fn armed(server: &'a RedisServer) -> Self {
        Self(Some(server))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillUnless<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.0 {
            server.kill();
        }
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No password may end up in a test's output.
        f.debug_struct("RedisServer")
            .field("addr", &self.addr())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
