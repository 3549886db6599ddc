//! What every backend must do, done by this one as the user of `docs/redis-acl.md`.

mod common;

use common::{builder, ready};
use fleetwide_core_traits::Channel;
use fleetwide_testkit::suite::{self, Interrupt};
use fleetwide_testkit::{Proxy, RedisServer};

#[tokio::test]
async fn store_keeps_the_contract() {
    let server = RedisServer::start().await.unwrap();
    suite::store::all(&common::connected(&server).await.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn executor_keeps_the_contract() {
    let server = RedisServer::start().await.unwrap();
    let redis = common::connected(&server).await;
    suite::executor::all(&redis.executor(), &redis.bus()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn executor_keeps_the_contract_over_several_connections_and_resp3() {
    let server = RedisServer::start().await.unwrap();
    let url = format!("{}/1?protocol=resp3", server.url());
    let redis = ready(builder(&url).connections(3)).await;
    suite::store::all(&redis.store()).await;
    suite::executor::all(&redis.executor(), &redis.bus()).await;
}

#[tokio::test]
async fn bus_keeps_the_contract() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let redis = ready(builder(&proxy.url_like(&server.url()))).await;
    suite::bus::all(&redis.bus(), &Partition(proxy)).await;
}

struct Partition(Proxy);

impl Interrupt for Partition {
    async fn interrupt(&self, _: &Channel) {
        self.0.refuse();
        self.0.cut();
    }

    async fn resume(&self, _: &Channel) {
        self.0.pass();
    }
}
