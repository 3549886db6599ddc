//! Rate limits before a service: who is counted, at which cost, and what clients are told.

mod config;
mod cost;
mod fields;
mod future;
mod key;
mod layer;
mod problem;
mod refusal;
mod service;
mod telemetry;

pub use config::{ConfigError, RateLimitBuilder};
pub use cost::{CostError, IntoCost};
pub use fields::{Fields, IetfForm, QuotaUnit};
pub use future::ResponseFuture;
pub use key::{
    BearerToken, Both, ClientAddress, Either, Ipv6Prefix, KeyError, KeyExtractor, KeySecret,
    PeerAddr, RequestKey, SecretError, Subject, TenantHeader,
};
pub use layer::RateLimitLayer;
pub use problem::Problems;
pub use refusal::{Refusal, Respond};
pub use service::{Admitted, RateLimit};
