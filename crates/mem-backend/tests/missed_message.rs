//! Messages arrive in order and once, or a subscriber is told how many did not.

mod support;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Bus, Channel, ExecutorExt, Signal};
use fleetwide_mem_backend::{MemBus, MemSubscription, Memory};
use futures_util::{FutureExt, Stream, StreamExt};
use support::{key, pure, tag};

const HOUR: Duration = Duration::from_secs(3600);

fn channel() -> Channel {
    tag(0).channel("said")
}

fn say(bus: &MemBus, text: &str) {
    let said = bus.publish(&channel(), Bytes::copy_from_slice(text.as_bytes())).now_or_never();
    said.expect("publishing waits for nobody").unwrap();
}

/// All that a subscription has to say now: `ready`, `lost`, `-3` for a lag, and the messages.
fn read(subscription: &mut MemSubscription) -> String {
    let mut words = Vec::new();
    while let Some(signal) = subscription.next().now_or_never() {
        words.push(match signal {
            Some(Signal::Ready) => "ready".to_owned(),
            Some(Signal::Lost) => "lost".to_owned(),
            Some(Signal::Lagged(count)) => format!("-{count}"),
            Some(Signal::Message(payload)) => String::from_utf8_lossy(&payload).into_owned(),
            Some(other) => format!("{other:?}"),
            None => {
                words.push("end".to_owned());
                break;
            }
        });
    }
    words.join(" ")
}

#[test]
fn slow_subscriber_is_told_how_many_it_missed_and_where() {
    let memory = Memory::builder().queue_max(3).build();
    let bus = memory.bus();
    let mut slow = bus.subscribe(&channel());
    for text in ["a", "b", "c", "d", "e"] {
        say(bus, text);
    }
    assert_eq!(slow.next().now_or_never(), Some(Some(Signal::Ready)));
    assert_eq!(slow.next().now_or_never(), Some(Some(Signal::Message("a".into()))));
    for text in ["f", "g"] {
        say(bus, text);
    }
    assert_eq!(read(&mut slow), "b c -2 f -1");
    say(bus, "h");
    assert_eq!(read(&mut slow), "h");
}

#[test]
fn slow_subscriber_costs_the_others_nothing() {
    let memory = Memory::builder().queue_max(2).build();
    let bus = memory.bus();
    let (mut slow, mut quick) = (bus.subscribe(&channel()), bus.subscribe(&channel()));
    for text in ["a", "b", "c", "d"] {
        say(bus, text);
        let prefix = if text == "a" { "ready " } else { "" };
        assert_eq!(read(&mut quick), format!("{prefix}{text}"));
    }
    assert_eq!(read(&mut slow), "ready a b -2");
}

#[test]
fn queue_of_a_subscriber_that_never_reads_stays_bounded() {
    let memory = Memory::builder().queue_max(4).build();
    let bus = memory.bus();
    let mut never = bus.subscribe(&channel());
    for _ in 0..100_000 {
        say(bus, "x");
    }
    assert_eq!(read(&mut never), "ready x x x x -99996");
}

#[test]
fn interruption_is_seen_and_ended_by_everybody_on_the_channel() {
    let memory = Memory::new();
    let bus = memory.bus();
    let other_channel = tag(1).channel("said");
    let mut early = bus.subscribe(&channel());
    let mut other = bus.subscribe(&other_channel);
    say(bus, "a");
    bus.interrupt(&channel());
    bus.interrupt(&channel());
    say(bus, "lost with the connection");
    let mut late = bus.subscribe(&channel());
    assert_eq!(read(&mut early), "ready a lost");
    assert_eq!(read(&mut late), "");
    bus.resume(&channel());
    bus.resume(&channel());
    say(bus, "b");
    assert_eq!(read(&mut early), "ready b");
    assert_eq!(read(&mut late), "ready b");
    assert_eq!(read(&mut other), "ready");
}

#[test]
fn interrupted_channel_without_subscribers_stays_interrupted() {
    let memory = Memory::new();
    let bus = memory.bus();
    bus.interrupt(&channel());
    let mut subscription = bus.subscribe(&channel());
    assert_eq!(read(&mut subscription), "");
    drop(subscription);
    let mut subscription = bus.subscribe(&channel());
    bus.resume(&channel());
    assert_eq!(read(&mut subscription), "ready");
}

#[test]
fn dropped_subscription_is_forgotten() {
    let memory = Memory::new();
    let bus = memory.bus();
    let subscriptions: Vec<_> = (0..5).map(|_| bus.subscribe(&channel())).collect();
    assert_eq!(bus.subscribers(&channel()), 5);
    drop(subscriptions);
    assert_eq!(bus.subscribers(&channel()), 0);
}

#[test]
fn subscription_ends_with_its_bus_and_not_before() {
    let memory = Memory::new();
    let executor = memory.executor().clone();
    let mut subscription = memory.bus().subscribe(&channel());
    say(memory.bus(), "a");
    drop(memory);
    assert_eq!(read(&mut subscription), "ready a");
    // The executor publishes on the bus, so the bus is still there.
    let mut next = pin!(subscription.next());
    assert_eq!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    drop(executor);
    assert_eq!(next.now_or_never(), Some(None));
}

