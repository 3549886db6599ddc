//! What a caller holds while it is under way.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Executor};

use super::keeper::Keeper;
use super::lease::Lease;
use crate::Source;

/// What came of asking for a permit. A refusal is an answer, not an error.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub enum Entry<E: Executor> {
    /// Go on, and keep it until you are done.
    Held(Permit<E>),
    /// Do not go on: all permits are held.
    #[non_exhaustive]
    Deny {
        /// When the first leases end that are in the way, if they are not renewed: their holders are
        /// dead by then. A permit that is given back is there sooner.
        retry_after: Duration,
        /// Who decided.
        source: Source,
    },
}

impl<E: Executor> Entry<E> {
    /// The permit, if there is one.
    pub fn permit(self) -> Option<Permit<E>> {
        match self {
            Self::Held(permit) => Some(permit),
            Self::Deny { .. } => None,
        }
    }

    /// Whether the caller may go on.
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

/// A permit that is held, and renewed in the background until it is dropped.
///
/// Dropped, it is given back in the background; [`release`](Self::release) waits for that. Without a
/// runtime, and when the backend gives no answer, it comes back when its lease ends.
///
/// A holder whose process is paused, or cut off, for longer than a lease loses the permit: others may
/// have its place. [`is_lost`](Self::is_lost) says so no later than the server does.
#[must_use = "dropped, it is given back"]
pub struct Permit<E: Executor> {
    keeper: Arc<Keeper<E>>,
    leases: Vec<Arc<Lease>>,
    source: Source,
}

impl<E: Executor> Permit<E> {
    pub(crate) fn new(keeper: Arc<Keeper<E>>, leases: Vec<Arc<Lease>>, source: Source) -> Self {
        Self { keeper, leases, source }
    }

    /// Whether others may have its place: by this process's own clock, since before the last renewal
    /// that was answered was sent. A permit of a rung is never lost.
    pub fn is_lost(&self) -> bool {
        let now = self.keeper.backend.now();
        self.leases.iter().any(|lease| lease.is_lost(now))
    }

    /// Waits until it is lost. One caller at a time is told at once; after the machine was suspended,
    /// within a second.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn lost(&self) {
        let now = || self.keeper.backend.now();
        let mut each: Vec<_> = self.leases.iter().map(|lease| Box::pin(lease.lost(now))).collect();
        poll_fn(|context| {
            let is_lost = each.iter_mut().any(|lost| lost.as_mut().poll(context).is_ready());
            if is_lost { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Who gave it.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Gives it back, and waits for the answer.
    ///
    /// # Errors
    /// [`BackendError`] if there was none. It is tried again in the background.
    ///
    /// # Cancel safety
    /// A dropped call gives it back in the background.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn release(mut self) -> Result<(), BackendError> {
        while let Some(lease) = self.leases.last().cloned() {
            // No longer renewed from here on, and given back by the drop until it is known to be.
            self.keeper.let_go(&lease, false);
            self.keeper.release(&lease.spot, vec![lease.id]).await?;
            self.leases.pop();
        }
        Ok(())
    }
}

impl<E: Executor> Drop for Permit<E> {
    fn drop(&mut self) {
        for lease in self.leases.drain(..) {
            self.keeper.let_go(&lease, true);
        }
    }
}

impl<E: Executor> fmt::Debug for Permit<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("source", &self.source).finish_non_exhaustive()
    }
}
