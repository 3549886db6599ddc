//! Messages to everyone who listens, now.

use std::future::Future;

use bytes::Bytes;
use futures_core::Stream;

use crate::{BackendError, Channel};

/// Publish and subscribe, without memory: who does not listen now will never hear it.
///
/// A bus says honestly when it may have missed something ([`Signal`]). That makes it enough to
/// build a [`log`](crate::log) on, which misses nothing silently.
pub trait Bus: Send + Sync + 'static {
    /// What [`subscribe`](Self::subscribe) gives. Dropping it unsubscribes.
    type Subscription: Stream<Item = Signal> + Send + Unpin + 'static;

    /// Sends `payload` to all who listen to `channel`, this process included.
    ///
    /// # Errors
    /// [`BackendError`] on an outage; it says whether the message may have been sent.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out.
    fn publish(
        &self,
        channel: &Channel,
        payload: Bytes,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Listens to `channel`, for as long as the subscription is kept.
    ///
    /// It returns at once, also when the server is away: the subscription says
    /// [`Signal::Ready`] when it stands, and comes back by itself after an outage of any length.
    fn subscribe(&self, channel: &Channel) -> Self::Subscription;
}

/// What a subscription says. The stream ends only when the bus itself is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// The server has acknowledged the subscription: what is published from here on arrives,
    /// until [`Lost`](Self::Lost). A state read after this signal misses nothing.
    Ready,
    /// One message.
    Message(Bytes),
    /// The connection is gone. Messages may be missed until the next [`Ready`](Self::Ready).
    Lost,
    /// The subscriber was too slow, and this many messages were dropped.
    Lagged(u64),
}
