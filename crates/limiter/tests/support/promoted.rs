//! A real primary, and a replica that is promoted although it has missed writes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetwide_core_traits::{BackendError, Epoch, Epochs, ErasedOp, Executor, Key, Script};
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{Proxy, RedisServer, eventually};
use parking_lot::Mutex;
use rand::Rng as _;

use crate::support::{self, Rng};

/// How long an event of these tests may take; they take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// `few`, or as many as `FLEETWIDE_FAILOVERS` says for the long run.
pub(crate) fn failovers(few: usize) -> usize {
    match env::var("FLEETWIDE_FAILOVERS") {
        Ok(text) => text.parse().expect("FLEETWIDE_FAILOVERS is a number"),
        Err(_) => few,
    }
}

pub(crate) fn seeds(count: usize) -> Vec<u64> {
    let mut rng = fleetwide_testkit::seed().rng();
    (0..count).map(|_| rng.random()).collect()
}

#[expect(clippy::print_stdout, reason = "a test runner shows it when it is asked to")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// A primary, mostly with a replica.
pub(crate) struct Servers {
    primary: RedisServer,
    /// Sometimes there is none, and the server comes back with nothing.
    replica: Option<RedisServer>,
    /// Where the fleet believes the primary to be.
    address: Proxy,
    replication: Proxy,
}

impl Servers {
    pub(crate) async fn start(rng: &mut Rng) -> Self {
        let primary = support::server().await;
        let replication = Proxy::start(primary.addr()).await.unwrap();
        let replica = if rng.random_ratio(3, 4) {
            let replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
            let password = format!(">{}", primary.password());
            replica.admin(&["ACL", "SETUSER", primary.user(), &password]).await.unwrap();
            replica.replicaof("127.0.0.1", replication.port()).await.unwrap();
            let is_linked = async || replica.is_linked().await.unwrap();
            eventually(SOON, "the replica to follow over the proxy", is_linked).await;
            Some(replica)
        } else {
            None
        };
        let address = Proxy::start(primary.addr()).await.unwrap();
        Self { primary, replica, address, replication }
    }

    /// Connections of another instance.
    pub(crate) async fn connect(&self) -> Redis {
        let url = RedisUrl::parse(&self.address.url_like(&self.primary.url())).unwrap();
        let brief = Duration::from_millis(1);
        let redis = Redis::builder(url)
            .command_timeout(SOON)
            .total_timeout(SOON)
            .reconnect_backoff(brief, 10 * brief)
            .build()
            .unwrap();
        redis.ready(SOON).await.unwrap();
        redis
    }

    /// Waits until the replica has all that was written so far.
    pub(crate) async fn until_replicated(&self) {
        let Some(replica) = &self.replica else { return };
        let offset = async |server: &RedisServer, name: &str| {
            server.info("replication").await.unwrap()[name].parse::<u64>().unwrap()
        };
        let written = offset(&self.primary, "master_repl_offset").await;
        eventually(SOON, "the replica to have it", async || {
            offset(replica, "slave_repl_offset").await >= written
        })
        .await;
    }

    /// From here on the replica misses what is written.
    pub(crate) fn cut_off(&self) {
        self.replication.hold();
    }

    pub(crate) async fn fail_over(&self) {
        match &self.replica {
            Some(replica) => {
                self.primary.kill();
                replica.promote().await.unwrap();
                self.address.lead_to(replica.addr());
            }
            None => self.primary.restart().await.unwrap(),
        }
    }
}

/// When each key was first made good.
pub(crate) type Merged = Arc<Mutex<HashMap<Key, Instant>>>;

/// Notes which keys are made good, and when it was over.
#[derive(Clone)]
pub(crate) struct Watched {
    executor: RedisExecutor,
    merged: Merged,
}

impl Watched {
    pub(crate) fn new(executor: RedisExecutor, merged: &Merged) -> Self {
        Self { executor, merged: Arc::clone(merged) }
    }
}

impl Executor for Watched {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.executor.execute(op).await
    }

    async fn execute_many(&self, ops: &mut [&mut dyn ErasedOp]) -> Vec<Result<(), BackendError>> {
        let done = self.executor.execute_many(ops).await;
        let now = Instant::now();
        for (op, done) in ops.iter().zip(&done) {
            if done.is_ok() && op.script().name().ends_with("_merge") {
                self.merged.lock().entry(op.keys()[0].clone()).or_insert(now);
            }
        }
        done
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.executor.prepare(scripts);
    }

    fn epoch(&self) -> Epoch {
        self.executor.epoch()
    }

    fn epochs(&self) -> Epochs {
        self.executor.epochs()
    }
}
