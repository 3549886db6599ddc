//! One shared connection, from its handshake to its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{Epoch, Script, ScriptClock};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo, RedisWrite, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::dial::{Opened, Target, explain};
use crate::histories::{Histories, History};
use crate::reply;
use crate::trouble::Trouble;
use crate::url::Protocol;

/// A connection that many callers use at once.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    /// Tells a caller's connection from the one that took its place.
    pub(crate) number: u64,
    /// The history of the data that its server had when it was asked last, and its number.
    history: Mutex<Option<History>>,
    epoch: AtomicU64,
    driver: AbortHandle,
    /// Its sender lives in the driver's task: gone means closed.
    life: watch::Receiver<()>,
}

/// What the server said about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is a primary.
    Serving,
    /// It answers, but does not tell this user its role.
    Silent,
    /// It is a replica.
    Replica,
    /// It takes reads, but cannot write to its disk.
    CannotPersist,
}

impl Link {
    /// Connects, logs in, selects the database, gives the connection a name, loads `scripts`, and
    /// asks how the server is doing: one round trip, within the connect timeout.
    pub(crate) async fn open(
        target: &Target,
        number: u64,
        scripts: &[&'static Script],
        clock: ScriptClock,
        histories: &Histories,
        tasks: &TaskTracker,
    ) -> Result<(Self, Standing), Trouble> {
        let within = target.connect_timeout;
        let opened = timeout(within, Self::greet(target, number, scripts, clock, tasks)).await;
        let (link, (standing, history)) = opened
            .unwrap_or_else(|_| Err(Trouble::ConnectTimeout(target.address.to_string(), within)))?;
        link.is_in(history, histories);
        Ok((link, standing))
    }

    async fn greet(
        target: &Target,
        number: u64,
        scripts: &[&'static Script],
        clock: ScriptClock,
        tasks: &TaskTracker,
    ) -> Result<(Self, About), Trouble> {
        // The library gets no credentials and so says nothing by itself.
        let info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        let opened = target.open(&info, AsyncConnectionConfig::new()).await?;
        let Opened { connection, driver, words } = opened;
        let (alive, life) = watch::channel(());
        let driver = tasks.spawn(async move {
            let _alive = alive;
            driver.await;
        });
        let (history, epoch) = (Mutex::default(), AtomicU64::default());
        let link = Self { connection, number, history, epoch, driver: driver.abort_handle(), life };
        match link.introduce(target, scripts, clock).await {
            Ok(about) => Ok((link, about)),
            Err(why) => Err(explain(&words, why)),
        }
    }

    async fn introduce(
        &self,
        target: &Target,
        scripts: &[&'static Script],
        clock: ScriptClock,
    ) -> Result<About, Trouble> {
        // What must succeed, then what may be refused, then the questions.
        let mut greeting: Vec<Cmd> = login(target).into_iter().collect();
        if target.db != 0 {
            greeting.push(command(&["SELECT", &target.db.to_string()]));
        }
        let required = greeting.len();
        greeting.push(command(&["CLIENT", "SETNAME", &target.client_name]));
        greeting.extend(loads(scripts, clock));
        greeting.extend(questions());
        let replies = self.ask(&greeting).await?;
        for reply in &replies[..required] {
            if let Value::ServerError(error) = reply {
                return Err(match Trouble::from_rejection(&reply::rejection(error)) {
                    Trouble::Other(text) if text.contains("DB index") => {
                        Trouble::NoDatabase(target.db)
                    }
                    trouble => trouble,
                });
            }
        }
        let loads = &replies[required + 1..replies.len() - QUESTIONS];
        note_refused_loads(loads, scripts);
        about(&replies[replies.len() - QUESTIONS..])
    }

    /// Asks whether the connection still answers, and as what.
    pub(crate) async fn probe(
        &self,
        histories: &Histories,
        within: Duration,
    ) -> Result<Standing, Trouble> {
        let (standing, history) = match timeout(within, self.ask(&questions())).await {
            Ok(replies) => about(&replies?)?,
            Err(_) => return Err(Trouble::Hung(within)),
        };
        // Who says nothing has not become another one for being asked, and who has long been deposed
        // is not the latest for it.
        if history.is_some() && *self.history.lock() != history {
            self.is_in(history, histories);
            histories.announce();
        }
        Ok(standing)
    }

    /// The history of the data that its server had when it was asked last.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.load(Ordering::Acquire))
    }

    fn is_in(&self, history: Option<History>, histories: &Histories) {
        let mut held = self.history.lock();
        held.clone_from(&history);
        self.epoch.store(histories.number(history).number(), Ordering::Release);
    }

    /// Loads `scripts` on the server; what it refuses is healed where it is used.
    pub(crate) async fn load(
        &self,
        scripts: &[&'static Script],
        clock: ScriptClock,
        within: Duration,
    ) -> Result<(), Trouble> {
        let loads: Vec<Cmd> = loads(scripts, clock).collect();
        let replies = timeout(within, self.ask(&loads)).await;
        note_refused_loads(&replies.map_err(|_| Trouble::Hung(within))??, scripts);
        Ok(())
    }

    /// Sends all `questions` at once and waits for all answers.
    ///
    /// One by one and not as one pipeline, in which the library keeps to itself that what came was
    /// no reply.
    async fn ask(&self, questions: &[Cmd]) -> Result<Vec<Value>, Trouble> {
        let asked = questions.iter().map(|question| {
            let mut connection = self.connection();
            async move { connection.send_packed_command(question).await }
        });
        let answers = join_all(asked).await.into_iter();
        answers.map(|answer| answer.map_err(|error| Trouble::from_library(&error))).collect()
    }

    /// A handle on the connection for one call.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Whether the connection has ended, so that nothing can be sent on it.
    pub(crate) fn is_closed(&self) -> bool {
        self.life.has_changed().is_err()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&self) {
        let mut life = self.life.clone();
        while life.changed().await.is_ok() {}
    }

    /// Ends the connection. Who waits on it is told at once.
    pub(crate) fn cut(&self) {
        self.driver.abort();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

/// How a server is doing, and which history of the data it has.
type About = (Standing, Option<History>);

const QUESTIONS: usize = 4;

fn questions() -> [Cmd; QUESTIONS] {
    let [server, replication] = History::questions();
    [redis::cmd("PING"), redis::cmd("ROLE"), server, replication]
}

fn loads(scripts: &[&'static Script], clock: ScriptClock) -> impl Iterator<Item = Cmd> {
    let scripts = scripts.iter().filter(|script| !script.is_command());
    scripts.map(move |script| command(&["SCRIPT", "LOAD", script.source(clock)]))
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.write_arg(word.as_bytes());
    }
    command
}

fn note_refused_loads(replies: &[Value], scripts: &[&'static Script]) {
    let named = scripts.iter().filter(|script| !script.is_command());
    for (reply, script) in replies.iter().zip(named) {
        if let Value::ServerError(error) = reply {
            debug!(script = script.name(), %error, "a script was not loaded");
        }
    }
}

fn login(target: &Target) -> Option<Cmd> {
    let user = target.credentials.user.as_deref();
    let password = target.credentials.password.as_deref();
    if target.protocol == Protocol::Resp3 {
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        if let Some(password) = password {
            hello.arg("AUTH").arg(user.unwrap_or("default")).arg(password);
        }
        return Some(hello);
    }
    let mut auth = redis::cmd("AUTH");
    match (user, password) {
        (None, None) => return None,
        (None, Some(password)) => auth.arg(password),
        (Some(user), password) => auth.arg(user).arg(password.unwrap_or_default()),
    };
    Some(auth)
}

/// Reads the replies to all questions.
fn about(replies: &[Value]) -> Result<About, Trouble> {
    let (standing_of, history_of) = replies.split_at_checked(2).ok_or(Trouble::Garbage)?;
    Ok((standing(standing_of)?, History::read(history_of)))
}

/// Reads the replies to `PING` and `ROLE`.
fn standing(replies: &[Value]) -> Result<Standing, Trouble> {
    let [ping, role] = replies else { return Err(Trouble::Garbage) };
    match ping {
        Value::SimpleString(text) if text == "PONG" => {}
        Value::ServerError(error) => match Trouble::from_rejection(&reply::rejection(error)) {
            Trouble::CannotPersist => return Ok(Standing::CannotPersist),
            // The server answers; what else the user lacks shows where it is needed.
            Trouble::NoPermission(_) => {}
            trouble => return Err(trouble),
        },
        _ => return Err(Trouble::Garbage),
    }
    let name = match role {
        Value::Array(items) => items.first(),
        _ => None,
    };
    Ok(match name {
        Some(Value::BulkString(name)) if name == b"master" => Standing::Serving,
        Some(Value::BulkString(name)) if name == b"slave" => Standing::Replica,
        _ => Standing::Silent,
    })
}
