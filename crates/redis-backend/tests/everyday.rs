//! What works when nothing is wrong.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{SOON, builder, channel, connected, count, hear, key, message, ready};
use fleetwide_core_traits::{
    Bus, ExecutorExt, Health, ScriptClock, ServerTime, Signal, Store, Ttl, Wire,
};
use fleetwide_redis_backend::Command;
use fleetwide_testkit::suite::ops::{Count, Now};
use fleetwide_testkit::{RedisServer, SimClock, eventually};

const MINUTE: Ttl = Ttl::clamped(Duration::from_secs(60));

#[tokio::test]
async fn values_are_stored_read_and_removed_with_their_ttl() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let store = redis.store();
    let (one, two) = (key("one"), key("two"));
    let any_bytes = Bytes::from_static(b"\r\n\0\xff");
    assert_eq!(store.get(&one).await, Ok(None));
    store.set(&one, any_bytes.clone(), MINUTE).await.unwrap();
    store.set(&two, Bytes::new(), MINUTE).await.unwrap();
    assert_eq!(store.get(&one).await, Ok(Some(any_bytes.clone())));
    let many = store.get_many(&[two.clone(), key("none"), one.clone()]).await;
    assert_eq!(many, Ok(vec![Some(Bytes::new()), None, Some(any_bytes)]));
    assert_eq!(store.get_many(&[]).await, Ok(vec![]));
    let left = server.admin(&[&b"PTTL"[..], one.as_bytes()]).await.unwrap().as_integer().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    assert_eq!(store.remove(&one).await, Ok(true));
    assert_eq!(store.remove(&one).await, Ok(false));
}

#[tokio::test]
async fn steps_run_alone_and_many_in_one_trip() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    let one = Count::one(&key("a"));
    // The first step in a pipeline heals the script for the rest, so it is run before.
    server.reset_stats().await.unwrap();
    let many: Vec<_> = (0..100).map(|_| one.clone()).collect();
    let counted = redis.executor().run_many(&many).await;
    let counts: Vec<_> = counted.into_iter().map(|counted| counted.unwrap().count).collect();
    assert_eq!(counts, (2..102).collect::<Vec<_>>());
    assert_eq!(server.command_stats().await.unwrap()["evalsha"], 100);
}

#[tokio::test]
async fn clock_of_a_test_decides_when_it_is_asked_for() {
    let server = RedisServer::start().await.unwrap();
    let clock = SimClock::new();
    let redis = builder(&server.url())
        .script_clock(ScriptClock::Argument)
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    clock.set_server_time(ServerTime::from_micros(42));
    let now = Now { key: [key("now")] };
    assert_eq!(redis.executor().run(&now).await, Ok(ServerTime::from_micros(42)));
}

#[tokio::test]
async fn messages_arrive_in_order_after_ready() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let bus = redis.bus();
    let mut heard = bus.subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    for number in 0..100 {
        bus.publish(&channel("a"), number.to_string().into()).await.unwrap();
        bus.publish(&channel("b"), "not for us".into()).await.unwrap();
    }
    for number in 0..100 {
        assert_eq!(hear(&mut heard).await, message(&number.to_string()));
    }
}

#[tokio::test]
async fn last_subscriber_to_leave_unsubscribes() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let bus = redis.bus();
    let subscribers = async || {
        let reply = server.admin(&[&b"PUBSUB"[..], b"NUMSUB", channel("a").as_bytes()]).await;
        reply.unwrap().as_array().unwrap()[1].as_integer().unwrap()
    };
    let mut first = bus.subscribe(&channel("a"));
    assert_eq!(hear(&mut first).await, Signal::Ready);
    let mut second = bus.subscribe(&channel("a"));
    assert_eq!(hear(&mut second).await, Signal::Ready);
    assert_eq!(subscribers().await, 1, "one connection serves both");
    drop(first);
    bus.publish(&channel("a"), "still".into()).await.unwrap();
    assert_eq!(hear(&mut second).await, message("still"));
    drop(second);
    eventually(SOON, "the unsubscription", async || subscribers().await == 0).await;
    let mut again = bus.subscribe(&channel("a"));
    assert_eq!(hear(&mut again).await, Signal::Ready);
    bus.publish(&channel("a"), "again".into()).await.unwrap();
    assert_eq!(hear(&mut again).await, message("again"));
}

