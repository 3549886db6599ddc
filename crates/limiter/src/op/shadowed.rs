//! Several calls of one key by its quota, and the same by a candidate's. The twin of
//! `lua/shadow.lua`.

use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Namespace, Script, ServerTime, Wire,
};

use super::batch::{Batch, decode_answers};
use super::tag;
use super::within::{Candidate, Within};
use crate::algorithm::Algorithm;
use crate::counter::by_quota;
use crate::held::{View, lives};
use crate::multi::Rule;
use crate::multi::rule::Rated;
use crate::{Answer, Held, PolicyName, Quota, Verdict};

/// The whole scripts of two batches, as functions of what are their keys and their arguments. A
/// script of its own for each pair: the server makes each function anew for each call.
macro_rules! pair {
    ($real:literal, $candidate:literal) => {
        Script::timed(
            "limiter.shadow",
            &[
                "local function decide(KEYS, ARGV)",
                include_str!("../lua/open.lua"),
                include_str!(concat!("../lua/", $real, ".lua")),
                include_str!("../lua/settle.lua"),
                include_str!(concat!("../lua/", $real, "_batch.lua")),
                "end",
                "local function judge(KEYS, ARGV)",
                include_str!("../lua/open.lua"),
                include_str!(concat!("../lua/", $candidate, ".lua")),
                include_str!("../lua/settle.lua"),
                include_str!(concat!("../lua/", $candidate, "_batch.lua")),
                "end",
                include_str!("../lua/shadow.lua"),
            ],
        )
    };
}

macro_rules! pairs {
    ($($real:literal),+) => {
        [$([
            pair!($real, "gcra"),
            pair!($real, "window"),
            pair!($real, "bucket"),
            pair!($real, "fixed"),
            pair!($real, "log"),
        ]),+]
    };
}

/// By the [kind](Rule::kind) of the quota, and then by that of the candidate. Only those that are used
/// are made.
static PAIRS: [[Script; 5]; 5] = pairs!("gcra", "window", "bucket", "fixed", "log");

/// The key of what `user_key` would have spent of a candidate beside algorithm `A`: beside that of
/// [`cell`](super::cell), in the same slot.
///
/// # Errors
/// [`KeyError`] if `user_key` is empty or too long.
pub fn candidate_cell<A: Algorithm>(
    namespace: &Namespace,
    policy: &PolicyName,
    user_key: &[u8],
    candidate: &Quota,
) -> Result<Key, KeyError> {
    let name = [A::PART, "/", Rule::Rate(*candidate).part()].concat();
    tag(namespace, policy, user_key)?.named("shadow", name.as_bytes())
}

/// Spends several costs of one key, one after the other, as a [`Batch`], and in the same step by a
/// candidate's quota, which has a key of its own. Answers a [`Compared`] for each cost.
///
/// Each of both debits what it allows, and knows nothing of the other. Whatever the candidate's key
/// holds, the quota's answers stand.
#[derive(Clone, Debug)]
pub struct Shadowed<A> {
    quota: A,
    candidate: Quota,
    keys: [Key; 2],
    costs: Vec<u32>,
}

/// What one call was answered, and what a candidate's quota would have answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The answer.
    pub answer: Answer,
    /// The candidate's. `None` if there is none, or if its key holds what no limiter writes.
    pub candidate: Option<Box<Answer>>,
}

impl Compared {
    /// What is answered to a cost that a quota never allows.
    pub const NEVER: Answer = Answer {
        verdict: Verdict {
            is_allowed: false,
            remaining: 0,
            retry_after_us: u64::MAX,
            reset_after_us: 0,
        },
        at: ServerTime::from_micros(0),
        granted: 0,
        mark: crate::Mark { generation: 0, life: 0, refunds: 0 },
        blocked_us: 0,
    };

    pub(crate) const fn alone(answer: Answer) -> Self {
        Self { answer, candidate: None }
    }
}

impl<A: Algorithm> Shadowed<A> {
    /// The script that decides by `quota` and by `candidate`.
    pub(crate) fn script_of(quota: A, candidate: Quota) -> &'static Script {
        let place = |quota| Rule::Rate(quota).kind() as usize - 1;
        &PAIRS[place(quota.into())][place(candidate)]
    }

    /// The step that spends `costs`, in their order, of `keys`: that of the quota and that of the
    /// candidate, of one tag. None of the costs may be above the quota's
    /// [`cost_max`](Algorithm::cost_max); those above the candidate's are refused by it.
    ///
    /// `None` if there are no costs or more than [`Batch::COSTS_MAX`].
    pub fn new(quota: A, candidate: Quota, keys: [Key; 2], costs: Vec<u32>) -> Option<Self> {
        let is_right = (1..=Batch::<A>::COSTS_MAX).contains(&costs.len());
        is_right.then_some(Self { quota, candidate, keys, costs })
    }

    /// The costs that the candidate can ever allow.
    fn tried(&self) -> Vec<u32> {
        let is_tried = |cost: &u32| *cost <= self.candidate.cost_max();
        self.costs.iter().copied().filter(is_tried).collect()
    }

    /// The answers beside each other; the candidate's are those of the costs that were tried.
    fn compared(&self, answers: Vec<Answer>, tried: Option<Vec<Answer>>) -> Vec<Compared> {
        let mut tried = tried.map(Vec::into_iter);
        let mut of_candidate = |cost: u32| {
            let answers = tried.as_mut()?;
            if cost > self.candidate.cost_max() { Some(Compared::NEVER) } else { answers.next() }
        };
        let each = self.costs.iter().zip(answers);
        let compared = each.map(|(&cost, answer)| Compared {
            answer,
            candidate: of_candidate(cost).map(Box::new),
        });
        compared.collect()
    }
}

