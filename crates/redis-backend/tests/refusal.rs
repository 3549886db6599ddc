//! The server answers, but not with what was asked for. Each reason has its own words.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{SOON, builder, connected, count, hear, key, ready, trouble, up};
use fleetwide_core_traits::{
    BackendError, Bus, ExecutorExt, Health, Outage, RejectionKind, Signal, Store, Ttl,
};
use fleetwide_redis_backend::Redis;
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{DefaultUser, RedisServer, eventually};

const MINUTE: Ttl = Ttl::clamped(Duration::from_secs(60));

fn kind<T: std::fmt::Debug>(answer: Result<T, BackendError>) -> RejectionKind {
    match answer {
        Err(BackendError::Rejected(rejection)) => rejection.kind,
        other => panic!("{other:?} is no refusal"),
    }
}

async fn down_because(redis: &Redis, reason: &str) {
    eventually(
        SOON,
        reason,
        async || matches!(redis.health(), Health::Down { reason: why, .. } if why == reason),
    )
    .await;
}

#[tokio::test]
async fn wrong_password_is_said_and_not_shown() {
    let server = RedisServer::start().await.unwrap();
    let url = format!("redis://{}:s3cret-wrong@{}", server.user(), server.addr());
    let redis = builder(&url).build().unwrap();
    let answer = redis.store().get(&key("a")).await.unwrap_err();
    assert_eq!(answer.to_string(), "not sent: no connection: wrong user or password");
    down_because(&redis, "wrong user or password").await;
    let exclusive = redis.exclusive().await.unwrap_err();
    assert_eq!(exclusive.to_string(), "not sent: no connection: wrong user or password");
    assert!(!format!("{redis:?} {exclusive:?} {answer:?}").contains("s3cret"));
    // Nobody has to restart anything when the operator corrects the server.
    let user = ["ACL", "SETUSER", server.user(), ">s3cret-wrong"];
    server.admin(&user).await.unwrap();
    redis.ready(SOON).await.unwrap();
    assert_eq!(count(&redis, "a").await, Ok(1));
}

#[tokio::test]
async fn missing_password_is_told_from_a_wrong_one() {
    let server = RedisServer::start().await.unwrap();
    let redis = builder(&format!("redis://{}", server.addr())).build().unwrap();
    down_because(&redis, "the server wants a password, and none is given").await;
}

#[tokio::test]
async fn password_without_a_user_logs_in_the_default_user() {
    let server =
        RedisServer::builder().default_user(DefaultUser::Documented).start().await.unwrap();
    let redis = ready(builder(&server.url_without_user())).await;
    let mut heard = redis.bus().subscribe(&common::channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    assert!(redis.exclusive().await.is_ok());
}

#[tokio::test]
async fn database_that_the_server_does_not_have_is_named() {
    let server = RedisServer::start().await.unwrap();
    let redis = builder(&format!("{}/99", server.url())).build().unwrap();
    down_because(&redis, "the server has no database 99").await;
}

#[tokio::test]
async fn missing_right_is_an_error_and_degrades_until_it_is_given() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    server.admin(&["ACL", "SETUSER", server.user(), "-set"]).await.unwrap();
    let refused = redis.store().set(&key("a"), Bytes::new(), MINUTE).await;
    assert_eq!(kind(refused), RejectionKind::NoPermission);
    let reason = trouble(&redis, "degraded").await;
    assert!(reason.starts_with("the user lacks a right: "), "{reason}");
    assert!(reason.contains("'set'"), "{reason}");
    assert_eq!(redis.store().get(&key("a")).await, Ok(None), "what is allowed goes on");
    server.admin(&["ACL", "SETUSER", server.user(), "+set"]).await.unwrap();
    up(&redis).await;
}

#[tokio::test]
async fn forbidden_channel_does_not_stop_the_allowed_ones() {
    let server = RedisServer::start().await.unwrap();
    let narrow = ["ACL", "SETUSER", server.user(), "resetchannels", "&{test:case:a}*"];
    server.admin(&narrow).await.unwrap();
    let redis = connected(&server).await;
    let mut allowed = redis.bus().subscribe(&common::channel("a"));
    assert_eq!(hear(&mut allowed).await, Signal::Ready);
    let mut forbidden = redis.bus().subscribe(&common::channel("b"));
    let reason = trouble(&redis, "degraded").await;
    assert!(reason.starts_with("no subscription to messages: the user lacks a right"), "{reason}");
    let mut third = redis.bus().subscribe(&common::channel("a"));
    assert_eq!(hear(&mut third).await, Signal::Ready);
    let wide = ["ACL", "SETUSER", server.user(), "resetchannels", "&{*:*"];
    server.admin(&wide).await.unwrap();
    assert_eq!(hear(&mut forbidden).await, Signal::Ready);
    up(&redis).await;
}

