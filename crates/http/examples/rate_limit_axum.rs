//! A limit before an axum service: each client has five requests a minute, also behind a proxy.
//!
//! `cargo run -p fleetwide-http --features axum --example rate_limit_axum`

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::routing::get;
use axum::{Extension, Router};
use fleetwide_core_traits::Namespace;
use fleetwide_http::client::TrustedProxies;
use fleetwide_http::rate_limit::{Admitted, ClientAddress, RateLimitLayer};
use fleetwide_limiter::{Limiter, Quota, Unavailable};
use fleetwide_mem_backend::Memory;
use tower::ServiceExt;

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In memory; over Redis only the executor is another one.
    let executor = Memory::new().executor().clone();
    let quota = Quota::sliding_window(5, Duration::from_secs(60))?;
    let limiter = Limiter::builder(executor, &Namespace::new("shop")?, "api", quota)
        .on_unavailable(Unavailable::LocalShare { instances: 3 })
        .build()?;

    let proxies = TrustedProxies::networks(["10.0.0.0/8"])?;
    let layer = RateLimitLayer::builder(limiter, ClientAddress::new(proxies))
        .exempt(|request| request.uri.path() == "/live")
        .build()?;
    let hello = async |Extension(Admitted(decision)): Extension<Admitted>| {
        format!("{} left", decision.remaining())
    };
    let app = Router::new().route("/", get(hello)).layer(layer);

    // A server would say `app.into_make_service_with_connect_info::<SocketAddr>()`. Here the requests
    // are made by hand: from one client, by way of a proxy, with a new invention each time.
    for attempt in 1..=7 {
        let peer: SocketAddr = "10.0.0.2:4711".parse()?;
        let request = Request::get("/")
            .header("X-Forwarded-For", format!("198.51.100.{attempt}, 203.0.113.7"))
            .extension(ConnectInfo(peer));
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        println!("{} {}", response.status(), response.headers()["ratelimit"].to_str()?);
    }
    Ok(())
}
