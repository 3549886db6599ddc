//! Events: published by one instance, delivered to the subscribers of all, none lost silently.
//!
//! # Examples
//! ```
//! use fleetwide::Fleetwide;
//! use fleetwide::events::{Event, Pattern};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleetwide::memory();
//! let mut changes = fleet.events().subscribe(Pattern::new("registry:*")?);
//! fleet.events().publish("registry:plugins", "added: 3").await?;
//! match changes.next().await {
//!     Some(Event::Message(message)) => assert_eq!(message.payload, "added: 3"),
//!     // A gap, a reset or a lag says that something may be missing.
//!     other => panic!("{other:?}"),
//! }
//! # Ok(()) }
//! ```

pub use fleetwide_pubsub_invalidation::{
    Event, EventId, Events, EventsBuilder, Message, Pattern, PublishError, Receipt, Subscription,
    Topic, TopicError,
};

use crate::Fleetwide;
use crate::backend::{FleetBus, FleetExecutor};

impl Fleetwide {
    /// The fleet's event bus. The first call starts it.
    ///
    /// # Panics
    /// If the first call is made outside a Tokio runtime.
    pub fn events(&self) -> Events {
        self.events_once(|| {
            let events = self.events_builder("main").start();
            self.beginnings().watch(events.log().clone(), std::future::ready(()));
            events
        })
    }

    /// Options of an event bus apart from [`events`](Self::events), called `name`.
    ///
    /// # Panics
    /// If `name` is empty or longer than 64 KiB.
    pub fn events_builder(&self, name: &str) -> EventsBuilder<FleetExecutor, FleetBus> {
        let tag = self.namespace().tag("events", name.as_bytes());
        let tag = tag.expect("the name of an event bus has 1 to 65536 bytes");
        let backend = self.events_backend();
        Events::builder(backend.executor(), backend.bus(), tag)
    }
}
