//! Watching a session: what any instance does to it, in the order of the cache's log.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use fleetwide_core_traits::Executor;
use fleetwide_two_tier_cache::CacheTag;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::directory::Directory;
use crate::id::ShortId;
use crate::place::{Place, SessionId};
use crate::telemetry::Telemetry;

/// Something that somebody did to a session, or that nobody can say what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionChange {
    /// An entry was written.
    Put(Changed),
    /// An entry was removed.
    Removed(Changed),
    /// The entries that carry this tag were removed, if the session has any.
    TagRemoved(CacheTag),
    /// The session was ended: all its entries are gone. Later changes belong to a new beginning.
    Ended,
    /// Everything was removed, from all sessions.
    Cleared,
    /// Changes may be missing here: what was read before may be out of date.
    Gap(Gap),
}

/// Which entry was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Its key.
    pub key: Arc<str>,
    /// Its short id. `None` if it has none, or the server did not say.
    pub id: Option<ShortId>,
}

/// Why changes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// The log was not followed yet when the subscription began; it is from here on.
    NotFollowed,
    /// The entries of the log from `first` to `last`, of any session, could not be read any more.
    Missed {
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// The server has lost its history, and perhaps entries with it.
    Reset,
    /// This subscriber was too slow, and so many changes were dropped here.
    Lagged(u64),
}

/// What subscribers are told; ids are looked up when it is taken out.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Put(Arc<str>),
    Removed(Arc<str>),
    TagRemoved(CacheTag),
    Ended,
    Cleared,
    Gap(Gap),
}

/// The subscribers of all sessions.
pub(crate) struct Hub {
    channels: Mutex<HashMap<SessionId, broadcast::Sender<Said>>>,
    capacity: usize,
    followed: watch::Sender<bool>,
}

impl Hub {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { channels: Mutex::default(), capacity, followed: watch::Sender::new(false) }
    }

    pub(crate) fn begun(&self) {
        self.followed.send_replace(true);
    }

    pub(crate) fn followed(&self) -> watch::Receiver<bool> {
        self.followed.subscribe()
    }

    /// Whether nobody watches any session, so that entries of the log need not be read.
    pub(crate) fn is_idle(&self) -> bool {
        self.channels.lock().is_empty()
    }

    /// Never waits: a subscriber that is too slow loses the oldest, and is told.
    pub(crate) fn tell(&self, session: &SessionId, said: Said) {
        if let Some(channel) = self.channels.lock().get(session) {
            // It fails if nobody listens any more, and then nobody misses anything.
            let _ = channel.send(said);
        }
    }

    pub(crate) fn tell_all(&self, said: &Said) {
        for channel in self.channels.lock().values() {
            let _ = channel.send(said.clone());
        }
    }

    pub(crate) fn subscribe(self: &Arc<Self>, session: &SessionId) -> Subscription {
        let mut channels = self.channels.lock();
        let channel = channels.entry(session.clone());
        let channel = channel.or_insert_with(|| broadcast::Sender::new(self.capacity));
        Subscription {
            hub: Arc::downgrade(self),
            session: session.clone(),
            receiver: Some(channel.subscribe()),
        }
    }
}

/// A place in a hub, which is given back when it is dropped.
pub(crate) struct Subscription {
    hub: Weak<Hub>,
    session: SessionId,
    receiver: Option<broadcast::Receiver<Said>>,
}

#[cfg(test)]
impl Subscription {
    pub(crate) fn receiver(&mut self) -> Option<&mut broadcast::Receiver<Said>> {
        self.receiver.as_mut()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut channels = hub.channels.lock();
        // Under the lock: nobody can subscribe between the look and the removal.
        self.receiver = None;
        if channels.get(&self.session).is_some_and(|channel| channel.receiver_count() == 0) {
            channels.remove(&self.session);
        }
    }
}

/// The changes of one session, from the moment it was asked for. Made by
/// [`Session::changes`](crate::Session::changes).
pub struct Changes<E> {
    subscription: Subscription,
    directory: Directory<E>,
    telemetry: Arc<Telemetry>,
    /// Taken out of the queue, and not yet handed on.
    pending: Option<Said>,
}

impl<E: Executor + Clone> Changes<E> {
    pub(crate) fn new(
        subscription: Subscription,
        directory: Directory<E>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { subscription, directory, telemetry, pending: None }
    }

    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.subscription.session
    }

    /// The next change; `None` once the cache is gone.
    ///
    /// Changes come in the order in which the server has made them. A load is no change: it stores
    /// what the origin says, and nobody is told.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not returned comes with the next call.
    pub async fn next(&mut self) -> Option<SessionChange> {
        if self.pending.is_none() {
            let receiver = self.subscription.receiver.as_mut()?;
            self.pending = Some(match receiver.recv().await {
                Ok(said) => said,
                Err(RecvError::Lagged(count)) => {
                    self.telemetry.lagged.add_many(count);
                    Said::Gap(Gap::Lagged(count))
                }
                Err(RecvError::Closed) => return None,
            });
        }
        // It stays pending while the id is looked up: a dropped call must not lose it.
        let change = match self.pending.as_ref()? {
            Said::Put(key) => SessionChange::Put(self.changed(key).await),
            Said::Removed(key) => SessionChange::Removed(self.changed(key).await),
            Said::TagRemoved(tag) => SessionChange::TagRemoved(tag.clone()),
            Said::Ended => SessionChange::Ended,
            Said::Cleared => SessionChange::Cleared,
            Said::Gap(gap) => SessionChange::Gap(*gap),
        };
        self.pending = None;
        Some(change)
    }

    /// An id never moves to another entry while it lives, so it is the same late as early.
    async fn changed(&self, key: &Arc<str>) -> Changed {
        let id = match Place::new(&self.subscription.session, key) {
            Ok(place) => self.directory.id_of(&place).await.ok().flatten(),
            Err(_) => None,
        };
        Changed { key: Arc::clone(key), id }
    }
}

impl<E> fmt::Debug for Changes<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("session", &self.subscription.session)
            .finish_non_exhaustive()
    }
}
