//! An origin that counts its loads, and can be held so that everybody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use crate::record::User;

/// A database with one version of everything. Loads read it when they begin and answer when the
/// origin is open, as a slow query does.
pub struct Origin {
    version: AtomicU32,
    begun: watch::Sender<u64>,
    is_open: watch::Sender<bool>,
    panics: bool,
}

impl Origin {
    /// An origin at version 1 that answers nobody yet.
    pub fn held() -> Arc<Self> {
        Arc::new(Self::new(false))
    }

    /// An origin whose loads panic.
    pub fn panicking() -> Arc<Self> {
        Arc::new(Self::new(true))
    }

    fn new(panics: bool) -> Self {
        Self {
            version: AtomicU32::new(1),
            begun: watch::Sender::new(0),
            is_open: watch::Sender::new(panics),
            panics,
        }
    }

    /// What a cache calls when it has nothing.
    ///
    /// # Panics
    /// If it was made to.
    pub async fn load(self: Arc<Self>, _key: String) -> User {
        let version = self.version.load(Ordering::SeqCst);
        self.begun.send_modify(|begun| *begun += 1);
        // The sender is in `self`, so it outlives the wait.
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open).await;
        assert!(!self.panics, "a loader that panics, as asked");
        User { version, ..User::new(0) }
    }

    /// Writes a new version.
    pub fn change(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Answers all loads, those under way and those to come.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Waits until a load has begun.
    pub async fn begun(&self) {
        let _ = self.begun.subscribe().wait_for(|begun| *begun > 0).await;
    }

    /// How many loads have begun.
    pub fn loads(&self) -> u64 {
        *self.begun.borrow()
    }
}
