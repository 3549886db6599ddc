//! What all algorithms have in common: a pure decision, a state, and the scripts that are its twin.

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::Verdict;

/// One way to count: a pure decision over a state, and the scripts that decide the same.
///
/// [`GcraQuota`](crate::GcraQuota) and [`WindowQuota`](crate::WindowQuota) are the two there are.
/// Times are in µs by one clock; a state that was written later than `now` is taken to have been
/// written now, because that clock has gone back.
pub trait Algorithm: Copy + Debug + PartialEq + Send + Sync + 'static {
    /// What is kept of one key.
    type State: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// The last part of the keys, so that no algorithm reads the state of another.
    const PART: &'static str;

    /// The script that spends.
    fn check_script() -> &'static Script;

    /// The script that only looks.
    fn peek_script() -> &'static Script;

    /// Writes the parameters, in the order of the scripts.
    fn args(&self, to: &mut dyn ArgSink);

    /// The most that one call can spend.
    fn cost_max(&self) -> u32;

    /// Decides whether `cost` cells may be spent, and says what is to be kept instead of `state`;
    /// `None`: nothing changes. A cost of 0 is allowed, whatever was spent.
    ///
    /// `cost` must not be above [`cost_max`](Self::cost_max): it would never be allowed.
    fn decide(
        &self,
        state: Option<&Self::State>,
        now: ServerTime,
        cost: u32,
    ) -> (Verdict, Option<Self::State>);

    /// What [`decide`](Self::decide) would say, with the cells that are left as they are.
    fn peek(&self, state: Option<&Self::State>, now: ServerTime, cost: u32) -> Verdict;

    /// How long `state` means more than no state at all.
    fn lives(state: &Self::State, now: ServerTime) -> Duration;

    /// What is kept after `spent` cells were spent at `at` on an unused key.
    fn spent(&self, spent: u32, at: ServerTime) -> Self::State;

    /// What one of `instances` may spend alone.
    #[must_use]
    fn share(&self, instances: NonZeroU32) -> Self;
}
