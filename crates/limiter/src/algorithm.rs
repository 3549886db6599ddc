//! What all algorithms have in common: a pure decision, a state, and the scripts that are its twin.

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, Script, ServerTime};

use crate::{Mark, Quota, Verdict};

/// One way to count: a pure decision over a state, and the scripts that decide the same.
///
/// [`GcraQuota`](crate::GcraQuota), [`WindowQuota`](crate::WindowQuota),
/// [`BucketQuota`](crate::BucketQuota), [`FixedQuota`](crate::FixedQuota) and
/// [`LogQuota`](crate::LogQuota) are those there are. Times are in µs by one clock; a state that was
/// written later than `now` is taken to have been written now, because that clock has gone back.
pub trait Algorithm:
    Copy + Debug + PartialEq + Into<Quota> + TryFrom<Quota> + Send + Sync + 'static
{
    /// What is kept of one key.
    type State: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// The last part of the keys, so that no algorithm reads the state of another.
    const PART: &'static str;

    /// The script that spends.
    fn check_script() -> &'static Script;

    /// The script that only looks.
    fn peek_script() -> &'static Script;

    /// The script that spends once per request ([`Once`](crate::op::Once)).
    fn once_script() -> &'static Script;

    /// The script that spends several costs in turn ([`Batch`](crate::op::Batch)). Default: none, so
    /// that calls are not combined.
    fn batch_script() -> Option<&'static Script> {
        None
    }

    /// The scripts of the verbs beyond check and peek. As all of its scripts, they read keys through
    /// `lua/open.lua` and `lua/settle.lua`, and write the preface before the state.
    fn verbs() -> &'static Verbs;

    /// The script that makes good what a new primary has missed ([`Merge`](crate::op::Merge)).
    /// Default: none, so that nothing is carried over a failover. An algorithm that has it implements
    /// [`owe`](Self::owe) and writes a preface before its states.
    fn merge_script() -> Option<&'static Script> {
        None
    }

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

    /// What must be written instead of `state` even if nothing is spent, because it is from the
    /// future: what [`decide`](Self::decide) returns with a refusal.
    fn reanchor(&self, state: &Self::State, now: ServerTime) -> Option<Self::State>;

    /// Whether `state` was written with other parameters, so that what its times mean changes when
    /// it is written with these.
    fn is_other(&self, state: &Self::State) -> bool;

    /// Gives back what a call has spent, as far as time has not done so already: how much that is, in
    /// units of the algorithm, and what is left of `state`, which is not from the future nor of
    /// other parameters. `None` if nothing is given back.
    ///
    /// `since` is what was given back of the key after the call.
    fn give_back(
        &self,
        state: &Self::State,
        debit: &Debit,
        since: u64,
        now: ServerTime,
    ) -> Option<(u64, Option<Self::State>)>;

    /// What must be kept instead of `state`, which stands at `mark`, if as much is owed, and the
    /// [`life`](Mark::life) that begins with it. `None` if `state` says no less. It is never the sum of
    /// both.
    fn owe(
        &self,
        state: Option<&Self::State>,
        owed: &Owed,
        mark: &Mark,
        now: ServerTime,
    ) -> Option<(Self::State, u64)> {
        let _ = (state, owed, mark, now);
        None
    }

    /// What `cost` cells are in the units of a refund. Default: as many.
    fn price(&self, cost: u32) -> u64 {
        cost.into()
    }

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

/// The scripts of an algorithm beyond check and peek.
#[derive(Debug)]
pub struct Verbs {
    /// Spends as many cells as are left, up to a number ([`AtMost`](crate::op::AtMost)).
    pub at_most: Script,
    /// Gives back what a call has spent ([`Refund`](crate::op::Refund)).
    pub refund: Script,
    /// Refuses everything for a while ([`Block`](crate::op::Block)).
    pub block: Script,
    /// Forgets what was spent ([`Reset`](crate::op::Reset)).
    pub reset: Script,
}

