//! What publishers and subscribers may rely on, over memory.
//!
//! Tried by hand: with the recognition of duplicates taken out of `Hub::deliver`,
//! `a_retried_publish_is_delivered_once` and four others here and over Redis fail.

mod common;

use bytes::Bytes;
use common::{DEADLINE, Fault, Faulty, LossyBus, NEVER, QUICK, append, append_keeping, fresh_tag};
use fleetwide_core_traits::Tag;
use fleetwide_mem_backend::{MemBus, MemExecutor, Memory};
use fleetwide_pubsub_invalidation::{
    Event, Events, EventsBuilder, Pattern, PublishError, Subscription, TopicError,
};
use fleetwide_testkit::eventually;
use futures_util::StreamExt;
use tokio::time::timeout;

/// Buses of one fleet, all on one memory.
struct Fleet {
    memory: Memory,
    executor: Faulty<MemExecutor>,
    bus: LossyBus<MemBus>,
    tag: Tag,
}

impl Fleet {
    fn new() -> Self {
        let memory = Memory::new();
        let executor = Faulty::new(memory.executor().clone());
        let bus = LossyBus::new(memory.bus().clone());
        Self { memory, executor, bus, tag: fresh_tag() }
    }

    fn builder(&self) -> EventsBuilder<Faulty<MemExecutor>, LossyBus<MemBus>> {
        Events::builder(self.executor.clone(), self.bus.clone(), self.tag.clone()).heartbeat(QUICK)
    }

    async fn start(&self) -> Events {
        let events = self.builder().start();
        events.log().begun().await.unwrap();
        events
    }

    /// An instance whose server never fails.
    async fn start_healthy(&self) -> Events {
        let (executor, bus) = (self.memory.executor().clone(), self.memory.bus().clone());
        let events = Events::builder(executor, bus, self.tag.clone()).heartbeat(QUICK).start();
        events.log().begun().await.unwrap();
        events
    }
}

fn subscribe(events: &Events, pattern: &str) -> Subscription {
    events.subscribe(Pattern::new(pattern).unwrap())
}

async fn next(subscription: &mut Subscription) -> String {
    let event = timeout(DEADLINE, subscription.next()).await.expect("an event comes in time");
    match event {
        Some(Event::Message(message)) => {
            let payload = String::from_utf8_lossy(&message.payload).into_owned();
            format!("{}={payload}", message.topic)
        }
        Some(Event::Gap { first, last }) => format!("gap({first}-{last})"),
        Some(Event::Reset) => "reset".to_owned(),
        Some(Event::Lagged(count)) => format!("lagged({count})"),
        Some(other) => format!("{other:?}"),
        None => "end".to_owned(),
    }
}

/// Everything up to the message `t=end`, which the test publishes last.
async fn up_to_end(subscription: &mut Subscription) -> String {
    let mut all = Vec::new();
    loop {
        match next(subscription).await.as_str() {
            "t=end" => return all.join(" "),
            event => all.push(event.to_owned()),
        }
    }
}

#[tokio::test]
async fn every_subscriber_gets_each_event_of_its_topics_once_and_in_order() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.start().await, fleet.start().await);
    let mut all = [subscribe(&one, "*"), subscribe(&two, "*")];
    let mut registry = subscribe(&two, "registry:*");
    one.publish("registry:a", "1").await.unwrap();
    two.publish("users", "2").await.unwrap();
    one.publish("registry:b", "3").await.unwrap();
    one.publish("t", "end").await.unwrap();
    for subscription in &mut all {
        assert_eq!(up_to_end(subscription).await, "registry:a=1 users=2 registry:b=3");
    }
    assert_eq!(next(&mut registry).await, "registry:a=1");
    assert_eq!(next(&mut registry).await, "registry:b=3");
}

