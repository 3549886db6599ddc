//! A typed cache in two tiers that cannot serve what was invalidated.
//!
//! L1 is this process, L2 a server that all instances share. A read goes:
//!
//! 1. **L1**: an entry counts only if its stamp passes the floors that invalidations have raised,
//!    and its time is not over. A hit allocates nothing and asks nobody.
//! 2. **L2**: one `MGET` of the value and of where the cache's log is, shared by all callers of
//!    the process. What is found is taken into L1, stamped with that place.
//! 3. **Lease**: nobody has the value, so the server is asked who loads it. One instance is
//!    told to; the others wait for its message, or until its lease runs out.
//! 4. **Load**: the loader runs in a task of its own; its lease is renewed while it lives.
//! 5. **Hand-over**: L1 takes the value, stamped with the lease's place, and all who wait get it.
//! 6. **Fill**: L2 takes the value only if the lease is still the loader's and nothing was cleared
//!    since. An invalidation deletes the lease, so what it removed cannot come back.
//!
//! Trouble with the server never fails a read that the loader can answer, and adds at most
//! [`l2_budget`](CacheBuilder::l2_budget). A write that the server did not confirm is an error that
//! says so ([`WriteError`]); its key is skipped in L2, and invalidated everywhere when the server
//! is back.
//!
//! # Examples
//! ```
//! use fleetwide_core_traits::Namespace;
//! use fleetwide_mem_backend::{Memory, MokaLocal};
//! use fleetwide_two_tier_cache::{Cache, Tier};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = Memory::new();
//! let local = MokaLocal::builder().bytes_max(64 << 20).build();
//! let shop = Namespace::new("shop")?;
//! let executor = memory.executor().clone();
//! let users: Cache<u64, String, _> = Cache::builder(executor, &shop, "users", local).build()?;
//!
//! let load = |id| async move { Ok::<_, std::io::Error>(format!("user {id}")) };
//! assert_eq!(users.get_or_load(&7, load).await?.tier(), Tier::Load);
//! assert_eq!(*users.get(&7).await.expect("it was just loaded"), "user 7");
//! users.invalidate(&7).await?;
//! assert!(users.get(&7).await.is_none());
//! # Ok(()) }
//! ```

mod body;
mod builder;
mod cache;
mod context;
mod entry;
mod error;
mod flight;
mod floors;
mod follow;
mod key;
mod load;
mod ops;
mod payload;
mod recovery;
mod tags;
mod telemetry;
mod wake;
mod write;

pub use builder::CacheBuilder;
pub use cache::Cache;
pub use context::LoadContext;
pub use entry::{Freshness, Hit, L1Entry, Tier};
pub use error::{ConfigError, LoadError, WriteError};
pub use key::CacheKey;
pub use tags::{CacheTag, TagError};
pub use telemetry::Stats;
pub use write::PutOptions;
