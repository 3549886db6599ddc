//! Connections break and servers die, and every entry that the server kept is applied.

mod common;

use std::time::Duration;

use common::fleet::{Instance, connect};
use common::{DEADLINE, NEVER, QUICK, append, fresh_tag};
use fleetwide_testkit::{ClientKind, DefaultUser, Direction, Proxy, RedisServer, eventually};

const HEARTBEAT: Duration = Duration::from_millis(100);

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn killed_subscriptions_during_a_burst_lose_nothing() {
    let (server, tag) = (RedisServer::start().await.unwrap(), fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, HEARTBEAT).await;
    let writer = connect(&server.url());
    writer.ready(DEADLINE).await.unwrap();
    for number in 0..1000 {
        append(&writer.executor(), &tag, &number.to_string()).await;
        if number % 100 == 50 {
            server.client_kill(ClientKind::Pubsub).await.unwrap();
        }
    }
    one.told.expect(&format!("first@0 {}", numbers(0..1000))).await;
}

#[tokio::test]
async fn a_killed_server_that_kept_its_data_is_followed_on() {
    let server = RedisServer::builder().append_only();
    // Redis 7.0 replays the transactions in its file as `default`, and drops what that may not do.
    let server = server.default_user(DefaultUser::Documented).start().await.unwrap();
    let one = Instance::start(&server.url(), &server.url(), &fresh_tag(), HEARTBEAT).await;
    one.append("a b").await;
    one.told.expect("first@0 a b").await;
    server.kill();
    let is_down = async || one.log.health().name() == "down";
    eventually(DEADLINE, "the outage to be noticed", is_down).await;
    server.restart().await.unwrap();
    one.is_up().await;
    one.append("c").await;
    one.told.expect("first@0 a b c").await;
}

/// The server is back before the follower looks, with an empty memory.
#[tokio::test]
async fn a_killed_server_that_kept_nothing_is_a_reset() {
    let server = RedisServer::start().await.unwrap();
    let one = Instance::start(&server.url(), &server.url(), &fresh_tag(), HEARTBEAT).await;
    one.append("a b").await;
    one.told.expect("first@0 a b").await;
    server.restart().await.unwrap();
    assert!(one.told.wait(|record| record.resets == 1).await);
    one.append_when_back("c").await;
    one.told.expect("first@0 a b reset@0 c").await;
}

#[tokio::test]
async fn a_frozen_server_verifies_nobody_and_is_followed_on_when_it_thaws() {
    let server = RedisServer::start().await.unwrap();
    let one = Instance::start(&server.url(), &server.url(), &fresh_tag(), HEARTBEAT).await;
    one.append("a").await;
    one.told.expect("first@0 a").await;
    server.stop();
    let is_noticed = async || !one.log.health().is_up();
    eventually(DEADLINE, "the freeze to be noticed", is_noticed).await;
    let frozen = one.told.record().verified.unwrap().1;
    server.cont();
    one.is_up().await;
    one.append("b").await;
    one.told.expect("first@0 a b").await;
    assert!(one.told.wait(|record| record.verified.unwrap().1 > frozen).await);
}

/// The subscription's connection is up, and nothing comes through it.
#[tokio::test]
async fn a_deaf_subscription_is_covered_by_the_heartbeat() {
    let (server, tag) = (RedisServer::start().await.unwrap(), fresh_tag());
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let messages = proxy.url_like(&server.url());
    let one = Instance::start(&server.url(), &messages, &tag, QUICK).await;
    proxy.drop_bytes(Direction::ToClient);
    one.append("a").await;
    one.told.expect("first@0 a").await;
    one.append("b c").await;
    one.told.expect("first@0 a b c").await;
    proxy.pass();
    one.is_up().await;
    one.append("d").await;
    one.told.expect("first@0 a b c d").await;
}

/// Nothing can be asked, so nothing is proved; but what comes by message is applied.
#[tokio::test]
async fn messages_deliver_while_commands_fail() {
    let (server, tag) = (RedisServer::start().await.unwrap(), fresh_tag());
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let commands = proxy.url_like(&server.url());
    let one = Instance::start(&commands, &server.url(), &tag, HEARTBEAT).await;
    proxy.refuse();
    proxy.cut();
    let writer = connect(&server.url());
    writer.ready(DEADLINE).await.unwrap();
    append(&writer.executor(), &tag, "a").await;
    one.told.expect("first@0 a").await;
    let is_degraded = async || one.log.health().name() == "degraded";
    eventually(DEADLINE, "the outage to be noticed", is_degraded).await;
    proxy.pass();
    one.is_up().await;
}

#[tokio::test]
async fn a_log_that_starts_without_a_server_begins_when_there_is_one() {
    let server = RedisServer::start().await.unwrap();
    server.kill();
    let (redis, told) = (connect(&server.url()), common::Recorder::new());
    let log =
        fleetwide_pubsub_invalidation::Log::builder(redis.executor(), redis.bus(), fresh_tag())
            .follower(told.follower())
            .heartbeat(HEARTBEAT)
            .start();
    let is_down = async || log.health().name() == "down";
    eventually(DEADLINE, "the outage to be noticed", is_down).await;
    assert_eq!(log.position(), None);
    server.restart().await.unwrap();
    log.begun().await.unwrap();
    told.expect("first@0").await;
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start().await.unwrap();
    let one = Instance::start(&server.url(), &server.url(), &fresh_tag(), NEVER).await;
    server.script_flush().await.unwrap();
    one.append("a").await;
    one.told.expect("first@0 a").await;
    server.script_flush().await.unwrap();
    one.log.check();
    one.is_up().await;
}
