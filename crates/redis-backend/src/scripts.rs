//! The scripts that every connection loads.

use std::ptr;

use fleetwide_core_traits::Script;
use parking_lot::Mutex;
use tokio::sync::watch;

/// A list that only grows, and tells when it did.
pub(crate) struct Scripts {
    list: Mutex<Vec<&'static Script>>,
    /// Counts the reasons to load: a new script, or a server that lost them.
    reasons: watch::Sender<u64>,
}

impl Default for Scripts {
    fn default() -> Self {
        Self { list: Mutex::new(Vec::new()), reasons: watch::Sender::new(0) }
    }
}

impl Scripts {
    /// Adds what is not there yet.
    pub(crate) fn add(&self, scripts: &[&'static Script]) {
        let mut list = self.list.lock();
        let before = list.len();
        for script in scripts {
            if !list.iter().any(|known| ptr::eq(*known, *script)) {
                list.push(script);
            }
        }
        if list.len() > before {
            self.reload();
        }
    }

    /// Has all connections load all scripts again.
    pub(crate) fn reload(&self) {
        self.reasons.send_modify(|count| *count += 1);
    }

    pub(crate) fn all(&self) -> Vec<&'static Script> {
        self.list.lock().clone()
    }

    /// A receiver that has seen every reason up to now.
    pub(crate) fn reasons(&self) -> watch::Receiver<u64> {
        self.reasons.subscribe()
    }
}
