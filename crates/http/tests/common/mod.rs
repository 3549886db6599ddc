//! A layer before a small service, on a clock that stands still.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Executor, Namespace};
use fleetwide_http::rate_limit::{
    Admitted, KeyExtractor, PeerAddr, RateLimitBuilder, RateLimitLayer, TenantHeader,
};
use fleetwide_limiter::{Limiter, Quota, Unavailable};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A limiter in memory, on a clock that the test moves.
pub(crate) fn limiter(name: &str, quota: Quota) -> (Limiter<MemExecutor>, Arc<SimClock>) {
    let clock = Arc::new(SimClock::new());
    let memory = Memory::builder().clock(clock.clone()).build();
    let namespace = Namespace::new("test").unwrap();
    let limiter = Limiter::builder(memory.executor().clone(), &namespace, name, quota)
        .on_unavailable(Unavailable::Deny)
        .clock(clock.clone())
        .build()
        .unwrap();
    (limiter, clock)
}

pub(crate) fn an_hour(max: u64) -> Quota {
    Quota::sliding_window(max, HOUR).unwrap()
}

/// Options of a layer that counts tenants, `anonymous` if they do not say who they are.
pub(crate) fn by_tenant(quota: Quota) -> RateLimitBuilder<MemExecutor> {
    RateLimitLayer::builder(limiter("api", quota).0, TenantHeader::new().or_tenant("anonymous"))
}

/// Options of a layer that counts by `key`.
pub(crate) fn by(key: impl KeyExtractor + 'static, quota: Quota) -> RateLimitBuilder<MemExecutor> {
    RateLimitLayer::builder(limiter("api", quota).0, key)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The values of a field, joined as a list.
    pub(crate) fn header(&self, name: &str) -> String {
        let values: Vec<_> =
            self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        values.join(", ")
    }

    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        problem
    }
}

pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Answers with what the limiter has left, or 500 where the path says so.
pub(crate) async fn serve(request: Request<Full<Bytes>>) -> Answer {
    let left = request.extensions().get().map(|Admitted(decision)| decision.remaining());
    let mut response = Response::new(Full::from(format!("{left:?}")));
    if let Some(status) = request.uri().path().strip_prefix("/status/") {
        *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
    }
    Ok(response)
}

/// Sends requests through a layer, one after the other.
#[derive(Clone)]
pub(crate) struct App<S> {
    service: S,
}

pub(crate) fn app<E: Executor, R>(
    layer: &RateLimitLayer<E, R>,
) -> App<
    impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible>
    + Clone
    + use<E, R>,
>
where
    R: fleetwide_http::rate_limit::Respond<Full<Bytes>>,
{
    App { service: layer.layer(tower::service_fn(serve)) }
}

impl<S> App<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone,
{
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path)).await
    }

    pub(crate) async fn as_tenant(&self, tenant: &str) -> Reply {
        self.send(Request::get("/").header("X-Tenant-Id", tenant)).await
    }

    pub(crate) async fn from(&self, peer: &str, forwarded_for: &str) -> Reply {
        let peer: IpAddr = peer.parse().unwrap();
        let request = Request::get("/").header("X-Forwarded-For", forwarded_for);
        self.send(request.extension(PeerAddr(peer))).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> Reply {
        let request = request.body(Full::default()).unwrap();
        let Ok(response) = self.service.clone().oneshot(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }
}
