//! What the tests of logs share: a follower that records, and backends that fail on demand.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod fleet;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Begin, Entry, Epoch, Follower, Meta, Stamp};
use fleetwide_core_traits::{
    BackendError, Bus, Channel, ErasedOp, Executor, ExecutorExt, MonoTime, Namespace, Outage,
    Script, Signal, Tag,
};
use fleetwide_pubsub_invalidation::ops::Publish;
use fleetwide_testkit::unique_namespace;
use futures_core::Stream;
use tokio::sync::watch;
use tokio::time::timeout;

/// Far longer than anything here takes, also on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Quick enough to be waited for.
pub(crate) const QUICK: Duration = Duration::from_millis(20);
/// So long that only messages can deliver.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// A tag that no other test uses.
pub(crate) fn fresh_tag() -> Tag {
    Namespace::new(&unique_namespace()).unwrap().tag("log", b"test").unwrap()
}

/// Appends an entry that says `body`.
pub(crate) async fn append(executor: &impl Executor, tag: &Tag, body: &str) -> Meta {
    append_keeping(executor, tag, body, Append::ENTRIES_MAX_DEFAULT).await
}

/// The same, with a stream that keeps so many entries.
pub(crate) async fn append_keeping(
    executor: &impl Executor,
    tag: &Tag,
    body: &str,
    entries_max: u32,
) -> Meta {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let append = Append::new(tag, Epoch(rand::random()), rand::random(), [9; 8], 1, body).unwrap();
    let publish = Publish::new(tag, append.entries_max(entries_max));
    executor.run(&publish).await.expect("the server takes the entry")
}

/// A follower that writes down what it is told, in short: `first@0 a b gap(2)@5 c reset@0`.
#[derive(Clone)]
pub(crate) struct Recorder {
    told: watch::Sender<Record>,
}

#[derive(Clone, Default)]
pub(crate) struct Record {
    pub(crate) text: Vec<String>,
    pub(crate) at: Option<Stamp>,
    pub(crate) resets: usize,
    pub(crate) verified: Option<(Stamp, MonoTime)>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { told: watch::Sender::new(Record::default()) }
    }

    pub(crate) fn follower(&self) -> Arc<dyn Follower> {
        Arc::new(self.clone())
    }

    pub(crate) fn text(&self) -> String {
        self.told.borrow().text.join(" ")
    }

    pub(crate) fn record(&self) -> Record {
        self.told.borrow().clone()
    }

    /// Waits until what was told is `text`, and says what it was instead.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) -> impl Future<Output = ()> {
        let (caller, text) = (std::panic::Location::caller(), text.to_owned());
        async move {
            let told = self.wait(|record| record.text.join(" ") == text).await;
            assert!(told, "told '{}' instead of '{text}' at {caller}", self.text());
        }
    }

    /// Waits for something about the record; `false` after the deadline.
    pub(crate) async fn wait(&self, wanted: impl FnMut(&Record) -> bool) -> bool {
        let mut changes = self.told.subscribe();
        timeout(DEADLINE, changes.wait_for(wanted)).await.is_ok()
    }
}

impl Follower for Recorder {
    fn begin(&self, at: Stamp, why: Begin) {
        self.told.send_modify(|record| {
            record.text.push(match why {
                Begin::First => format!("first@{}", at.seq),
                Begin::Gap { after } => format!("gap({after})@{}", at.seq),
                Begin::Reset => format!("reset@{}", at.seq),
                other => format!("{other:?}"),
            });
            record.resets += usize::from(why == Begin::Reset);
            record.at = Some(at);
        });
    }

    fn apply(&self, entry: &Entry) {
        self.told.send_modify(|record| {
            let before = record.at.expect("a history has begun");
            assert_eq!(entry.stamp, Stamp { seq: before.seq + 1, ..before }, "out of order");
            record.at = Some(entry.stamp);
            record.text.push(String::from_utf8_lossy(&entry.body).into_owned());
        });
    }

    fn verified(&self, at: Stamp, as_of: MonoTime) {
        self.told.send_modify(|record| record.verified = Some((at, as_of)));
    }

    fn tick(&self) {}
}

/// A bus that loses the next messages on their way to a subscriber, without saying so.
#[derive(Clone)]
pub(crate) struct LossyBus<B> {
    pub(crate) inner: B,
    pub(crate) to_lose: Arc<AtomicUsize>,
    /// How often somebody subscribed.
    pub(crate) subscribed: Arc<AtomicUsize>,
}

impl<B> LossyBus<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, to_lose: Arc::default(), subscribed: Arc::default() }
    }

    pub(crate) fn lose(&self, messages: usize) {
        self.to_lose.store(messages, Ordering::SeqCst);
    }
}

impl<B: Bus> Bus for LossyBus<B> {
    type Subscription = Lossy<B::Subscription>;

    async fn publish(&self, channel: &Channel, payload: Bytes) -> Result<(), BackendError> {
        self.inner.publish(channel, payload).await
    }

    fn subscribe(&self, channel: &Channel) -> Self::Subscription {
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        Lossy { inner: self.inner.subscribe(channel), to_lose: self.to_lose.clone() }
    }
}

pub(crate) struct Lossy<S> {
    inner: S,
    to_lose: Arc<AtomicUsize>,
}

impl<S: Stream<Item = Signal> + Unpin> Stream for Lossy<S> {
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        loop {
            let signal = ready!(Pin::new(&mut self.inner).poll_next(cx));
            let less = |left: usize| left.checked_sub(1);
            let lost = matches!(signal, Some(Signal::Message(_)))
                && self.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
            if !lost {
                return Poll::Ready(signal);
            }
        }
    }
}

/// An executor that can be away, or carry a step out and lose the answer.
#[derive(Clone)]
pub(crate) struct Faulty<E> {
    inner: E,
    fault: watch::Sender<Fault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Away,
    AnswersLost,
}

impl<E> Faulty<E> {
    pub(crate) fn new(inner: E) -> Self {
        Self { inner, fault: watch::Sender::new(Fault::None) }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl<E: Executor> Executor for Faulty<E> {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        let fault = *self.fault.borrow();
        match fault {
            Fault::None => self.inner.execute(op).await,
            Fault::Away => Err(BackendError::NotSent(Outage::Down("away".to_owned()))),
            Fault::AnswersLost => {
                self.inner.execute(op).await?;
                Err(BackendError::Unknown(Outage::Deadline(QUICK)))
            }
        }
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.inner.prepare(scripts);
    }
}
