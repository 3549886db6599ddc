//! How many instances there are.

use std::num::NonZeroU32;

/// Knows how many instances of the fleet are alive, as far as this one has heard.
///
/// A limiter divides its quota by it while its backend is away, so it is asked when nobody can be
/// asked: the answer is what was heard last, and it is never waited for.
///
/// # Staleness
/// The answer is as old as the last word from where the instances sign, and an implementation says how
/// old that is while all is well. What it must not do is to take silence for news:
///
/// - While that place cannot be reached the last count stays, however old it gets. Signs of life that
///   merely could not be renewed are no departures: if each instance counted only itself, each would
///   take the whole of what all share.
/// - Before the first word it is `None`, and so is an answer that may be too low: one from a list that
///   was lost and has just been begun anew.
///
/// An instance that starts during an outage is not counted by the others, nor does it count them. So
/// whoever divides by the answer also has a number that was configured, and takes the larger one.
///
/// # Examples
/// ```
/// use std::num::NonZeroU32;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// use fleetwide_core_traits::Membership;
///
/// /// Set by whoever watches the deployment; 0 until it is known.
/// struct Replicas(AtomicU32);
///
/// impl Membership for Replicas {
///     fn instances(&self) -> Option<NonZeroU32> {
///         NonZeroU32::new(self.0.load(Ordering::Relaxed))
///     }
/// }
/// # let replicas = Replicas(AtomicU32::new(3));
/// # assert_eq!(replicas.instances(), NonZeroU32::new(3));
/// ```
pub trait Membership: Send + Sync + 'static {
    /// How many instances were alive when that was last known, this one among them; `None` if it is
    /// not known. Does not wait, and is cheap: it is asked for each decision of an outage.
    fn instances(&self) -> Option<NonZeroU32>;
}