#[test]
fn waiting_subscriber_is_woken_once() {
    let memory = Memory::new();
    let mut subscription = memory.bus().subscribe(&channel());
    assert_eq!(read(&mut subscription), "ready");
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let poll = |subscription: &mut MemSubscription| {
        subscription.poll_next_unpin(&mut Context::from_waker(&waker))
    };
    assert_eq!(poll(&mut subscription), Poll::Pending);
    say(memory.bus(), "a");
    say(memory.bus(), "b");
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    for text in ["a", "b"] {
        assert_eq!(poll(&mut subscription), Poll::Ready(Some(Signal::Message(text.into()))));
    }
    // Leaving must not wake anybody, and a wake must not be owed to who has left.
    assert_eq!(poll(&mut subscription), Poll::Pending);
    drop(subscription);
    say(memory.bus(), "c");
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

/// Two steps on one cell publish on two channels. While the first step is between its messages,
/// the second is decided; if that one could deliver by itself, the second channel would hear it
/// first.
#[test]
fn step_that_is_decided_later_does_not_overtake_on_any_channel() {
    let memory = Memory::new();
    let (first, second) = (tag(0).channel("first"), tag(0).channel("second"));
    let mut at_first = memory.bus().subscribe(&first);
    let mut at_second = memory.bus().subscribe(&second);
    let count = {
        let (first, second) = (first.clone(), second.clone());
        move |memory: &Memory| {
            let step = pure(&[&key(0)], |cells: &[Option<&u64>], _, out| {
                let count = cells[0].map_or(1, |count| count + 1);
                out.put(0, count, HOUR);
                for channel in [&first, &second] {
                    out.publish(channel.clone(), Bytes::from(count.to_string()));
                }
            });
            memory.executor().run(&step).now_or_never().unwrap().unwrap();
        }
    };
    let (done, is_done) = mpsc::channel();
    let overtake = {
        let (memory, count) = (memory.clone(), count.clone());
        Mutex::new(Some(move || {
            let memory_too = memory.clone();
            thread::spawn(move || {
                count(&memory_too);
                let _ = done.send(());
            });
            while memory.executor().peek_state::<u64>(&key(0)) != Some(2) {
                thread::yield_now();
            }
            // In vain, if the order holds: the second step waits for its turn to deliver.
            let _ = is_done.recv_timeout(Duration::from_millis(100));
        }))
    };
    assert_eq!(read(&mut at_first), "ready");
    let waker = Waker::from(Arc::new(OnWake(Box::new(move || {
        if let Some(overtake) = overtake.lock().unwrap().take() {
            overtake();
        }
    }))));
    assert_eq!(at_first.poll_next_unpin(&mut Context::from_waker(&waker)), Poll::Pending);
    count(&memory);
    // The second step is over when its turn to deliver is.
    count(&memory);
    assert_eq!(read(&mut at_second), "ready 1 2 3");
    assert_eq!(read(&mut at_first), "1 2 3");
}

/// Does something when it is woken.
struct OnWake(Box<dyn Fn() + Send + Sync>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn publishers_that_race_are_heard_in_one_order() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 500;
    let memory = Memory::builder().queue_max(THREADS * ROUNDS).build();
    let bus = memory.bus();
    let one = bus.subscribe(&channel());
    // Many in between, so that a message is on its way for long.
    let _between: Vec<_> = (0..100).map(|_| bus.subscribe(&channel())).collect();
    let other = bus.subscribe(&channel());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    say(bus, &format!("{thread} {round}"));
                }
            });
        }
    });
    let heard = messages(one);
    assert_eq!(heard.len(), THREADS * ROUNDS);
    assert!(heard == messages(other), "two subscribers hear two orders");
}

/// Steps under different tags publish on one channel: their decisions are ordered only by time.
/// A number drawn after a step has returned must be heard after what that step published.
#[test]
fn what_is_decided_after_a_step_has_returned_is_heard_after_it() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 2_000;
    let memory = Memory::builder().queue_max(THREADS * ROUNDS).build();
    let subscription = memory.bus().subscribe(&channel());
    let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (memory, begun, ended) = (&memory, &begun, &ended);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let number = begun.fetch_add(1, Ordering::SeqCst);
                    let before = ended.load(Ordering::SeqCst);
                    // Two threads share each tag, so that they also meet at its lock.
                    let step = pure(&[&key(thread / 2)], |_, _, out| {
                        out.put(0, number, HOUR);
                        out.publish(channel(), Bytes::from(format!("{number} {before}")));
                    });
                    memory.executor().run(&step).now_or_never().unwrap().unwrap();
                    ended.fetch_max(number + 1, Ordering::SeqCst);
                }
            });
        }
    });
    let heard = messages(subscription);
    assert_eq!(heard.len(), THREADS * ROUNDS);
    // `before` is one more than the largest number whose step had returned when this one began.
    let mut place = vec![0; heard.len()];
    for (at, &(number, _)) in heard.iter().enumerate() {
        place[number] = at;
    }
    for (at, &(number, before)) in heard.iter().enumerate() {
        let late = before.checked_sub(1).filter(|&returned| place[returned] > at);
        assert_eq!(late, None, "step {number} was heard before one that it followed");
    }
}

/// What was published, as pairs of numbers.
fn messages(mut subscription: impl Stream<Item = Signal> + Unpin) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    while let Some(Some(signal)) = subscription.next().now_or_never() {
        if let Signal::Message(payload) = signal {
            let text = String::from_utf8(payload.to_vec()).unwrap();
            let (number, before) = text.split_once(' ').unwrap();
            pairs.push((number.parse().unwrap(), before.parse().unwrap()));
        }
    }
    pairs
}
