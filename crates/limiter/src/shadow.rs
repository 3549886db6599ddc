//! A candidate quota that is tried beside the real one, and decides nothing.

pub(crate) mod ledger;
mod report;
mod top;
mod verbs;

pub use self::report::{Agreement, Divergence, FlippingKey, Opinion, ShadowReport};
pub(crate) use self::verbs::Lent;
use crate::Quota;

/// On so many keys a candidate costs little, and among a few hundred keys they are enough to judge by.
const SHARE_DEFAULT: f64 = 0.25;

/// A quota that is tried on live traffic:
/// [`LimiterBuilder::shadow`](crate::LimiterBuilder::shadow).
///
/// Each call is decided by the limiter's quota and by the candidate's, in one trip and at one moment.
/// The candidate debits what it allows, on a state of its own, so that its history is what it would
/// have been if it were in force. It changes no answer: its quota may be of any algorithm, and its key
/// may hold anything.
///
/// | option | default |
/// | --- | --- |
/// | [`share_of_keys`](Self::share_of_keys) | a quarter |
/// | [`show_keys`](Self::show_keys) | off |
///
/// # What is not the same while it is tried, for the keys on which it is
/// - Each call is a trip: refusals are not [remembered](crate::LimiterBuilder::deny_cache) and
///   nothing is [bought ahead](crate::LimiterBuilder::leased), because a call without a trip would be
///   one that the candidate does not see. Calls on one key still share their trips, which carry both.
/// - Each of these keys takes the room of two, and the server works about twice as long for its calls.
///
/// # What is judged
/// Calls that one cell or more are asked for with [`check`](crate::Limiter::check),
/// [`check_cost`](crate::Limiter::check_cost) or
/// [`check_with_receipt`](crate::Limiter::check_with_receipt), and with
/// [`check_with_quota`](crate::Limiter::check_with_quota) by the limiter's own quota. Others are
/// neither compared nor debited, and counted as [`unjudged`](ShadowReport::unjudged): partial grants,
/// calls that can be made again or that wait ([`until_ready`](crate::Limiter::until_ready)), and those
/// that the rung answers. Where most calls are such, the candidate sees too little to be judged by.
///
/// Refunds, resets and blocks are made on the candidate's state as well, beside the real ones; whether
/// they could be made there changes nothing. A call that only the candidate would have allowed has no
/// receipt, so what it has debited for it stays so. What a failover has lost of it is not made good.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use fleetwide_core_traits::Namespace;
/// # use fleetwide_limiter::{Limiter, Quota, Shadow, Unavailable};
/// # use fleetwide_mem_backend::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (memory, namespace) = (Memory::new(), Namespace::new("shop")?);
/// let minute = Duration::from_secs(60);
/// let today = Quota::fixed_window(100, minute)?;
/// let candidate = Quota::sliding_window(60, minute)?;
/// let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", today)
///     .on_unavailable(Unavailable::Deny)
///     .shadow(Shadow::new(candidate).share_of_keys(1.0))
///     .build()?;
/// for _ in 0..70 {
///     assert!(limiter.check("tenant-7").await?.is_allowed());
/// }
/// let report = limiter.shadow_report().expect("it has a shadow");
/// assert_eq!(report.agreement.both_allow, 60);
/// assert_eq!(report.agreement.only_real_allows, 10);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "it is for `LimiterBuilder::shadow`"]
pub struct Shadow {
    pub(crate) candidate: Quota,
    pub(crate) share: f64,
    pub(crate) is_showing: bool,
}

impl Shadow {
    /// Tries `candidate`.
    pub const fn new(candidate: Quota) -> Self {
        Self { candidate, share: SHARE_DEFAULT, is_showing: false }
    }

    /// Sets the share of all keys on which it is tried, from 0 to 1. Default: a quarter, which leaves a
    /// service more than three quarters of its rate where Redis is what bounds it; all keys leave it
    /// about a half there (`docs/benchmarks.md`).
    ///
    /// By the hash of its name, it is tried on a key by all instances or by none, so that what a key
    /// would have spent is whole. Nothing changes for the others: their refusals are remembered, and
    /// their cells bought ahead.
    pub const fn share_of_keys(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Sets whether the report and the log name the keys that the candidate decides otherwise about.
    /// Default: they do not; a key is then 16 hexadecimal digits, the same as long as this limiter
    /// lives, which say nothing of its name. A name that is shown is as it stands in the backend:
    /// escaped, and hashed if it is longer than 200 bytes.
    pub const fn show_keys(self, is_showing: bool) -> Self {
        Self { is_showing, ..self }
    }
}
