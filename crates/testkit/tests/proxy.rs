//! What each fault of the proxy does to a client of a real server.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use fleetwide_testkit::{
    Direction, Fault, Proxy, RedisServer, Reply, RespConnection, RespError, eventually,
};

/// Waited for in vain where nothing may arrive.
const IN_VAIN: Duration = Duration::from_millis(60);
const SOON: Duration = Duration::from_secs(5);
const KEY: &str = "{t:p}k";

struct World {
    server: RedisServer,
    proxy: Proxy,
}

impl World {
    async fn start() -> Self {
        let server = RedisServer::start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        Self { server, proxy }
    }

    async fn client(&self, deadline: Duration) -> RespConnection {
        let mut client = RespConnection::connect(self.proxy.addr(), SOON).await.unwrap();
        client.auth(self.server.user(), self.server.password()).await.unwrap();
        client.set_deadline(deadline);
        client
    }

    /// Sends a command, and returns when the proxy has it.
    async fn send_ping(&self, client: &mut RespConnection) {
        let before = self.proxy.stats().bytes_from_client;
        client.send(&["PING"]).await.unwrap();
        let is_there = async || self.proxy.stats().bytes_from_client > before;
        eventually(SOON, "the command to reach the proxy", is_there).await;
    }

    /// Asks the server itself, around the proxy.
    async fn value(&self) -> Reply {
        self.server.connect().await.unwrap().command(&["GET", KEY]).await.unwrap()
    }

    async fn until_value_is(&self, value: &str) {
        eventually(SOON, "the write to arrive", async || {
            self.value().await.as_str() == Some(value)
        })
        .await;
    }
}

#[track_caller]
fn assert_silent(answer: &Result<Reply, RespError>) {
    assert!(matches!(answer, Err(RespError::Timeout(_))), "{answer:?}");
}

#[track_caller]
fn assert_reset(answer: Result<Reply, RespError>) {
    match answer {
        Err(RespError::Io(error)) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("expected a reset, got {other:?}"),
    }
}

#[tokio::test]
async fn proxy_without_a_fault_passes_on_large_values_and_counts_them() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    let value = "x".repeat(3 << 20);
    client.command(&["SET", KEY, &value]).await.unwrap();
    assert_eq!(client.command(&["GET", KEY]).await.unwrap().as_str(), Some(&*value));
    let stats = world.proxy.stats();
    assert_eq!((stats.accepted, stats.live), (1, 1));
    assert!(stats.bytes_to_server > 3 << 20 && stats.bytes_to_client > 3 << 20, "{stats:?}");
    drop(client);
    let is_closed = async || world.proxy.stats().live == 0;
    eventually(SOON, "the proxy to see the client leave", is_closed).await;
}

#[tokio::test]
async fn delayed_pipeline_takes_both_ways_once() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.proxy.delay(Duration::from_millis(100));
    let start = Instant::now();
    for _ in 0..10 {
        world.send_ping(&mut client).await;
    }
    for _ in 0..10 {
        client.receive().await.unwrap();
    }
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(200), "{taken:?}");
    assert!(taken < Duration::from_secs(1), "each of ten commands is delayed anew: {taken:?}");
}

#[tokio::test]
async fn delay_that_ends_lets_waiting_bytes_go_at_once() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.proxy.delay(Duration::from_secs(3600));
    world.send_ping(&mut client).await;
    world.proxy.pass();
    client.receive().await.unwrap();
}

#[tokio::test]
async fn held_connection_stays_up_and_everything_sent_is_lost() {
    let world = World::start().await;
    let mut client = world.client(IN_VAIN).await;
    world.proxy.hold();
    assert_silent(&client.command(&["SET", KEY, "lost"]).await);
    let mut new = RespConnection::connect(world.proxy.addr(), IN_VAIN).await.unwrap();
    assert_silent(&new.command(&["PING"]).await);
    world.server.kill();
    assert_silent(&client.receive().await);
    let mut while_down = RespConnection::connect(world.proxy.addr(), IN_VAIN).await.unwrap();
    assert_silent(&while_down.command(&["PING"]).await);
    world.server.restart().await.unwrap();
    world.proxy.pass();
    assert_eq!(world.value().await, Reply::Nil);
}

#[tokio::test]
async fn stalled_bytes_arrive_when_the_network_is_back() {
    let world = World::start().await;
    let mut client = world.client(IN_VAIN).await;
    world.proxy.stall();
    assert_silent(&client.command(&["SET", KEY, "late"]).await);
    assert_eq!(world.value().await, Reply::Nil);
    world.proxy.pass();
    world.until_value_is("late").await;
}

#[tokio::test]
async fn one_direction_can_be_lost_alone() {
    let world = World::start().await;
    let mut client = world.client(IN_VAIN).await;
    world.proxy.drop_bytes(Direction::ToClient);
    assert_silent(&client.command(&["SET", KEY, "done"]).await);
    world.until_value_is("done").await;
    world.proxy.pass();
    let mut other = world.client(IN_VAIN).await;
    world.proxy.drop_bytes(Direction::ToServer);
    assert_silent(&other.command(&["SET", KEY, "not done"]).await);
    assert_eq!(world.value().await.as_str(), Some("done"));
}

#[tokio::test]
async fn cut_resets_open_connections_and_new_ones_work() {
    let world = World::start().await;
    let (mut first, mut second) = (world.client(SOON).await, world.client(SOON).await);
    world.proxy.cut();
    assert_reset(first.receive().await);
    assert_reset(second.receive().await);
    world.client(SOON).await.command(&["PING"]).await.unwrap();
    assert_eq!(world.proxy.stats().accepted, 3);
}

