//! The in-process bus, with the contract of the wire.

mod queue;

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Bus, Channel, Signal};
use foldhash::fast::RandomState;
use futures_core::Stream;
use parking_lot::Mutex;
use smallvec::SmallVec;

use queue::Queue;

/// Locks among which channels are divided.
const SHARDS: usize = 16;

/// A [`Bus`] inside this process. Cheap to clone: all clones are one bus.
///
/// Made by [`Memory`](crate::Memory), beside the executor that publishes on it. Publishing waits
/// for nobody: a message is in the queue of each subscriber when [`publish`](Bus::publish) returns.
/// A subscriber whose queue is full loses the message, and reads [`Signal::Lagged`] in its place.
///
/// [`interrupt`](Self::interrupt) makes it fail as a connection does, for tests of what must
/// survive that.
#[derive(Clone)]
pub struct MemBus {
    shared: Arc<Shared>,
}

struct Shared {
    shards: [Mutex<HashMap<Channel, Topic, RandomState>>; SHARDS],
    hasher: RandomState,
    queue_max: usize,
}

/// A channel that somebody listens to, or that is interrupted.
#[derive(Default)]
struct Topic {
    subscribers: Vec<Arc<Queue>>,
    interrupted: bool,
}

/// Whom to wake once no lock is held any more.
type Wakers = SmallVec<[Waker; 4]>;

impl MemBus {
    pub(crate) fn new(queue_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                shards: std::array::from_fn(|_| Mutex::default()),
                hasher: RandomState::default(),
                queue_max: queue_max.max(1),
            }),
        }
    }

    /// Puts a message into the queue of each subscriber of `channel`.
    pub(crate) fn deliver(&self, channel: &Channel, payload: &Bytes) {
        let mut wakers = Wakers::new();
        if let Some(topic) = self.shared.shard(channel).lock().get(channel)
            && !topic.interrupted
        {
            let max = self.shared.queue_max;
            let message = |queue: &Arc<Queue>| queue.message(payload.clone(), max);
            wakers.extend(topic.subscribers.iter().filter_map(message));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Breaks `channel`, for tests: its subscribers read [`Signal::Lost`], and what is published is
    /// dropped until [`resume`](Self::resume). Who subscribes meanwhile has to wait for that.
    pub fn interrupt(&self, channel: &Channel) {
        self.set_interrupted(channel, true);
    }

    /// Mends `channel` after [`interrupt`](Self::interrupt): its subscribers read
    /// [`Signal::Ready`].
    pub fn resume(&self, channel: &Channel) {
        self.set_interrupted(channel, false);
    }

    fn set_interrupted(&self, channel: &Channel, interrupted: bool) {
        let mut wakers = Wakers::new();
        {
            let mut topics = self.shared.shard(channel).lock();
            let topic = topics.entry(channel.clone()).or_default();
            if topic.interrupted != interrupted {
                topic.interrupted = interrupted;
                let signal = if interrupted { Signal::Lost } else { Signal::Ready };
                let tell = |queue: &Arc<Queue>| queue.signal(signal.clone());
                wakers.extend(topic.subscribers.iter().filter_map(tell));
            }
            if topic.is_idle() {
                topics.remove(channel);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many subscriptions `channel` has. For tests.
    pub fn subscribers(&self, channel: &Channel) -> usize {
        self.shared.shard(channel).lock().get(channel).map_or(0, |topic| topic.subscribers.len())
    }
}

impl Bus for MemBus {
    type Subscription = MemSubscription;

    async fn publish(&self, channel: &Channel, payload: Bytes) -> Result<(), BackendError> {
        self.deliver(channel, &payload);
        Ok(())
    }

    fn subscribe(&self, channel: &Channel) -> MemSubscription {
        let queue = Arc::new(Queue::default());
        let mut topics = self.shared.shard(channel).lock();
        let topic = topics.entry(channel.clone()).or_default();
        if !topic.interrupted {
            // Under the lock of the channel, so that it comes before every message.
            queue.signal(Signal::Ready);
        }
        topic.subscribers.push(Arc::clone(&queue));
        let bus = Arc::downgrade(&self.shared);
        MemSubscription { queue, channel: channel.clone(), bus }
    }
}

impl Shared {
    fn shard(&self, channel: &Channel) -> &Mutex<HashMap<Channel, Topic, RandomState>> {
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }
}

/// Subscriptions end when the last handle of their bus is gone.
impl Drop for Shared {
    fn drop(&mut self) {
        let topics = self.shards.iter_mut().flat_map(|shard| shard.get_mut().values());
        let queues = topics.flat_map(|topic| &topic.subscribers);
        queues.filter_map(|queue| queue.close()).for_each(Waker::wake);
    }
}

impl Topic {
    fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && !self.interrupted
    }
}

/// What [`MemBus`] gives a subscriber. Dropping it unsubscribes.
pub struct MemSubscription {
    queue: Arc<Queue>,
    channel: Channel,
    /// Weak, so that a subscription does not keep its own bus from ending.
    bus: Weak<Shared>,
}

impl Stream for MemSubscription {
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        self.queue.poll(cx)
    }
}

impl Drop for MemSubscription {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else { return };
        let mut topics = bus.shard(&self.channel).lock();
        if let Some(topic) = topics.get_mut(&self.channel) {
            topic.subscribers.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if topic.is_idle() {
                topics.remove(&self.channel);
            }
        }
    }
}

impl fmt::Debug for MemBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemBus").field("queue_max", &self.shared.queue_max).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemSubscription").field("channel", &self.channel).finish_non_exhaustive()
    }
}
