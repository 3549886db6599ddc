//! Waking those who wait for another instance's load.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Who waits for which key. Holds no more than there are waiting loads.
#[derive(Default)]
pub(crate) struct Wakes {
    waiting: Mutex<HashMap<Bytes, Vec<Arc<Notify>>>>,
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
        let notify = Arc::new(Notify::new());
        self.waiting.lock().entry(key.clone()).or_default().push(Arc::clone(&notify));
        Waiting { wakes: Arc::clone(self), key: key.clone(), notify }
    }

    /// How many keys somebody waits for.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Something about `key` has changed.
    pub(crate) fn wake(&self, key: &[u8]) {
        for notify in self.waiting.lock().get(key).into_iter().flatten() {
            // Each has one of its own, which keeps a permit for one that is between two waits.
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
        if let Some(places) = waiting.get_mut(&self.key) {
            places.retain(|place| !Arc::ptr_eq(place, &self.notify));
            if places.is_empty() {
                waiting.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_wait_are_woken_and_the_last_to_leave_leaves_nothing() {
        let (wakes, key) = (Arc::<Wakes>::default(), Bytes::from_static(b"key"));
        let (one, two) = (wakes.listen(&key), wakes.listen(&key));
        wakes.wake(b"key");
        one.woken().await;
        two.woken().await;
        drop(one);
        assert_eq!(wakes.waiting.lock().len(), 1);
        drop(two);
        assert!(wakes.waiting.lock().is_empty());
    }
}