#[tokio::test]
async fn a_message_names_its_publisher_and_its_place() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.start().await, fleet.start().await);
    let mut subscription = subscribe(&two, "t");
    let receipt = one.publish("t", Bytes::from_static(b"\0\xff")).await.unwrap();
    let Some(Event::Message(message)) = StreamExt::next(&mut subscription).await else {
        panic!("a message comes")
    };
    assert_eq!(message.payload[..], b"\0\xff"[..]);
    assert_eq!((message.id, message.stamp), (receipt.id, receipt.stamp));
    assert_eq!(message.id.source, one.source());
    assert_eq!(message.stamp.unwrap().seq, 1);
}

/// The server has taken the event, and the answer was lost. So it is sent again.
#[tokio::test]
async fn a_retried_publish_is_delivered_once() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.start().await, fleet.start_healthy().await);
    let mut both = [subscribe(&one, "t"), subscribe(&two, "t")];
    fleet.executor.set(Fault::AnswersLost);
    assert_eq!(one.publish("t", "a").await.unwrap().stamp, None);
    fleet.executor.set(Fault::None);
    timeout(DEADLINE, one.flushed()).await.unwrap();
    let last = one.publish("t", "end").await.unwrap();
    assert!(last.stamp.unwrap().seq > 2, "it was sent at least twice");
    for subscription in &mut both {
        assert_eq!(up_to_end(subscription).await, "t=a");
    }
}

#[tokio::test]
async fn events_are_delivered_here_while_the_server_is_away_and_published_in_order_afterwards() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.start().await, fleet.start_healthy().await);
    let (mut here, mut there) = (subscribe(&one, "t"), subscribe(&two, "t"));
    fleet.executor.set(Fault::Away);
    for payload in ["a", "b", "c"] {
        assert_eq!(one.publish("t", payload).await.unwrap().stamp, None);
    }
    for payload in ["a", "b", "c"] {
        assert_eq!(next(&mut here).await, format!("t={payload}"));
    }
    assert_eq!(one.waiting(), 3);
    fleet.executor.set(Fault::None);
    timeout(DEADLINE, one.flushed()).await.unwrap();
    one.publish("t", "end").await.unwrap();
    assert_eq!(up_to_end(&mut there).await, "t=a t=b t=c");
    assert_eq!(up_to_end(&mut here).await, "", "nothing is delivered here again");
}

#[tokio::test]
async fn a_full_outbound_queue_refuses_the_event_and_delivers_it_nowhere() {
    let fleet = Fleet::new();
    let one = fleet.builder().outbound_max(2).start();
    one.log().begun().await.unwrap();
    let mut here = subscribe(&one, "t");
    fleet.executor.set(Fault::Away);
    for payload in ["a", "b"] {
        one.publish("t", payload).await.unwrap();
    }
    let refused = one.publish("t", "c").await.unwrap_err();
    assert_eq!(refused, PublishError::Full { max: 2 });
    assert!(refused.is_retryable() && !refused.may_have_happened());
    fleet.executor.set(Fault::None);
    timeout(DEADLINE, one.flushed()).await.unwrap();
    one.publish("t", "end").await.unwrap();
    assert_eq!(up_to_end(&mut here).await, "t=a t=b");
}

#[tokio::test]
async fn own_subscribers_get_what_is_published_before_the_log_is_followed() {
    let fleet = Fleet::new();
    fleet.executor.set(Fault::Away);
    let one = fleet.builder().start();
    let mut here = subscribe(&one, "t");
    one.publish("t", "a").await.unwrap();
    fleet.executor.set(Fault::None);
    one.log().begun().await.unwrap();
    timeout(DEADLINE, one.flushed()).await.unwrap();
    one.publish("t", "end").await.unwrap();
    assert_eq!(up_to_end(&mut here).await, "t=a");
}

