//! Three nodes on one real Redis are one service.

mod common;

use std::time::{Duration, Instant};

use common::{Node, SOON};
use fleetwide_testkit::{RedisServer, eventually, unique_namespace};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use hyper::Method;
use serde_json::json;

/// The default of `CACHE_STALENESS_MS`.
const STALENESS_BOUND: Duration = Duration::from_secs(1);

async fn fleet(vars: &[(&str, &str)]) -> (RedisServer, [Node; 3]) {
    let redis = RedisServer::start().await.unwrap();
    let fleet = Node::fleet(&redis.url(), vars).await;
    (redis, fleet)
}

#[tokio::test]
async fn value_written_on_one_node_is_read_on_another() {
    let (_redis, [a, b, c]) = fleet(&[]).await;
    assert_eq!(a.get("/ready").await.json()["mode"], "redis");
    assert_eq!(a.put("/cache/greeting", "hello").await.status, 204);
    for node in [&b, &c] {
        let first = node.get("/cache/greeting").await;
        assert_eq!((first.text(), first.header("x-cache-tier")), ("hello", "l2"));
        let again = node.get("/cache/greeting").await;
        assert_eq!((again.text(), again.header("x-cache-tier")), ("hello", "l1"));
    }
}

#[tokio::test]
async fn change_on_one_node_is_seen_on_all_within_the_staleness_bound() {
    // An hour in L1: only the invalidation can bring the change round.
    let (_redis, [a, b, c]) = fleet(&[("CACHE_L1_TTL_MS", "3600000")]).await;
    for round in 0..5 {
        let key = format!("/cache/k{round}");
        a.put(&key, "old").await;
        for node in [&b, &c] {
            assert_eq!(node.get(&key).await.text(), "old");
        }
        let changed = if round % 2 == 0 { a.put(&key, "new").await } else { a.delete(&key).await };
        assert_eq!(changed.status, 204);
        let written = Instant::now();
        for node in [&a, &b, &c] {
            let current = async || {
                let bound_is_over = written.elapsed() > STALENESS_BOUND;
                let read = node.get(&key).await;
                let new = if round % 2 == 0 { read.text() == "new" } else { read.status == 404 };
                let vouched_for = read.header("x-cache-freshness") == "verified";
                assert!(new || !bound_is_over || !vouched_for, "older than allowed: {read:?}");
                new
            };
            eventually(SOON, "the change", current).await;
        }
    }
}

#[tokio::test]
async fn clear_on_one_node_clears_all() {
    let (_redis, [a, b, c]) = fleet(&[("CACHE_L1_TTL_MS", "3600000")]).await;
    for key in ["/cache/x", "/cache/y"] {
        a.put(key, "1").await;
        b.get(key).await;
        c.get(key).await;
    }
    assert_eq!(b.delete("/cache").await.status, 204);
    for node in [&a, &b, &c] {
        for key in ["/cache/x", "/cache/y"] {
            let gone = async || node.get(key).await.status == 404;
            eventually(SOON, "the clear", gone).await;
        }
    }
}

#[tokio::test]
async fn tag_is_invalidated_on_all_nodes() {
    let (_redis, [a, b, c]) = fleet(&[("CACHE_L1_TTL_MS", "3600000")]).await;
    a.put("/cache/x?tags=red", "1").await;
    a.put("/cache/y?tags=blue", "1").await;
    for node in [&b, &c] {
        assert_eq!(node.get("/cache/x").await.status, 200);
        assert_eq!(node.get("/cache/y").await.status, 200);
    }
    assert_eq!(b.delete("/cache/tags/red").await.status, 204);
    for node in [&a, &b, &c] {
        let gone = async || node.get("/cache/x").await.status == 404;
        eventually(SOON, "the bump", gone).await;
        assert_eq!(node.get("/cache/y").await.status, 200);
    }
}

