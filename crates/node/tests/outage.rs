//! Redis slow, gone and back, seen from outside: every answer in time, none of them false.

mod common;

use std::time::Duration;

use common::{Node, Reply, SOON};
use fleetwide_testkit::{RedisServer, eventually};
use futures_util::future::join_all;
use hyper::Method;

/// No answer may take longer, whatever Redis does.
const BOUND: Duration = Duration::from_secs(3);

/// Asks for everything a node can do, at once, and checks what it says without Redis.
async fn answers_without_redis(node: &Node) {
    let all = [
        (Method::GET, "/live", &[200][..]),
        (Method::GET, "/metrics", &[200]),
        (Method::GET, "/health/redis", &[200]),
        (Method::GET, "/cache/held", &[200]),
        (Method::GET, "/cache/not-held", &[404]),
        (Method::GET, "/load/held", &[200]),
        (Method::GET, "/load/not-held", &[200]),
        (Method::PUT, "/cache/new", &[202]),
        (Method::DELETE, "/cache/gone", &[202]),
        (Method::PUT, "/source/new", &[503]),
        (Method::POST, "/events/outage", &[202]),
        (Method::GET, "/limited", &[200]),
    ];
    let asked = all.iter().map(|(method, path, _)| node.send(method.clone(), path, &[], "x"));
    for ((method, path, expected), reply) in all.iter().zip(join_all(asked).await) {
        assert!(expected.contains(&reply.status), "{method} {path}: {reply:?}");
        assert!(reply.took < BOUND, "{method} {path}: {reply:?}");
        if reply.status == 202 {
            let outcome = reply.json()["outcome"].clone();
            assert!(outcome == "queued" || outcome == "unknown", "{method} {path}: {outcome}");
        }
    }
}

async fn hold_something(nodes: &[Node]) {
    for node in nodes {
        let set = async || {
            node.put("/cache/held", "value").await.status == 204
                && node.put("/source/held", "value").await.status == 204
        };
        eventually(SOON, "the writes to be confirmed", set).await;
    }
    for node in nodes {
        let held = async || {
            node.get("/cache/held").await.header("x-cache-tier") == "l1"
                && node.get("/load/held").await.header("x-cache-tier") == "l1"
        };
        eventually(SOON, "the values to be held", held).await;
        assert_eq!(node.get("/load/held").await.json()["value"], "value");
    }
}

/// Values stay in L1 for the whole test.
const HELD: [(&str, &str); 1] = [("CACHE_L1_TTL_MS", "3600000")];

#[tokio::test]
async fn fleet_answers_while_redis_is_killed_and_shares_again_when_it_is_back() {
    let redis = RedisServer::start().await.unwrap();
    let nodes = Node::fleet(&redis.url(), &HELD).await;
    hold_something(&nodes).await;
    redis.kill();
    join_all(nodes.iter().map(answers_without_redis)).await;
    for node in &nodes {
        node.until_ready(503).await;
        let health = node.get("/health/redis").await.json();
        assert_eq!(health["state"], "down");
        answers_without_redis(node).await;
    }
    redis.restart().await.unwrap();
    for node in &nodes {
        node.until_ready(200).await;
    }
    shares(&nodes).await;
}

#[tokio::test]
async fn fleet_answers_while_redis_is_frozen_and_shares_again_when_it_goes_on() {
    let redis = RedisServer::start().await.unwrap();
    let nodes = Node::fleet(&redis.url(), &HELD).await;
    hold_something(&nodes).await;
    redis.stop();
    join_all(nodes.iter().map(answers_without_redis)).await;
    for node in &nodes {
        node.until_ready(503).await;
        answers_without_redis(node).await;
    }
    redis.cont();
    for node in &nodes {
        node.until_ready(200).await;
    }
    shares(&nodes).await;
}

/// Whether a write, a change, an event and a limit cross nodes.
async fn shares([a, b, c]: &[Node; 3]) {
    let stored = async || a.put("/cache/shared", "1").await.status == 204;
    eventually(SOON, "a write to be confirmed", stored).await;
    let read = async || b.get("/cache/shared").await.body == "1";
    eventually(SOON, "the value on another node", read).await;
    assert_eq!(a.put("/cache/shared", "2").await.status, 204);
    let seen = async || b.get("/cache/shared").await.body == "2";
    eventually(SOON, "the change on another node", seen).await;
    let mut events = c.listen("back").await;
    assert!([202, 204].contains(&a.post("/events/back", "again").await.status));
    loop {
        let event = events.next().await.expect("the stream goes on");
        if event.data == "again" {
            break;
        }
    }
    let shared = async || limited(a).await.header("x-ratelimit-source") == "shared";
    eventually(SOON, "the limiter to share again", shared).await;
}

async fn limited(node: &Node) -> Reply {
    node.send(Method::GET, "/limited", &[("X-Tenant-Id", "after")], "").await
}