#[tokio::test]
async fn held_connection_can_be_cut() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.proxy.hold();
    world.proxy.cut();
    assert_reset(client.receive().await);
}

#[tokio::test]
async fn refused_connection_is_reset_and_open_ones_live() {
    let world = World::start().await;
    let mut open = world.client(SOON).await;
    world.proxy.refuse();
    // The reset can arrive while the client still connects, or when it first reads.
    if let Ok(mut refused) = RespConnection::connect(world.proxy.addr(), SOON).await {
        assert!(matches!(refused.receive().await, Err(RespError::Io(_))));
    }
    open.command(&["PING"]).await.unwrap();
    assert_eq!(world.proxy.stats().refused, 1);
    world.proxy.pass();
    world.client(SOON).await;
}

#[tokio::test]
async fn client_of_a_dead_server_is_reset() {
    let world = World::start().await;
    world.server.kill();
    let mut client = RespConnection::connect(world.proxy.addr(), SOON).await.unwrap();
    assert_reset(client.receive().await);
}

#[tokio::test]
async fn client_sees_the_server_die() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.server.kill();
    assert!(matches!(client.receive().await, Err(RespError::Io(_))));
}

#[tokio::test]
async fn lie_answers_every_request_and_the_server_sees_none() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.proxy.lie("+LIE\r\n");
    let lie = Reply::Status("LIE".into());
    client.send(&["SET", KEY, "v"]).await.unwrap();
    client.send(&["GET", KEY]).await.unwrap();
    assert_eq!(client.receive().await.unwrap(), lie);
    assert_eq!(client.receive().await.unwrap(), lie);
    assert_eq!(world.value().await, Reply::Nil);
    assert_eq!(world.proxy.stats().lies, 2);
    world.proxy.pass();
    assert_eq!(client.command(&["GET", KEY]).await.unwrap(), Reply::Nil);
}

#[tokio::test]
async fn lie_to_one_command_leaves_the_others_their_answers_in_order() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.proxy.lie_to("get", ":7\r\n");
    client.send(&["PING"]).await.unwrap();
    client.send(&["GET", KEY]).await.unwrap();
    client.send(&["PING"]).await.unwrap();
    assert_eq!(client.receive().await.unwrap().as_str(), Some("PONG"));
    assert_eq!(client.receive().await.unwrap(), Reply::Integer(7));
    assert_eq!(client.receive().await.unwrap().as_str(), Some("PONG"));
}

#[tokio::test]
async fn throttled_bytes_take_their_time_and_all_arrive() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    let value = "x".repeat(20_000);
    client.command(&["SET", KEY, &value]).await.unwrap();
    world.proxy.set(Direction::ToClient, Fault::Throttle(200_000));
    let start = Instant::now();
    assert_eq!(client.command(&["GET", KEY]).await.unwrap().as_str(), Some(&*value));
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(100), "{taken:?}");
}

#[tokio::test]
async fn messages_pass_to_subscribers() {
    let world = World::start().await;
    let mut subscriber = world.client(SOON).await;
    subscriber.command(&["SUBSCRIBE", "{t:p}c"]).await.unwrap();
    let mut publisher = world.client(SOON).await;
    publisher.command(&["PUBLISH", "{t:p}c", "hello"]).await.unwrap();
    let message = subscriber.receive().await.unwrap();
    assert_eq!(message.as_array().unwrap()[2].as_str(), Some("hello"));
}

#[tokio::test]
async fn address_that_leads_elsewhere_does_so_for_new_connections_only() {
    let world = World::start().await;
    let mut before = world.client(SOON).await;
    before.command(&["SET", KEY, "here"]).await.unwrap();
    let elsewhere = RedisServer::start().await.unwrap();
    world.proxy.lead_to(elsewhere.addr());
    assert_eq!(before.command(&["GET", KEY]).await.unwrap().as_str(), Some("here"));
    let mut after = RespConnection::connect(world.proxy.addr(), SOON).await.unwrap();
    after.auth(elsewhere.user(), elsewhere.password()).await.unwrap();
    assert_eq!(after.command(&["GET", KEY]).await.unwrap().as_str(), None);
}

#[tokio::test]
async fn dropped_proxy_closes_its_connections() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    let addr = world.proxy.addr();
    drop(world.proxy);
    assert!(matches!(client.receive().await, Err(RespError::Io(_))));
    RespConnection::connect(addr, SOON).await.unwrap_err();
}

#[tokio::test]
async fn url_keeps_everything_but_host_and_port() {
    let world = World::start().await;
    let addr = world.proxy.addr();
    for (url, expected) in [
        ("redis://u:p@127.0.0.1:6379", format!("redis://u:p@{addr}")),
        ("redis://localhost", format!("redis://{addr}")),
        (
            "rediss://:p%40@[::1]:1/3?protocol=resp3",
            format!("rediss://:p%40@{addr}/3?protocol=resp3"),
        ),
        ("redis://h:1?a=b@c/d", format!("redis://{addr}?a=b@c/d")),
    ] {
        assert_eq!(world.proxy.url_like(url), expected);
    }
}

/// Red with `pass` in the place of `pass_anew`: the next answer would be taken for the lost one's.
#[tokio::test]
async fn a_connection_that_lost_bytes_does_not_go_on() {
    let world = World::start().await;
    let mut client = world.client(SOON).await;
    world.proxy.drop_bytes(Direction::ToClient);
    client.send(&["PING"]).await.unwrap();
    world.proxy.pass_anew().await;
    assert!(matches!(client.receive().await, Err(RespError::Io(_))));
    let mut next = world.client(SOON).await;
    assert_eq!(next.command(&["PING"]).await.unwrap().as_str(), Some("PONG"));
}
