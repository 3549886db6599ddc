//! One sequenced log of events and invalidations: nothing is lost silently.
//!
//! A log lives under one [`Tag`](fleetwide_core_traits::Tag): a meta string (where it is), a capped
//! stream (its last entries) and a channel (its entries as they come). Every entry has a number, a
//! name drawn at random, and the name of the entry before it. What following it does:
//!
//! 1. [`Log`] subscribes to the channel. When the subscription is acknowledged, and not before, a
//!    [`Beat`](ops::Beat) reads where the log is: what comes later comes by message.
//! 2. An entry that comes by message is the next one, or a duplicate, or shows a hole, or does not
//!    fit. Only the next one is applied, inside the receive loop.
//! 3. A hole is read from the stream with [`Replay`](ops::Replay), from the last applied entry on,
//!    whose name has to be the same. What the stream no longer has is reported as
//!    [`Begin::Gap`](fleetwide_core_traits::log::Begin::Gap).
//! 4. A heartbeat reads where the log is over the command path. So a lost last message, a quiet
//!    channel and a subscription that brings nothing are found within it, and messages are not
//!    needed at all for entries to arrive. When everything that a beat saw has been applied, the
//!    follower is [verified](fleetwide_core_traits::log::Follower::verified) as of the moment
//!    before the beat was sent.
//! 5. A server that went back in time tells another history under the old name. Whoever finds that
//!    out ends the name with [`RaiseEpoch`](ops::RaiseEpoch), once for all followers, and each of
//!    them is told [`Begin::Reset`](fleetwide_core_traits::log::Begin::Reset).
//! 6. Each beat leaves a sign of life on the server: who follows, and what it has applied. So whoever
//!    has written can wait until all live followers have applied it ([`Log::applied_by_all`]); a
//!    nudge on the channel makes them beat at once.
//!
//! [`Events`] is an event bus on such a log. The cache has a log of its own, whose entries are
//! appended by its scripts; it is driven as any other
//! [`Follower`](fleetwide_core_traits::log::Follower).
//!
//! # Examples
//! ```
//! use fleetwide_core_traits::Namespace;
//! use fleetwide_mem_backend::Memory;
//! use fleetwide_pubsub_invalidation::{Event, Events, Pattern};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Joined {
//!     node: String,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = Memory::new();
//! let tag = Namespace::new("shop")?.tag("events", b"main")?;
//! let events = Events::builder(memory.executor().clone(), memory.bus().clone(), tag).start();
//! let mut registry = events.subscribe(Pattern::new("registry:*")?);
//!
//! let joined = Joined { node: "node-7".to_owned() };
//! events.publish("registry:joined", serde_json::to_vec(&joined)?).await?;
//!
//! match registry.next().await {
//!     Some(Event::Message(message)) => {
//!         assert_eq!(message.topic.as_str(), "registry:joined");
//!         assert_eq!(serde_json::from_slice::<Joined>(&message.payload)?, joined);
//!     }
//!     // Something was missed, and it is known that it was: whatever was built from events has to
//!     // be read again from where it comes from.
//!     Some(Event::Gap { .. } | Event::Reset | Event::Lagged(_)) => {}
//!     _ => unreachable!("the bus goes on while `events` is there"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Metrics
//! All have the label `log`, which is the log's tag. Counters end with `_total`.
//!
//! | Metric | Meaning |
//! | --- | --- |
//! | `fleetwide_log_entries_total` | entries applied; `way` is `message` or `replay` |
//! | `fleetwide_log_duplicates_total` | entries that came again |
//! | `fleetwide_log_unreadable_total` | messages that are none of ours |
//! | `fleetwide_log_replays_total` | pages read from the stream |
//! | `fleetwide_log_gaps_total` | gaps that were reported |
//! | `fleetwide_log_resets_total` | resets that were reported |
//! | `fleetwide_log_epochs_raised_total` | histories that this instance ended |
//! | `fleetwide_log_failures_total` | questions to the server without an answer |
//! | `fleetwide_log_lag_entries` | entries known to exist and not applied yet |
//! | `fleetwide_log_verified_age_seconds` | age of the last proof that nothing is missing |
//! | `fleetwide_log_health` | 2 up, 1 degraded, 0 down |
//! | `fleetwide_events_published_total` | events that the server has taken |
//! | `fleetwide_events_queued_total` | events that had to wait for the server |
//! | `fleetwide_events_refused_total` | events that were not accepted |
//! | `fleetwide_events_delivered_total` | events put into a subscriber's queue |
//! | `fleetwide_events_lagged_total` | events dropped because a subscriber was slow |
//! | `fleetwide_events_duplicates_total` | events that came again |
//! | `fleetwide_events_unreadable_total` | entries that are no event of a known version |
//! | `fleetwide_events_waiting` | events that wait for the server now |
//! | `fleetwide_events_subscribers` | subscribers now |
//!
//! # What is not promised
//! - A gap is told from a reset by comparing names. If a server went back in time, and has then
//!   appended more than its stream keeps before any follower of that log looked again, there is
//!   nothing left to compare, and what is a reset is reported as a gap.
//! - A name is known to be an old one to those who followed it. If all followers of a log have
//!   started since, a server that tells an old history again is believed.
//! - A deposed primary that still takes writes is followed until it is found out. With
//!   `min-replicas-to-write` it refuses the beats, so nobody is verified by it; how soon, is
//!   `min-replicas-max-lag`.

mod backoff;
mod builder;
mod envelope;
mod error;
mod events;
mod listener;
mod log;
pub mod ops;
mod pending;
mod pursuit;
mod roll;
mod sequence;
mod standing;
mod telemetry;
mod topic;
mod verify;

pub use builder::LogBuilder;
pub use error::{CatchUpError, PublishError};
pub use events::{Event, EventId, Events, EventsBuilder, Message, Receipt, Subscription};
pub use log::Log;
pub use topic::{Pattern, Topic, TopicError};
