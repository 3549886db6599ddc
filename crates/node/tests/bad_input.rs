//! What a node does with requests that are wrong: it says so, and goes on.

mod common;

use common::{Node, SOON};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn every_wrong_request_is_a_problem_document_and_leaves_the_node_alive() {
    let node = Node::start(&[("RATE_LIMIT_MAX", "10")]).await;
    let long = |prefix: &str| format!("{prefix}{}", "k".repeat(513));
    let tags: Vec<_> = (0..33).map(|tag| tag.to_string()).collect();
    let too_many_tags = format!("/cache/a?tags={}", tags.join(","));
    for (method, path, status) in [
        // Paths and methods.
        ("GET", "/", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/cache/a/b", 404),
        ("POST", "/cache/a", 405),
        ("GET", "/cache", 405),
        ("PUT", "/live", 405),
        ("BREW", "/live", 405),
        // Keys.
        ("GET", "/cache/", 400),
        ("PUT", "/cache/", 400),
        ("DELETE", "/cache/", 400),
        ("GET", "/load/", 400),
        ("PUT", "/source/", 400),
        ("POST", "/events/", 400),
        ("PUT", &long("/cache/"), 400),
        ("GET", &long("/cache/"), 400),
        ("DELETE", &long("/cache/"), 400),
        ("GET", &long("/load/"), 400),
        ("PUT", &long("/source/"), 400),
        ("POST", &long("/events/"), 400),
        ("GET", "/cache/%FF", 400),
        ("PUT", "/cache/%C3%28", 400),
        ("POST", "/events/%FF", 400),
        // Times.
        ("PUT", "/cache/a?ttl_ms=0", 400),
        ("PUT", "/cache/a?ttl_ms=-1", 400),
        ("PUT", "/cache/a?ttl_ms=1.5", 400),
        ("PUT", "/cache/a?ttl_ms=", 400),
        ("PUT", "/cache/a?ttl_ms=soon", 400),
        ("PUT", "/cache/a?ttl_ms=315360000001", 400),
        ("PUT", "/cache/a?ttl_ms=18446744073709551616", 400),
        ("PUT", "/cache/a?ttl_ms=1&ttl_ms=2", 400),
        // Tags.
        ("PUT", "/cache/a?tags=a,,b", 400),
        ("PUT", &long("/cache/a?tags="), 400),
        ("PUT", &too_many_tags, 400),
        ("DELETE", "/cache/tags/", 400),
        ("DELETE", &long("/cache/tags/"), 400),
        ("GET", "/cache/tags/a", 405),
        // Delays and switches.
        ("GET", "/load/a?delay_ms=-1", 400),
        ("GET", "/load/a?delay_ms=99999999", 400),
        ("GET", "/load/a?fail=maybe", 400),
        ("PUT", "/source/a?invalidate=perhaps", 400),
        // Costs.
        ("GET", "/limited?cost=0", 400),
        ("GET", "/limited?cost=-1", 400),
        ("GET", "/limited?cost=11", 400),
        ("GET", "/limited?cost=4294967296", 400),
        ("GET", "/limited?cost=a", 400),
        // Topics.
        ("GET", "/events", 400),
        ("GET", "/events?topic=", 400),
        ("GET", "/events?topic=%FF", 400),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let reply = node.send(method.clone(), path, &[], "").await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        reply.problem(status);
        if status == 405 {
            assert_ne!(reply.header("allow"), "", "{method} {path}");
        }
    }
    assert_eq!(node.get("/live").await.status, 200);
    assert_eq!(node.get("/limited?cost=10").await.status, 200, "wrong requests spend nothing");
}

#[tokio::test]
async fn body_may_have_one_mebibyte_and_not_a_byte_more() {
    let node = Node::start(&[]).await;
    assert_eq!(node.put("/cache/a", vec![7; MIB]).await.status, 204);
    assert_eq!(node.get("/cache/a").await.body.len(), MIB);
    node.put("/cache/a", vec![7; MIB + 1]).await.problem(413);
    node.put("/source/a", vec![b'a'; MIB + 1]).await.problem(413);
    node.post("/events/a", vec![b'a'; MIB + 1]).await.problem(413);
    assert_eq!(node.get("/cache/a").await.body.len(), MIB, "the old value stays");
}

#[tokio::test]
async fn source_value_is_text() {
    let node = Node::start(&[]).await;
    node.put("/source/a", vec![0xff]).await.problem(400);
}

#[tokio::test]
async fn head_that_is_too_large_is_refused() {
    let node = Node::start(&[]).await;
    let request = format!("GET /live HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(MIB));
    let answer = raw(&node, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(node.get("/live").await.status, 200);
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let node = Node::start(&[]).await;
    let answer = raw(&node, b"\0\x01\x02 nonsense\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(node.get("/live").await.status, 200);
}

#[tokio::test]
async fn body_that_breaks_off_stores_nothing() {
    let node = Node::start(&[]).await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = b"PUT /cache/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    stream.write_all(request).await.unwrap();
    drop(stream);
    let counted = async || node.get("/live").await.status == 200;
    fleetwide_testkit::eventually(SOON, "the node to go on", counted).await;
    assert_eq!(node.get("/cache/a").await.status, 404);
}

async fn raw(node: &Node, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    // The node may close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn body_without_an_announced_length_is_measured_as_it_comes() {
    let node = Node::start(&[]).await;
    let head = "PUT /cache/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{MIB:x}\r\n{}\r\n", "x".repeat(MIB));
    let request = [head, &chunk, &chunk, "0\r\n\r\n"].concat();
    let answer = raw(&node, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(node.get("/cache/a").await.status, 404);
}
