//! Limits before an HTTP service, as tower layers.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::routing::get;
//! use fleetwide::Fleetwide;
//! use fleetwide::http::client::TrustedProxies;
//! use fleetwide::http::rate_limit::{ClientAddress, RateLimitLayer};
//! use fleetwide::limiter::Quota;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory(); // or `from_env`, for Redis where `REDIS_URL` is set
//! let quota = Quota::sliding_window(100, Duration::from_secs(60))?;
//! let limiter = fleet.limiter("api", quota).build()?;
//! let proxies = TrustedProxies::networks(["10.0.0.0/8"])?;
//! let layer = RateLimitLayer::builder(limiter, ClientAddress::new(proxies)).build()?;
//! let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(layer);
//! # let _ = app; Ok(()) }
//! ```

/// Where a request came from, when proxies stand before the service.
pub mod client {
    pub use fleetwide_http::client::{ForwardingField, ProxyError, TrustedProxies};
}

/// Rate limits before a service: who is counted, at which cost, and what clients are told.
pub mod rate_limit {
    use fleetwide_http::rate_limit;

    pub use fleetwide_http::rate_limit::{
        Admitted, BearerToken, Both, ClientAddress, ConfigError, CostError, Either, Fields,
        IetfForm, IntoCost, Ipv6Prefix, KeyError, KeyExtractor, KeySecret, PeerAddr, Problems,
        QuotaUnit, Refusal, RequestKey, Respond, ResponseFuture, SecretError, Subject,
        TenantHeader,
    };

    use crate::backend::FleetExecutor;

    /// Puts a [`Limiter`](crate::limiter::Limiter) of the fleet before a service.
    pub type RateLimitLayer<R = Problems> = rate_limit::RateLimitLayer<FleetExecutor, R>;
    /// Options of a [`RateLimitLayer`].
    pub type RateLimitBuilder<R = Problems> = rate_limit::RateLimitBuilder<FleetExecutor, R>;
    /// A service behind a [`RateLimitLayer`].
    pub type RateLimit<S, R = Problems> = rate_limit::RateLimit<S, FleetExecutor, R>;
}
