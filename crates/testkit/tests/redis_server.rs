//! What a test may rely on when it asks for a Redis server.

use std::time::Duration;

use fleetwide_testkit::{
    ClientKind, DefaultUser, RedisServer, Reply, RespConnection, RespError, SpawnError, eventually,
};

const SOON: Duration = Duration::from_secs(2);

fn refusal(answer: Result<Reply, RespError>) -> String {
    match answer {
        Err(RespError::Refused(text)) => text,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn get(server: &RedisServer, key: &str) -> Reply {
    server.connect().await.unwrap().command(&["GET", key]).await.unwrap()
}

async fn set(server: &RedisServer, key: &str, value: &str) {
    server.connect().await.unwrap().command(&["SET", key, value]).await.unwrap();
}

#[tokio::test]
async fn started_server_answers_the_documented_user() {
    let server = RedisServer::start().await.unwrap();
    set(&server, "{t:a}k", "v").await;
    assert_eq!(get(&server, "{t:a}k").await.as_str(), Some("v"));
    let expected = format!("redis://fleetwide:{}@127.0.0.1:{}", server.password(), server.port());
    assert_eq!(server.url(), expected);
}

#[tokio::test]
async fn documented_user_can_neither_list_flush_configure_nor_leave_its_keys() {
    let server = RedisServer::start().await.unwrap();
    let mut user = server.connect().await.unwrap();
    let forbidden: [&[&str]; 8] = [
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["FLUSHDB"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["MONITOR"],
        &["SET", "no-tag", "v"],
        &["PUBLISH", "no-tag", "v"],
    ];
    for command in forbidden {
        let text = refusal(user.command(command).await);
        assert!(text.starts_with("NOPERM"), "{command:?} gave {text}");
    }
    let script = ["EVAL", "return redis.call('FLUSHALL')", "0"];
    let text = refusal(user.command(&script).await);
    assert!(text.contains("can't run this command"), "{text}");
}

#[tokio::test]
async fn client_without_a_password_is_nobody() {
    let server = RedisServer::start().await.unwrap();
    let mut nobody = RespConnection::connect(server.addr(), SOON).await.unwrap();
    assert!(refusal(nobody.command(&["PING"]).await).starts_with("NOAUTH"));
    let wrong = nobody.auth(server.user(), "wrong").await.unwrap_err();
    assert!(wrong.to_string().contains("WRONGPASS"), "{wrong}");
}

#[tokio::test]
async fn default_user_can_be_given_the_documented_rights() {
    let builder = RedisServer::builder().default_user(DefaultUser::Documented);
    let server = builder.start().await.unwrap();
    let mut client = RespConnection::connect(server.addr(), SOON).await.unwrap();
    client.command(&["AUTH", server.password()]).await.unwrap();
    client.command(&["SET", "{t:a}k", "v"]).await.unwrap();
    assert!(refusal(client.command(&["KEYS", "*"]).await).starts_with("NOPERM"));
}

#[tokio::test]
async fn server_and_its_directory_are_gone_after_the_handle() {
    let server = RedisServer::start().await.unwrap();
    let (pid, addr, socket) = (server.pid().unwrap(), server.addr(), server.socket_path());
    assert!(socket.exists());
    drop(server);
    assert!(!is_alive(pid));
    assert!(!socket.parent().unwrap().exists());
    RespConnection::connect(addr, SOON).await.unwrap_err();
}

#[tokio::test]
async fn server_is_gone_after_a_panic() {
    let server = RedisServer::start().await.unwrap();
    let pid = server.pid().unwrap();
    let task = tokio::spawn(async move {
        server.stop();
        panic!("a test that fails while the server {server:?} is frozen")
    });
    task.await.unwrap_err();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn restart_keeps_the_port_and_loses_the_data() {
    let server = RedisServer::start().await.unwrap();
    let (pid, port) = (server.pid(), server.port());
    set(&server, "{t:a}k", "v").await;
    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    assert_eq!(get(&server, "{t:a}k").await, Reply::Nil);
}

#[tokio::test]
async fn restart_can_keep_the_data_and_the_next_one_still_loses_it() {
    let server = RedisServer::start().await.unwrap();
    set(&server, "{t:a}k", "v").await;
    server.restart_keeping_data().await.unwrap();
    assert_eq!(get(&server, "{t:a}k").await.as_str(), Some("v"));
    server.restart().await.unwrap();
    assert_eq!(get(&server, "{t:a}k").await, Reply::Nil);
}

#[tokio::test]
async fn append_only_server_keeps_every_acknowledged_write_when_killed() {
    let server = RedisServer::builder().append_only().start().await.unwrap();
    set(&server, "{t:a}k", "v").await;
    server.kill();
    server.restart().await.unwrap();
    assert_eq!(get(&server, "{t:a}k").await.as_str(), Some("v"));
}

// Red when the default user has no rights: the server replays with them what a script wrote in one step.
#[tokio::test]
async fn append_only_server_keeps_what_a_script_wrote_when_killed() {
    let server = RedisServer::builder().append_only().start().await.unwrap();
    let script = "redis.call('SET', KEYS[1], 'v') return redis.call('PEXPIRE', KEYS[1], 600000)";
    let mut user = server.connect().await.unwrap();
    user.command(&["EVAL", script, "1", "{t:a}k"]).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(get(&server, "{t:a}k").await.as_str(), Some("v"));
    let left = server.admin(&["PTTL", "{t:a}k"]).await.unwrap().as_integer().unwrap();
    assert!((1..=600_000).contains(&left), "{left} ms");
}

#[tokio::test]
async fn killed_server_refuses_connections_until_it_is_restarted() {
    let server = RedisServer::start().await.unwrap();
    server.kill();
    assert_eq!(server.pid(), None);
    let down = RespConnection::connect(server.addr(), SOON).await.unwrap_err();
    assert!(matches!(down, RespError::Io(_)), "{down:?}");
    server.restart().await.unwrap();
    server.connect().await.unwrap();
}

#[tokio::test]
async fn shutdown_closes_connections_and_leaves_the_port_for_a_restart() {
    let server = RedisServer::start().await.unwrap();
    let mut client = server.connect().await.unwrap();
    server.shutdown().await;
    assert!(matches!(client.receive().await, Err(RespError::Io(_))));
    assert!(server.log().contains("User requested shutdown"), "{}", server.log());
    server.restart().await.unwrap();
}

#[tokio::test]
async fn frozen_server_accepts_and_does_not_answer_until_it_goes_on() {
    let server = RedisServer::start().await.unwrap();
    server.stop();
    let short = Duration::from_millis(50);
    let mut client = RespConnection::connect(server.addr(), short).await.unwrap();
    let silent = client.auth(server.user(), server.password()).await.unwrap_err();
    assert!(matches!(silent, RespError::Timeout(_)), "{silent:?}");
    server.cont();
    server.connect().await.unwrap();
}

#[tokio::test]
async fn loading_server_says_so_and_answers_in_the_end() {
    let server = RedisServer::start().await.unwrap();
    set(&server, "{t:a}k", "v").await;
    server.restart_loading(Duration::from_millis(400)).await.unwrap();
    let mut client = server.connect().await.unwrap();
    assert!(refusal(client.command(&["GET", "{t:a}k"]).await).starts_with("LOADING"));
    let is_loaded = async || client.command(&["GET", "{t:a}k"]).await.is_ok();
    eventually(Duration::from_secs(10), "the data to be loaded", is_loaded).await;
    assert_eq!(get(&server, "{t:a}k").await.as_str(), Some("v"));
}

#[tokio::test]
async fn replica_of_nowhere_refuses_writes_until_it_is_promoted() {
    let server = RedisServer::start().await.unwrap();
    server.replicaof("127.0.0.1", 1).await.unwrap();
    let mut client = server.connect().await.unwrap();
    assert!(refusal(client.command(&["SET", "{t:a}k", "v"]).await).starts_with("READONLY"));
    server.promote().await.unwrap();
    client.command(&["SET", "{t:a}k", "v"]).await.unwrap();
}

#[tokio::test]
async fn replica_that_was_started_as_one_has_the_data_and_is_one_again_after_a_restart() {
    let primary = RedisServer::start().await.unwrap();
    primary.admin(&["SET", "{t:a}k", "v"]).await.unwrap();
    let replica = RedisServer::builder().replica_of(&primary).start().await.unwrap();
    assert_eq!(get(&replica, "{t:a}k").await.as_str(), Some("v"));
    replica.restart().await.unwrap();
    let is_linked = async || replica.is_linked().await.unwrap();
    eventually(Duration::from_secs(10), "the replica to catch up", is_linked).await;
}

#[tokio::test]
async fn replica_has_the_data_of_its_primary() {
    let (primary, replica) =
        (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    set(&primary, "{t:a}k", "v").await;
    replica.replicate(&primary).await.unwrap();
    let is_linked =
        async || replica.info("replication").await.unwrap()["master_link_status"] == "up";
    eventually(Duration::from_secs(10), "the replica to catch up", is_linked).await;
    assert_eq!(get(&replica, "{t:a}k").await.as_str(), Some("v"));
}

#[tokio::test]
async fn client_kill_closes_only_the_named_kind() {
    let server = RedisServer::start().await.unwrap();
    let (mut normal, mut subscriber) =
        (server.connect().await.unwrap(), server.connect().await.unwrap());
    subscriber.command(&["SUBSCRIBE", "{t:a}c"]).await.unwrap();
    assert_eq!(server.client_kill(ClientKind::Pubsub).await.unwrap(), 1);
    assert!(matches!(subscriber.receive().await, Err(RespError::Io(_))));
    normal.command(&["PING"]).await.unwrap();
    server.client_kill(ClientKind::Normal).await.unwrap();
    assert!(matches!(normal.receive().await, Err(RespError::Io(_))));
}

#[tokio::test]
async fn command_stats_count_the_calls_since_the_reset() {
    let server = RedisServer::start().await.unwrap();
    let mut client = server.connect().await.unwrap();
    client.command(&["GET", "{t:a}k"]).await.unwrap();
    server.reset_stats().await.unwrap();
    for _ in 0..3 {
        client.command(&["GET", "{t:a}k"]).await.unwrap();
    }
    client.command(&["SCRIPT", "LOAD", "return 1"]).await.unwrap();
    let stats = server.command_stats().await.unwrap();
    assert_eq!((stats["get"], stats["script|load"]), (3, 1));
}

#[tokio::test]
async fn flushed_script_is_unknown() {
    let server = RedisServer::start().await.unwrap();
    let mut client = server.connect().await.unwrap();
    let sha = client.command(&["SCRIPT", "LOAD", "return 1"]).await.unwrap();
    let call = ["EVALSHA", sha.as_str().unwrap(), "0"];
    assert_eq!(client.command(&call).await.unwrap(), Reply::Integer(1));
    server.script_flush().await.unwrap();
    assert!(refusal(client.command(&call).await).starts_with("NOSCRIPT"));
}

#[tokio::test]
async fn config_lines_reach_the_server_and_can_be_changed() {
    let server = RedisServer::builder()
        .config("maxmemory", "64mb")
        .config("maxmemory-policy", "noeviction")
        .start()
        .await
        .unwrap();
    assert_eq!(server.info("memory").await.unwrap()["maxmemory"], "67108864");
    server.config_set("maxmemory", "1").await.unwrap();
    let mut client = server.connect().await.unwrap();
    assert!(refusal(client.command(&["SET", "{t:a}k", "v"]).await).starts_with("OOM"));
}

#[tokio::test]
async fn wrong_config_line_is_an_error_that_shows_why() {
    let error = RedisServer::builder().config("maxmemory-policy", "no-such").start().await;
    let error = error.unwrap_err();
    assert!(matches!(error, SpawnError::Exited { .. }), "{error:?}");
    assert!(error.to_string().contains("maxmemory-policy"), "{error}");
}

#[tokio::test]
async fn port_of_another_server_is_an_error() {
    let server = RedisServer::start().await.unwrap();
    let error = RedisServer::builder().port(server.port()).start().await.unwrap_err();
    assert!(matches!(error, SpawnError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn debug_output_holds_no_password() {
    let server = RedisServer::start().await.unwrap();
    assert!(!format!("{server:?}").contains(server.password()));
}

#[tokio::test]
async fn restart_from_a_copy_loses_what_was_written_since_and_an_empty_one_loses_all() {
    let server = RedisServer::builder().append_only().start().await.unwrap();
    assert!(server.restart_from_copy().await.is_err(), "nothing was copied");
    server.restart().await.unwrap();
    set(&server, "{t:a}old", "1").await;
    server.copy_data().unwrap();
    set(&server, "{t:a}new", "1").await;
    server.restart_from_copy().await.unwrap();
    assert_eq!(get(&server, "{t:a}old").await.as_str(), Some("1"));
    assert_eq!(get(&server, "{t:a}new").await, Reply::Nil);
    server.restart_empty().await.unwrap();
    assert_eq!(get(&server, "{t:a}old").await, Reply::Nil);
}
