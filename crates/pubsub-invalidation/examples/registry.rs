//! Two instances keep the same list of nodes, each from the events that it hears.
//!
//! Events change the list, and whatever may have been missed is read again from where the list
//! comes from: that is all that a subscriber has to get right.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeSet;

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::Memory;
use fleetwide_pubsub_invalidation::{Event, Events, Pattern, Subscription};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two buses on one memory are a fleet in one process. With the executor and the bus of a Redis
    // handle in their place, nothing else changes.
    let memory = Memory::new();
    let tag = Namespace::new("shop")?.tag("events", b"main")?;
    let start =
        || Events::builder(memory.executor().clone(), memory.bus().clone(), tag.clone()).start();
    let (one, two) = (start(), start());
    one.log().begun().await?;
    two.log().begun().await?;

    let here = follow(one.subscribe(Pattern::new("registry:*")?));
    let there = follow(two.subscribe(Pattern::new("registry:*")?));
    one.publish("registry:joined", "node-1").await?;
    two.publish("registry:joined", "node-2").await?;
    one.publish("registry:left", "node-1").await?;

    // Subscriptions end with the last handle of their bus, after the last event.
    let last = two.publish("other", "not about nodes").await?;
    for events in [one, two] {
        events.log().caught_up(last.stamp.ok_or("the server is away")?).await?;
    }
    println!("one knows {:?}, two knows {:?}", here.await?, there.await?);
    Ok(())
}

/// Keeps the list until the bus ends.
fn follow(mut subscription: Subscription) -> tokio::task::JoinHandle<BTreeSet<String>> {
    tokio::spawn(async move {
        let mut nodes = BTreeSet::new();
        while let Some(event) = subscription.next().await {
            match event {
                Event::Message(message) => {
                    let node = String::from_utf8_lossy(&message.payload).into_owned();
                    match message.topic.as_str() {
                        "registry:joined" => drop(nodes.insert(node)),
                        "registry:left" => drop(nodes.remove(&node)),
                        _ => {}
                    }
                }
                // Here a service reads the list from its database.
                _ => nodes.clear(),
            }
        }
        nodes
    })
}
