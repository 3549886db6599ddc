//! What tests stand on: real Redis servers, faults, simulated time, conformance suites.
//!
//! A test of this workspace meets the real thing, and breaks it on purpose:
//!
//! 1. [`RedisServer::start`] runs a `redis-server` of the test's own, and gives the URL of a user
//!    that may do only what `docs/redis-acl.md` lists.
//! 2. [`Proxy::start`] puts a bad network in front of it.
//! 3. The test hands the proxy's URL to the code it judges, breaks something, and waits with
//!    [`eventually`] for the promised result. It never sleeps to be right.
//!
//! Beside them: [`SimClock`] for time that stands still until the test moves it, [`Drops`] for
//! futures dropped at every await point, [`Recorder`] and
//! [`Checker`] for histories of a cache and whether they kept its promises, [`seed`] for randomness that can be had again, and
//! [`RespConnection`], a client of our own, so that no test is judged by the library it tests.
//!
//! [`World`] is a fleet of simulated nodes of real code, for what no test can order by hand.
//!
//! Nothing is skipped when Redis is missing: [`RedisServer::start`] fails and says what to install.
//!
//! ```no_run
//! use std::time::Duration;
//! use fleetwide_testkit::{Proxy, RedisServer, eventually};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = RedisServer::start().await?;
//! let proxy = Proxy::start(server.addr()).await?;
//! let url = proxy.url_like(&server.url());
//! // ... build what is tested with `url` ...
//! proxy.hold();
//! server.kill();
//! server.restart().await?;
//! proxy.pass();
//! let is_back = async || server.connect().await.is_ok();
//! eventually(Duration::from_secs(5), "the server to be back", is_back).await;
//! # Ok(()) }
//! ```

mod acl;
mod checker;
mod clock;
mod drops;
mod history;
mod port;
mod program;
mod proxy;
mod redis;
mod resp;
mod seed;
pub mod suite;
mod temp;
mod wait;
mod world;

pub use acl::Acl;
pub use checker::{Checker, Histogram, Report, Rule, Violation};
pub use clock::SimClock;
pub use drops::{DropPoint, Drops, Ended};
pub use history::{
    Client, Event, FoundIn, History, LoadSpan, Mark, OriginSpan, Outcome, Process, Read, ReadSpan,
    Recorder, Seen, Span, Target, WriteId, WriteSpan,
};
pub use port::ReservedPort;
pub use program::Program;
pub use proxy::{Direction, Fault, Proxy, ProxyStats};
pub use redis::{ClientKind, DefaultUser, RedisBuilder, RedisServer, SpawnError};
pub use resp::{Reply, RespConnection, RespError, decode, encode};
pub use seed::{Seed, seed};
pub use temp::TempDir;
pub use wait::{eventually, unique_namespace};
pub use world::{Remote, RemoteSubscription, Site, Weather, World, WorldTime};
