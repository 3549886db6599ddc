//! Waking those who wait for another instance's load.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Who waits for which key. Holds no more keys than there are waiting loads.
#[derive(Default)]
pub(crate) struct Wakes {
    waiting: Mutex<HashMap<Bytes, Arc<Notify>>>,
}

/// A place among those who wait for one key.
pub(crate) struct Waiting {
    wakes: Arc<Wakes>,
    key: Bytes,
    notify: Arc<Notify>,
}

impl Wakes {
    /// From here on a wake of `key` is not missed.
    pub(crate) fn listen(self: &Arc<Self>, key: &Bytes) -> Waiting {
        let notify = Arc::clone(self.waiting.lock().entry(key.clone()).or_default());
        Waiting { wakes: Arc::clone(self), key: key.clone(), notify }
    }

    /// Something about `key` has changed.
    pub(crate) fn wake(&self, key: &[u8]) {
        if let Some(notify) = self.waiting.lock().get(key) {
            // A permit is kept for one that is between two waits; there is one load per key here.
            notify.notify_one();
        }
    }
}

impl Waiting {
    /// Returns when the key was woken since the last call.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.wakes.waiting.lock();
        // The table's handle and this one: nobody else waits.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.key);
        }
    }
}
