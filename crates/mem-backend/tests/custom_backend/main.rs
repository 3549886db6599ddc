//! The smallest backend that speaks to a server, and what it takes to judge one.
//!
//! `docs/custom-backend.md` walks through these files. They also prove that the suites hold over a
//! real server, and that the scripts of the suites' ops are twins of their pure halves.

mod bus;
mod client;
mod differential;
mod executor;
mod store;

use fleetwide_core_traits::Channel;
use fleetwide_testkit::RedisServer;
use fleetwide_testkit::suite::{self, Interrupt};

use bus::TinyBus;
use client::Client;
use executor::TinyExecutor;
use store::TinyStore;

#[tokio::test]
async fn store_keeps_the_contract() {
    let server = start().await;
    suite::store::all(&TinyStore::new(Client::of(&server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bus_keeps_the_contract() {
    let server = start().await;
    suite::bus::all(&TinyBus::new(Client::of(&server)), &Outage(&server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executor_keeps_the_contract() {
    let server = start().await;
    let client = Client::of(&server);
    suite::executor::all(&TinyExecutor::new(client.clone()), &TinyBus::new(client)).await;
}

/// An outage is the death of the server.
struct Outage<'a>(&'a RedisServer);

impl Interrupt for Outage<'_> {
    async fn interrupt(&self, _: &Channel) {
        self.0.kill();
    }

    async fn resume(&self, _: &Channel) {
        self.0.restart().await.expect("redis-server starts again");
    }
}

async fn start() -> RedisServer {
    RedisServer::start().await.expect("redis-server starts")
}
