//! More connections than a node takes.

use std::time::Duration;

use fleetwide_node::{Config, Node};
use fleetwide_testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

async fn ask(node: &Node) -> String {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let request = b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn connection_beyond_the_limit_is_told_so_and_a_free_place_is_taken_again() {
    let mut config = Config::default();
    config.connections_max = 2;
    let node = Node::start(config).await.unwrap();
    let held = [
        TcpStream::connect(node.address()).await.unwrap(),
        TcpStream::connect(node.address()).await.unwrap(),
    ];
    let refused = ask(&node).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("application/problem+json"), "{refused}");
    assert!(refused.contains("too many connections"), "{refused}");
    drop(held);
    let served = async || ask(&node).await.starts_with("HTTP/1.1 200");
    eventually(SOON, "a free place", served).await;
    node.stop().await;
}
