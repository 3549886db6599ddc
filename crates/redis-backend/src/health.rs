//! One board that says how the server is doing, and tells each change once.

use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::{Clock, Health, MonoTime};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::trouble::Trouble;

/// Where the parts of a handle report what they see, and where [`Health`] comes from.
pub(crate) struct Board {
    server: String,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
    health: watch::Sender<Health>,
    /// Told when the first refusal comes in, for the task that looks whether it still holds.
    pub(crate) refusal: Notify,
}

struct Seen {
    /// Why each shared connection does not stand; `None` if it does.
    lanes: Vec<Option<Trouble>>,
    /// Whether the server called itself a replica when it was last asked.
    read_only: bool,
    /// Why messages do not arrive, if anybody wants them.
    bus: Option<Trouble>,
    /// Refusals that hold until they have not been seen for a while.
    refusals: Vec<(Trouble, MonoTime)>,
    /// What was logged since the server was last up: a cause that comes back is not news.
    told: Vec<Discriminant<Trouble>>,
}

impl Board {
    pub(crate) fn new(server: String, lanes: usize, clock: Arc<dyn Clock>) -> Self {
        let seen = Seen {
            lanes: vec![Some(Trouble::NotTried); lanes],
            read_only: false,
            bus: None,
            refusals: Vec::new(),
            told: Vec::new(),
        };
        let since = clock.now();
        let health = Health::Down { reason: Trouble::NotTried.to_string(), since };
        let (health, _) = watch::channel(health);
        Self { server, clock, seen: Mutex::new(seen), health, refusal: Notify::new() }
    }

    pub(crate) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The text that calls fail with while there is no connection.
    pub(crate) fn why_down(&self) -> String {
        let seen = self.seen.lock();
        let why = seen.lanes.iter().flatten().next();
        why.unwrap_or(&Trouble::Closed).to_string()
    }

    pub(crate) fn lane(&self, index: usize, trouble: Option<Trouble>) {
        self.change(|seen| seen.lanes[index] = trouble);
    }

    pub(crate) fn read_only(&self, is: bool) {
        self.change(|seen| seen.read_only = is);
    }

    pub(crate) fn bus(&self, trouble: Option<Trouble>) {
        self.change(|seen| seen.bus = trouble);
    }

    /// Notes an error reply that concerns the server and not only the request.
    pub(crate) fn refused(&self, trouble: Trouble) {
        let now = self.clock.now();
        let mut first = false;
        self.change(|seen| {
            let held = seen.refusals.iter_mut().find(|(held, _)| held.class() == trouble.class());
            if let Some((_, last)) = held {
                *last = now;
            } else {
                first = true;
                seen.refusals.push((trouble, now));
            }
        });
        if first {
            self.refusal.notify_one();
        }
    }

    /// Whether any refusal is held against the server.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.seen.lock().refusals.is_empty()
    }

    /// Whether `trouble` is held against the server.
    pub(crate) fn is_refusing(&self, trouble: &Trouble) -> bool {
        self.seen.lock().refusals.iter().any(|(held, _)| held.class() == trouble.class())
    }

    /// Forgets `trouble`, which was seen to be over.
    pub(crate) fn forget(&self, trouble: &Trouble) {
        self.change(|seen| seen.refusals.retain(|(held, _)| held.class() != trouble.class()));
    }

    /// Forgets what was not seen for `quiet`, except what `holds` because it can be asked about.
    pub(crate) fn forget_quiet(&self, quiet: Duration, holds: impl Fn(&Trouble) -> bool) {
        let now = self.clock.now();
        self.change(|seen| {
            seen.refusals.retain(|(held, last)| holds(held) || now.since(*last) < quiet);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        // The lock is held while the change is published and logged, so that both happen in the
        // order of the changes.
        let mut seen = self.seen.lock();
        change(&mut seen);
        let (level, why) = judge(&seen);
        let reason = why.as_ref().map(Trouble::to_string);
        let mut from = None;
        self.health.send_if_modified(|health| {
            if health.name() == level && health.reason() == reason.as_deref() {
                return false;
            }
            from = Some(health.name());
            let since = match since(health) {
                Some(since) if health.name() == level => since,
                _ => self.clock.now(),
            };
            *health = match (level, reason.clone()) {
                ("down", Some(reason)) => Health::Down { reason, since },
                (_, Some(reason)) => Health::Degraded { reason, since },
                (_, None) => Health::Up,
            };
            true
        });
        if let Some(from) = from {
            self.tell(from, level, why.as_ref(), &mut seen.told);
        }
    }

    /// Logs a change of state once, and within a state each cause once.
    fn tell(
        &self,
        from: &str,
        level: &str,
        why: Option<&Trouble>,
        told: &mut Vec<Discriminant<Trouble>>,
    ) {
        let server = &self.server;
        let Some(why) = why else {
            told.clear();
            info!(%server, "redis is up");
            return;
        };
        let news = !told.contains(&why.class());
        if news {
            told.push(why.class());
        }
        if from != level || news {
            warn!(%server, reason = %why, "redis is {level}");
        } else {
            debug!(%server, reason = %why, "redis is still {level}");
        }
    }
}

fn since(health: &Health) -> Option<MonoTime> {
    match health {
        Health::Degraded { since, .. } | Health::Down { since, .. } => Some(*since),
        _ => None,
    }
}

/// The state as a whole: the worst that is seen.
fn judge(seen: &Seen) -> (&'static str, Option<Trouble>) {
    let all = seen.lanes.len();
    let mut missing = seen.lanes.iter().flatten();
    let up = all - missing.clone().count();
    match missing.next() {
        Some(why) if up == 0 => return ("down", Some(why.clone())),
        Some(why) => {
            return ("degraded", Some(Trouble::Partly(up, all, Box::new(why.clone()))));
        }
        None => {}
    }
    if seen.read_only {
        return ("degraded", Some(Trouble::ReadOnly));
    }
    if let Some((why, _)) = seen.refusals.first() {
        return ("degraded", Some(why.clone()));
    }
    if let Some(why) = &seen.bus {
        return ("degraded", Some(Trouble::NoSubscription(Box::new(why.clone()))));
    }
    ("up", None)
}
