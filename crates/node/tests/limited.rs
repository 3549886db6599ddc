//! `/limited` as clients meet it: who is counted, what each answer tells, what does not help.

mod common;

use common::{Node, Reply};
use hyper::Method;

const HOUR_MS: &str = "3600000";

async fn ask(node: &Node, headers: &[(&str, &str)]) -> Reply {
    node.send(Method::GET, "/limited", headers, "").await
}

/// The statuses of calls with these `X-Forwarded-For`, one after the other.
async fn statuses<const N: usize>(node: &Node, forwarded_for: [&str; N]) -> [u16; N] {
    let mut statuses = [0; N];
    for (status, value) in statuses.iter_mut().zip(forwarded_for) {
        *status = ask(node, &[("X-Forwarded-For", value)]).await.status;
    }
    statuses
}

// Seen red: when the layer tells no window of the token bucket.
#[tokio::test]
async fn each_algorithm_admits_its_maximum_and_tells_the_same_of_itself() {
    for algorithm in ["sliding-window", "gcra", "token-bucket", "fixed-window", "sliding-log"] {
        let vars = [
            ("RATE_LIMIT_ALGORITHM", algorithm),
            ("RATE_LIMIT_MAX", "5"),
            // 30 days, so that no cell comes back and no fixed window ends in the middle of a run.
            ("RATE_LIMIT_WINDOW", "2592000000"),
        ];
        let node = Node::start(&vars).await;
        for remaining in (0..5).rev() {
            let admitted = ask(&node, &[]).await;
            assert_eq!(admitted.status, 200, "{algorithm}");
            let body = serde_json::json!({ "allowed": true, "remaining": remaining });
            assert_eq!(admitted.json(), body, "{algorithm}");
            assert_eq!(admitted.header("x-ratelimit-remaining"), remaining.to_string());
            assert_eq!(admitted.header("retry-after"), "", "{algorithm}");
            told(&admitted, remaining);
        }
        let refused = ask(&node, &[]).await;
        let problem = refused.problem(429);
        let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
        assert_eq!(problem["type"], kind, "{algorithm}");
        assert_eq!(problem["violated-policies"], serde_json::json!(["default"]), "{algorithm}");
        let wait = told(&refused, 0);
        assert_eq!(refused.header("retry-after"), wait.to_string(), "{algorithm}");
    }
}

/// Checks the fields that each answer has; what `t` says.
#[track_caller]
fn told(reply: &Reply, remaining: u32) -> u64 {
    assert_eq!(reply.header("x-ratelimit-limit"), "5");
    let reset: u64 = reply.header("x-ratelimit-reset").parse().unwrap();
    assert!(reset > 0, "{reply:?}");
    assert_eq!(reply.header("ratelimit-policy"), r#""default";q=5;w=2592000"#);
    let prefix = format!(r#""default";r={remaining};t="#);
    let back = reply.header("ratelimit").strip_prefix(&prefix).map(str::parse);
    back.unwrap_or_else(|| panic!("{reply:?}")).unwrap()
}

// Seen red: when a cost of 0 goes to the limiter, which allows it to anybody.
#[tokio::test]
async fn wrong_requests_are_problem_documents_and_spend_nothing() {
    let node = Node::start(&[("RATE_LIMIT_MAX", "3"), ("RATE_LIMIT_WINDOW", HOUR_MS)]).await;
    for (path, says) in [
        ("/limited?cost=0", "cost must be at least 1"),
        ("/limited?cost=4", "a cost of 4 can never be admitted: the quota is 3"),
        ("/limited?cost=18446744073709551615", "can never be admitted"),
        ("/limited?cost=many", "cost"),
        ("/limited?cost=1&cost=1", "cost"),
    ] {
        let problem = node.get(path).await.problem(400);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path}: {problem}");
    }
    let long = "x".repeat(513);
    for tenant in [&*long, "a\tb"] {
        let refused = ask(&node, &[("X-Tenant-Id", tenant)]).await;
        let detail = refused.problem(400)["detail"].clone();
        assert!(detail.as_str().unwrap().starts_with("x-tenant-id takes"), "{detail}");
        assert_eq!(refused.header("ratelimit"), "", "nothing was decided");
    }
    let twice = ask(&node, &[("X-Tenant-Id", "a"), ("X-Tenant-Id", "b")]).await;
    assert_eq!(twice.problem(400)["detail"], "x-tenant-id takes one value");
    assert_eq!(node.post("/limited", "").await.status, 405);
    assert_eq!(node.get("/limited?cost=3").await.status, 200);
}

// Seen red: when 127.0.0.1 is trusted although nobody has said so.
#[tokio::test]
async fn forwarded_for_is_nobodys_word_unless_a_proxy_is_named() {
    let node = Node::start(&[("RATE_LIMIT_MAX", "1"), ("RATE_LIMIT_WINDOW", HOUR_MS)]).await;
    let calls = ["198.51.100.1", "198.51.100.2", "127.0.0.1", "::1"];
    assert_eq!(statuses(&node, calls).await, [200, 429, 429, 429]);
    let others = [("Forwarded", "for=198.51.100.3"), ("X-Real-IP", "198.51.100.4")];
    assert_eq!(ask(&node, &others).await.status, 429);
}

// Seen red: when the node drops the setting, and when the first hop is the client.
#[tokio::test]
async fn client_is_the_rightmost_hop_that_is_no_trusted_proxy() {
    let vars = [
        ("RATE_LIMIT_MAX", "1"),
        ("RATE_LIMIT_WINDOW", HOUR_MS),
        ("RATE_LIMIT_TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8,fd00::/8"),
    ];
    let node = Node::start(&vars).await;
    // Two clients have a quota each, whatever they write before what the proxy appends.
    let calls = ["203.0.113.7", "203.0.113.8", "1.1.1.1, 203.0.113.7", "10.0.0.1, 203.0.113.8"];
    assert_eq!(statuses(&node, calls).await, [200, 200, 429, 429]);
    // Behind several proxies, and with a port.
    let calls = ["203.0.113.7, 10.0.0.2, fd00::1", "203.0.113.9:4711, 10.0.0.2", "203.0.113.9"];
    assert_eq!(statuses(&node, calls).await, [429, 200, 429]);
    // A household has all of a /64.
    let calls = ["2001:db8:1:2::3", "2001:db8:1:2:aaaa::4", "2001:db8:1:3::3"];
    assert_eq!(statuses(&node, calls).await, [200, 429, 200]);
    // What is no address counts as the proxy that vouches for it: nobody chooses a place.
    let calls = ["unknown", "nonsense", "203.0.113.50, _hidden", ""];
    assert_eq!(statuses(&node, calls).await, [200, 429, 429, 429]);
    // Two lines of the field are one list.
    let lines = [("X-Forwarded-For", "203.0.113.60"), ("X-Forwarded-For", "203.0.113.7")];
    assert_eq!(ask(&node, &lines).await.status, 429);
    // Another field is not looked at.
    let forwarded = [("Forwarded", "for=203.0.113.70"), ("X-Forwarded-For", "203.0.113.7")];
    assert_eq!(ask(&node, &forwarded).await.status, 429);
}
