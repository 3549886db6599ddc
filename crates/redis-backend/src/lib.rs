//! The Redis backend: deadlines, reconnection, scripts, pub/sub and health.
//!
//! It implements the [`Executor`], [`Store`] and [`Bus`] of `fleetwide-core-traits` over one server.
//! What a handle goes through, in the order in which it happens:
//!
//! 1. [`RedisUrl`] parses every usual form of an address, once. It never shows a password, and an
//!    error names the part that is wrong.
//! 2. [`Redis::builder`] sets the deadlines and limits, and [`build`](RedisBuilder::build) returns at
//!    once: a server that is away is joined when it comes, for as long as the handle lives.
//! 3. Calls share a few connections. Each call has one deadline; its error says whether the request
//!    was surely not sent ([`NotSent`]), may have been carried out ([`Unknown`]), was refused by the
//!    server ([`Rejected`]) or got a reply that makes no sense ([`Malformed`]).
//! 4. Scripts are loaded on each connection. One that the server lost is sent once more in full, also
//!    in the middle of a pipeline; no step runs twice.
//! 5. A connection that misses a deadline is asked with `PING` whether it still answers, and replaced
//!    if not: one slow command costs the others nothing, and a frozen server is found out. While
//!    nothing stands, calls fail at once.
//! 6. Subscriptions have a connection of their own, which is asked for a sign of life. They come back
//!    after an outage of any length, and say what may have been missed.
//! 7. [`Redis::health`] says how the server is doing, in the words of `docs/troubleshooting.md`; each
//!    change is logged once.
//!
//! Work that blocks a connection, or needs one for itself, gets it from [`Redis::exclusive`].
//!
//! No type of a client library is part of this interface, except for the pool that
//! [`exclusive_pool`](RedisBuilder::exclusive_pool) takes. A primary behind Sentinel, a Cluster and
//! TLS are understood in an address and answered with [`BuildError::NotSupportedYet`].
//!
//! # Examples
//! ```no_run
//! use std::time::Duration;
//! use bytes::Bytes;
//! use fleetwide_core_traits::{Namespace, Store, Ttl};
//! use fleetwide_redis_backend::{Redis, RedisUrl};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = RedisUrl::parse("redis://orders:s3cret@cache.internal")?;
//! let redis = Redis::builder(url).command_timeout(Duration::from_millis(200)).build()?;
//! let key = Namespace::new("shop")?.tag("cache", b"users")?.named("v", b"42")?;
//! let hour = Ttl::new(Duration::from_secs(3600))?;
//! redis.store().set(&key, Bytes::from_static(b"Ada"), hour).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Executor`]: fleetwide_core_traits::Executor
//! [`Store`]: fleetwide_core_traits::Store
//! [`Bus`]: fleetwide_core_traits::Bus
//! [`NotSent`]: fleetwide_core_traits::BackendError::NotSent
//! [`Unknown`]: fleetwide_core_traits::BackendError::Unknown
//! [`Rejected`]: fleetwide_core_traits::BackendError::Rejected
//! [`Malformed`]: fleetwide_core_traits::BackendError::Malformed

mod backoff;
mod builder;
mod bus;
mod cork;
mod dial;
mod error;
mod exclusive;
mod executor;
mod first_words;
mod gather;
mod handle;
mod health;
mod histories;
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
