//! Reads of L2 that come at the same time: they go out together, in one command.
//!
//! A read of its own costs the client a request and a wake-up, and the server a command and a look
//! at the meta. Where few are under way that is no matter, and each goes out at once. Where many
//! are, those that can be asked for in the same turn of the runtime share all of it, and none
//! waits for the answer to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetwide_core_traits::{BackendError, Executor, ExecutorExt, Key, Outage};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::gate::Gate;
use crate::ops::{Found, Lookup, LookupMany};

/// So many reads go out each for itself: they keep a connection busy without being many for it.
const ALONE_MAX: usize = 8;
/// Keys of one command. The server serves nobody else while it answers it.
const KEYS_MAX: usize = 64;

/// The way of all lookups of one cache.
pub(crate) struct Gather<E>(Arc<Shared<E>>);

struct Shared<E> {
    executor: Gate<E>,
    meta: Key,
    /// Lookups without an answer.
    under_way: AtomicUsize,
    /// Those that nobody has sent yet.
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    lookup: Lookup,
    answer: oneshot::Sender<Result<Found, BackendError>>,
}

impl<E: Executor + Clone> Gather<E> {
    pub(crate) fn new(executor: Gate<E>, meta: Key) -> Self {
        let (under_way, waiting) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Shared { executor, meta, under_way, waiting }))
    }

    /// Asks for one key. It is sent after this was called, and a caller that leaves is nothing to
    /// those it would have gone with.
    pub(crate) async fn lookup(&self, lookup: Lookup) -> Result<Found, BackendError> {
        let shared = &self.0;
        let under_way = UnderWay(&shared.under_way);
        if under_way.0.fetch_add(1, Ordering::Relaxed) < ALONE_MAX {
            return shared.executor.run(&lookup).await;
        }
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = shared.waiting.lock();
            waiting.push(Waiting { lookup, answer });
            waiting.len() == 1
        };
        if is_first {
            tokio::spawn(Errand(Some(Arc::clone(shared))).run());
        }
        answered.await.unwrap_or_else(|_| {
            Err(BackendError::NotSent(Outage::Down("its runtime has ended".to_owned())))
        })
    }
}

/// One lookup without an answer.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The duty to send what waits. Its runtime may end before it is done; then those who wait must not
/// do so for ever, and the next who comes must not take it to be under way.
struct Errand<E>(Option<Arc<Shared<E>>>);

impl<E: Executor + Clone> Errand<E> {
    async fn run(mut self) {
        // Whoever can run now may have a key too.
        yield_now().await;
        let Some(shared) = self.0.take() else { return };
        let mut waiting = std::mem::take(&mut *shared.waiting.lock());
        waiting.retain(|one| !one.answer.is_closed());
        let ops: Vec<LookupMany> = waiting
            .chunks(KEYS_MAX)
            .filter_map(|some| LookupMany::of(some.iter().map(|one| &one.lookup), &shared.meta))
            .collect();
        let mut waiting = waiting.into_iter();
        for (op, reply) in ops.iter().zip(shared.executor.run_many(&ops).await) {
            let asked = waiting.by_ref().take(op.len());
            match reply {
                Ok(found) => asked.zip(found.each()).for_each(|(one, found)| one.tell(Ok(found))),
                Err(error) => asked.for_each(|one| one.tell(Err(error.clone()))),
            }
        }
    }
}

impl<E> Drop for Errand<E> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let unsent = std::mem::take(&mut *shared.waiting.lock());
            drop(unsent);
        }
    }
}

impl Waiting {
    fn tell(self, answer: Result<Found, BackendError>) {
        // Whoever asked may have left.
        let _told = self.answer.send(answer);
    }
}
