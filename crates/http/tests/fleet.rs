//! Instances of a real axum server on a real Redis: one limit, and what they answer while it is away.
#![cfg(feature = "axum")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use fleetwide_core_traits::{Executor, Namespace};
use fleetwide_http::client::TrustedProxies;
use fleetwide_http::rate_limit::{
    ClientAddress, Fields, KeyExtractor, RateLimitLayer, TenantHeader,
};
use fleetwide_limiter::{Limiter, Quota, Unavailable};
use fleetwide_mem_backend::Memory;
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::{RedisServer, eventually};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

const HOUR: Duration = Duration::from_secs(3600);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// A server of axum on a free port, which ends with the test's runtime.
struct Instance {
    address: SocketAddr,
    /// Kept, because a dropped handle ends the connection.
    _redis: Option<Redis>,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Instance {
    /// One that trusts the proxy at the loopback, and admits ten an hour of each tenant and client.
    async fn over_redis(url: &str, unavailable: Unavailable) -> Self {
        let redis = Redis::builder(RedisUrl::parse(url).unwrap()).build().unwrap();
        let executor = redis.executor();
        Self { _redis: Some(redis), ..Self::start(executor, unavailable).await }
    }

    async fn start(executor: impl Executor, unavailable: Unavailable) -> Self {
        let quota = Quota::sliding_window(10, HOUR).unwrap();
        let limiter = Limiter::builder(executor, &Namespace::new("shop").unwrap(), "api", quota)
            .on_unavailable(unavailable)
            // Longer than any busy machine needs, so that no rung answers by accident.
            .deadline(SOON)
            .probe_every(Duration::from_millis(50))
            .build()
            .unwrap();
        let proxies = TrustedProxies::networks(["127.0.0.0/8"]).unwrap();
        let key = TenantHeader::new().or_tenant("anonymous").and(ClientAddress::new(proxies));
        let layer = RateLimitLayer::builder(limiter, key)
            .exempt(|request| request.uri.path() == "/live")
            .fields(Fields::default().source(true))
            .build()
            .unwrap();
        let app = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/live", get(|| async { "alive" }))
            .layer(layer)
            .into_make_service_with_connect_info::<SocketAddr>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, _redis: None }
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "localhost");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn of_client(&self, forwarded_for: &str) -> Reply {
        self.get("/", &[("X-Forwarded-For", forwarded_for)]).await
    }
}

// Red when each instance counts by itself: the clients would be admitted twenty times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_one_limit_and_clients_behind_the_proxy_have_one_each() {
    let server = RedisServer::start().await.unwrap();
    let a = Instance::over_redis(&server.url(), Unavailable::Deny).await;
    let b = Instance::over_redis(&server.url(), Unavailable::Deny).await;
    for instance in [&a, &b] {
        let shared = async || {
            instance.of_client("192.0.2.99").await.header("x-ratelimit-source") == "shared"
        };
        eventually(SOON, "the count in Redis", shared).await;
    }
    for client in ["203.0.113.7", "203.0.113.8"] {
        let mut statuses = Vec::new();
        for at in 0..24 {
            let instance = if at % 2 == 0 { &a } else { &b };
            // Each time with another invention before what the proxy has appended.
            let reply = instance.of_client(&format!("198.51.100.{at}, {client}")).await;
            let source = reply.header("x-ratelimit-source");
            assert!(source == "shared" || (source == "remembered" && reply.status == 429));
            statuses.push(reply.status);
        }
        let (admitted, refused) = statuses.split_at(10);
        assert!(admitted.iter().all(|status| *status == 200), "{statuses:?}");
        assert!(refused.iter().all(|status| *status == 429), "{statuses:?}");
    }
    let refused = b.of_client("203.0.113.7").await;
    assert_eq!(refused.problem()["violated-policies"], serde_json::json!(["api"]));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3658).contains(&wait), "{wait}");
    // In the window or one of its 63rds: what the sub-windows cover.
    let other = b.get("/", &[("X-Forwarded-For", "203.0.113.7"), ("X-Tenant-Id", "acme")]).await;
    assert_eq!(other.status, 200, "another tenant at the same address");
    assert_eq!(a.get("/live", &[("X-Forwarded-For", "203.0.113.7")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_the_chosen_rung_answers_and_says_so() {
    for (unavailable, status, source) in [
        (Unavailable::Allow, 200, "open"),
        (Unavailable::Deny, 503, "closed"),
        (Unavailable::LocalShare { instances: 5 }, 200, "local_share"),
    ] {
        let server = RedisServer::start().await.unwrap();
        let instance = Instance::over_redis(&server.url(), unavailable).await;
        let says = async |source: &str| {
            let reply = instance.of_client("192.0.2.99").await;
            reply.header("x-ratelimit-source") == source
        };
        eventually(SOON, "the count in Redis", async || says("shared").await).await;
        server.kill();
        eventually(SOON, "the rung", async || says(source).await).await;
        let reply = instance.of_client("203.0.113.7").await;
        assert_eq!(reply.status, status, "{source}");
        match unavailable {
            Unavailable::Deny => {
                let problem = reply.problem();
                assert_eq!(
                    problem["type"],
                    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
                );
                assert_eq!(problem["title"], "Temporary Reduced Capacity");
                assert_eq!(problem["violated-policies"], serde_json::json!(["api"]));
                assert_eq!(reply.header("retry-after"), "1");
                assert_eq!(reply.header("ratelimit"), r#""api";r=0;t=1"#);
            }
            Unavailable::LocalShare { .. } => {
                // A fifth of ten; then the quota counts as spent, whoever counted.
                assert_eq!(instance.of_client("203.0.113.7").await.status, 200);
                let refused = instance.of_client("203.0.113.7").await;
                assert_eq!(refused.status, 429);
                assert!(refused.problem()["type"].as_str().unwrap().ends_with("#quota-exceeded"));
            }
            Unavailable::Allow => {
                for _ in 0..20 {
                    assert_eq!(instance.of_client("203.0.113.7").await.status, 200);
                }
            }
        }
        assert_eq!(instance.get("/live", &[]).await.status, 200, "an exempt route needs no Redis");
        server.restart().await.unwrap();
        eventually(SOON, "the count in Redis again", async || says("shared").await).await;
    }
}

#[tokio::test]
async fn in_memory_the_same_server_needs_no_redis() {
    let memory = Memory::new();
    let instance = Instance::start(memory.executor().clone(), Unavailable::Deny).await;
    for _ in 0..10 {
        assert_eq!(instance.of_client("203.0.113.7").await.status, 200);
    }
    assert_eq!(instance.of_client("1.1.1.1, 203.0.113.7").await.status, 429);
    assert_eq!(instance.of_client("203.0.113.7, 2001:db8::1").await.status, 200);
    assert_eq!(instance.get("/", &[]).await.status, 200, "the proxy itself");
}
