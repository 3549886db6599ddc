//! The fleet: one Redis, one bad network for each node, and the nodes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fleetwide_testkit::{
    ClientKind, DefaultUser, Direction, Fault as Bad, Program, Proxy, RedisServer, RespError,
    SpawnError, TempDir,
};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::check::Life;
use crate::clock::now_us;
use crate::faults::{Fault, Window};
use crate::keys::Keys;
use crate::settings::NodeSettings;
use crate::signs::Status;

/// Why a run ended without a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no Redis, or it did not come back.
    #[error(transparent)]
    Redis(#[from] SpawnError),
    /// Redis did not do what its administrator asked for.
    #[error("Redis did not take a command of its administrator: {0}")]
    Admin(#[from] RespError),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A node ended by itself.
    #[error("node {node} ended by itself; the end of its log:\n{log}")]
    Ended {
        /// Which.
        node: u32,
        /// What it wrote last.
        log: String,
    },
}

/// All processes of a run. Dropping it kills them.
pub(crate) struct Fleet {
    // The nodes before the server, and both before the folder.
    nodes: Vec<Node>,
    server: RedisServer,
    /// Held by whoever does something to the server.
    administration: tokio::sync::Mutex<()>,
    windows: Mutex<Vec<Window>>,
    program: PathBuf,
    seed: u64,
    keys: Keys,
    folder: TempDir,
}

struct Node {
    proxy: Proxy,
    /// Held by whoever does something to the node or to its network.
    held: tokio::sync::Mutex<()>,
    running: Mutex<Option<Program>>,
    lives: Mutex<Vec<(NodeSettings, u64)>>,
}

impl Fleet {
    pub(crate) async fn start(program: PathBuf, seed: u64, keys: Keys) -> Result<Self, RunError> {
        let folder = TempDir::new()?;
        // Redis 7.0 loads its append-only file with the rights of the default user, and leaves out the
        // transactions of a user that has none. A rewrite would come between a copy and its files.
        let server = RedisServer::builder()
            .append_only()
            .default_user(DefaultUser::Documented)
            .config("auto-aof-rewrite-percentage", "0")
            .start()
            .await?;
        let mut nodes = Vec::new();
        for _ in 0..keys.nodes {
            nodes.push(Node {
                proxy: Proxy::start(server.addr()).await?,
                held: tokio::sync::Mutex::default(),
                running: Mutex::default(),
                lives: Mutex::default(),
            });
        }
        let fleet = Self {
            nodes,
            server,
            administration: tokio::sync::Mutex::default(),
            windows: Mutex::default(),
            program,
            seed,
            keys,
            folder,
        };
        for node in 0..keys.nodes {
            fleet.start_node(node)?;
        }
        Ok(fleet)
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn origin(&self) -> PathBuf {
        self.folder.path().join("origin")
    }

    /// The faults so far.
    pub(crate) fn windows(&self) -> Vec<Window> {
        self.windows.lock().clone()
    }

    /// The processes so far.
    pub(crate) fn lives(&self) -> Vec<Life> {
        let of_node = |node: &Node| {
            let lives = node.lives.lock();
            let life = |(settings, died): &(NodeSettings, u64)| Life {
                node: settings.node,
                life: settings.life,
                history: settings.history(),
                died: *died,
            };
            lives.iter().map(life).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of_node).collect()
    }

    /// How each node is doing.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        let of_node = |node: &Node| {
            let lives = node.lives.lock();
            lives.last().map(|(settings, _)| Status::read(&settings.status())).unwrap_or_default()
        };
        self.nodes.iter().map(of_node).collect()
    }

    /// Reads so far, of all lives of all nodes.
    pub(crate) fn reads(&self) -> u64 {
        let of_life = |(settings, _): &(NodeSettings, u64)| Status::read(&settings.status()).reads;
        let of_node = |node: &Node| node.lives.lock().iter().map(of_life).sum::<u64>();
        self.nodes.iter().map(of_node).sum()
    }

    /// # Errors
    /// If a node has ended that nobody has ended.
    pub(crate) fn check_running(&self) -> Result<(), RunError> {
        for (index, node) in self.nodes.iter().enumerate() {
            let mut running = node.running.lock();
            let ended = running.as_mut().map(Program::exit_status).transpose()?.flatten();
            if ended.is_some() {
                return Err(RunError::Ended { node: index as u32, log: self.log(index as u32) });
            }
        }
        Ok(())
    }

    /// Waits until all nodes have ended, which they were told. Whether they did in time.
    pub(crate) async fn ended(&self, within: Duration) -> Result<bool, RunError> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut left = 0;
            for node in &self.nodes {
                if let Some(program) = &mut *node.running.lock() {
                    left += usize::from(program.exit_status()?.is_none());
                }
            }
            if left == 0 || tokio::time::Instant::now() > deadline {
                return Ok(left == 0);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn log(&self, node: u32) -> String {
        let text = std::fs::read_to_string(self.log_path(node)).unwrap_or_default();
        let from = text.len().saturating_sub(2000);
        text.get(from..).unwrap_or(&text).to_owned()
    }

    fn log_path(&self, node: u32) -> PathBuf {
        self.folder.path().join(format!("node-{node}.log"))
    }

    fn start_node(&self, index: u32) -> Result<(), RunError> {
        let node = &self.nodes[index as usize];
        let mut lives = node.lives.lock();
        let settings = NodeSettings {
            node: index,
            life: lives.len() as u32,
            seed: self.seed,
            redis_url: node.proxy.url_like(&self.server.url()),
            folder: self.folder.path().to_owned(),
            keys: self.keys,
        };
        let path = settings.write()?;
        let program = Program::start(&self.program, &[&path], &self.log_path(index))?;
        *node.running.lock() = Some(program);
        lives.push((settings, u64::MAX));
        Ok(())
    }
}

/// Breaking it.
impl Fleet {
    /// Does `fault` to the fleet, for some time, and undoes it.
    pub(crate) async fn suffer(
        &self,
        fault: Fault,
        rng: &mut StdRng,
        scale: f64,
    ) -> Result<Window, RunError> {
        let node = fault.is_of_one_node().then(|| rng.random_range(0..self.keys.nodes));
        let lasts = fault.lasts(rng, scale);
        let milder = rng.random_range(1..=10);
        let from;
        if let Some(node) = node {
            let _held = self.nodes[node as usize].held.lock().await;
            from = now_us();
            self.break_node(fault, node, lasts, milder).await?;
        } else {
            let _held = self.administration.lock().await;
            from = now_us();
            self.break_server(fault, lasts).await?;
        }
        let window = Window { fault, node, from, to: now_us() };
        self.windows.lock().push(window);
        Ok(window)
    }

    async fn break_node(
        &self,
        fault: Fault,
        index: u32,
        lasts: Duration,
        milder: u32,
    ) -> Result<(), RunError> {
        let node = &self.nodes[index as usize];
        match fault {
            Fault::NodeKill => {
                let running = node.running.lock().take();
                drop(running);
                if let Some((_, died)) = node.lives.lock().last_mut() {
                    *died = now_us();
                }
                sleep(lasts).await;
                return self.start_node(index);
            }
            Fault::NodeFreeze => {
                let act = |act: fn(&Program) -> io::Result<()>| {
                    node.running.lock().as_ref().map_or(Ok(()), act)
                };
                act(Program::stop)?;
                sleep(lasts).await;
                return Ok(act(Program::cont)?);
            }
            Fault::Delay => node.proxy.delay(Duration::from_millis(300) / milder),
            Fault::LoseRequests => node.proxy.drop_bytes(Direction::ToServer),
            Fault::LoseAnswers => node.proxy.drop_bytes(Direction::ToClient),
            Fault::HalfOpen => node.proxy.hold(),
            Fault::Stall => node.proxy.stall(),
            Fault::Throttle => {
                node.proxy.set(Direction::ToClient, Bad::Throttle(2000 * milder));
            }
            Fault::Cut => node.proxy.cut(),
            Fault::Refuse => {
                node.proxy.refuse();
                node.proxy.cut();
            }
            _ => {}
        }
        sleep(lasts).await;
        match fault {
            // What was lost in the middle of a connection may not be followed by more of it.
            Fault::LoseRequests | Fault::LoseAnswers | Fault::HalfOpen => {
                node.proxy.pass_anew().await;
            }
            _ => node.proxy.pass(),
        }
        Ok(())
    }

    async fn break_server(&self, fault: Fault, lasts: Duration) -> Result<(), RunError> {
        let server = &self.server;
        match fault {
            Fault::ServerFreeze => {
                server.stop();
                sleep(lasts).await;
                server.cont();
            }
            Fault::KillPubsub => {
                server.client_kill(ClientKind::Pubsub).await?;
            }
            Fault::KillNormal => {
                server.client_kill(ClientKind::Normal).await?;
            }
            Fault::ScriptFlush => server.script_flush().await?,
            Fault::FlushAll => {
                server.admin(&["FLUSHALL"]).await?;
            }
            Fault::Restart | Fault::Outage => {
                server.kill();
                sleep(lasts).await;
                server.restart().await?;
            }
            Fault::RestartEmpty => {
                server.kill();
                sleep(lasts).await;
                server.restart_empty().await?;
            }
            Fault::Rewind => {
                server.copy_data()?;
                sleep(lasts).await;
                server.restart_from_copy().await?;
            }
            _ => {}
        }
        Ok(())
    }
}
