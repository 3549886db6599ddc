//! The in-process backend: store, executor and bus without a server.
//!
//! With it every capability of Fleetwide works in one process, by the same contracts as over
//! Redis: the conformance suites of `fleetwide-testkit` run over both. What one step meets:
//!
//! 1. [`Memory`] makes an executor, a bus and a store that belong together.
//! 2. [`MemExecutor`] locks the shard of the op's tag, which holds all its cells, and runs the pure
//!    half of the op on them, without an allocation when the state is there.
//! 3. What the op publishes is queued under that lock, and delivered after it by [`MemBus`]: each
//!    subscriber gets the messages of a channel in the order of the decisions.
//! 4. A cell lives until its ttl is over. A full table refuses new cells and evicts none, because
//!    an evicted cell would be a limit forgotten or a lock lost.
//!
//! Values of a cache may be forgotten, and are kept elsewhere: [`MemStore`] evicts by bytes, and
//! [`MokaLocal`] is the tier in front of any store.
//!
//! # Examples
//! ```
//! use bytes::Bytes;
//! use fleetwide_core_traits::{Namespace, Store, Ttl};
//! use fleetwide_mem_backend::Memory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = Memory::new();
//! let key = Namespace::new("shop")?.tag("cache", b"users")?.named("v", b"42")?;
//! let hour = Ttl::new(std::time::Duration::from_secs(3600))?;
//! memory.store().set(&key, Bytes::from_static(b"Ada"), hour).await?;
//! assert_eq!(memory.store().get(&key).await?, Some(Bytes::from_static(b"Ada")));
//! # Ok(())
//! # }
//! ```

mod bounded;
mod bus;
mod door;
mod exec;
mod local;
mod memory;
mod store;

pub use bus::{MemBus, MemSubscription};
pub use exec::MemExecutor;
pub use local::{MokaLocal, MokaLocalBuilder};
pub use memory::{Memory, MemoryBuilder};
pub use store::{Departure, MemStore};