impl<A: Algorithm> AtomicOp for Shadowed<A> {
    type State = Held<A::State>;
    type Reply = Vec<Compared>;

    fn script(&self) -> &'static Script {
        Self::script_of(self.quota, self.candidate)
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        let mut own = Count(0);
        side(self.quota, &self.costs, &mut own);
        to.uint(own.0);
        side(self.quota, &self.costs, to);
        by_quota!(self.candidate, candidate => side(candidate, &self.tried(), to));
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Vec<Compared> {
        let mut answers = Vec::with_capacity(self.costs.len());
        let costs = self.costs.iter().copied();
        let next =
            View::of(&self.quota, cells[0], now).decide(costs, |answer| answers.push(answer));
        super::put::<A>(out, next, now);
        let tried = by_quota!(self.candidate, candidate => {
            try_on(candidate, cells[1], now, self.tried(), out)
        });
        self.compared(answers, Some(tried))
    }

    fn decode(&self, reply: Wire) -> Result<Vec<Compared>, Malformed> {
        let [answers, tried] = reply.into_array()?;
        let answers = decode_answers(answers, &self.costs)?;
        let tried = match tried {
            Wire::Nil => None,
            // Whatever it is, the answers stand.
            tried => decode_answers(tried, &self.tried()).ok(),
        };
        Ok(self.compared(answers, tried))
    }
}

/// Writes the arguments of one side.
fn side<A: Algorithm>(quota: A, costs: &[u32], to: &mut dyn ArgSink) {
    quota.args(to);
    to.uint(0);
    let costs: Vec<u8> = costs.iter().flat_map(|cost| cost.to_be_bytes()).collect();
    to.bytes(&costs);
}

/// Counts arguments.
struct Count(u64);

impl ArgSink for Count {
    fn bytes(&mut self, _: &[u8]) {
        self.0 += 1;
    }

    fn int(&mut self, _: i64) {
        self.0 += 1;
    }

    fn uint(&mut self, _: u64) {
        self.0 += 1;
    }
}

fn try_on<B: Rated, S>(
    candidate: B,
    cell: Option<&Held<S>>,
    now: ServerTime,
    costs: Vec<u32>,
    out: &mut Effects<Held<S>>,
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(costs.len());
    let held = cell.and_then(Held::candidate).and_then(B::held);
    let next = View::of(&candidate, held, now).decide(costs, |answer| answers.push(answer));
    if let Some(next) = next {
        let ttl = lives::<B>(&next, now);
        out.put(1, Held::of_candidate(B::level(next)), ttl);
    }
    answers
}

/// A step on the key of a candidate that stands beside algorithm `A`, as an executor in memory keeps
/// it: one on the states of `B`.
pub(crate) type OfCandidate<A, B, O> = Within<Candidate<A, B>, O>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::GcraQuota;

    fn step(costs: Vec<u32>) -> Option<Shadowed<GcraQuota>> {
        let quota = GcraQuota::new(1, Duration::from_secs(1), 10).unwrap();
        let candidate = Quota::fixed_window(5, Duration::from_secs(1)).unwrap();
        let (namespace, policy) =
            (Namespace::new("shop").unwrap(), PolicyName::new("api").unwrap());
        let keys = [
            crate::op::cell::<GcraQuota>(&namespace, &policy, b"ada").unwrap(),
            candidate_cell::<GcraQuota>(&namespace, &policy, b"ada", &candidate).unwrap(),
        ];
        Shadowed::new(quota, candidate, keys, costs)
    }

    #[test]
    fn candidate_has_a_key_of_its_own_in_the_same_slot() {
        let step = step(vec![1]).unwrap();
        assert_eq!(format!("{:?}", step.keys()[1]), "{shop:limiter:api/ada}:shadow:gcra/fixed");
        assert_eq!(step.keys()[0].tag(), step.keys()[1].tag());
    }

    #[test]
    fn step_of_no_costs_or_of_too_many_is_none() {
        assert!(step(vec![]).is_none() && step(vec![1; 257]).is_none());
        assert!(step(vec![1; 256]).is_some());
    }

    // Seen red: without `tried`, 7 cells of a candidate that has 5 are asked for.
    #[test]
    fn cost_above_all_that_the_candidate_has_is_refused_by_it() {
        let step = step(vec![1, 7, 2]).unwrap();
        let mut out = Effects::new();
        let compared = step.apply(&[None, None], ServerTime::from_micros(1 << 50), &mut out);
        let is_allowed = |one: &Compared| one.candidate.as_ref().unwrap().verdict.is_allowed;
        assert_eq!(compared.iter().map(is_allowed).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(compared[1].candidate.as_deref(), Some(&Compared::NEVER));
        assert_eq!(compared[2].candidate.as_ref().unwrap().verdict.remaining, 2);
    }

    proptest! {
        #[test]
        fn any_reply_is_decoded_without_a_panic(one: Vec<u8>, other: Vec<u8>, count in 1usize..4) {
            let step = step(vec![1; count]).unwrap();
            let [one, other] = [one, other].map(|bytes| Wire::Bytes(bytes.into()));
            let _ = step.decode(Wire::Array(vec![one.clone(), other]));
            let _ = step.decode(Wire::Array(vec![one.clone(), Wire::Nil]));
            prop_assert!(step.decode(Wire::Array(vec![one])).is_err());
            prop_assert!(step.decode(Wire::Nil).is_err());
        }
    }
}
