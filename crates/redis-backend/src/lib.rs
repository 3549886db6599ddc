//! The Redis backend: deadlines, reconnection, scripts, pub/sub and health.

#![forbid(unsafe_code)]

mod backoff;
mod builder;
mod bus;
mod cork;
mod dial;
mod error;
mod exclusive;
mod executor;
mod handle;
mod health;
mod info;
mod link;
mod reply;
mod scripts;
mod shared;
mod store;
mod supervise;
mod trouble;
mod url;

pub use builder::RedisBuilder;
pub use bus::{RedisBus, Subscription};
pub use error::{BuildError, Feature};
pub use exclusive::{Command, Exclusive};
pub use executor::RedisExecutor;
pub use handle::Redis;
pub use info::Info;
pub use store::RedisStore;
pub use url::{Address, Credentials, Host, Protocol, RedisUrl, Tls, Topology, UrlError};