#[tokio::test]
async fn full_server_refuses_writes_and_goes_on_reading() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    redis.store().set(&key("kept"), Bytes::from_static(b"x"), MINUTE).await.unwrap();
    server.config_set("maxmemory", "1").await.unwrap();
    let refused = redis.store().set(&key("a"), Bytes::new(), MINUTE).await;
    assert!(refused.as_ref().is_err_and(BackendError::is_retryable), "{refused:?}");
    assert_eq!(kind(refused), RejectionKind::OutOfMemory);
    assert_eq!(kind(count(&redis, "a").await), RejectionKind::OutOfMemory, "inside a script too");
    let reason = trouble(&redis, "degraded").await;
    assert_eq!(reason, "the server is out of memory and refuses writes");
    let kept = redis.store().get(&key("kept")).await;
    assert_eq!(kept, Ok(Some(Bytes::from_static(b"x"))));
    assert_eq!(redis.store().remove(&key("kept")).await, Ok(true), "removing makes room");
    server.config_set("maxmemory", "0").await.unwrap();
    up(&redis).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
}

#[tokio::test]
async fn server_that_cannot_save_refuses_writes_and_goes_on_reading() {
    // Nobody can write a snapshot there.
    let server = RedisServer::builder()
        .config("save", "3600 1")
        .config("dir", "/proc")
        .start()
        .await
        .unwrap();
    let redis = connected(&server).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    server.admin(&["BGSAVE"]).await.unwrap();
    eventually(SOON, "the failed save", async || {
        count(&redis, "a").await.is_err_and(|error| error.to_string().contains("cannot persist"))
    })
    .await;
    let reason = trouble(&redis, "degraded").await;
    assert_eq!(reason, "the server cannot persist and refuses writes");
    assert!(redis.store().get(&key("a")).await.is_ok());
    // It stays so on a new connection, and as long as nobody asks for anything.
    server.client_kill(fleetwide_testkit::ClientKind::Normal).await.unwrap();
    eventually(SOON, "the new connection", async || redis.health().name() == "degraded").await;
    server.config_set("stop-writes-on-bgsave-error", "no").await.unwrap();
    up(&redis).await;
    assert!(count(&redis, "a").await.is_ok());
}

#[tokio::test]
async fn server_that_takes_no_more_clients_is_said_to() {
    let server = RedisServer::builder().config("maxclients", "1").start().await.unwrap();
    let held = server.connect().await.unwrap();
    let redis = builder(&server.url()).build().unwrap();
    down_because(&redis, "the server has too many clients").await;
    drop(held);
    redis.ready(SOON).await.unwrap();
}

#[tokio::test]
async fn server_in_protected_mode_is_said_to_be() {
    // What Redis 7.0.15 says to a client from another machine, before it is asked and closes. A
    // test has no other machine, so this server only repeats it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let words = b"-DENIED Redis is running in protected mode because protected mode is \
                enabled and no password is set for the default user. In this mode connections \
                are only accepted from the loopback interface.\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, words).await;
        }
    });
    let redis = builder(&format!("redis://{address}")).build().unwrap();
    down_because(&redis, "the server is in protected mode").await;
    server.abort();
}

#[tokio::test]
async fn replica_refuses_writes_and_is_left_when_the_address_leads_elsewhere() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    // A primary that is not there: the server is a replica at once, with the data it has.
    server.replicaof("127.0.0.1", 1).await.unwrap();
    assert_eq!(kind(count(&redis, "a").await), RejectionKind::ReadOnly);
    assert_eq!(trouble(&redis, "degraded").await, "the server is a read-only replica");
    assert_eq!(redis.store().get(&key("a")).await, Ok(Some(Bytes::from_static(b"1"))));
    // The connection is made anew again and again, as the address may lead elsewhere by now: each
    // new one has a name, and nobody sends anything else meanwhile.
    server.reset_stats().await.unwrap();
    eventually(SOON, "another look at the address", async || {
        server.command_stats().await.unwrap().get("client|setname").is_some_and(|made| *made > 3)
    })
    .await;
    server.promote().await.unwrap();
    up(&redis).await;
    assert_eq!(count(&redis, "a").await, Ok(2));
}

