//! A node as its users see it: a process, and HTTP.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Nothing a node does may take longer; what does is taken for hanging.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the machine may take to start or stop a process, or to bring a message round.
pub const SOON: Duration = Duration::from_secs(20);

/// A running `fleetwide-node`, killed when it is dropped.
pub struct Node {
    pub address: SocketAddr,
    child: Child,
    /// Kept open: a node must not stumble over a closed stdout, nor be tested that way here.
    _stdout: BufReader<ChildStdout>,
}

/// The binary with these variables and no others, on a free port.
pub fn command(vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwide-node"));
    command.env_clear().env("PORT", "0").envs(vars.iter().copied());
    // Whoever looks for a reason wants the nodes' log too.
    command.envs(std::env::var_os("RUST_LOG").map(|filter| ("RUST_LOG", filter)));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// What a node that does not start has to say for itself.
pub async fn refused(vars: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = timeout(SOON, command(vars).output()).await.expect("it ends by itself");
    let output = output.expect("the binary runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing is announced");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Node {
    pub async fn start(vars: &[(&str, &str)]) -> Self {
        let mut child = command(vars).stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        let read = timeout(SOON, stdout.read_line(&mut line)).await;
        read.expect("it announces itself in time").expect("it announces itself");
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("announced {line:?}"));
        Self { address: address.parse().expect("an address"), child, _stdout: stdout }
    }

    /// Three nodes on one Redis.
    pub async fn fleet(redis_url: &str, vars: &[(&str, &str)]) -> [Self; 3] {
        let mut vars = vars.to_vec();
        vars.push(("REDIS_URL", redis_url));
        let fleet = [Self::start(&vars).await, Self::start(&vars).await, Self::start(&vars).await];
        for node in &fleet {
            node.until_ready(200).await;
        }
        fleet
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::PUT, path, &[], body).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, path, &[], body).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], Bytes::new()).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let what = format!("{method} {path}");
        let began = Instant::now();
        let exchange = async {
            let response = self.open(method, path, headers, body.into()).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
                took: began.elapsed(),
            }
        };
        timeout(ANSWER_MAX, exchange).await.unwrap_or_else(|_| panic!("{what} hangs"))
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.expect("it accepts connections");
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("a connection");
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        sender.send_request(request).await.expect("an answer")
    }

    /// Opens an event stream; once this returns, the node listens.
    pub async fn listen(&self, topic: &str) -> Events {
        self.listen_to(&format!("/events?topic={topic}")).await
    }

    /// The same at any path that answers with events.
    pub async fn listen_to(&self, path: &str) -> Events {
        let response = timeout(ANSWER_MAX, self.open(Method::GET, path, &[], Bytes::new()));
        let response = response.await.expect("an event stream opens at once");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), read: Vec::new() }
    }

    pub async fn until_ready(&self, status: u16) {
        let is = async || self.get("/ready").await.status == status;
        fleetwide_testkit::eventually(SOON, &format!("/ready to say {status}"), is).await;
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("there is `kill`").success());
    }

    pub async fn ended(mut self) -> ExitStatus {
        timeout(SOON, self.child.wait()).await.expect("it ends in time").expect("it ends")
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Checks that this is a problem document, and returns it.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{body}");
        for member in ["type", "title", "detail"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        }
        body
    }
}

/// An open event stream.
pub struct Events {
    body: Incoming,
    read: Vec<u8>,
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
    pub id: String,
}

impl Events {
    /// The next event, or `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(SOON, self.read_event()).await.expect("an event comes in time")
    }

    async fn read_event(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.read.drain(..end + 2).collect();
                let event = parse(std::str::from_utf8(&frame).expect("text"));
                if event != Event::default() {
                    return Some(event);
                }
            }
            let frame = self.body.frame().await?.expect("a whole frame");
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

fn parse(frame: &str) -> Event {
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in frame.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("event", name) => name.clone_into(&mut event.name),
            ("id", id) => id.clone_into(&mut event.id),
            ("data", text) => data.push(text),
            _ => {}
        }
    }
    event.data = data.join("\n");
    event
}

/// Reads what is left of a child's output.
pub async fn rest(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).await.expect("text");
    text
}
