//! Rate limits that hold for a whole fleet: five algorithms, exact by the server's clock.
//!
//! N instances that count by themselves let N times the limit through. Here all of them spend from
//! one count, and each call is one atomic step on it:
//!
//! 1. A [`Quota`] says what each key may spend, and by which algorithm. It is checked once.
//! 2. [`Limiter::check`] names the key, and makes the step: a pure decision for this process
//!    ([`Algorithm::decide`]), and a script for a server, which is its twin.
//! 3. The executor runs one or the other, atomically, by its own clock. What is allowed is spent in
//!    the same step; a refusal spends nothing.
//! 4. If no answer comes within the deadline (20 ms), or none is expected, the chosen
//!    [`Unavailable`] answers: all, none, or this instance's share. One caller at a time asks the
//!    backend meanwhile, so an outage does not delay the others.
//! 5. The [`Decision`] says what is left, when it pays to come again, and who decided.
//!
//! # Promises
//! - **Never over.** While the count is shared and no acknowledged write is lost, what is admitted
//!   in any interval keeps the algorithm's contract, for any number of instances. [`Quota`] has the
//!   contracts.
//! - **`retry_after` is exact.** One microsecond earlier the same call is refused; at that time it
//!   is allowed, if nobody else spends meanwhile.
//! - **A refusal debits nothing**, and writes nothing, so a flood of them replicates nothing. The
//!   one exception: the clock went back, and the refusal re-anchors the key's state.
//! - **A clock that goes back** forgets nothing. A key is as good as new within the time that GCRA
//!   or the token bucket takes to earn a burst, within a window and a 63rd of it, a window (the
//!   log), or two (the fixed window).
//! - **A change of limit** takes effect at once, and what was spent stays spent, also while old and
//!   new instances run side by side. It is a new deployment, or [`Limiter::set_quota`], or for one
//!   call [`Limiter::check_with_quota`].
//! - **A refund** gives back only what time has not, so with any number of refunds the contract holds
//!   for what was spent and kept. A receipt is good for one of them.
//! - **A request can be made again.** With [`Limiter::check_idempotent`] a retry within a minute gets
//!   the first answer, and spends nothing.
//! - **A failover gives little twice.** After a promoted replica missed writes, or a server came back
//!   without them, the excess is at most what is granted before the survivors' debts arrive, and
//!   grants that no survivor saw ([below](#after-a-failover)).
//! - **Every key expires** when it says no more than no key at all.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//! use fleetwide_core_traits::Namespace;
//! use fleetwide_limiter::{Decision, Limiter, Quota, Unavailable};
//! use fleetwide_mem_backend::Memory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let namespace = Namespace::new("shop")?;
//! let quota = Quota::sliding_window(100, Duration::from_secs(60))?;
//! let limiter = Limiter::builder(Memory::new().executor().clone(), &namespace, "api", quota)
//!     .on_unavailable(Unavailable::LocalShare { instances: 3 })
//!     .build()?;
//! match limiter.check("tenant-7:203.0.113.9").await? {
//!     Decision::Allow { remaining, .. } => assert_eq!(remaining, 99),
//!     Decision::Deny { retry_after, .. } => println!("come again in {retry_after:?}"),
//! }
//! # Ok(()) }
//! ```
//!
//! The same over Redis takes another executor, and nothing else changes.
//!
//! # Fewer trips
//! Calls that cannot wait for a trip, or are too many for it, make fewer:
//!
//! - Calls on one key that come while one is in flight share the next one
//!   ([`combining`](LimiterBuilder::combining), on). It changes no answer.
//! - A refusal is remembered while it is surely true ([`deny_cache`](LimiterBuilder::deny_cache), on,
//!   1 s at most). After a reset, a refund or a larger limit elsewhere it can refuse for as long as
//!   that what could be allowed; a [`bus`](LimiterBuilder::bus) makes that shorter.
//! - Cells of hot keys are bought ahead ([`leased`](LimiterBuilder::leased), off). They may be used
//!   later than they were bought, within the bounds that [`Leasing`] states.
//!
//! # Waiting
//! [`Limiter::until_ready`] waits until a cost is spent, in the order of arrival within this process,
//! and answers at once when that would take too long.
//!
//! # Several limits
//! [`multi::Limits`] spends of several levels in one step, all or none: tenant > user > route, or 10 a
//! second and 1,000 an hour.
//!
//! # At once
//! [`concurrency::ConcurrencyLimiter`] limits how much is under way: a permit is a lease that this
//! process renews while it lives, so that of a killed process comes back. Levels of
//! [`multi::Limits`] can be such limits too.
//!
//! # Before a change
//! A [`Shadow`] tries another quota on live traffic, in the same trips, and changes no answer:
//! [`Limiter::shadow_report`] says how often both would disagree, about which keys, and how the first
//! of those calls was decided.
//!
//! # How exact
//! [`LimiterBuilder::sample_accuracy`] has the decisions over some keys judged by an exact count, so
//! that what remembered refusals, leases and outages cost is measured where it happens.
//!
//! # After a failover
//! Each answer says how much the whole fleet has spent of a key, so each instance knows it of the keys
//! that it asks about. It keeps that, with the history of the data that the answer is from
//! ([`Epoch`](fleetwide_core_traits::Epoch)), and when the history is another one, each survivor makes
//! good what it knows: all keys at once, in the background, and a key that is called before that is
//! done, before the call is decided. The server takes the larger of what it has and what it is told,
//! never the sum. So it does not matter how many survivors come, nor in which order.
//!
//! - It holds for all five algorithms, over backends with histories. In memory nothing is lost.
//! - A reset is not undone by who did not see it, if the new primary knows of it. One that the new
//!   primary has missed may be: then the debt from before it counts, until time has given it back.
//!   So too a refund. What was granted before the failover cannot be refunded after it, where
//!   anything was made good.
//! - Cells that a sliding window or a log has missed count from when the last of all was spent.
//! - Of a sliding window or a log, a survivor who knows of more refunds than the new primary takes as
//!   many cells out as it puts others in their place: they are taken for those that were given back. If
//!   the new primary has granted them since, as many more can be granted as it did.
//! - Who is refused by a smaller quota learns no more than that it is used up; what is known by a larger
//!   one stays.
//! - A fixed window ends by the server's clock. What is owed counts for the window whose end is nearest
//!   to the one that the survivor was told of, and so for the right one, unless the clocks of both
//!   servers and the trips are off by half a window. On a primary whose clock is behind it counts to
//!   the end of the window there, if that is a minute behind at most.
//! - What a token bucket is given back is rounded up to µs, and each refund that a survivor has not
//!   heard of takes as much off its debt: more than was given, by what less than a µs earns.
//! - An instance keeps [65,536 keys](LimiterBuilder::debt_keys_max), those that count longest; of
//!   others the new primary admits what it has missed once more. So it does of a key whose instances
//!   all died, and of one that an instance has only peeked at.
//! - [`multi::Limits`] carries each of its levels that limit a rate, and knows of a level also by looks
//!   and by refusals of others. Permits are not carried: they are renewed
//!   ([how many may be too many](concurrency#after-a-failover)).
//! - An instance that is cut off brings its debts when it is back; what they have cost by then is
//!   'before they arrive'. A server that loses data while its connections stand (`FLUSHALL`, or a
//!   demotion and a promotion between two calls) is found out when the next one is made. Blocks are not
//!   carried, nor what leases have bought beyond what they have debited.
//!
//! # Which algorithm
//! The sliding window gives a client its whole quota at once and never more than that in any
//! window: take it for 'at most 100 a minute'. GCRA spreads the quota: take it to keep a steady
//! pace, with a burst of your choice, and where a key must be as small as it can be.
//!
//! The token bucket keeps GCRA's contract at rates that are no whole number of µs per cell. The
//! sliding log is exact to the cell, for maxima up to 128. The fixed window begins at multiples of
//! its length, such as midnight, and lets twice the maximum through over a boundary.
//! `docs/choosing-an-algorithm.md` has what each costs and how exact it is.
//!
//! The window counts 64 sub-windows, of which 63 are a window. So it is never over, and a refusal
//! means that 64/63 of a window is full: it can admit up to 1.6 % less than an exact log would.

