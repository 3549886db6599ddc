//! Options of how many trips calls make, and of what is remembered to save some.

use std::time::Duration;

use fleetwide_core_traits::{Bus, Executor};

use super::LimiterBuilder;
use crate::{Leasing, voids};

impl<E: Executor> LimiterBuilder<E> {
    /// Sets whether calls on one key share a trip while another one is in flight. Default: they do.
    ///
    /// It changes no answer: costs are decided in the order in which they came. A call waits for the
    /// one in flight before it, within its deadline.
    pub fn combining(self, is_combining: bool) -> Self {
        Self { is_combining, ..self }
    }

    /// Sets for how long a refusal is remembered at most. Default: 1 s; zero remembers none.
    ///
    /// A refusal says when its cost fits at the earliest. Until then, the same cost of that key or a
    /// dearer one is refused without a trip, as [`Source::Remembered`](crate::Source::Remembered).
    /// A reset and a refund by this limiter forget it at once. What others do to make a refusal
    /// untrue (a reset, a refund, a larger limit, a server that lost its state) is seen after this
    /// time at the latest. So for this long a call may be refused that could be allowed; no call is
    /// allowed that should be refused.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_limiter::{Limiter, Quota, Source, Unavailable};
    /// # use fleetwide_mem_backend::Memory;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
    /// let one_a_minute = Quota::sliding_window(1, Duration::from_secs(60))?;
    /// let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", one_a_minute)
    ///     .on_unavailable(Unavailable::Deny)
    ///     .deny_cache(Duration::from_millis(250))
    ///     .build()?;
    /// let sources = [
    ///     limiter.check("ada").await?.source(), // allowed
    ///     limiter.check("ada").await?.source(), // refused by the fleet's count
    ///     limiter.check("ada").await?.source(), // refused without a trip
    /// ];
    /// assert_eq!(sources, [Source::Shared, Source::Shared, Source::Remembered]);
    /// # Ok(()) }
    /// ```
    pub fn deny_cache(self, horizon: Duration) -> Self {
        Self { deny_cache: horizon, ..self }
    }

    /// Sets of how many keys refusals are remembered. Default: 65,536. Beyond it the oldest half is
    /// forgotten, which costs a trip each. Keys longer than 256 bytes are never remembered.
    pub fn deny_cache_keys_max(self, keys_max: usize) -> Self {
        Self { deny_cache_keys_max: keys_max, ..self }
    }

    /// Buys cells ahead, and spends them without a trip. Default: off, each call is a trip.
    ///
    /// For keys that are called more often than a trip takes. [`Leasing`] states how much more or
    /// less is admitted. Decisions from what is in hand are [`Source::Leased`](crate::Source::Leased);
    /// towards the limit, and for keys that are seldom called, each call is a trip as ever. Calls
    /// with receipts, partial grants and peeks always are; peeks do not see what is in hand anywhere.
    /// Ends with [`Limiter::shutdown`](crate::Limiter::shutdown).
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_limiter::{Leasing, Limiter, Quota, Source, Unavailable};
    /// # use fleetwide_mem_backend::Memory;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
    /// let quota = Quota::sliding_window(100_000, Duration::from_secs(60))?;
    /// let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", quota)
    ///     .on_unavailable(Unavailable::Deny)
    ///     .leased(Leasing::new())
    ///     .build()?;
    /// while limiter.check("tenant-7").await?.source() != Source::Leased {
    ///     tokio::task::yield_now().await; // bought in the background
    /// }
    /// limiter.shutdown().await; // what is left goes back to the fleet
    /// # Ok(()) }
    /// ```
    pub fn leased(self, leasing: Leasing) -> Self {
        Self { leasing: Some(leasing), ..self }
    }

    /// Sets what carries word among the instances that what they remember of a key is void: after a
    /// reset, a refund or a block, and all refusals after a change of the quota. Default: nothing.
    ///
    /// It is told in the background, and nothing rests on it: a word that is lost costs what it costs
    /// without a bus, which is the time of [`deny_cache`](Self::deny_cache), and for what is in hand
    /// of a key that is reset or blocked the lifetime of a [lease](Leasing::lifetime).
    ///
    /// [`build`](Self::build) then panics outside a Tokio runtime.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_limiter::{Limiter, Quota, Unavailable};
    /// # use fleetwide_mem_backend::Memory;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
    /// let quota = Quota::sliding_window(100, Duration::from_secs(60))?;
    /// let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", quota)
    ///     .on_unavailable(Unavailable::Deny)
    ///     .bus(memory.bus().clone())
    ///     .build()?;
    /// # let _ = limiter;
    /// # Ok(()) }
    /// ```
    pub fn bus(self, bus: impl Bus) -> Self {
        let start = |namespace: &_, name: &_, told, hear| {
            voids::start(bus, namespace, name, told, hear);
        };
        Self { bus: Some(Box::new(start)), ..self }
    }
}