#[tokio::test]
async fn delete_during_an_outage_reaches_every_node_when_redis_is_back() {
    let redis = RedisServer::builder().append_only().start().await.unwrap();
    let nodes = Node::fleet(&redis.url(), &HELD).await;
    let [a, b, _] = &nodes;
    hold_something(&nodes).await;
    redis.kill();
    let deleted = a.delete("/cache/held").await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    assert_eq!(a.get("/cache/held").await.status, 404, "the node that deleted it knows");
    redis.restart().await.unwrap();
    let gone = async || b.get("/cache/held").await.status == 404;
    eventually(SOON, "the delete on another node", gone).await;
    assert_eq!(a.get("/cache/held").await.status, 404);
}

#[tokio::test]
async fn rung_of_the_limiter_is_the_chosen_one() {
    for (rung, status, source) in [("allow", 200, "open"), ("deny", 429, "closed")] {
        let redis = RedisServer::start().await.unwrap();
        redis.kill();
        let vars = [("REDIS_URL", &*redis.url()), ("RATE_LIMIT_ON_UNAVAILABLE", rung)];
        let node = Node::start(&vars).await;
        for _ in 0..5 {
            let reply = limited(&node).await;
            assert_eq!((reply.status, reply.header("x-ratelimit-source")), (status, source));
            assert!(reply.took < BOUND);
            assert_eq!(reply.header("retry-after").is_empty(), status == 200);
        }
    }
}

#[tokio::test]
async fn instances_admit_their_share_while_redis_is_away() {
    let redis = RedisServer::start().await.unwrap();
    redis.kill();
    let url = redis.url();
    let vars = [
        ("REDIS_URL", url.as_str()),
        ("RATE_LIMIT_MAX", "30"),
        ("RATE_LIMIT_WINDOW", "3600000"),
        ("FLEETWIDE_INSTANCES", "3"),
    ];
    let node = Node::start(&vars).await;
    let mut admitted = 0;
    for _ in 0..40 {
        admitted += u32::from(limited(&node).await.status == 200);
    }
    assert_eq!(admitted, 10);
}

#[tokio::test]
async fn role_with_a_redis_of_its_own_is_not_touched_by_the_outage_of_another() {
    let cache = RedisServer::start().await.unwrap();
    let limiter = RedisServer::start().await.unwrap();
    let (cache_url, limiter_url) = (cache.url(), limiter.url());
    let vars = [
        ("FLEETWIDE_CACHE_URL", cache_url.as_str()),
        ("FLEETWIDE_EVENTS_URL", limiter_url.as_str()),
        ("FLEETWIDE_LIMITER_URL", limiter_url.as_str()),
    ];
    let [a, b] = [Node::start(&vars).await, Node::start(&vars).await];
    a.until_ready(200).await;
    b.until_ready(200).await;
    cache.kill();
    a.until_ready(503).await;
    let health = a.get("/health/redis").await.json();
    assert_eq!(health["roles"]["cache"]["state"], "down");
    assert_eq!(health["roles"]["limiter"]["state"], "up");
    assert_eq!(limited(&a).await.header("x-ratelimit-source"), "shared");
    let mut events = b.listen("roles").await;
    assert_eq!(a.post("/events/roles", "still here").await.status, 204);
    assert_eq!(events.next().await.unwrap().data, "still here");
    assert_eq!(a.put("/cache/a", "1").await.status, 202);
}

#[tokio::test]
async fn hit_says_unverified_once_nothing_has_vouched_for_it_for_the_staleness_bound() {
    let redis = RedisServer::start().await.unwrap();
    let vars = [("REDIS_URL", &*redis.url()), ("CACHE_L1_TTL_MS", "3600000")];
    let node = Node::start(&vars).await;
    node.until_ready(200).await;
    node.put("/cache/held", "value").await;
    let says = async |freshness: &str| {
        let read = node.get("/cache/held").await;
        assert_eq!(read.text(), "value");
        read.header("x-cache-freshness") == freshness
    };
    eventually(SOON, "a verified hit", async || says("verified").await).await;
    redis.stop();
    eventually(SOON, "an unverified hit", async || says("unverified").await).await;
    redis.cont();
    eventually(SOON, "a verified hit again", async || says("verified").await).await;
}

#[tokio::test]
async fn event_stream_that_is_open_over_a_loss_of_data_says_so_and_goes_on() {
    let redis = RedisServer::start().await.unwrap();
    let [a, b, _c] = Node::fleet(&redis.url(), &[]).await;
    let mut events = b.listen("news").await;
    assert_eq!(a.post("/events/news", "before").await.status, 204);
    assert_eq!(events.next().await.unwrap().data, "before");
    redis.restart().await.unwrap();
    let gap = events.next().await.unwrap();
    assert_eq!((gap.name.as_str(), gap.data.as_str()), ("gap", r#"{"reason":"reset"}"#));
    a.until_ready(200).await;
    assert!([202, 204].contains(&a.post("/events/news", "after").await.status));
    assert_eq!(events.next().await.unwrap().data, "after");
}
