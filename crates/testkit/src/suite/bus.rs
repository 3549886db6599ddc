//! What every [`Bus`] must do.

use bytes::Bytes;
use fleetwide_core_traits::{Bus, Channel, Signal};
use futures_core::Stream;
use futures_util::future::join_all;

use super::{DEADLINE, Interrupt, Listener, fresh_tag, run};
use crate::eventually;

/// Runs all cases.
///
/// # Panics
/// If the bus does not keep the contract of [`Bus`].
pub async fn all<B: Bus>(bus: &B, outage: &impl Interrupt) {
    run!((bus):
        a_subscription_is_ready_before_it_hears_anything,
        what_was_said_before_is_never_heard,
        messages_come_in_order,
        any_bytes_are_carried,
        everybody_hears_everything,
        everybody_hears_in_one_order,
        channels_do_not_mix,
        a_dropped_subscription_disturbs_nobody,
    );
    run!((bus, outage): a_subscription_comes_back_after_an_interruption);
}

/// The first signal is `Ready`, and what is published after it arrives.
pub async fn a_subscription_is_ready_before_it_hears_anything(bus: &impl Bus) {
    let channel = fresh_channel();
    let mut listener = Listener::ready(bus, &channel).await;
    say(bus, &channel, "first").await;
    assert_eq!(listener.message().await, "first");
}

/// A bus has no memory.
pub async fn what_was_said_before_is_never_heard(bus: &impl Bus) {
    let channel = fresh_channel();
    say(bus, &channel, "to nobody").await;
    let mut listener = Listener::ready(bus, &channel).await;
    say(bus, &channel, "to one").await;
    assert_eq!(listener.message().await, "to one");
}

/// What one publisher says arrives in the order in which it said it.
pub async fn messages_come_in_order(bus: &impl Bus) {
    let channel = fresh_channel();
    let mut listener = Listener::ready(bus, &channel).await;
    for number in 0..500 {
        say(bus, &channel, &number.to_string()).await;
    }
    for number in 0..500 {
        assert_eq!(listener.message().await, number.to_string());
    }
}

/// Payloads are bytes of any value and number.
pub async fn any_bytes_are_carried(bus: &impl Bus) {
    let channel = fresh_channel();
    let mut listener = Listener::ready(bus, &channel).await;
    let all: Vec<u8> = (0..=255).chain(*b"\r\n*3\r\n\0").collect();
    let large: Vec<u8> = (0..1 << 18).map(|at: u32| (at / 251 + at) as u8).collect();
    for payload in [vec![], all, large] {
        publish(bus, &channel, payload.clone().into()).await;
        assert!(listener.message().await == payload, "{} bytes come as they were", payload.len());
    }
}

/// Each subscription gets each message, also two of one process.
pub async fn everybody_hears_everything(bus: &impl Bus) {
    let channel = fresh_channel();
    let mut one = Listener::ready(bus, &channel).await;
    let mut other = Listener::ready(bus, &channel).await;
    say(bus, &channel, "both").await;
    assert_eq!(one.message().await, "both");
    assert_eq!(other.message().await, "both");
}

/// Publishers that race are heard in the same order by all.
pub async fn everybody_hears_in_one_order<B: Bus>(bus: &B) {
    const COUNT: usize = 200;
    let channel = fresh_channel();
    let mut one = Listener::ready(bus, &channel).await;
    let mut other = Listener::ready(bus, &channel).await;
    let texts: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    join_all(texts.iter().map(|text| say(bus, &channel, text))).await;
    for _ in 0..COUNT {
        assert_eq!(one.message().await, other.message().await);
    }
}

/// A subscription hears its own channel only.
pub async fn channels_do_not_mix(bus: &impl Bus) {
    let tag = fresh_tag();
    let [here, there] = ["a", "ab"].map(|part| tag.channel(part));
    let mut one = Listener::ready(bus, &here).await;
    let mut other = Listener::ready(bus, &there).await;
    say(bus, &there, "there").await;
    say(bus, &here, "here").await;
    assert_eq!(one.message().await, "here");
    assert_eq!(other.message().await, "there");
}

/// The others go on, and a new subscription starts afresh.
pub async fn a_dropped_subscription_disturbs_nobody(bus: &impl Bus) {
    let channel = fresh_channel();
    let mut stays = Listener::ready(bus, &channel).await;
    let leaves = Listener::ready(bus, &channel).await;
    say(bus, &channel, "two").await;
    drop(leaves);
    say(bus, &channel, "one").await;
    assert_eq!(stays.message().await, "two");
    assert_eq!(stays.message().await, "one");
    let mut comes = Listener::ready(bus, &channel).await;
    drop(stays);
    say(bus, &channel, "another").await;
    assert_eq!(comes.message().await, "another");
}

/// `Lost`, then `Ready`, in this order, and then messages again; without anybody's help.
pub async fn a_subscription_comes_back_after_an_interruption<B: Bus>(
    bus: &B,
    outage: &impl Interrupt,
) {
    let channel = fresh_channel();
    let mut listener = Listener::ready(bus, &channel).await;
    let mut said = "before";
    say(bus, &channel, said).await;
    assert_eq!(listener.message().await, said);
    for round in ["first", "second"] {
        outage.interrupt(&channel).await;
        until_lost(&mut listener, said).await;
        // Who comes during the outage has to wait for its end too.
        let mut late = Listener { signals: bus.subscribe(&channel) };
        outage.resume(&channel).await;
        listener.expect(Signal::Ready).await;
        late.expect(Signal::Ready).await;
        said = round;
        // A connection may find out only now that it is dead, and not know what became of its
        // first request.
        let is_taken = async || bus.publish(&channel, said.into()).await.is_ok();
        eventually(DEADLINE, "the bus to take a message again", is_taken).await;
        assert_eq!(listener.message().await, said);
        assert_eq!(late.message().await, said);
    }
}

/// Reads until `Lost`. What was said last may have come twice.
async fn until_lost<S>(listener: &mut Listener<S>, said: &str)
where
    S: Stream<Item = Signal> + Unpin,
{
    loop {
        match listener.next().await {
            Signal::Lost => return,
            Signal::Message(again) if again == said => {}
            other => panic!("read {other:?} instead of {:?}", Signal::Lost),
        }
    }
}

fn fresh_channel() -> Channel {
    fresh_tag().channel("said")
}

async fn say(bus: &impl Bus, channel: &Channel, text: &str) {
    publish(bus, channel, Bytes::copy_from_slice(text.as_bytes())).await;
}

async fn publish(bus: &impl Bus, channel: &Channel, payload: Bytes) {
    bus.publish(channel, payload).await.expect("the bus takes the message");
}