#![forbid(unsafe_code)]

mod accuracy;
mod algorithm;
mod bucket;
mod builder;
mod change;
mod combine;
pub mod concurrency;
mod counter;
mod debts;
mod decision;
mod denials;
mod error;
mod fallback;
mod fixed;
mod floors;
mod gcra;
mod held;
mod key_share;
mod lease;
mod limiter;
mod log;
pub mod multi;
mod once;
pub mod op;
mod policy;
mod quota;
mod receipt;
mod shadow;
mod telemetry;
mod told;
mod verbs;
mod voids;
mod wait;
mod window;

pub use accuracy::Accuracy;
pub use algorithm::{Algorithm, Debit, Owed, Verbs};
pub use bucket::BucketState;
pub use builder::LimiterBuilder;
pub use decision::{Decision, Source, Verdict};
pub use error::{CheckError, ConfigError, QuotaChangeError, RefundError, ResetError, WaitError};
pub use fallback::Unavailable;
pub use fallback::gate::RungChange;
pub use fixed::FixedState;
pub use gcra::GcraState;
pub use held::{Answer, Held, Mark};
pub use lease::Leasing;
pub use limiter::Limiter;
pub use log::LogState;
pub use policy::{PolicyName, PolicyNameError};
pub use quota::{BucketQuota, FixedQuota, GcraQuota, LogQuota, Quota, QuotaError, WindowQuota};
pub use receipt::{Grant, Receipt, Refunded};
pub use shadow::{Agreement, Divergence, FlippingKey, Opinion, Shadow, ShadowReport};
pub use window::WindowState;
