//! Messages on their way to a node.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleetwide_core_traits::{Bus, Channel, Executor, Signal};
use futures_core::Stream;
use tokio::time::{Sleep, sleep};

use super::clock::WorldTime;
use super::server::Servers;
use super::weather::Link;

/// How often the weather is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(5);

/// A subscription of a [`Remote`](super::Remote).
pub struct RemoteSubscription<E, B: Bus> {
    servers: Arc<Servers<E, B>>,
    link: Arc<Link>,
    time: WorldTime,
    channel: Channel,
    /// The subscription at the server, and in which term it was made.
    inner: Option<(B::Subscription, u64)>,
    /// By the moment of arrival, ns, and a number that tells apart those of one moment.
    travelling: BTreeMap<(u64, u64), Signal>,
    count: u64,
    arrived: VecDeque<Signal>,
    timer: Pin<Box<Sleep>>,
}

impl<E, B> RemoteSubscription<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    pub(super) fn new(
        servers: Arc<Servers<E, B>>,
        link: Arc<Link>,
        time: WorldTime,
        channel: Channel,
    ) -> Self {
        Self {
            servers,
            link,
            time,
            channel,
            inner: None,
            travelling: BTreeMap::new(),
            count: 0,
            arrived: VecDeque::new(),
            timer: Box::pin(sleep(LOOK)),
        }
    }

    /// Connects where there is no connection, and breaks one that cannot be.
    fn connect(&mut self) {
        let (term, may) = (self.servers.term(), self.link.brings_messages());
        if self.inner.as_ref().is_some_and(|(_, made_in)| !may || *made_in != term) {
            self.inner = None;
            self.travelling.clear();
            self.arrived.push_back(Signal::Lost);
        }
        if may && self.inner.is_none() {
            self.inner = Some((self.servers.bus().subscribe(&self.channel), term));
        }
    }

    /// Takes what the server has sent, and decides when it arrives.
    fn take_sent(&mut self, cx: &mut Context<'_>) {
        let now = self.time.nanos();
        while let Some((inner, _)) = &mut self.inner {
            let Poll::Ready(signal) = Pin::new(inner).poll_next(cx) else { return };
            match signal {
                Some(Signal::Message(payload)) => {
                    for delay in self.link.message() {
                        self.count += 1;
                        let at = (now + delay.as_nanos() as u64, self.count);
                        self.travelling.insert(at, Signal::Message(payload.clone()));
                    }
                }
                Some(other) => self.arrived.push_back(other),
                None => self.inner = None,
            }
        }
    }
}

impl<E, B> Stream for RemoteSubscription<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        let this = &mut *self;
        loop {
            this.connect();
            this.take_sent(cx);
            let now = this.time.nanos();
            while let Some(first) = this.travelling.first_entry() {
                if first.key().0 > now {
                    break;
                }
                let signal = first.remove();
                this.arrived.push_back(signal);
            }
            if let Some(signal) = this.arrived.pop_front() {
                return Poll::Ready(Some(signal));
            }
            let first = this.travelling.first_key_value().map(|((at, _), _)| *at);
            let wait = first.map_or(LOOK, |at| Duration::from_nanos(at - now).min(LOOK));
            this.timer.set(sleep(wait));
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
