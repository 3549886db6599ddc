//! A typed cache in two tiers that cannot serve what was invalidated.
//!
//! L1 is this process, L2 a server that all instances share. A read goes:
//!
//! 1. **L1**: an entry counts only if its stamp passes the floors that invalidations have raised,
//!    and its time is not over. A hit allocates nothing and asks nobody. Near its end it may be
//!    renewed in the background ([`early_refresh`](CacheBuilder::early_refresh)).
//! 2. **L2**: one `MGET` of the value and of where the cache's log is, shared by all callers of
//!    the process. What is found is taken into L1, stamped with that place.
//! 3. **Lease**: nobody has the value, so the server is asked who loads it. One instance is
//!    told to; the others wait for its message, or until its lease runs out.
//!    Who has a value whose time is over, and may serve it
//!    ([`stale_while_revalidate`](CacheBuilder::stale_while_revalidate),
//!    [`stale_if_error`](CacheBuilder::stale_if_error)), does not wait.
//! 4. **Load**: the loader runs in a task of its own, one of at most
//!    [`loads_max`](CacheBuilder::loads_max); its lease is renewed while it lives.
//! 5. **Hand-over**: L1 takes the value, stamped with the lease's place, and all who wait get it.
//! 6. **Fill**: L2 takes the value only if the lease is still the loader's and nothing was cleared
//!    since. An invalidation deletes the lease, so what it removed cannot come back.
//!
//! A single read can ask for more or for less: [`Cache::at`].
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

mod ask;
mod body;
mod builder;
mod bulk;
mod cache;
mod change;
mod context;
mod entry;
mod error;
mod flight;
mod floors;
mod follow;
mod form;
mod gate;
mod gather;
#[cfg(test)]
mod golden;
mod guard;
mod keep;
mod key;
#[cfg(feature = "encryption")]
mod key_ring;
mod l2;
mod layout;
mod ledger;
mod load;
mod ops;
mod options;
mod origin;
mod payload;
mod read;
mod recovery;
mod repeat;
mod sampler;
mod settle;
mod tags;
mod telemetry;
mod term;
mod token;
mod wait;
mod wake;
mod warm;
mod write;

pub use builder::{CacheBuilder, OnAbandon};
pub use bulk::{BulkError, BulkItem, BulkWriteError, Hits, IntoHits, Many};
pub use cache::Cache;
pub use change::Change;
pub use context::{LoadContext, Loaded};
pub use entry::{Freshness, Hit, L1Entry, Tier};
pub use error::{ConfigError, JitterError, LoadError, WriteError};
pub use gate::LayoutWatch;
pub use guard::WriteGuard;
pub use key::CacheKey;
#[cfg(feature = "encryption")]
pub use key_ring::KeyRing;
pub use layout::LayoutError;
pub use options::{PutOptions, WriteOptions};
pub use read::Read;
pub use tags::{CacheTag, TagError};
pub use telemetry::Stats;
pub use token::{TokenError, WriteToken};
pub use warm::{Progress, Warm, WarmError};

pub use fleetwide_core_traits::Replicas;
pub use fleetwide_core_traits::log::{Applied, Behind, WaitError};
