//! Sessions over HTTP: alone, and over three nodes on one real Redis.

mod common;

use std::time::{Duration, Instant};

use common::{Node, SOON};
use fleetwide_testkit::{RedisServer, eventually};
use hyper::Method;
use serde_json::{Value, json};

/// The default of `CACHE_STALENESS_MS`.
const STALENESS_BOUND: Duration = Duration::from_secs(1);

async fn fleet(vars: &[(&str, &str)]) -> (RedisServer, [Node; 3]) {
    let redis = RedisServer::start().await.unwrap();
    let fleet = Node::fleet(&redis.url(), vars).await;
    (redis, fleet)
}

/// Stores a node and returns its short id, which stands in the body and in a header.
async fn put(node: &Node, path: &str, body: &str) -> String {
    let reply = node.put(path, body.to_owned()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let id = reply.json()["short_id"].as_str().expect("Redis gave an id").to_owned();
    assert_eq!(reply.header("x-short-id"), id);
    id
}

fn data(event: &common::Event) -> (String, Value) {
    (event.name.clone(), serde_json::from_str(&event.data).expect("JSON"))
}

#[tokio::test]
async fn node_of_a_session_is_read_by_key_and_by_short_id_on_any_instance() {
    let (_redis, [a, b, c]) = fleet(&[]).await;
    let id = put(&a, "/sessions/alice/nodes/plan", "buy milk").await;
    assert_eq!(put(&c, "/sessions/alice/nodes/plan", "buy tea").await, id);
    for path in [
        "/sessions/alice/nodes/plan".to_owned(),
        format!("/sessions/alice/nodes?short={id}"),
        format!("/nodes/{id}"),
        format!("/nodes/{}", id.to_uppercase()),
    ] {
        let reply = b.get(&path).await;
        assert_eq!((reply.status, reply.text()), (200, "buy tea"), "{path}");
        assert_eq!(reply.header("x-short-id"), id);
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        assert_eq!(reply.header("x-cache-freshness"), "verified");
        assert!(
            ["l1", "l2"].contains(&reply.header("x-cache-tier")) && !reply.header("age").is_empty()
        );
    }
    for path in [
        "/sessions/bob/nodes/plan".to_owned(),
        format!("/sessions/bob/nodes?short={id}"),
        "/nodes/00000000".to_owned(),
    ] {
        assert_eq!(b.get(&path).await.problem(404)["reason"], "absent", "{path}");
    }
    assert_eq!(b.delete("/sessions/alice/nodes/plan").await.status, 204);
    let gone = async || a.get(&format!("/nodes/{id}")).await.status == 404;
    eventually(SOON, "the removal", gone).await;
}

#[tokio::test]
async fn ended_session_is_gone_on_all_nodes_within_the_staleness_bound() {
    // An hour in L1: only the end of the session can bring the change round.
    let (_redis, [a, b, c]) = fleet(&[("CACHE_L1_TTL_MS", "3600000")]).await;
    let id = put(&a, "/sessions/ends/nodes/x", "1").await;
    put(&a, "/sessions/stays/nodes/x", "1").await;
    put(&a, "/sessions/refers/nodes/x?ignored=1", "1").await;
    let made = b.put(&format!("/sessions/refers/nodes/r?ref={id}"), "").await;
    assert_eq!(made.status, 200, "{made:?}");
    for node in [&a, &b, &c] {
        assert_eq!(node.get("/sessions/ends/nodes/x").await.status, 200);
        let shown = node.get("/sessions/refers/nodes/r").await;
        assert_eq!((shown.text(), shown.header("x-reference-to")), ("1", &*id));
    }
    assert_eq!(b.delete("/sessions/ends").await.status, 204);
    let ended = Instant::now();
    for node in [&a, &b, &c] {
        let gone = async || {
            let bound_is_over = ended.elapsed() > STALENESS_BOUND;
            let read = node.get("/sessions/ends/nodes/x").await;
            let vouched_for = read.header("x-cache-freshness") == "verified";
            assert!(read.status == 404 || !bound_is_over || !vouched_for, "{read:?}");
            read.status == 404
        };
        eventually(SOON, "the end of the session", gone).await;
        assert_eq!(node.get(&format!("/nodes/{id}")).await.status, 404);
        assert_eq!(node.get("/sessions/stays/nodes/x").await.status, 200);
        let dangling = node.get("/sessions/refers/nodes/r").await.problem(404);
        assert_eq!(
            (&dangling["reason"], &dangling["reference_to"]),
            (&json!("dangling"), &json!(id))
        );
    }
}

#[tokio::test]
async fn events_of_a_session_are_heard_on_all_nodes_in_their_order() {
    let (_redis, [a, b, c]) = fleet(&[]).await;
    let mut streams = Vec::new();
    for node in [&a, &b, &c] {
        streams.push(node.listen_to("/sessions/s/events").await);
    }
    let id = put(&a, "/sessions/s/nodes/x", "1").await;
    put(&a, "/sessions/other/nodes/x", "1").await;
    put(&b, "/sessions/s/nodes/tagged?tags=red", "1").await;
    assert_eq!(c.delete("/sessions/s/nodes/x").await.status, 204);
    assert_eq!(a.delete("/nodes/tags/red").await.status, 204);
    assert_eq!(b.delete("/sessions/s").await.status, 204);
    for stream in &mut streams {
        let about_x = json!({ "key": "x", "short_id": id });
        assert_eq!(data(&stream.next().await.unwrap()), ("put".to_owned(), about_x.clone()));
        let (name, about) = data(&stream.next().await.unwrap());
        assert_eq!((&*name, &about["key"]), ("put", &json!("tagged")));
        assert_eq!(data(&stream.next().await.unwrap()), ("removed".to_owned(), about_x));
        let told = data(&stream.next().await.unwrap());
        assert_eq!(told, ("tag-removed".to_owned(), json!({ "tag": "red" })));
        assert_eq!(data(&stream.next().await.unwrap()), ("ended".to_owned(), json!({})));
    }
    assert_eq!(a.get("/sessions/s/nodes/tagged").await.status, 404);
}

#[tokio::test]
async fn history_that_is_lost_is_a_gap_for_who_watches_a_session() {
    let redis = RedisServer::start().await.unwrap();
    let node = Node::start(&[("REDIS_URL", &redis.url())]).await;
    node.until_ready(200).await;
    let mut events = node.listen_to("/sessions/s/events").await;
    put(&node, "/sessions/s/nodes/x", "1").await;
    assert_eq!(events.next().await.unwrap().name, "put");
    redis.kill();
    let queued = node.put("/sessions/s/nodes/x", "2").await;
    assert_eq!(queued.status, 202, "{queued:?}");
    assert!(["queued", "unknown"].contains(&queued.json()["outcome"].as_str().unwrap()));
    assert_eq!(node.get("/sessions/s/nodes/x").await.text(), "2");
    node.get("/nodes/00000000").await.problem(503);
    assert_eq!(node.delete("/sessions/s").await.status, 202);
    redis.restart().await.unwrap();
    let gap = events.next().await.unwrap();
    assert_eq!((&*gap.name, &*gap.data), ("gap", r#"{"reason":"reset"}"#));
}

#[tokio::test]
async fn stream_that_begins_while_redis_is_away_says_so() {
    let redis = RedisServer::start().await.unwrap();
    redis.kill();
    let node = Node::start(&[("REDIS_URL", &redis.url())]).await;
    let mut events = node.listen_to("/sessions/s/events").await;
    let first = events.next().await.unwrap();
    assert_eq!((&*first.name, &*first.data), ("gap", r#"{"reason":"not-followed"}"#));
    redis.restart().await.unwrap();
    // Told again where following begins: what was done until then is inside the gap.
    assert_eq!(events.next().await.unwrap().data, r#"{"reason":"not-followed"}"#);
    put(&node, "/sessions/s/nodes/x", "1").await;
    assert_eq!(events.next().await.unwrap().name, "put");
}

#[tokio::test]
async fn session_says_how_it_fares() {
    let node = Node::start(&[]).await;
    node.get("/sessions/s").await.problem(404);
    put(&node, "/sessions/s/nodes/x", "1").await;
    for _ in 0..3 {
        node.get("/sessions/s/nodes/x").await;
    }
    node.get("/sessions/s/nodes/none").await;
    let stats = node.get("/sessions/s").await.json();
    assert_eq!(stats["session"], "s");
    assert_eq!((&stats["hits"], &stats["misses"]), (&json!(3), &json!(1)));
    assert_eq!(stats["hit_ratio"], json!(0.75));
    let metrics = node.get("/metrics").await;
    assert!(metrics.text().contains("fleetwide_session_hits_total{sessions=\"node\"} 3"));
    assert!(metrics.text().contains("fleetwide_sessions_active{sessions=\"node\"} 1"));
    assert!(!metrics.text().contains("sessions=\"s\""), "no series for each session");
}

/// The same requests, alone in memory and over Redis.
#[tokio::test]
async fn node_alone_answers_as_one_of_a_fleet_does() {
    let redis = RedisServer::start().await.unwrap();
    let shared = Node::start(&[("REDIS_URL", &redis.url())]).await;
    shared.until_ready(200).await;
    let alone = Node::start(&[]).await;
    let mut transcripts = Vec::new();
    for node in [&shared, &alone] {
        let mut events = node.listen_to("/sessions/s/events").await;
        let id = put(node, "/sessions/s/nodes/x", "1").await;
        let mut said = vec![id.clone()];
        for (method, path) in [
            (Method::PUT, format!("/sessions/t/nodes/r?ref={id}")),
            (Method::GET, "/sessions/t/nodes/r".to_owned()),
            (Method::GET, format!("/nodes/{id}")),
            (Method::DELETE, "/sessions/s".to_owned()),
            (Method::GET, "/sessions/t/nodes/r".to_owned()),
            (Method::GET, format!("/nodes/{id}")),
        ] {
            let reply = node.send(method, &path, &[], "").await;
            said.push(format!("{path}: {} {}", reply.status, reply.text()));
        }
        for _ in 0..2 {
            said.push(format!("{:?}", events.next().await));
        }
        transcripts.push(said);
    }
    assert_eq!(transcripts[0], transcripts[1], "left is over Redis");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let node = Node::start(&[]).await;
    let (long, longer) = ("s".repeat(257), "k".repeat(513));
    for path in [
        format!("/sessions/{long}/nodes/k"),
        format!("/sessions/s/nodes/{longer}"),
        format!("/sessions/{longer}/nodes/k"),
        "/sessions/s/nodes/".to_owned(),
        "/sessions/s/nodes/%FF".to_owned(),
        "/sessions/%FF/nodes/k".to_owned(),
    ] {
        node.put(&path, "v").await.problem(400);
        node.get(&path).await.problem(400);
    }
    for path in [
        "/sessions/s/nodes/k?ttl_ms=0",
        "/sessions/s/nodes/k?tags=,",
        "/sessions/s/nodes/k?ref=nonsense",
        "/sessions/s/nodes/k?ref=00000000",
    ] {
        node.put(path, "v").await.problem(400);
    }
    node.put("/sessions/s/nodes/k?ref=00000000", "").await.problem(404);
    let id = put(&node, "/sessions/s/nodes/k", "v").await;
    node.put(&format!("/sessions/s/nodes/k?ref={id}"), "").await.problem(400);
    node.put("/sessions/s/nodes/k", vec![0; 1024 * 1024 + 1]).await.problem(413);
    for path in ["/nodes/short", "/nodes/0000000u", "/nodes/", "/sessions/s/nodes", "/sessions/"] {
        node.get(path).await.problem(400);
    }
    node.get("/sessions/s/nodes?short=").await.problem(400);
    node.delete("/sessions/").await.problem(400);
    node.delete(&format!("/sessions/{long}")).await.problem(400);
    node.get(&format!("/sessions/{long}/events")).await.problem(400);
    node.post("/sessions/s/nodes/k", "v").await.problem(405);
    assert_eq!(node.get("/sessions/s/nodes/k").await.text(), "v", "nothing of it was done");
}
