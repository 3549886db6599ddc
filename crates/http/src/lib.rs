//! Fleetwide before a service: a [`tower`](tower_service) layer that limits rates for the whole fleet, and
//! tells clients so.
//!
//! What happens to a request on its way through a [`RateLimitLayer`](rate_limit::RateLimitLayer):
//!
//! 1. A request that is **exempt** goes on untouched.
//! 2. A [`KeyExtractor`](rate_limit::KeyExtractor) says who is counted: a tenant, the holder of a token,
//!    a client's address behind trusted proxies, or several of them. What is missing or malformed
//!    there is answered with 400, and nothing is spent.
//! 3. The **cost** is 1, or what your function says, at once or after a while.
//! 4. The [`Limiter`](fleetwide_limiter::Limiter) decides, for all instances together.
//! 5. What it allows goes on to the service. What it refuses is answered with 429, and what nobody
//!    could decide (the backend is away, and the limiter was told to refuse then) with 503: problem
//!    documents (RFC 9457) with a `Retry-After` that holds.
//! 6. Either answer says what is left, in the fields of the IETF's draft and the older ones.
//!
//! The body of a request is neither read nor wrapped, nor is that of the answer.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//!
//! use fleetwide_core_traits::Namespace;
//! use fleetwide_http::client::TrustedProxies;
//! use fleetwide_http::rate_limit::{ClientAddress, RateLimitLayer};
//! use fleetwide_limiter::{Limiter, Quota, Unavailable};
//! use fleetwide_mem_backend::Memory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let quota = Quota::sliding_window(100, Duration::from_secs(60))?;
//! let limiter =
//!     Limiter::builder(Memory::new().executor().clone(), &Namespace::new("shop")?, "api", quota)
//!         .on_unavailable(Unavailable::LocalShare { instances: 3 })
//!         .build()?;
//! let proxies = TrustedProxies::networks(["10.0.0.0/8"])?;
//! let layer = RateLimitLayer::builder(limiter, ClientAddress::new(proxies)).build()?;
//! let app: axum::Router = axum::Router::new()
//!     .route("/", axum::routing::get(|| async { "hello" }))
//!     .layer(layer);
//! # let _ = app; Ok(()) }
//! ```
//!
//! The same over Redis takes a limiter over Redis, and nothing else changes. With axum, switch on the
//! feature `axum` and serve with `into_make_service_with_connect_info::<SocketAddr>()`; elsewhere put a
//! [`PeerAddr`](rate_limit::PeerAddr) into the request's extensions.

#![forbid(unsafe_code)]

pub mod client;
pub mod rate_limit;
