//! What instances that share a cache must agree on, and what follows when they do not.
//!
//! The layout stands in a record beside the cache's log. An instance uses the shared tier only while it
//! knows that the record is its own: it signs it every [`SIGN_EVERY`], and what it has signed holds
//! for [`HOLDS`], half of the time for which others take it for alive.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::MonoTime;
use fleetwide_core_traits::log::LOG_VERSION;

use crate::ops::{SIGN_LIFE, VARIANTS_MAX};

/// How long a signature lets its instance use the shared tier. The other half is for requests that are
/// under way when it ends.
const HOLDS: Duration = SIGN_LIFE.checked_div(2).expect("2 is not 0");
/// Three signatures may be lost.
const SIGN_EVERY: Duration = SIGN_LIFE.checked_div(6).expect("6 is not 0");
/// How soon it is asked again after a refusal or a failure.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The version of what this crate writes beside the log: values, leases, guards, tags, the bodies of
/// entries, and which of them stand under which name. It is raised when the version before would
/// misread it; what it would only miss, such as a value in another codec, is no reason.
const CACHE_VERSION: u32 = 1;
/// Logs of one cache.
const SHARDS: u32 = 1;
/// Bytes of a foreign layout that are shown.
const SHOWN_MAX: usize = 200;

/// How an instance lays out a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What the user says of the bytes of keys.
    pub(crate) keys: u32,
}

impl Layout {
    /// As it is written down: compared byte by byte, and shown to whoever is refused.
    pub(crate) fn to_wire(self) -> Bytes {
        self.to_string().into()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys;
        write!(
            f,
            "log {LOG_VERSION}, shards {SHARDS}, cache {CACHE_VERSION}, schemas {VARIANTS_MAX}, \
             keys {keys}"
        )
    }
}

/// Why an instance may not use a cache: others share it who lay it out in another way, so one would
/// misread what the other writes, or not hear what it removes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cache `{cache}` is shared by instances whose layout is [{fleet}], and this one's is [{own}]: \
     give it another name, or stop the others first"
)]
pub struct LayoutError {
    /// The name of the cache.
    pub cache: String,
    /// The layout of those who share it.
    pub fleet: String,
    /// The layout of this instance.
    pub own: String,
}

impl LayoutError {
    pub(crate) fn new(cache: &str, fleet: &[u8], own: Layout) -> Self {
        // What others have written there can be anything.
        let fleet = String::from_utf8_lossy(&fleet[..fleet.len().min(SHOWN_MAX)]);
        let fleet = fleet.replace(char::is_control, "?");
        Self { cache: cache.to_owned(), fleet, own: own.to_string() }
    }
}

/// What an instance knows of the record. Pure: every step is told the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Until when the shared tier may be used; zero if it may not.
    holds_until: MonoTime,
    /// From when on the record is to be signed again.
    due_at: MonoTime,
    /// Why not, and since when, if others have another layout.
    refused: Option<(LayoutError, MonoTime)>,
}

/// Whether everything that this process holds is void now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// Others have another layout: from here on the cache is on its own.
    Refused,
    /// The others are gone or have changed. Until now, what they invalidated was not understood.
    Agreed,
}

impl Standing {
    pub(crate) const fn holds_until(&self) -> MonoTime {
        self.holds_until
    }

    pub(crate) const fn refused(&self) -> Option<&(LayoutError, MonoTime)> {
        self.refused.as_ref()
    }

    /// Whether to sign again.
    pub(crate) fn is_due(&self, now: MonoTime) -> bool {
        now >= self.due_at
    }

    /// The record says that all agree; it was asked at `sent`.
    pub(crate) fn agreed(&mut self, sent: MonoTime) -> Change {
        self.holds_until = sent.plus(HOLDS);
        self.due_at = sent.plus(SIGN_EVERY);
        if self.refused.take().is_some() { Change::Agreed } else { Change::None }
    }

    /// It says something else.
    pub(crate) fn refuse(&mut self, now: MonoTime, error: LayoutError) -> Change {
        (self.holds_until, self.due_at) = (MonoTime::default(), now.plus(ASK_AGAIN));
        let before = self.refused.take().map(|(_, since)| since);
        self.refused = Some((error, before.unwrap_or(now)));
        if before.is_none() { Change::Refused } else { Change::None }
    }

    /// There was no answer: what was signed before holds as long as it does.
    pub(crate) fn unanswered(&mut self, now: MonoTime) {
        self.due_at = now.plus(ASK_AGAIN);
    }

    /// The server may have lost the record.
    pub(crate) fn doubt(&mut self) {
        (self.holds_until, self.due_at) = (MonoTime::default(), MonoTime::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_micros(seconds * 1_000_000)
    }

    fn error() -> LayoutError {
        LayoutError::new("users", b"keys 1", Layout { keys: 2 })
    }

    /// Written down once: instances of all versions compare it.
    #[test]
    fn the_layout_of_this_version_stays_as_it_is() {
        let golden = "log 1, shards 1, cache 1, schemas 3, keys 7";
        assert_eq!(Layout { keys: 7 }.to_wire(), golden.as_bytes());
    }

    #[test]
    fn the_error_names_both_layouts_and_shows_no_more_than_a_line_of_theirs() {
        let text = error().to_string();
        assert!(text.contains("[keys 1]") && text.contains("schemas 3, keys 2]"), "{text}");
        let hostile = [b"\x1b[2J\n".to_vec(), vec![0xff; 10_000]].concat();
        let shown = LayoutError::new("users", &hostile, Layout { keys: 0 }).fleet;
        assert!(shown.starts_with("?[2J?") && shown.chars().count() <= SHOWN_MAX, "{shown}");
    }

    #[test]
    fn a_signature_holds_for_half_of_the_time_that_others_take_it_for_alive() {
        let mut standing = Standing::default();
        assert!(standing.is_due(at(0)));
        assert_eq!(standing.agreed(at(100)), Change::None);
        assert_eq!(standing.holds_until(), at(130));
        assert!(!standing.is_due(at(109)) && standing.is_due(at(110)));
        standing.unanswered(at(111));
        assert_eq!(standing.holds_until(), at(130), "an outage is no refusal");
        assert!(!standing.is_due(at(111)) && standing.is_due(at(112)));
        standing.doubt();
        assert_eq!(standing.holds_until(), at(0));
        assert!(standing.is_due(at(111)));
    }

    #[test]
    fn only_a_change_of_verdict_is_a_change() {
        let mut standing = Standing::default();
        assert_eq!(standing.refuse(at(1), error()), Change::Refused);
        assert_eq!(standing.refuse(at(2), error()), Change::None);
        assert_eq!((standing.holds_until(), standing.refused()), (at(0), Some(&(error(), at(1)))));
        assert_eq!(standing.agreed(at(3)), Change::Agreed);
        assert_eq!(standing.agreed(at(4)), Change::None);
        assert_eq!(standing.refused(), None);
    }
}
