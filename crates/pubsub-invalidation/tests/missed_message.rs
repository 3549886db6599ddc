//! Messages get lost in every way there is, and every entry is applied all the same.
//!
//! Tried by hand: with the check for a hole and the comparison with the entry before both taken out
//! of `Sequence::offer`, so that any later entry counts as the next, the first test fails. Either
//! alone finds the hole; the number finds it without a question to the server.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{DEADLINE, LossyBus, NEVER, QUICK, Recorder, append, append_keeping, fresh_tag};
use fleetwide_core_traits::log::{CHANNEL_PART, Incoming};
use fleetwide_core_traits::{Bus, Tag};
use fleetwide_mem_backend::{MemBus, Memory};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_testkit::eventually;

/// A log in memory that is followed over a bus which can lose messages.
struct Setup {
    memory: Memory,
    bus: LossyBus<MemBus>,
    tag: Tag,
    told: Recorder,
    log: Log,
}

impl Setup {
    async fn new(memory: Memory, heartbeat: Duration) -> Self {
        let (tag, told) = (fresh_tag(), Recorder::new());
        let bus = LossyBus::new(memory.bus().clone());
        let log = Log::builder(memory.executor().clone(), bus.clone(), tag.clone())
            .follower(told.follower())
            .heartbeat(heartbeat)
            .start();
        log.begun().await.unwrap();
        let setup = Self { memory, bus, tag, told, log };
        // No check here: the acknowledged subscription alone has to cause a beat.
        let is_up = async || setup.log.health().is_up();
        eventually(DEADLINE, "the log to be followed", is_up).await;
        setup
    }

    async fn append(&self, bodies: &str) {
        for body in bodies.split_whitespace() {
            append(self.memory.executor(), &self.tag, body).await;
        }
    }
}

#[tokio::test]
async fn a_lost_message_is_replayed_as_soon_as_the_next_one_shows_the_hole() {
    let log = Setup::new(Memory::new(), NEVER).await;
    log.append("a").await;
    log.told.expect("first@0 a").await;
    log.bus.lose(1);
    log.append("b c").await;
    log.told.expect("first@0 a b c").await;
}

#[tokio::test]
async fn a_lost_message_that_nothing_follows_is_found_by_the_heartbeat() {
    let log = Setup::new(Memory::new(), QUICK).await;
    log.bus.lose(2);
    log.append("a b").await;
    log.told.expect("first@0 a b").await;
}

#[tokio::test]
async fn a_deaf_subscription_is_covered_by_the_heartbeat_and_replaced() {
    let log = Setup::new(Memory::new(), QUICK).await;
    log.bus.lose(usize::MAX);
    for number in 0..20 {
        log.append("a").await;
        let stamp = log.log.position().unwrap();
        assert!(log.told.wait(|record| record.text.len() == number + 2).await, "{stamp:?}");
    }
    assert!(log.bus.subscribed.load(Ordering::SeqCst) > 1, "nobody subscribed again");
}

#[tokio::test]
async fn entries_come_by_heartbeat_while_there_is_no_subscription() {
    let log = Setup::new(Memory::new(), QUICK).await;
    let channel = log.tag.channel(CHANNEL_PART);
    log.memory.bus().interrupt(&channel);
    log.append("a").await;
    log.told.expect("first@0 a").await;
    log.append("b c").await;
    log.told.expect("first@0 a b c").await;
    log.memory.bus().resume(&channel);
    log.append("d").await;
    log.told.expect("first@0 a b c d").await;
}

#[tokio::test]
async fn what_was_missed_while_the_subscription_was_away_is_replayed_on_its_return() {
    let log = Setup::new(Memory::new(), NEVER).await;
    let channel = log.tag.channel(CHANNEL_PART);
    log.memory.bus().interrupt(&channel);
    log.append("a b c").await;
    log.memory.bus().resume(&channel);
    log.told.expect("first@0 a b c").await;
}

#[tokio::test]
async fn a_burst_that_the_subscription_drops_is_replayed() {
    let memory = Memory::builder().queue_max(1).build();
    let log = Setup::new(memory, NEVER).await;
    let bodies = "x ".repeat(500);
    log.append(&bodies).await;
    log.told.expect(&format!("first@0 {}", bodies.trim_end())).await;
}

#[tokio::test]
async fn what_the_stream_no_longer_has_is_reported_as_a_gap() {
    let log = Setup::new(Memory::new(), NEVER).await;
    log.append("a").await;
    log.told.expect("first@0 a").await;
    log.bus.lose(9);
    for body in ["b", "c", "d", "e", "f"] {
        append_keeping(log.memory.executor(), &log.tag, body, 2).await;
    }
    log.log.check();
    log.told.expect("first@0 a gap(1)@4 e f").await;
}

#[tokio::test]
async fn a_follower_that_comes_later_begins_where_the_log_is() {
    let log = Setup::new(Memory::new(), NEVER).await;
    log.append("a b c").await;
    let told = Recorder::new();
    let memory = &log.memory;
    let late = Log::builder(memory.executor().clone(), memory.bus().clone(), log.tag.clone())
        .follower(told.follower())
        .start();
    assert_eq!(late.begun().await.unwrap().seq, 3);
    log.append("d").await;
    told.expect("first@3 d").await;
}

#[tokio::test]
async fn caught_up_returns_when_the_entry_was_applied() {
    let log = Setup::new(Memory::new(), NEVER).await;
    let meta = append(log.memory.executor(), &log.tag, "a").await;
    log.log.caught_up(meta.at).await.unwrap();
    assert_eq!(log.told.text(), "first@0 a");
    assert_eq!(log.log.position(), Some(meta.at));
}

#[tokio::test]
async fn noise_on_the_channel_changes_nothing() {
    let log = Setup::new(Memory::new(), NEVER).await;
    let channel = log.tag.channel(CHANNEL_PART);
    for noise in [&b""[..], b"\x01", b"\x63hello", &Incoming::signal(b"hint")] {
        let payload = bytes::Bytes::copy_from_slice(noise);
        log.memory.bus().publish(&channel, payload).await.unwrap();
    }
    log.append("a").await;
    log.told.expect("first@0 a").await;
}

#[tokio::test]
async fn the_task_and_the_subscription_end_with_the_last_handle() {
    let log = Setup::new(Memory::new(), QUICK).await;
    let (bus, channel) = (log.memory.bus().clone(), log.tag.channel(CHANNEL_PART));
    assert_eq!(bus.subscribers(&channel), 1);
    let clone = log.log.clone();
    drop(log);
    assert!(clone.begun().await.is_ok());
    drop(clone);
    let is_gone = async || bus.subscribers(&channel) == 0;
    eventually(DEADLINE, "the subscription to end", is_gone).await;
}