#[tokio::test]
async fn replica_is_found_out_by_a_user_who_may_not_ask_for_its_role() {
    let server = RedisServer::start().await.unwrap();
    server.admin(&["ACL", "SETUSER", server.user(), "-role"]).await.unwrap();
    let redis = connected(&server).await;
    server.replicaof("127.0.0.1", 1).await.unwrap();
    assert_eq!(kind(count(&redis, "a").await), RejectionKind::ReadOnly);
    assert_eq!(trouble(&redis, "degraded").await, "the server is a read-only replica");
    server.promote().await.unwrap();
    up(&redis).await;
}

#[tokio::test]
async fn replica_without_its_primary_is_down_when_it_may_not_serve_old_data() {
    let server =
        RedisServer::builder().config("replica-serve-stale-data", "no").start().await.unwrap();
    let redis = connected(&server).await;
    server.replicaof("127.0.0.1", 1).await.unwrap();
    assert_eq!(kind(redis.store().get(&key("a")).await), RejectionKind::Isolated);
    down_because(&redis, "the server is a replica that lost its primary").await;
    server.promote().await.unwrap();
    up(&redis).await;
}

#[tokio::test]
async fn primary_without_its_replicas_refuses_writes() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    server.config_set("min-replicas-to-write", "1").await.unwrap();
    assert_eq!(kind(count(&redis, "a").await), RejectionKind::Isolated);
    let reason = trouble(&redis, "degraded").await;
    assert_eq!(reason, "the server has too few replicas and refuses writes");
    server.config_set("min-replicas-to-write", "0").await.unwrap();
    up(&redis).await;
}

#[tokio::test]
async fn server_that_is_loading_is_down_until_it_has_loaded() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    assert_eq!(count(&redis, "a").await, Ok(1));
    server.restart_loading(Duration::from_secs(2)).await.unwrap();
    down_because(&redis, "the server is loading its data").await;
    let answer = redis.store().get(&key("a")).await;
    let text = "the server is loading its data".to_owned();
    assert_eq!(answer, Err(BackendError::NotSent(Outage::Down(text))));
    up(&redis).await;
    assert_eq!(count(&redis, "a").await, Ok(2), "the data is back");
}

#[tokio::test]
async fn key_of_another_kind_is_that_caller_s_trouble_alone() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    server.admin(&[&b"LPUSH"[..], key("a").as_bytes(), b"x"]).await.unwrap();
    assert_eq!(kind(redis.store().get(&key("a")).await), RejectionKind::WrongType);
    assert_eq!(kind(count(&redis, "a").await), RejectionKind::WrongType);
    let executor = redis.executor();
    let steps = [Count::one(&key("b")), Count::one(&key("a")), Count::one(&key("b"))];
    let mut results = executor.run_many(&steps).await.into_iter();
    assert_eq!(results.next().unwrap().unwrap().count, 1);
    assert_eq!(kind(results.next().unwrap()), RejectionKind::WrongType);
    assert_eq!(results.next().unwrap().unwrap().count, 2, "the others go on");
    assert_eq!(redis.health(), Health::Up);
}

#[tokio::test]
async fn script_that_runs_too_long_is_said_to() {
    let server = RedisServer::builder().config("busy-reply-threshold", "50").start().await.unwrap();
    let redis = connected(&server).await;
    let mut admin = server.connect_admin().await.unwrap();
    let endless =
        tokio::spawn(async move { admin.command(&["EVAL", "while true do end", "0"]).await });
    eventually(SOON, "the busy server", async || {
        matches!(redis.store().get(&key("a")).await, Err(BackendError::Rejected(_)))
    })
    .await;
    assert_eq!(kind(redis.store().get(&key("a")).await), RejectionKind::Busy);
    assert_eq!(trouble(&redis, "degraded").await, "the server is busy with a script");
    server.admin(&["SCRIPT", "KILL"]).await.unwrap();
    endless.await.unwrap().unwrap_err();
    up(&redis).await;
}