impl Verbs {
    /// All of them.
    pub fn scripts(&'static self) -> Vec<&'static Script> {
        let Self { at_most, refund, block, reset } = self;
        vec![at_most, refund, block, reset]
    }
}

/// What a call has spent, as a receipt knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debit {
    /// Cells.
    pub cost: u32,
    /// When it was decided, by the clock of the executor.
    pub at: ServerTime,
    /// When all that was spent up to then would have been back.
    pub upto: ServerTime,
    /// Where the history of the key stood then.
    pub mark: Mark,
}

/// What a survivor of a failover knows to have been spent of a key, by all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// For how many µs from now any of it counts. 0: nothing is owed.
    ///
    /// By the fixed window longer: by half a window, but a minute at most. A new primary whose clock
    /// is behind goes on with a window that is over by the survivor's.
    pub left_us: u64,
    /// Cells of it.
    pub cells: u32,
    /// The generation of the key, as the survivor knows it.
    pub generation: u64,
    /// All that was given back of the key, as the survivor knows it.
    pub refunds: u64,
}

impl Owed {
    /// Whether the survivor knows of a reset that the server has missed.
    pub(crate) const fn is_newer_than(&self, mark: &Mark) -> bool {
        self.generation > mark.generation
    }

    /// What is no debt any more, in units of the algorithm: what was given back since, for all that
    /// the server knows. What was given back before a reset says nothing of debts from after it.
    pub(crate) const fn given_since(&self, mark: &Mark) -> u64 {
        if self.is_newer_than(mark) { 0 } else { mark.refunds.saturating_sub(self.refunds) }
    }

    /// What was given back, for all that the survivor knows, and the server does not: it counts it yet.
    pub(crate) const fn given_unknown_to(&self, mark: &Mark) -> u64 {
        if self.is_newer_than(mark) { 0 } else { self.refunds.saturating_sub(mark.refunds) }
    }

    /// Cells that are owed still, by an algorithm that gives back cells.
    pub(crate) fn cells_since(&self, mark: &Mark) -> u32 {
        u64::from(self.cells).saturating_sub(self.given_since(mark)) as u32
    }
}

impl Mark {
    /// The life that begins now.
    pub(crate) fn next_life(&self, now: ServerTime) -> u64 {
        now.as_micros().max(self.life + 1)
    }
}

/// A script of an algorithm: where it stands, and what follows.
macro_rules! script {
    ($algorithm:literal, $verb:literal, [$($part:literal),+]) => {
        Script::timed(
            concat!("limiter.", $algorithm, "_", $verb),
            &[
                include_str!("lua/open.lua"),
                include_str!(concat!("lua/", $algorithm, ".lua")),
                include_str!("lua/settle.lua"),
                $(include_str!(concat!("lua/", $part))),+
            ],
        )
    };
}
pub(crate) use script;

/// The script that makes good what a new primary has missed.
macro_rules! merge {
    ($algorithm:literal) => {
        Script::timed(
            concat!("limiter.", $algorithm, "_merge"),
            &[
                include_str!("lua/open.lua"),
                include_str!(concat!("lua/", $algorithm, ".lua")),
                include_str!("lua/settle.lua"),
                include_str!("lua/merge_open.lua"),
                include_str!(concat!("lua/", $algorithm, "_merge.lua")),
                include_str!("lua/merge_close.lua"),
                include_str!(concat!("lua/", $algorithm, "_peek.lua")),
                include_str!("lua/reply.lua"),
            ],
        )
    };
}
pub(crate) use merge;

/// A check that is made once per request: the parts of the check, all of them, in a function.
macro_rules! once {
    ($algorithm:literal) => {
        Script::timed(
            concat!("limiter.", $algorithm, "_once"),
            &[
                include_str!("lua/once_open.lua"),
                "local function check()",
                include_str!("lua/open.lua"),
                include_str!(concat!("lua/", $algorithm, ".lua")),
                include_str!("lua/settle.lua"),
                include_str!(concat!("lua/", $algorithm, "_check.lua")),
                include_str!(concat!("lua/", $algorithm, "_peek.lua")),
                include_str!("lua/reply.lua"),
                "end",
                include_str!("lua/once.lua"),
            ],
        )
    };
}
pub(crate) use once;