#[tokio::test]
async fn requests_over_all_nodes_admit_exactly_the_limit() {
    for algorithm in ["sliding-window", "gcra", "token-bucket", "fixed-window", "sliding-log"] {
        let vars = [
            ("RATE_LIMIT_ALGORITHM", algorithm),
            ("RATE_LIMIT_MAX", "100"),
            // 30 days, so that no cell comes back however slow the machine is, and no fixed window
            // ends meanwhile.
            ("RATE_LIMIT_WINDOW", "2592000000"),
        ];
        let (_redis, nodes) = fleet(&vars).await;
        let tenant = [("X-Tenant-Id", "crowd")];
        let asked = (0..300).map(|at| nodes[at % 3].send(Method::GET, "/limited", &tenant, ""));
        // A few callers at a time: a machine on its knees would miss deadlines, and then a rung
        // answers that is not the subject here.
        let replies: Vec<_> = stream::iter(asked).buffer_unordered(12).collect().await;
        let with = |status| replies.iter().filter(|reply| reply.status == status).count();
        assert_eq!((with(200), with(429)), (100, 200), "{algorithm}");
    }
}

#[tokio::test]
async fn crowd_over_all_nodes_causes_one_load() {
    let (_redis, nodes) = fleet(&[]).await;
    let replies = join_all((0..30).map(|at| nodes[at % 3].get("/load/report?delay_ms=300"))).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    let mut loads = 0;
    for node in &nodes {
        loads += node.get("/load/report").await.json()["loads"].as_u64().unwrap();
    }
    assert_eq!(loads, 1);
}

#[tokio::test]
async fn source_is_shared_and_its_change_reaches_every_cache() {
    let (_redis, [a, b, c]) = fleet(&[("CACHE_L1_TTL_MS", "3600000")]).await;
    a.put("/source/price", "10").await;
    for node in [&a, &b, &c] {
        assert_eq!(node.get("/load/price").await.json()["value"], "10");
    }
    assert_eq!(c.put("/source/price", "11").await.status, 204);
    for node in [&a, &b, &c] {
        let current = async || node.get("/load/price").await.json()["value"] == "11";
        eventually(SOON, "the new price", current).await;
    }
}

#[tokio::test]
async fn event_is_heard_on_all_nodes_in_the_order_of_publishing() {
    let (_redis, [a, b, c]) = fleet(&[]).await;
    let mut streams =
        [a.listen("news:*").await, b.listen("news:*").await, c.listen("news:*").await];
    for number in 0..20 {
        assert_eq!(a.post("/events/news:tech", number.to_string()).await.status, 204);
    }
    for events in &mut streams {
        for number in 0..20 {
            assert_eq!(events.next().await.unwrap().data, number.to_string());
        }
    }
}

#[tokio::test]
async fn fleets_with_different_namespaces_do_not_meet() {
    let redis = RedisServer::start().await.unwrap();
    let url = redis.url();
    let (one, other) = (unique_namespace(), unique_namespace());
    let vars = |namespace| [("REDIS_URL", url.as_str()), ("FLEETWIDE_NAMESPACE", namespace)];
    let a = Node::start(&vars(&one)).await;
    let b = Node::start(&vars(&other)).await;
    a.until_ready(200).await;
    b.until_ready(200).await;
    a.put("/cache/k", "1").await;
    assert_eq!(b.get("/cache/k").await.status, 404);
}

#[tokio::test]
async fn health_shows_what_redis_says_of_itself() {
    let (_redis, [a, ..]) = fleet(&[]).await;
    let health = a.get("/health/redis").await.json();
    assert_eq!((&health["enabled"], &health["state"]), (&json!(true), &json!("up")));
    assert!(health["info"]["total_commands_processed"].as_u64() > Some(0), "{health}");
    assert!(health["info"]["connected_clients"].as_u64() > Some(0), "{health}");
    assert!(health["info"]["instantaneous_ops_per_sec"].is_u64(), "{health}");
    assert!(health["info"]["used_memory_human"].is_string(), "{health}");
}
