//! Who answers while the backend does not, and when it is asked again.

mod answer;
pub(crate) mod backend;
pub(crate) mod gate;
pub(crate) mod ladder;
pub(crate) mod share;

use crate::Source;

/// Who answers while the backend does not.
///
/// There is no default: what is right for a page that costs nothing is wrong for a login form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// All calls are allowed and none is counted. An outage, which others can cause, is then a time
    /// without limits.
    Allow,
    /// All calls are refused.
    Deny,
    /// Each instance enforces its share of the quota by itself.
    ///
    /// A share starts from what the last answers said is left of each key, and goes on where it
    /// was when the backend goes away again. It is the quota divided by `assumed` instances: by those
    /// last known to live, if the builder has a [`membership`](crate::LimiterBuilder::membership),
    /// and never by fewer than `instances`. When that count changes, shares change their size at once,
    /// and what was spent of them stays spent.
    ///
    /// With `actual` instances up in an outage of length d, the fleet admits at most
    /// `(B + r * d) * actual / assumed` of a key in it, where the quota alone would admit `B + r * d`
    /// (burst and rate; the fixed window `2 * B + r * d`); `assumed` is the smallest number that any
    /// of them assumed. So it is never over as long as no more are up than each assumes. A share has
    /// at least one cell, so a fleet larger than the quota's burst can spend one cell each at once.
    LocalShare {
        /// The least number of instances to divide by. Without a membership it is the only one, so
        /// say the largest that is ever up at once; with one, what the fleet always has.
        instances: u32,
    },
}

impl Unavailable {
    /// A word for logs and metrics: `allow`, `deny`, `local_share`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::LocalShare { .. } => "local_share",
        }
    }

    pub(crate) const fn source(self) -> Source {
        match self {
            Self::Allow => Source::Open,
            Self::Deny => Source::Closed,
            Self::LocalShare { .. } => Source::LocalShare,
        }
    }
}
