//! Messages over the wire: publish on the shared connections, listen on one of its own.

mod listen;
mod queue;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Bus, Channel, Signal};
use futures_core::Stream;
use redis::{Cmd, RedisWrite};
use tokio::sync::mpsc::{
    UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel,
};

use crate::handle::Handle;

pub(crate) use listen::run;
use queue::Queue;

/// Publish and subscribe on the server, with one connection for all subscriptions of the handle.
///
/// That connection speaks RESP3, in which acknowledgements and messages come in one order, so it
/// needs a server from version 6 on. It is asked for a sign of life every two seconds: one that
/// went silent is found and replaced.
#[derive(Clone)]
pub struct RedisBus {
    handle: Arc<Handle>,
}

impl RedisBus {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }
}

impl Bus for RedisBus {
    type Subscription = Subscription;

    async fn publish(&self, channel: &Channel, payload: Bytes) -> Result<(), BackendError> {
        let mut publish = Cmd::with_capacity(3, channel.as_bytes().len() + payload.len() + 7);
        publish.write_arg(b"PUBLISH");
        publish.write_arg(channel.as_bytes());
        publish.write_arg(&payload);
        let shared = &self.handle.shared;
        shared.command(publish, shared.budget()).await?.into_unsigned()?;
        Ok(())
    }

    fn subscribe(&self, channel: &Channel) -> Subscription {
        self.handle.bus.subscribe(channel)
    }
}

/// What one subscriber hears, from [`RedisBus`]. Dropping it unsubscribes.
///
/// It keeps a bounded number of messages; a subscriber that is slower than that is told by
/// [`Signal::Lagged`] how many it missed, in their place.
pub struct Subscription {
    queue: Arc<Queue>,
    channel: Bytes,
    // Weak, so that a forgotten subscription does not keep the bus alive.
    line: WeakUnboundedSender<Order>,
}

impl Stream for Subscription {
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Signal>> {
        self.queue.poll_pop(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.leave();
        if let Some(line) = self.line.upgrade() {
            // The task may have ended meanwhile; then there is nothing to leave.
            let _ = line.send(Order::Leave(self.channel.clone()));
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// What subscribers ask of the task that listens.
pub(crate) enum Order {
    /// A new subscriber of a channel.
    Join(Bytes, Arc<Queue>),
    /// One of the channel's subscribers is gone.
    Leave(Bytes),
}

/// The way to the task that listens.
pub(crate) struct Line {
    orders: UnboundedSender<Order>,
    messages_max: usize,
}

impl Line {
    pub(crate) fn new(messages_max: usize) -> (Self, UnboundedReceiver<Order>) {
        let (orders, received) = unbounded_channel();
        (Self { orders, messages_max }, received)
    }

    fn subscribe(&self, channel: &Channel) -> Subscription {
        let queue = Arc::new(Queue::new(self.messages_max));
        let channel = Bytes::copy_from_slice(channel.as_bytes());
        if self.orders.send(Order::Join(channel.clone(), Arc::clone(&queue))).is_err() {
            queue.close();
        }
        Subscription { queue, channel, line: self.orders.downgrade() }
    }
}
