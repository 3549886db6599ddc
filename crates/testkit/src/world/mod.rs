//! A fleet on a bad day: several nodes of real code in one thread, under simulated time.
//!
//! Each node has a runtime of its own whose time the [`World`] moves in small steps. So a node can
//! stand still like a stopped process, its timers all due at once when it goes on; and it can die,
//! all its tasks dropped where they were. Between nodes and server lies [`Weather`]: commands and
//! messages are late, lost, doubled, out of order. The server itself can lose what it confirmed:
//! the world keeps copies that follow it until they are told not to, and lets one take over.
//!
//! Randomness follows from the seed: each node draws its weather from a generator of its own. What
//! the code under test draws by itself (names, jitter) does not, so a seed brings back the same
//! faults and the same kind of run, not the same run to the last microsecond.

mod clock;
mod remote;
mod server;
mod subscription;
mod weather;

use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Bus, Clock, Executor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

pub use clock::WorldTime;
pub use remote::Remote;
pub use subscription::RemoteSubscription;
pub use weather::Weather;

use crate::history::{Event, Process, Recorder, Span};
use server::Servers;
use weather::Link;

/// How far time moves at a time. Fine enough that what happens in one step is of one moment.
const STEP: Duration = Duration::from_millis(1);
/// Turns that the tasks of a node get in one step. What is not done then goes on in the next.
const TURNS: usize = 3;

/// Nodes, a server with copies, and what lies between them.
///
/// It is driven from outside of any runtime: a test calls [`step`](Self::step) in a loop, and
/// breaks things between two calls.
pub struct World<E, B> {
    time: WorldTime,
    servers: Arc<Servers<E, B>>,
    recorder: Recorder,
    nodes: Vec<Node>,
    seed: u64,
    processes: Process,
}

/// One node of a [`World`].
struct Node {
    process: Process,
    link: Arc<Link>,
    /// `None` while it is dead.
    runtime: Option<Runtime>,
    /// ns of the world at which its runtime last ran.
    ran_at: u64,
    /// ns of the world until which it stands still.
    stands_until: u64,
}

/// What the code on a node is given: its way to the server, its clock and its numbers.
pub struct Site<E, B> {
    /// Runs commands on the server, and brings its messages.
    pub remote: Remote<E, B>,
    /// The machine's own clock.
    pub clock: Arc<dyn Clock>,
    /// Which life of which node this is: a number of its own for each restart.
    pub process: Process,
    /// The node's place among the nodes.
    pub number: usize,
}

impl<E, B> World<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    /// A world at `time` with `servers`, of which the first serves and the others are copies; all
    /// of them must be empty. Outages go to `recorder`.
    ///
    /// # Panics
    /// If there is no server.
    pub fn new(seed: u64, time: WorldTime, servers: Vec<(E, B)>, recorder: Recorder) -> Self {
        assert!(!servers.is_empty(), "a world has a server");
        let servers = Arc::new(Servers::new(servers));
        Self { time, servers, recorder, nodes: Vec::new(), seed, processes: 0 }
    }

    /// Adds a node and runs `boot` on it. Returns its number.
    ///
    /// # Panics
    /// If the runtime cannot be built, or if `boot` panics.
    pub fn add(&mut self, boot: impl FnOnce(Site<E, B>)) -> usize {
        let number = self.nodes.len();
        let link = Arc::new(Link::new(self.rng(number as u64)));
        let now = self.time.nanos();
        let node = Node { process: 0, link, runtime: None, ran_at: now, stands_until: 0 };
        self.nodes.push(node);
        self.restart(number, boot);
        number
    }

    /// Kills a node as `SIGKILL` does, and runs `boot` on it again, with an empty memory.
    ///
    /// # Panics
    /// As [`add`](Self::add), and if there is no such node.
    pub fn restart(&mut self, number: usize, boot: impl FnOnce(Site<E, B>)) {
        self.kill(number);
        self.processes += 1;
        let (process, now) = (self.processes, self.time.nanos());
        let node = &mut self.nodes[number];
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing that could be missing");
        (node.process, node.ran_at, node.stands_until) = (process, now, 0);
        let (servers, link) = (Arc::clone(&self.servers), Arc::clone(&node.link));
        let (time, recorder) = (self.time.clone(), self.recorder.clone());
        let site = Site {
            remote: Remote::new(servers, link, time.clone(), recorder, process),
            clock: Arc::new(time.machine(number as u64)),
            process,
            number,
        };
        let inside = runtime.enter();
        boot(site);
        drop(inside);
        node.runtime = Some(runtime);
    }

    /// Kills a node: its tasks are dropped where they are.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(runtime) = node.runtime.take() {
            self.recorder.record(&Event::Crash { at: self.recorder.now(), process: node.process });
            drop(runtime);
        }
    }

    /// Lets a node stand still as `SIGSTOP` does. What comes for it meanwhile waits.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn stop(&mut self, number: usize, length: Duration) {
        let start = self.recorder.now();
        let length = length.as_nanos() as u64;
        let node = &mut self.nodes[number];
        node.stands_until = node.stands_until.max(self.time.nanos() + length);
        let at = Span { start, end: start + length };
        self.recorder.record(&Event::Outage { at, process: Some(node.process) });
    }

    /// Sets what lies between a node and the server.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn set_weather(&self, number: usize, weather: Weather) {
        self.nodes[number].link.set(weather);
    }

    /// Steps the server's clock, µs, forward or back.
    pub fn step_server_clock(&self, by_us: i64) {
        self.time.step_server(by_us);
        // Leases and values expire by that clock.
        let now = self.recorder.now();
        let at = Span { start: now.saturating_sub(1), end: now };
        self.recorder.record(&Event::Outage { at, process: None });
    }

    /// Steps the wall clock of a node, µs, forward or back.
    pub fn step_node_clock(&self, number: usize, by_us: i64) {
        self.time.step_machine(number as u64, by_us);
    }

    /// Lets a copy stay as it is, while the server goes on.
    ///
    /// # Panics
    /// If there is no such copy.
    pub fn freeze(&self, copy: usize) {
        self.servers.freeze(copy);
    }

    /// Lets a copy take the server's place. What the server confirmed since the copy was frozen is
    /// lost; every connection breaks.
    ///
    /// # Panics
    /// If there is no such copy.
    pub fn fail_over(&self, copy: usize) {
        self.servers.fail_over(copy);
    }

    /// Lets another, empty server take the server's place, as after `FLUSHALL`.
    pub fn replace(&self, empty: (E, B)) {
        self.servers.replace(empty);
    }

    /// Moves time by a millisecond, and lets every node that does not stand still run.
    pub fn step(&mut self) {
        self.time.advance(STEP);
        let now = self.time.nanos();
        for node in &mut self.nodes {
            let Some(runtime) = node.runtime.as_ref().filter(|_| node.stands_until <= now) else {
                continue;
            };
            let due = Duration::from_nanos(now - node.ran_at);
            node.ran_at = now;
            runtime.block_on(async {
                tokio::time::advance(due).await;
                for _ in 0..TURNS {
                    yield_now().await;
                }
            });
        }
    }

    /// Steps until so much time has passed.
    pub fn run(&mut self, length: Duration) {
        let until = self.time.nanos() + length.as_nanos() as u64;
        while self.time.nanos() < until {
            self.step();
        }
    }

    /// The world's time.
    pub const fn time(&self) -> &WorldTime {
        &self.time
    }

    fn rng(&self, stream: u64) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&stream.to_le_bytes());
        StdRng::from_seed(seed)
    }
}
