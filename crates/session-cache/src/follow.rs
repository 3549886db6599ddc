//! What a session cache does with the log of the cache below, inside the receive loop.

use std::sync::Arc;

use fleetwide_core_traits::log::{Begin, Entry, Follower, Meta, Stamp};
use fleetwide_core_traits::{MonoTime, ServerTime};
use fleetwide_two_tier_cache::Change;

use crate::changes::{Gap, Hub, Said};
use crate::place::{Place, TagOf};
use crate::roster::Roster;
use crate::tier::Tier;

/// The cache's own follower first, so that who is told of a change and reads finds it done.
pub(crate) struct Following<V> {
    pub(crate) below: Arc<dyn Follower>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) tier: Tier<V>,
    pub(crate) roster: Arc<Roster>,
    /// Whether there is a second tier, so that this one may forget.
    pub(crate) shared: bool,
}

impl<V: Send + Sync + 'static> Follower for Following<V> {
    fn begin(&self, at: Stamp, why: Begin) {
        self.below.begin(at, why);
        let gap = match why {
            Begin::First => Gap::NotFollowed,
            Begin::Gap { after } => Gap::Missed { first: after + 1, last: at.seq },
            // A reset, and whatever a later version may say.
            _ => {
                // The directory may have lost ids together with the history.
                self.roster.clear();
                Gap::Reset
            }
        };
        // Only those are told that something may be missing who were there before.
        self.hub.tell_all(&Said::Gap(gap));
        self.hub.begun();
    }

    fn apply(&self, entry: &Entry) {
        self.below.apply(entry);
        for change in Change::read(entry) {
            match change {
                Change::Put(wire) => self.tell(&wire, Said::Put),
                Change::Removed(wire) => self.tell(&wire, Said::Removed),
                Change::TagRemoved(tag) => match TagOf::read(&tag) {
                    TagOf::Session(session) => {
                        if self.shared {
                            self.tier.end(&session);
                        }
                        self.hub.tell(&session, Said::Ended);
                    }
                    TagOf::User(tag) => self.hub.tell_all(&Said::TagRemoved(tag)),
                    TagOf::Unknown => self.hub.tell_all(&Said::TagRemoved(tag)),
                },
                // Everything, and whatever a later version may say.
                _ => self.hub.tell_all(&Said::Cleared),
            }
        }
    }

    fn verified(&self, at: Stamp, as_of: MonoTime) {
        self.below.verified(at, as_of);
        // With each beat of the log, so that what nobody uses goes without a task of its own.
        self.tier.sweep();
    }

    fn known(&self) -> Option<Meta> {
        self.below.known()
    }

    fn server_clock(&self, sent: MonoTime, server: ServerTime) {
        self.below.server_clock(sent, server);
    }

    fn tick(&self) {
        self.below.tick();
    }

    fn signal(&self, key: &[u8]) {
        self.below.signal(key);
    }
}

impl<V> Following<V> {
    fn tell(&self, wire: &[u8], said: impl FnOnce(Arc<str>) -> Said) {
        if self.hub.is_idle() {
            return;
        }
        if let Some(place) = Place::read(wire) {
            self.hub.tell(place.session(), said(Arc::clone(place.shared_key())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use fleetwide_core_traits::SystemClock;
    use fleetwide_mem_backend::MokaLocal;
    use parking_lot::Mutex;
    use tokio::sync::broadcast::Receiver;

    use super::*;
    use crate::place::SessionId;
    use crate::roster::Limits;
    use crate::telemetry::Telemetry;

    /// The cache below, which listens while it applies.
    struct Listening {
        receiver: Mutex<Receiver<Said>>,
        /// Whether nobody had been told by then.
        first: Mutex<Vec<bool>>,
        heard: Mutex<Vec<&'static str>>,
    }

    impl Listening {
        fn hear(&self, what: &'static str) {
            self.first.lock().push(self.receiver.lock().is_empty());
            self.heard.lock().push(what);
        }
    }

    impl Follower for Listening {
        fn begin(&self, _at: Stamp, _why: Begin) {
            self.hear("begin");
        }

        fn apply(&self, _entry: &Entry) {
            self.hear("apply");
        }

        fn verified(&self, _at: Stamp, _as_of: MonoTime) {
            self.hear("verified");
        }

        fn server_clock(&self, _sent: MonoTime, _server: ServerTime) {
            self.hear("server_clock");
        }

        fn known(&self) -> Option<Meta> {
            self.hear("known");
            None
        }

        fn tick(&self) {
            self.hear("tick");
        }

        fn signal(&self, _body: &[u8]) {
            self.hear("signal");
        }
    }

    fn following(session: &SessionId) -> (Arc<Listening>, Following<()>) {
        let hub = Arc::new(Hub::new(8));
        let mut watching = hub.subscribe(session);
        let receiver = Mutex::new(watching.receiver().unwrap().resubscribe());
        let (first, heard) = (Mutex::default(), Mutex::default());
        let below = Arc::new(Listening { receiver, first, heard });
        let limits = Limits { sessions: 1, entries: None, idle: Duration::from_secs(1) };
        let telemetry = Arc::new(Telemetry::new("n"));
        let roster = Arc::new(Roster::new(limits, Arc::new(SystemClock), telemetry));
        let tier = Tier::<()>::new(MokaLocal::builder().build(), Arc::clone(&roster));
        (below.clone(), Following { below, hub, tier, roster, shared: true })
    }

    /// The end of `session`, as the cache below writes it.
    fn end_of(session: &SessionId) -> Entry {
        let mut body = vec![4];
        body.extend_from_slice(session.tag().as_bytes());
        let (id, previous, source) = ([0; 8], [0; 8], [0; 8]);
        let (stamp, body) = (Stamp::default(), Bytes::from(body));
        Entry { stamp, id, previous, source, number: 0, body }
    }

    /// Red when subscribers were told first: then one that reads at once can find the old value.
    #[test]
    fn nobody_is_told_before_the_cache_has_applied_it() {
        let session = SessionId::new("s").unwrap();
        let (below, following) = following(&session);
        following.begin(Stamp::default(), Begin::Reset);
        assert!(matches!(below.receiver.lock().try_recv(), Ok(Said::Gap(Gap::Reset))));
        following.apply(&end_of(&session));
        assert!(matches!(below.receiver.lock().try_recv(), Ok(Said::Ended)));
        assert_eq!(*below.first.lock(), [true, true]);
    }

    /// Ticks were lost here once: the age of what is verified stood still, and nobody signed the
    /// layout. Red without any one of the lines that pass something on.
    #[test]
    fn the_cache_below_hears_everything() {
        let session = SessionId::new("s").unwrap();
        let (below, following) = following(&session);
        let (at, now) = (Stamp::default(), MonoTime::from_micros(1));
        following.begin(at, Begin::First);
        following.apply(&end_of(&session));
        following.verified(at, now);
        following.server_clock(now, ServerTime::MAX);
        following.known();
        following.tick();
        following.signal(b"key");
        let all = ["begin", "apply", "verified", "server_clock", "known", "tick", "signal"];
        assert_eq!(*below.heard.lock(), all);
    }
}
