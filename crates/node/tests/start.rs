//! How a node starts, how it does not, and how it ends.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Node, SOON, command, refused};
use fleetwide_testkit::{RedisServer, Reply, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[tokio::test]
async fn wrong_setting_ends_the_start_with_code_2_and_one_line_that_names_it() {
    for (name, value, takes) in [
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("PORT", "http", "a whole number from 0 to 65535"),
        ("BIND", "localhost", "an IP address"),
        ("REDIS_URL", "http://:hunter2@host", "a Redis URL"),
        ("REDIS_URL", "redis://:hunter2@host:port", "a Redis URL"),
        ("FLEETWIDE_CACHE_URL", "hunter2", "a Redis URL"),
        ("FLEETWIDE_EVENTS_URL", "hunter2", "a Redis URL"),
        ("FLEETWIDE_LIMITER_URL", "hunter2", "a Redis URL"),
        ("FLEETWIDE_BREAKER_URL", "hunter2", "a Redis URL"),
        ("FLEETWIDE_LOCK_URLS", "redis://a,hunter2://b", "a Redis URL"),
        ("FLEETWIDE_NAMESPACE", "a:b", "1 to 64 ASCII letters"),
        ("FLEETWIDE_INSTANCES", "0", "a whole number from 1"),
        ("RATE_LIMIT_MAX", "0", "a whole number from 1"),
        ("RATE_LIMIT_MAX", "-5", "a whole number from 1"),
        ("RATE_LIMIT_MAX", "4294967296", "a whole number from 1 to 4294967295"),
        ("RATE_LIMIT_WINDOW", "0", "a whole number from 1"),
        ("RATE_LIMIT_WINDOW", "1m", "a whole number from 1"),
        ("RATE_LIMIT_ALGORITHM", "leaky", "`sliding-window`, `gcra`, `token-bucket`"),
        ("RATE_LIMIT_TRUSTED_PROXIES", "10.0.0.0/8,hunter2", "networks of proxies, such as"),
        ("RATE_LIMIT_TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.1/8", "entry 2 has bits beyond"),
        ("RATE_LIMIT_TRUSTED_PROXIES", "0.0.0.0/0", "entry 1 is everyone"),
        ("RATE_LIMIT_TRUSTED_PROXIES", ",", "entry 1 is neither a network nor an address"),
        ("RATE_LIMIT_ON_UNAVAILABLE", "maybe", "one of `allow`, `deny`, `local-share`"),
        ("CACHE_TTL_MS", "0", "a whole number from 1"),
        ("CACHE_TTL_MS", "99999999999999999999", "a whole number from 1"),
        ("CACHE_L1_TTL_MS", "soon", "a whole number from 1"),
        ("CACHE_STALENESS_MS", "0", "a whole number from 1"),
        ("UPSTREAM_URL", "ftp://host", "an `http://` URL"),
        ("LOG_FORMAT", "xml", "one of `text`, `json`"),
        ("REDIS_PASSWORD", "hunter2", "REDIS_HOST takes a host name: REDIS_PASSWORD is set"),
    ] {
        let (code, said) = refused(&[(name, value)]).await;
        assert_eq!(code, Some(2), "{name}={value}: {said}");
        assert!(said.contains(name) && said.contains(takes), "{name}={value}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn topology_that_cannot_be_spoken_to_is_a_wrong_setting_too() {
    for url in ["rediss://:hunter2@host", "redis+cluster://:hunter2@a,b"] {
        let (code, said) = refused(&[("REDIS_URL", url)]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("REDIS_URL") && said.contains("not supported yet"), "{said}");
        assert!(!said.contains("hunter2") && said.lines().count() == 1, "{said}");
    }
}

#[tokio::test]
async fn rate_that_does_not_fit_the_algorithm_is_a_wrong_setting() {
    let vars = [
        ("RATE_LIMIT_ALGORITHM", "gcra"),
        ("RATE_LIMIT_MAX", "700000"),
        ("RATE_LIMIT_WINDOW", "1000"),
    ];
    let (code, said) = refused(&vars).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("RATE_LIMIT_MAX") && said.contains("too fine"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn maximum_that_is_too_long_for_a_log_is_told_with_the_algorithm_that_takes_it() {
    let vars = [("RATE_LIMIT_ALGORITHM", "sliding-log"), ("RATE_LIMIT_MAX", "129")];
    let (code, said) = refused(&vars).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("RATE_LIMIT_MAX takes at most 128"), "{said}");
    assert!(said.contains("above it take `sliding-window`"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let most = [("RATE_LIMIT_ALGORITHM", "sliding-log"), ("RATE_LIMIT_MAX", "128")];
    assert_eq!(Node::start(&most).await.get("/limited?cost=128").await.status, 200);
}

#[tokio::test]
async fn port_that_is_taken_ends_the_start_with_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = refused(&[("PORT", &port)]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot listen on"), "{said}");
}

#[tokio::test]
async fn empty_settings_count_as_not_set() {
    let node = Node::start(&[("REDIS_URL", ""), ("REDIS_HOST", ""), ("CACHE_TTL_MS", "")]).await;
    let ready = node.get("/ready").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json(), serde_json::json!({ "ready": true, "mode": "memory" }));
}

#[tokio::test]
async fn both_signals_end_a_node_with_code_0_although_an_event_stream_is_open() {
    for signal in ["-TERM", "-INT"] {
        let node = Node::start(&[]).await;
        let mut events = node.listen("a").await;
        node.signal(signal);
        let asked = Instant::now();
        assert_eq!(events.next().await, None, "the stream ends");
        assert_eq!(node.ended().await.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn request_that_runs_when_the_signal_comes_is_answered() {
    let node = Node::start(&[]).await;
    let running = async {
        let slow = node.get("/load/slow?delay_ms=1000");
        let stop = async {
            // The loader counts before it waits, so the request is in the middle by then.
            let begun = async || {
                node.get("/metrics").await.text().contains("/load/{key}")
                    || node.get("/health/redis").await.json()["cache"]["misses"] == 1
            };
            eventually(SOON, "the load to begin", begun).await;
            node.signal("-TERM");
        };
        tokio::join!(slow, stop).0
    };
    assert_eq!(running.await.status, 200);
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn node_starts_without_its_redis_and_joins_when_it_comes() {
    let redis = RedisServer::start().await.unwrap();
    redis.kill();
    let node = Node::start(&[("REDIS_URL", &redis.url())]).await;
    assert_eq!(node.get("/live").await.status, 200);
    let problem = node.get("/ready").await.problem(503);
    assert_eq!(problem["mode"], "redis");
    assert!(problem["reason"].as_str().is_some_and(|reason| !reason.contains(redis.password())));
    redis.restart().await.unwrap();
    node.until_ready(200).await;
    assert_eq!(node.put("/cache/a", "1").await.status, 204);
}

#[tokio::test]
async fn log_is_json_where_asked_and_never_on_stdout() {
    let mut child = command(&[("LOG_FORMAT", "json"), ("RUST_LOG", "info")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    timeout(SOON, stdout.read_line(&mut line)).await.unwrap().unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
    let stderr = child.stderr.take().unwrap();
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
    let log = common::rest(stderr).await;
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    assert_eq!(common::rest(stdout).await, "", "stdout has one line only");
}

#[tokio::test]
async fn connection_that_nobody_uses_does_not_hold_up_the_end() {
    let node = Node::start(&[]).await;
    let idle = TcpStream::connect(node.address).await.unwrap();
    assert_eq!(node.get("/live").await.status, 200);
    node.signal("-TERM");
    let asked = Instant::now();
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    drop(idle);
}

/// The node takes the layout of its caches for a setting: it does not start beside nodes that have
/// another. Red when it only looked whether the server is there.
#[tokio::test]
async fn a_node_does_not_start_beside_nodes_that_lay_out_a_cache_in_another_way() {
    let server = RedisServer::start().await.unwrap();
    let url = server.url();
    let vars = [("REDIS_URL", url.as_str())];
    let first = Node::start(&vars).await;
    first.until_ready(200).await;
    let records = || async {
        let Ok(Reply::Array(keys)) = server.admin(&["KEYS", "*}:layout"]).await else {
            panic!("the server lists its keys")
        };
        keys
    };
    eventually(SOON, "the caches are written down", async || !records().await.is_empty()).await;
    drop(first);
    for key in records().await {
        let Reply::Bulk(key) = key else { panic!("{key:?}") };
        // Alive for as long as anybody can be: further off counts as that.
        let record =
            [&[0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], b"log 2, keys 9"].concat();
        server.admin(&[b"SET".as_slice(), &key, &record]).await.unwrap();
    }
    let (code, said) = refused(&vars).await;
    assert_eq!(code, Some(2), "{said}");
    // What it lets go of may have the last word in the log.
    let why = said.lines().find(|line| line.starts_with("fleetwide-node: cache `"));
    let why = why.unwrap_or_else(|| panic!("{said}"));
    assert!(why.contains("[log 2, keys 9]") && why.contains("[log 1, shards 1"), "{said}");
}
