//! Decisions, judged by an exact count of what was admitted. The twin of `lua/accuracy.lua`.

use std::marker::PhantomData;
use std::time::Duration;

use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Namespace, Script, ServerTime, Wire,
};

use crate::algorithm::Algorithm;
use crate::held::{View, lives};
use crate::multi::Rule;
use crate::op::tag;
use crate::{Held, LogQuota, PolicyName, Quota};

/// A whole script of one key, as a function of what are its keys, its arguments and its time.
macro_rules! function {
    ($name:literal, $algorithm:literal, [$($verb:literal),+]) => {
        concat!(
            $name, " = function(KEYS, ARGV, now)\n",
            include_str!("../lua/open.lua"),
            include_str!(concat!("../lua/", $algorithm, ".lua")),
            include_str!("../lua/settle.lua"),
            $(include_str!(concat!("../lua/", $algorithm, $verb)),)+
            include_str!("../lua/reply.lua"),
            "end\n"
        )
    };
}

static SCRIPT: Script = Script::timed(
    "limiter.accuracy",
    &[
        "local takes, peeks = {}, {}\n",
        function!("takes[1]", "gcra", ["_at_most.lua", "_check.lua", "_peek.lua"]),
        function!("takes[3]", "bucket", ["_at_most.lua", "_check.lua", "_peek.lua"]),
        function!("takes[4]", "fixed", ["_at_most.lua", "_check.lua", "_peek.lua"]),
        function!("takes[5]", "log", ["_at_most.lua", "_check.lua", "_peek.lua"]),
        function!("peeks[1]", "gcra", ["_peek.lua"]),
        function!("peeks[3]", "bucket", ["_peek.lua"]),
        function!("peeks[4]", "fixed", ["_peek.lua"]),
        function!("peeks[5]", "log", ["_peek.lua"]),
        include_str!("../lua/accuracy.lua"),
    ],
);

/// Longer than any decision waits to be judged. `lua/accuracy.lua` has it too.
const DATE_KEPT: Duration = Duration::from_secs(60);

/// The quota by which decisions of `quota` can be judged exactly: itself, or for the sliding window,
/// whose sub-windows are not exact, the log of all cells. `None` if that would be a log of more than
/// 4,096 cells.
pub fn exact(quota: Quota) -> Option<Quota> {
    match quota {
        Quota::SlidingWindow(quota) => {
            LogQuota::judge(quota.cost_max(), quota.window_us()).map(Quota::SlidingLog)
        }
        other => Some(other),
    }
}

/// The keys of what was admitted of `user_key`, by algorithm `A`, and of when that was judged last:
/// beside that of [`cell`](crate::op::cell), in the same slot.
///
/// # Errors
/// [`KeyError`] if `user_key` is empty or too long.
pub fn judged_cells<A: Algorithm>(
    namespace: &Namespace,
    policy: &PolicyName,
    user_key: &[u8],
) -> Result<[Key; 2], KeyError> {
    let tag = tag(namespace, policy, user_key)?;
    Ok([tag.named("exact", A::PART.as_bytes())?, tag.named("judged", A::PART.as_bytes())?])
}

/// A decision that was made elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// How long ago, in µs.
    pub age_us: u64,
    /// What was to be spent; at least 1, and not above the quota's
    /// [`cost_max`](Algorithm::cost_max).
    pub cost: u32,
    /// Whether it was allowed.
    pub is_allowed: bool,
}

/// What came of judging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Cells that were admitted above the quota.
    pub over_cells: u64,
    /// Refusals of costs for which the quota had room.
    pub under_refusals: u64,
}

/// Judges decisions over one key, in their order. Answers a [`Judgement`].
///
/// What was admitted is counted exactly, up to what the quota allows: each cell above it counts once,
/// and not against those that come later. A decision is dated by its age, but never before one that was
/// judged already, nor after now.
#[derive(Clone, Debug)]
pub struct Judge<A> {
    quota: A,
    keys: [Key; 2],
    decisions: Vec<Made>,
}

impl<A: Algorithm> Judge<A> {
    /// The most decisions of one step: each reads and writes the key once, which is 28 KB at most.
    pub const DECISIONS_MAX: usize = 16;

    pub(crate) const SCRIPT: &'static Script = &SCRIPT;

