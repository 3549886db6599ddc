//! One sequenced log of events and invalidations: nothing is lost silently.

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
