//! How many at once, over the whole fleet: permits with leases.
//!
//! A rate says how often something may begin; this says how much of it may be under way. Whoever
//! gets a permit holds a *lease* by the server's clock, which a process renews for all its permits
//! while it lives. So the permit of a process that was killed comes back when its lease ends, and a
//! fleet never holds more than the maximum by that clock.
//!
//! # After a failover
//! A new primary that has missed leases gives their places to others. The next renewal of each, in a
//! third of a lease, takes it anew if there is room; else the permit is [lost](Permit::is_lost). So
//! until the holders have renewed, as many are held above the maximum as the new primary has missed, at
//! most. What it has missed to be given back is held until its lease ends.

mod builder;
pub(crate) mod keeper;
pub(crate) mod lease;
mod limiter;
pub mod op;
mod permit;
mod quota;
mod state;

pub use builder::ConcurrencyLimiterBuilder;
pub use limiter::{AcquireError, ConcurrencyLimiter};
pub use permit::{Entry, Permit};
pub use quota::{ConcurrencyQuota, ConcurrencyQuotaError};
pub(crate) use state::Standing;
pub use state::{ConcurrencyState, Grant};
