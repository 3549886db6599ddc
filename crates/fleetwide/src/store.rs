//! Plain bytes with a ttl, for what needs neither tiers nor invalidation.
//!
//! # Examples
//! ```
//! use fleetwide::{Fleetwide, Store, Ttl};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory();
//! let key = fleet.namespace().tag("notes", b"greeting")?.key();
//! let hour = Ttl::new(std::time::Duration::from_secs(3600))?;
//! fleet.store().set(&key, "hello".into(), hour).await?;
//! assert_eq!(fleet.store().get(&key).await?, Some("hello".into()));
//! # Ok(()) }
//! ```

pub use crate::backend::FleetStore;
pub use fleetwide_core_traits::Store;