#[tokio::test]
async fn exclusive_connection_answers_and_is_used_again() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    for _ in 0..3 {
        let mut own = redis.exclusive().await.unwrap();
        let reply = own.run(Command::new("WAIT").int(0).int(10), SOON).await;
        assert_eq!(reply, Ok(Wire::Int(0)));
    }
    assert_eq!(redis.info().await.unwrap().connected_clients, 2, "one shared, one exclusive");
}

#[tokio::test]
async fn unix_socket_serves_all_three_paths() {
    let server = RedisServer::start().await.unwrap();
    let path = server.socket_path();
    let (user, password) = (server.user(), server.password());
    let url = format!("unix://{}?user={user}&pass={password}&db=1", path.display());
    let redis = ready(builder(&url)).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    let mut heard = redis.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    let mut own = redis.exclusive().await.unwrap();
    let value = own.run(Command::new("GET").arg(key("a").as_bytes()), SOON).await.unwrap();
    assert_eq!(value.into_int(), Ok(1), "the same database");
}

#[tokio::test]
async fn pool_of_the_application_is_used_and_left_open() {
    let server = RedisServer::start().await.unwrap();
    let mut config = deadpool_redis::Config::from_url(server.url());
    config.pool = Some(deadpool_redis::PoolConfig::new(3));
    let pool = config.create_pool(Some(deadpool_redis::Runtime::Tokio1)).unwrap();
    let redis = builder(&server.url()).exclusive_pool(pool.clone()).build().unwrap();
    let mut own = redis.exclusive().await.unwrap();
    let reply = own.run(Command::new("PING"), SOON).await.unwrap();
    assert_eq!(reply.into_bytes().unwrap(), "PONG");
    assert_eq!(pool.status().size, 1);
    drop(own);
    redis.shutdown().await;
    assert!(pool.get().await.is_ok());
}

#[tokio::test]
async fn shared_connections_have_the_name_that_they_were_given() {
    let server = RedisServer::start().await.unwrap();
    let _redis = ready(builder(&server.url()).client_name("orders-7").connections(2)).await;
    eventually(SOON, "two names", async || {
        let list = server.admin(&["CLIENT", "LIST"]).await.unwrap();
        list.as_str().unwrap().matches(" name=orders-7 ").count() == 2
    })
    .await;
}

#[tokio::test]
async fn health_is_up_and_info_has_its_numbers() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    assert_eq!(redis.health(), Health::Up);
    let info = redis.info().await.unwrap();
    assert!(info.total_commands_processed > 0 && info.used_memory_human.ends_with(['K', 'M']));
}

#[tokio::test]
async fn shutdown_ends_tasks_and_subscriptions() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let mut heard = redis.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    tokio::time::timeout(SOON, redis.shutdown()).await.expect("an end");
    let error = redis.store().get(&key("a")).await.unwrap_err();
    assert_eq!(error.to_string(), "not sent: no connection: the handle was shut down");
    assert!(redis.exclusive().await.is_err());
    let rest: Vec<_> = futures_util::StreamExt::collect(heard).await;
    assert_eq!(rest, [Signal::Lost]);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_all_connections_and_tasks() {
    let server = RedisServer::start().await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let redis = connected(&server).await;
    let mut heard = redis.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    drop(redis.exclusive().await.unwrap());
    assert!(tasks() > before);
    drop(redis);
    // A forgotten subscription does not keep the rest alive.
    eventually(SOON, "no client but the administrator", async || {
        server.info("clients").await.unwrap()["connected_clients"] == "1"
    })
    .await;
    eventually(SOON, "the end of all tasks", async || tasks() == before).await;
    assert_eq!(hear(&mut heard).await, Signal::Lost);
}