#[tokio::test]
async fn a_slow_subscriber_is_told_how_many_it_missed_and_others_are_not_held_up() {
    let fleet = Fleet::new();
    let one = fleet.builder().queue_max(4).start();
    let two = fleet.start().await;
    one.log().begun().await.unwrap();
    let (mut slow, mut quick) = (subscribe(&one, "t"), subscribe(&two, "t"));
    for number in 0..10 {
        one.publish("t", number.to_string()).await.unwrap();
        assert_eq!(next(&mut quick).await, format!("t={number}"));
    }
    let position = two.log().position().unwrap();
    one.log().caught_up(position).await.unwrap();
    for expected in ["t=0", "t=1", "t=2", "t=3", "lagged(6)"] {
        assert_eq!(next(&mut slow).await, expected);
    }
    one.publish("t", "later").await.unwrap();
    assert_eq!(next(&mut slow).await, "t=later");
}

#[tokio::test]
async fn what_the_server_no_longer_has_is_a_gap_for_every_subscriber() {
    let fleet = Fleet::new();
    let events = fleet.builder().heartbeat(NEVER).start();
    events.log().begun().await.unwrap();
    let is_up = async || {
        events.log().check();
        events.log().health().is_up()
    };
    eventually(DEADLINE, "the log to be followed", is_up).await;
    let mut other_topic = subscribe(&events, "other");
    fleet.bus.lose(9);
    for _ in 0..5 {
        append_keeping(fleet.memory.executor(), &fleet.tag, "\x01\0\x01tx", 2).await;
    }
    events.log().check();
    assert_eq!(next(&mut other_topic).await, "gap(1-3)");
}

/// A newer version, or something else, wrote it. Nobody can know whom it was for.
#[tokio::test]
async fn an_entry_that_is_no_event_is_a_gap_and_not_silence() {
    let fleet = Fleet::new();
    let events = fleet.start().await;
    let mut subscription = subscribe(&events, "t");
    append(fleet.memory.executor(), &fleet.tag, "\x02from the future").await;
    assert_eq!(next(&mut subscription).await, "gap(1-1)");
    events.publish("t", "a").await.unwrap();
    assert_eq!(next(&mut subscription).await, "t=a");
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_before_anything_happens() {
    let fleet = Fleet::new();
    let events = fleet.builder().payload_bytes_max(8).start();
    let refused = async |topic: &str, payload: &'static str| {
        events.publish(topic, payload).await.unwrap_err()
    };
    assert_eq!(refused("", "").await, PublishError::Topic(TopicError::Empty));
    assert_eq!(refused("a*", "").await, PublishError::Topic(TopicError::Star));
    assert_eq!(refused("a", "123456789").await, PublishError::TooLarge { len: 9, max: 8 });
    assert!(!refused("", "").await.is_retryable());
    // The limit of an entry holds, whatever was asked for.
    let events = fleet.builder().payload_bytes_max(usize::MAX).start();
    let huge = vec![0; 256 * 1024];
    let refused = events.publish("a", huge.clone()).await.unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge { .. }));
    let longest_topic = "t".repeat(256);
    events.publish(&longest_topic, huge[300..].to_vec()).await.unwrap();
}

#[tokio::test]
async fn subscriptions_end_with_the_last_handle_and_get_what_was_left() {
    let fleet = Fleet::new();
    let events = fleet.start().await;
    let mut subscription = subscribe(&events, "t");
    let receipt = events.publish("t", "a").await.unwrap();
    events.log().caught_up(receipt.stamp.unwrap()).await.unwrap();
    let clone = events.clone();
    drop(events);
    drop(clone);
    assert_eq!(next(&mut subscription).await, "t=a");
    assert_eq!(next(&mut subscription).await, "end");
}

/// A table of this process that is full refuses; that passes, so the event waits.
#[tokio::test]
async fn a_full_table_makes_events_wait() {
    let memory = Memory::builder().cells_max(1).build();
    append(memory.executor(), &fresh_tag(), "takes the only cell").await;
    let (executor, bus) = (memory.executor().clone(), memory.bus().clone());
    let events = Events::builder(executor, bus, fresh_tag()).start();
    let mut here = subscribe(&events, "t");
    assert_eq!(events.publish("t", "a").await.unwrap().stamp, None);
    assert_eq!(next(&mut here).await, "t=a");
    assert_eq!(events.waiting(), 1);
}
