//! The fleet from outside: its processes, its server, and what befalls them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetwide_testkit::{ClientKind, Direction, Program, Proxy, RedisServer, TempDir, eventually};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::check::Calls;
use super::member::{Kind, Order};

/// How long an event of these tests may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Processes, half of them behind a bad network.
pub(crate) struct Fleet {
    // Before the folder, so that nobody writes any more when it goes.
    members: Vec<(usize, Program)>,
    kind: Kind,
    server: RedisServer,
    proxy: Proxy,
    folder: TempDir,
    started: usize,
    seed: u64,
    rng: StdRng,
}

impl Fleet {
    /// A server whose acknowledged writes survive it, and so many processes.
    pub(crate) async fn start(kind: Kind, processes: usize) -> Self {
        let seed = fleetwide_testkit::seed();
        let server = RedisServer::builder().append_only().start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        let mut fleet = Self {
            members: Vec::new(),
            kind,
            server,
            proxy,
            folder: TempDir::new().unwrap(),
            started: 0,
            seed: seed.value(),
            rng: seed.rng(),
        };
        for _ in 0..processes {
            let member = fleet.start_one();
            fleet.members.push(member);
        }
        fleet
    }

    fn start_one(&mut self) -> (usize, Program) {
        let number = self.started;
        self.started += 1;
        let direct = self.server.url();
        let is_direct = self.kind != Kind::Failover && number % 4 < 2;
        let url = if is_direct { direct } else { self.proxy.url_like(&direct) };
        let order = Order { kind: self.kind, number, lines: self.lines_of(number), url };
        let order = order.to_arg();
        let args = ["--exact", "member_of_the_fleet", "--nocapture", &order].map(Path::new);
        let itself = env::current_exe().expect("this test is a file");
        let program = Program::start(&itself, &args, &self.output_of(number));
        (number, program.expect("this test can be started again"))
    }

    fn lines_of(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("lines-{number}"))
    }

    fn output_of(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("output-{number}"))
    }

    pub(crate) fn server(&self) -> &RedisServer {
        &self.server
    }

    /// How many processes there were in all.
    pub(crate) fn started(&self) -> usize {
        self.started
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Waits until each process has written something.
    pub(crate) async fn until_all_are_answered(&self) {
        let has_written = |number| {
            let lines = fs::metadata(self.lines_of(number));
            lines.is_ok_and(|lines| lines.len() > 0)
        };
        let have_all = async || self.members.iter().all(|(number, _)| has_written(*number));
        eventually(SOON, "an answer to each process", have_all).await;
    }

    /// One fault, and its end.
    pub(crate) async fn disturb(&mut self) {
        match self.rng.random_range(0..10) {
            0..=2 => self.kill_one_and_start_another().await,
            3 | 4 => self.freeze_one().await,
            5 => {
                self.server.client_kill(ClientKind::Normal).await.unwrap();
                self.pause(40).await;
            }
            6 => {
                self.proxy.cut();
                self.pause(40).await;
            }
            7 => {
                self.proxy.stall();
                self.pause(150).await;
                self.proxy.pass();
            }
            8 => {
                self.proxy.drop_bytes(Direction::ToClient);
                self.pause(100).await;
                self.proxy.pass_anew().await;
            }
            _ => {
                self.server.stop();
                self.pause(120).await;
                self.server.cont();
            }
        }
        self.pause(60).await;
    }

    pub(crate) async fn kill_one_and_start_another(&mut self) {
        let at = self.rng.random_range(0..self.members.len());
        let (number, dead) = self.members.swap_remove(at);
        self.assert_lives(number, dead).kill();
        let member = self.start_one();
        self.members.push(member);
        self.pause(60).await;
    }

    /// Longer than leases live, mostly.
    pub(crate) async fn freeze_one(&mut self) {
        let at = self.rng.random_range(0..self.members.len());
        self.members[at].1.stop().unwrap();
        self.pause(250).await;
        self.members[at].1.cont().unwrap();
    }

    /// Kills the server, and starts it with what it has written.
    pub(crate) async fn restart_server(&self) {
        self.server.restart().await.unwrap();
    }

    async fn pause(&mut self, millis_max: u64) {
        let millis = self.rng.random_range(millis_max / 4..=millis_max);
        sleep(Duration::from_millis(millis)).await;
    }

    /// Kills all, and reads what they have written.
    pub(crate) fn end(&mut self) -> Calls {
        for (number, member) in std::mem::take(&mut self.members) {
            self.assert_lives(number, member).kill();
        }
        let mut calls = Calls::default();
        (0..self.started).for_each(|number| calls.read(&self.lines_of(number)));
        calls
    }

    /// A key without a ttl would stay for ever.
    pub(crate) async fn assert_all_keys_expire(&self) {
        let immortal = "local immortal = 0 \
            for _, key in ipairs(redis.call('KEYS', '*')) do \
              if redis.call('PTTL', key) < 0 then immortal = immortal + 1 end \
            end \
            return immortal";
        let count = self.server.admin(&["EVAL", immortal, "0"]).await.unwrap();
        assert_eq!(count.as_integer(), Some(0), "keys without a ttl");
    }

    /// What one process has written so far.
    pub(crate) fn calls_of(&self, number: usize) -> Calls {
        let mut calls = Calls::default();
        calls.read(&self.lines_of(number));
        calls
    }

    /// Waits until so many cells are spent.
    pub(crate) async fn until_spent(&self, cells: u64) {
        let of_one =
            |number| self.calls_of(number).admitted.iter().map(|call| call.cost).sum::<u64>();
        let is_spent = async || (0..self.started).map(of_one).sum::<u64>() >= cells;
        eventually(SOON, "the fleet to spend", is_spent).await;
    }

    /// A replica behind a network of its own, which has all that is acknowledged and follows.
    pub(crate) async fn replica(&self) -> (RedisServer, Proxy) {
        let network = Proxy::start(self.server.addr()).await.unwrap();
        let replica = RedisServer::builder().replica_of(&self.server).start().await.unwrap();
        let password = format!(">{}", self.server.password());
        replica.admin(&["ACL", "SETUSER", self.server.user(), &password]).await.unwrap();
        replica.replicaof("127.0.0.1", network.port()).await.unwrap();
        let is_linked = async || replica.is_linked().await.unwrap();
        eventually(SOON, "the replica to follow over the network", is_linked).await;
        (replica, network)
    }

    /// Kills the primary, promotes another in its place, and leads all there.
    pub(crate) async fn fail_over_to(&self, replica: &RedisServer) {
        self.server.kill();
        replica.promote().await.unwrap();
        self.proxy.lead_to(replica.addr());
        self.proxy.cut();
    }

    /// Only who is killed ends.
    fn assert_lives(&self, number: usize, mut member: Program) -> Program {
        let said = || fs::read_to_string(self.output_of(number)).unwrap_or_default();
        assert_eq!(member.exit_status().unwrap(), None, "{}", said());
        member
    }
}
