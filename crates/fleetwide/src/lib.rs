//! Makes a service safe to run as many instances: cache, events and rate limits, in memory or over
//! Redis.
//!
//! With nothing configured all of it works in one process. Set `REDIS_URL`, and the same code shares
//! its state with every other instance. When Redis is slow or gone, each capability falls to a
//! stated rung of a stated ladder; nothing hangs, and nothing is silently wrong.
//!
//! 1. [`Fleetwide::from_env`] parses the variables ([`env`](mod@env)) and begins to connect. A Redis that is
//!    away is no error: the fleet joins when it comes.
//! 2. [`Fleetwide::cache`], [`Fleetwide::sessions`], [`Fleetwide::events`] and
//!    [`Fleetwide::limiter`] (or `limits`, `concurrency_limiter`) make capabilities, each on the backend
//!    of its role: all on one Redis, or each on its own.
//! 3. [`Fleetwide::health`] says how each backend is doing, without asking it.
//! 4. [`Fleetwide::shutdown`] ends the connections.
//!
//! This crate wires and names; what it wires is in crates of their own, each usable alone. Features
//! (all on by default) leave out what is not used: `cache`, `events`, `limiter`, `redis`, `sessions`.
//! Others (off by default) let cached values be written in further formats: `json`, `msgpack`,
//! `postcard`; `encryption` lets them be sealed. `http` puts limits before a service as a tower layer, and
//! with `axum` that finds out by itself who is connected.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//!
//! use fleetwide::Fleetwide;
//! use fleetwide::limiter::Quota;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory(); // or `from_env`, for Redis where `REDIS_URL` is set
//! let users = fleet.cache::<u64, String>("users").build()?;
//! let quota = Quota::sliding_window(5, Duration::from_secs(60))?;
//! let logins = fleet.limiter("logins", quota).build()?;
//!
//! if logins.check("198.51.100.7").await?.is_allowed() {
//!     let load = |id| async move { Ok::<_, std::io::Error>(format!("user {id}")) };
//!     println!("hello, {}", *users.get_or_load(&7, load).await?);
//! }
//! fleet.shutdown().await;
//! # Ok(()) }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "cache"))]
mod pages;

mod backend;
mod builder;
#[cfg(feature = "cache")]
pub mod cache;
pub mod env;
#[cfg(feature = "events")]
pub mod events;
mod fleet;
pub mod health;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "cache")]
mod layouts;
#[cfg(feature = "limiter")]
pub mod limiter;
#[cfg(any(feature = "cache", feature = "events"))]
mod log;
#[cfg(feature = "sessions")]
pub mod sessions;
pub mod store;

pub use backend::{FleetBus, FleetExecutor, FleetStore};
pub use builder::{BuildError, FleetwideBuilder, Role, StartError};
pub use fleet::Fleetwide;
pub use fleetwide_core_traits::{
    BackendError, Clock, Codec, CodecError, Format, FormatId, Health, Key, KeyError, Membership,
    Namespace, NamespaceError, Raw, Seal, SealError, Serde, Store, Tag, Ttl, TtlError,
};
pub use fleetwide_mem_backend::Memory;
