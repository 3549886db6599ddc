//! One node in memory: every route, as node.md's table in the README has it.

mod common;

use std::time::Duration;

use common::{Node, Reply, SOON};
use fleetwide_testkit::eventually;
use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;

#[tokio::test]
async fn stored_bytes_are_read_as_they_were_and_say_where_they_came_from() {
    let node = Node::start(&[]).await;
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(node.put("/cache/a", bytes.clone()).await.status, 204);
    let read = node.get("/cache/a").await;
    assert_eq!((read.status, &read.body[..]), (200, &bytes[..]));
    assert_eq!(read.header("x-cache-tier"), "l1");
    assert_eq!(read.header("x-cache-freshness"), "verified", "nobody else can have written");
    assert_eq!(read.header("age"), "0");
    assert_eq!(node.put("/cache/empty", "").await.status, 204);
    let empty = node.get("/cache/empty").await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}

#[tokio::test]
async fn deleted_and_cleared_keys_are_gone() {
    let node = Node::start(&[]).await;
    for key in ["a", "b", "c"] {
        node.put(&format!("/cache/{key}"), key).await;
    }
    assert_eq!(node.delete("/cache/a").await.status, 204);
    node.get("/cache/a").await.problem(404);
    assert_eq!(node.get("/cache/b").await.text(), "b");
    assert_eq!(node.delete("/cache").await.status, 204);
    for key in ["b", "c"] {
        node.get(&format!("/cache/{key}")).await.problem(404);
    }
    assert_eq!(node.delete("/cache/never").await.status, 204);
}

#[tokio::test]
async fn deleted_key_is_loaded_again() {
    let node = Node::start(&[]).await;
    for (delete, loads) in [("/cache/a", 2), ("/cache", 3)] {
        node.get("/load/a").await;
        assert_eq!(node.get("/load/a").await.json()["loads"], loads - 1, "kept");
        assert_eq!(node.delete(delete).await.status, 204);
        assert_eq!(node.get("/load/a").await.json()["loads"], loads, "{delete}");
    }
}

#[tokio::test]
async fn tag_takes_with_it_what_carries_it_and_nothing_else() {
    let node = Node::start(&[]).await;
    node.put("/cache/a?tags=red,blue", "1").await;
    node.put("/cache/b?tags=blue", "1").await;
    node.put("/cache/c?tags=", "1").await;
    assert_eq!(node.delete("/cache/tags/red").await.status, 204);
    node.get("/cache/a").await.problem(404);
    for kept in ["/cache/b", "/cache/c"] {
        assert_eq!(node.get(kept).await.status, 200, "{kept}");
    }
}

#[tokio::test]
async fn value_expires_after_its_own_ttl() {
    let node = Node::start(&[]).await;
    assert_eq!(node.put("/cache/a?ttl_ms=30", "1").await.status, 204);
    node.put("/cache/b", "1").await;
    let gone = async || node.get("/cache/a").await.status == 404;
    eventually(SOON, "the value to expire", gone).await;
    assert_eq!(node.get("/cache/b").await.status, 200);
}

#[tokio::test]
async fn keys_of_any_characters_stay_apart() {
    let node = Node::start(&[]).await;
    let long = "k".repeat(512);
    let keys = [
        "a", "A", "a%20b", "a+b", "%00", "a%00b", "%7B%7D", "a%2Fb", "tags%2Fa", "%C3%BC", "%25",
        "..%2F..", "*", "%0D%0A", &long,
    ];
    for key in keys {
        assert_eq!(node.put(&format!("/cache/{key}"), key.to_owned()).await.status, 204, "{key}");
    }
    for key in keys {
        assert_eq!(node.get(&format!("/cache/{key}")).await.text(), key);
    }
}

#[tokio::test]
async fn crowd_on_one_key_causes_one_load() {
    let node = Node::start(&[]).await;
    let replies = join_all((0..30).map(|_| node.get("/load/report?delay_ms=200"))).await;
    for reply in &replies {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json()["value"], json!(null));
    }
    let after = node.get("/load/report").await;
    assert_eq!(after.json()["loads"], 1);
    assert_eq!(after.json()["tier"], "l1");
    assert_eq!(after.header("x-cache-tier"), "l1");
}

#[tokio::test]
async fn source_that_changes_is_loaded_again_unless_the_cache_is_left_alone() {
    let node = Node::start(&[]).await;
    let value = |reply: Reply| reply.json()["value"].clone();
    assert_eq!(node.put("/source/a", "one").await.status, 204);
    assert_eq!(value(node.get("/load/a").await), "one");
    assert_eq!(node.put("/source/a", "two").await.status, 204);
    assert_eq!(value(node.get("/load/a").await), "two");
    let held = async || node.get("/load/a").await.json()["tier"] == "l1";
    eventually(SOON, "the value to be held", held).await;
    let before = node.get("/load/a").await.json();
    assert_eq!(node.put("/source/a?invalidate=0", "three").await.status, 204);
    let after = node.get("/load/a").await.json();
    assert_eq!(after, before, "nothing has told the cache");
    let expected = json!({
        "key": "a", "value": "two", "tier": "l1", "loads": before["loads"], "source": "shared",
    });
    assert_eq!(after, expected);
}

