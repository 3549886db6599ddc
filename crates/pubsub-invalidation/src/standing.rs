//! Whether a log is followed as it should be.

use fleetwide_core_traits::{BackendError, Health, MonoTime};
use metrics::{Gauge, gauge};
use tokio::sync::watch;

use crate::pursuit::Pursuit;

/// Bad signs in a row before a log counts as worse off. A single lost request says nothing.
const BAD_SIGNS: u32 = 2;

/// The health of one log, and the log line of each change.
pub(crate) struct Standing {
    log: String,
    health: watch::Sender<Health>,
    gauge: Gauge,
    bad_signs: u32,
}

impl Standing {
    /// A log that has not been heard of yet.
    pub(crate) fn new(log: &str, now: MonoTime) -> Self {
        let starting = Health::Degraded { reason: "no answer yet".to_owned(), since: now };
        let gauge = gauge!("fleetwide_log_health", "log" => log.to_owned());
        gauge.set(level(&starting));
        Self { log: log.to_owned(), health: watch::Sender::new(starting), gauge, bad_signs: 0 }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A question was answered.
    pub(crate) fn answered(&mut self, pursuit: &Pursuit, now: MonoTime) {
        if pursuit.is_subscribed() && !pursuit.is_deaf() {
            self.bad_signs = 0;
            self.enter(&Health::Up);
        } else {
            let reason = "no messages; entries come by heartbeat".to_owned();
            self.sign(&Health::Degraded { reason, since: now });
        }
    }

    /// A question was not answered.
    pub(crate) fn failed(&mut self, pursuit: &Pursuit, error: &BackendError, now: MonoTime) {
        let reason = error.to_string();
        self.sign(&if pursuit.is_subscribed() {
            Health::Degraded { reason, since: now }
        } else {
            Health::Down { reason, since: now }
        });
    }

    fn sign(&mut self, health: &Health) {
        self.bad_signs += 1;
        if self.bad_signs >= BAD_SIGNS {
            self.enter(health);
        }
    }

    fn enter(&mut self, health: &Health) {
        let entered = self.health.send_if_modified(|held| {
            // Another reason is no other state: it would be a line for each failure.
            let changed = held.name() != health.name();
            if changed {
                *held = health.clone();
            }
            changed
        });
        if !entered {
            return;
        }
        self.gauge.set(level(health));
        if health.is_up() {
            tracing::info!(log = self.log, "the log is followed");
        } else {
            let (health, reason) = (health.name(), health.reason());
            tracing::warn!(
                log = self.log,
                health,
                reason,
                "the log is not followed as it should be"
            );
        }
    }
}

/// 2, 1 or 0, so that an alert can say 'below 2'.
fn level(health: &Health) -> f64 {
    match health {
        Health::Up => 2.0,
        Health::Down { .. } => 0.0,
        _ => 1.0,
    }
}
