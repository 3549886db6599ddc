//! `Bus`: a task with a connection of its own for each subscription.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{BackendError, Bus, Channel, Signal};
use fleetwide_testkit::{Reply, RespConnection, RespError};
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Client;

/// Signals that a subscriber may be behind.
const QUEUE: usize = 1024;
const RETRY_AFTER: Duration = Duration::from_millis(10);
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

pub(crate) struct TinyBus {
    client: Client,
}

impl TinyBus {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Bus for TinyBus {
    type Subscription = TinySubscription;

    async fn publish(&self, channel: &Channel, payload: Bytes) -> Result<(), BackendError> {
        let command = [b"PUBLISH".to_vec(), channel.as_bytes().to_vec(), payload.to_vec()];
        self.client.command(&command).await.map(drop)
    }

    fn subscribe(&self, channel: &Channel) -> TinySubscription {
        let (to, signals) = mpsc::channel(QUEUE);
        let task = tokio::spawn(listen(self.client.clone(), channel.clone(), to));
        TinySubscription { signals, task }
    }
}

/// Comes back after an outage of any length. Ends when the subscription is dropped.
async fn listen(client: Client, channel: Channel, to: mpsc::Sender<Signal>) {
    loop {
        if let Ok(mut connection) = stand(&client, &channel).await {
            // Waits for room: while it does, the server keeps the messages. A backend that shares
            // a connection among subscribers cannot, and says `Lagged` instead.
            let mut signal = Signal::Ready;
            while to.send(signal).await.is_ok() {
                match message(&mut connection).await {
                    Ok(payload) => signal = Signal::Message(payload),
                    Err(_) => break,
                }
            }
            if to.send(Signal::Lost).await.is_err() {
                return;
            }
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Returns when the server has acknowledged the subscription.
async fn stand(client: &Client, channel: &Channel) -> Result<RespConnection, RespError> {
    let mut connection = client.connect().await?;
    connection.command(&[b"SUBSCRIBE", channel.as_bytes()]).await?;
    connection.set_deadline(FOR_EVER);
    Ok(connection)
}

async fn message(connection: &mut RespConnection) -> Result<Bytes, RespError> {
    match connection.receive().await? {
        Reply::Array(mut parts) => match parts.pop() {
            Some(Reply::Bulk(payload)) => Ok(payload),
            _ => Err(RespError::Malformed("a push without a payload".into())),
        },
        _ => Err(RespError::Malformed("not a push".into())),
    }
}

pub(crate) struct TinySubscription {
    signals: mpsc::Receiver<Signal>,
    task: JoinHandle<()>,
}

impl Stream for TinySubscription {
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        self.signals.poll_recv(cx)
    }
}

impl Drop for TinySubscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}