#[tokio::test]
async fn loader_that_fails_is_a_problem_and_is_not_cached() {
    let node = Node::start(&[]).await;
    node.get("/load/a?fail=1").await.problem(502);
    let then = node.get("/load/a").await;
    assert_eq!((then.status, &then.json()["loads"]), (200, &json!(2)));
    assert_eq!(node.get("/load/a?fail=1").await.status, 200, "a hit needs no loader");
}

#[tokio::test]
async fn limit_admits_exactly_its_maximum_and_says_so_in_both_kinds_of_headers() {
    let node = Node::start(&[("RATE_LIMIT_MAX", "10"), ("RATE_LIMIT_WINDOW", "60000")]).await;
    let first = node.get("/limited").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-limit"), "10");
    assert_eq!(first.header("x-ratelimit-remaining"), "9");
    assert_eq!(first.header("ratelimit-policy"), r#""default";q=10;w=60"#);
    let reset: u64 = first.header("x-ratelimit-reset").parse().unwrap();
    assert!((1..=61).contains(&reset), "{reset}");
    assert_eq!(first.header("ratelimit"), format!(r#""default";r=9;t={reset}"#));
    assert_eq!(first.header("retry-after"), "");
    assert_eq!(node.get("/limited?cost=9").await.status, 200);
    let refused = node.get("/limited").await;
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), format!(r#""default";r=0;t={wait}"#));
}

#[tokio::test]
async fn tenants_do_not_spend_one_anothers_quota() {
    let node = Node::start(&[("RATE_LIMIT_MAX", "1")]).await;
    let ask = async |tenant: &str| {
        node.send(Method::GET, "/limited", &[("X-Tenant-Id", tenant)], "").await.status
    };
    assert_eq!(ask("a").await, 200);
    assert_eq!(ask("a").await, 429);
    assert_eq!(ask("b").await, 200);
    assert_eq!(ask("").await, 200);
    assert_eq!(node.get("/limited").await.status, 429, "nobody and `anonymous` are the same");
}

#[tokio::test]
async fn refused_caller_is_admitted_again_after_retry_after() {
    let vars =
        [("RATE_LIMIT_MAX", "2"), ("RATE_LIMIT_WINDOW", "200"), ("RATE_LIMIT_ALGORITHM", "gcra")];
    let node = Node::start(&vars).await;
    let refused = async || node.get("/limited").await.status == 429;
    eventually(SOON, "a refusal", refused).await;
    let admitted = async || node.get("/limited").await.status == 200;
    eventually(SOON, "the next cell", admitted).await;
}

#[tokio::test]
async fn event_reaches_those_who_listen_to_its_topic_and_no_others() {
    let node = Node::start(&[]).await;
    let mut exact = node.listen("registry:plugins").await;
    let mut pattern = node.listen("registry:*").await;
    let mut other = node.listen("orders").await;
    assert_eq!(node.post("/events/registry:plugins", "one").await.status, 204);
    assert_eq!(node.post("/events/registry:users", "two\nlines").await.status, 204);
    assert_eq!(node.post("/events/orders", "three").await.status, 204);
    assert_eq!(exact.next().await.unwrap().data, "one");
    assert_eq!(pattern.next().await.unwrap().data, "one");
    assert_eq!(pattern.next().await.unwrap().data, "two\nlines");
    assert_eq!(other.next().await.unwrap().data, "three");
}

#[tokio::test]
async fn health_and_metrics_count_what_was_done() {
    let node = Node::start(&[]).await;
    node.put("/cache/a", "1").await;
    node.get("/cache/a").await;
    node.get("/cache/b").await;
    assert_eq!(node.get("/live").await.status, 200);
    let health = node.get("/health/redis").await.json();
    assert_eq!(health["enabled"], false);
    assert_eq!(health["state"], "up");
    assert_eq!((&health["cache"]["hits"], &health["cache"]["misses"]), (&json!(1), &json!(1)));
    assert_eq!(health["cache"]["writes"], 1);
    for field in [
        "total_commands_processed",
        "instantaneous_ops_per_sec",
        "used_memory_human",
        "connected_clients",
    ] {
        assert!(health["info"].get(field).is_some(), "{health}");
    }
    // Red when the cache of the sessions was not among them.
    node.put("/sessions/s/nodes/n", "1").await;
    assert_eq!(node.get("/health/redis").await.json()["cache"]["writes"], 2);
    let metrics = node.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"), "{metrics:?}");
    for line in [
        r#"fleetwide_cache_hits_total{cache="node",tier="l1"} 1"#,
        r#"fleetwide_node_requests_total{route="/cache/{key}",method="PUT",status="204"} 1"#,
    ] {
        assert!(metrics.text().contains(line), "{line} is not in\n{}", metrics.text());
    }
    assert!(!metrics.text().contains("/cache/a"), "a path is no label");
}

#[tokio::test]
async fn value_is_kept_for_its_whole_ttl_where_there_is_no_shared_tier() {
    let node = Node::start(&[("CACHE_L1_TTL_MS", "1")]).await;
    node.put("/cache/a", "1").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(node.get("/cache/a").await.status, 200);
}
