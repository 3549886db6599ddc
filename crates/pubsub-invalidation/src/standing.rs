//! Whether a log is followed as it should be.

use fleetwide_core_traits::{BackendError, Health, MonoTime};
use tokio::sync::watch;

use crate::pursuit::Pursuit;

/// Bad signs in a row before a log counts as worse off. A single lost request says nothing.
const BAD_SIGNS: u32 = 2;

/// The health of one log, and the log line of each change.
pub(crate) struct Standing {
    log: String,
    health: watch::Sender<Health>,
    bad_signs: u32,
}

impl Standing {
    /// A log that has not been heard of yet.
    pub(crate) fn new(log: &str, now: MonoTime) -> Self {
        let starting = Health::Degraded { reason: "no answer yet".to_owned(), since: now };
        Self { log: log.to_owned(), health: watch::Sender::new(starting), bad_signs: 0 }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A question was answered.
    pub(crate) fn answered(&mut self, pursuit: &Pursuit, now: MonoTime) {
        if pursuit.is_subscribed() && !pursuit.is_deaf() {
            self.bad_signs = 0;
            self.enter(Health::Up);
        } else {
            let reason = "no messages; entries come by heartbeat".to_owned();
            self.sign(Health::Degraded { reason, since: now });
        }
    }

    /// A question was not answered.
    pub(crate) fn failed(&mut self, pursuit: &Pursuit, error: &BackendError, now: MonoTime) {
        let reason = error.to_string();
        self.sign(if pursuit.is_subscribed() {
            Health::Degraded { reason, since: now }
        } else {
            Health::Down { reason, since: now }
        });
    }

    fn sign(&mut self, health: Health) {
        self.bad_signs += 1;
        if self.bad_signs >= BAD_SIGNS {
            self.enter(health);
        }
    }

    fn enter(&mut self, health: Health) {
        let entered = self.health.send_if_modified(|held| {
            // Another reason is no other state: it would be a line for each failure.
            let changed = held.name() != health.name();
            if changed {
                *held = health.clone();
            }
            changed
        });
        if entered {
            match &health {
                Health::Up => tracing::info!(log = self.log, "the log is followed"),
                _ => tracing::warn!(
                    log = self.log,
                    health = health.name(),
                    reason = health.reason(),
                    "the log is not followed as it should be"
                ),
            }
        }
    }
}
