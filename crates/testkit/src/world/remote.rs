//! A node's way to the server.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    BackendError, Bus, Channel, Epoch, ErasedOp, Executor, Outage, Script,
};
use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use super::clock::WorldTime;
use super::server::Servers;
use super::subscription::RemoteSubscription;
use super::weather::{Fate, Journey, Link};
use crate::history::{Event, Process, Recorder, Span};

/// The client library gives up after this, like a real one.
const COMMAND_DEADLINE: Duration = Duration::from_millis(400);
/// A command that took longer is recorded as an outage: somebody may have gone on without it.
const SLOW: u64 = 15_000_000;

/// Executor and bus of a node: what goes through is subject to its weather. Cheap to clone.
pub struct Remote<E, B> {
    servers: Arc<Servers<E, B>>,
    link: Arc<Link>,
    time: WorldTime,
    recorder: Recorder,
    process: Process,
}

impl<E, B> Remote<E, B> {
    pub(super) fn new(
        servers: Arc<Servers<E, B>>,
        link: Arc<Link>,
        time: WorldTime,
        recorder: Recorder,
        process: Process,
    ) -> Self {
        Self { servers, link, time, recorder, process }
    }
}

impl<E, B> Executor for Remote<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        // Also for a caller who leaves: to it, the server has not answered.
        let mut watch = Watch { remote: self, start: self.recorder.now(), answered: false };
        let journey = self.link.command();
        if journey.fate == Fate::Refused {
            return Err(BackendError::NotSent(Outage::Down("bad weather".to_owned())));
        }
        let sent_in = self.servers.term();
        match timeout(COMMAND_DEADLINE, self.travel(op, &journey)).await {
            Ok(result) if self.servers.term() == sent_in => {
                watch.answered = result.is_ok();
                op.answered_in(Epoch::new(sent_in));
                result
            }
            Ok(_) => Err(BackendError::Unknown(Outage::Disconnected("another server".to_owned()))),
            Err(_late) => Err(BackendError::Unknown(Outage::Deadline(COMMAND_DEADLINE))),
        }
    }

    fn prepare(&self, _scripts: &[&'static Script]) {}

    fn epoch(&self) -> Epoch {
        Epoch::new(self.servers.term())
    }
}

impl<E, B> Remote<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    async fn travel(&self, op: &mut dyn ErasedOp, journey: &Journey) -> Result<(), BackendError> {
        let late = journey.carried_out_late;
        let mut parcel = Parcel { servers: &self.servers, op: Some(op), late };
        sleep(journey.there).await;
        if journey.fate == Fate::Lost {
            return pending().await;
        }
        let Some(op) = parcel.op.take() else { return pending().await };
        let result = self.servers.execute(op).await;
        if journey.fate == Fate::AnswerLost {
            return pending().await;
        }
        sleep(journey.back).await;
        result
    }
}

/// A command under way. When its caller leaves it may arrive all the same.
struct Parcel<'a, E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    servers: &'a Servers<E, B>,
    op: Option<&'a mut dyn ErasedOp>,
    late: bool,
}

impl<E, B> Drop for Parcel<'_, E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    fn drop(&mut self) {
        if let Some(op) = self.op.take().filter(|_| self.late) {
            // A server in memory answers at once, and nobody waits for this answer.
            let _answer = self.servers.execute(op).now_or_never();
        }
    }
}

/// Records that a command took long, failed, or was given up.
struct Watch<'a, E, B> {
    remote: &'a Remote<E, B>,
    start: u64,
    answered: bool,
}

impl<E, B> Drop for Watch<'_, E, B> {
    fn drop(&mut self) {
        let recorder = &self.remote.recorder;
        let at = Span { start: self.start, end: recorder.now() };
        if !self.answered || at.end - at.start > SLOW {
            recorder.record(&Event::Outage { at, process: Some(self.remote.process) });
        }
    }
}

impl<E, B> Bus for Remote<E, B>
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    type Subscription = RemoteSubscription<E, B>;

    async fn publish(&self, channel: &Channel, payload: Bytes) -> Result<(), BackendError> {
        self.servers.bus().publish(channel, payload).await
    }

    fn subscribe(&self, channel: &Channel) -> RemoteSubscription<E, B> {
        let (servers, link) = (Arc::clone(&self.servers), Arc::clone(&self.link));
        RemoteSubscription::new(servers, link, self.time.clone(), channel.clone())
    }
}

impl<E, B> Clone for Remote<E, B> {
    fn clone(&self) -> Self {
        let (servers, link) = (Arc::clone(&self.servers), Arc::clone(&self.link));
        let (time, recorder, process) = (self.time.clone(), self.recorder.clone(), self.process);
        Self { servers, link, time, recorder, process }
    }
}