    /// The step that judges `decisions` over `keys` ([`judged_cells`]) by `quota` ([`exact`]). `None`
    /// if there are none, or more than [`DECISIONS_MAX`](Self::DECISIONS_MAX), or if one has no cost or
    /// one that is never allowed.
    pub fn new(quota: A, keys: [Key; 2], decisions: Vec<Made>) -> Option<Self> {
        let is_bounded = (1..=Self::DECISIONS_MAX).contains(&decisions.len());
        let is_fitting = |made: &Made| (1..=quota.cost_max()).contains(&made.cost);
        let is_exact = !matches!(quota.into(), Quota::SlidingWindow(_));
        let is_right = is_exact && is_bounded && decisions.iter().all(is_fitting);
        is_right.then_some(Self { quota, keys, decisions })
    }
}

/// What was admitted of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted<S> {
    /// The last decision that was judged.
    pub last_us: u64,
    /// What the quota keeps of it.
    pub held: Option<Held<S>>,
}

impl<A: Algorithm> AtomicOp for Judge<A> {
    type State = Admitted<A::State>;
    type Reply = Judgement;

    fn script(&self) -> &'static Script {
        Self::SCRIPT
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(Rule::Rate(self.quota.into()).kind());
        self.quota.args(to);
        // Twice: on a clock that went back, a fixed window lasts as long as two.
        let start = ServerTime::from_micros(0);
        let life = A::lives(&self.quota.spent(self.quota.cost_max(), start), start);
        to.uint((2 * life + DATE_KEPT).as_micros() as u64);
        let mut decisions = Vec::with_capacity(13 * self.decisions.len());
        for Made { age_us, cost, is_allowed } in &self.decisions {
            decisions.extend(age_us.to_be_bytes());
            decisions.extend(cost.to_be_bytes());
            decisions.push(u8::from(*is_allowed));
        }
        to.bytes(&decisions);
    }

    fn apply(
        &self,
        cells: &[Option<&Self::State>],
        now: ServerTime,
        out: &mut Effects<Self::State>,
    ) -> Judgement {
        let (now_us, mut judgement) = (now.as_micros(), Judgement::default());
        let mut last_us = cells[0].map_or(0, |admitted| admitted.last_us);
        let mut held = cells[0].and_then(|admitted| admitted.held.clone());
        for Made { age_us, cost, is_allowed } in &self.decisions {
            last_us = last_us.max(now_us.saturating_sub(*age_us)).min(now_us);
            let view = View::of(&self.quota, held.as_ref(), ServerTime::from_micros(last_us));
            if *is_allowed {
                let (answer, next) = view.decide_at_most(*cost);
                judgement.over_cells += u64::from(cost - answer.granted);
                held = next.or(held);
            } else {
                let has_room = view.peek(*cost).verdict.is_allowed;
                judgement.under_refusals += u64::from(has_room);
            }
        }
        let at = ServerTime::from_micros(last_us);
        let life = held.as_ref().map(|held| lives::<A>(held, at)).unwrap_or_default();
        out.put(0, Admitted { last_us, held }, life + DATE_KEPT);
        judgement
    }

    fn decode(&self, reply: Wire) -> Result<Judgement, Malformed> {
        let [over, under] = reply.into_array()?;
        Ok(Judgement { over_cells: over.into_unsigned()?, under_refusals: under.into_unsigned()? })
    }
}

static DELETE: Script = Script::command("DEL");

/// Forgets what was admitted of one key.
pub(super) struct Forget<A> {
    keys: [Key; 2],
    algorithm: PhantomData<A>,
}

impl<A: Algorithm> Forget<A> {
    /// The step that forgets `keys` ([`judged_cells`]) of `quota`.
    pub(super) const fn new(_: A, keys: [Key; 2]) -> Self {
        Self { keys, algorithm: PhantomData }
    }
}

impl<A: Algorithm> AtomicOp for Forget<A> {
    type State = Admitted<A::State>;
    type Reply = ();

    fn script(&self) -> &'static Script {
        &DELETE
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, _: &mut dyn ArgSink) {}

    fn apply(&self, _: &[Option<&Self::State>], _: ServerTime, out: &mut Effects<Self::State>) {
        out.delete(0);
    }

    fn decode(&self, reply: Wire) -> Result<(), Malformed> {
        reply.into_unsigned().map(drop)
    }
}
