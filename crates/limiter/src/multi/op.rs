//! The atomic step over several levels. The twin of `lua/multi.lua`.

use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

use super::rule::{LevelState, Rated, Rule};
use super::script;
use crate::concurrency::{ConcurrencyQuota, ConcurrencyState, Standing};
use crate::counter::by_quota;
use crate::held::{View, lives};
use crate::{Answer, Quota, Verdict, op};

/// What is asked of one level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// What it limits.
    pub rule: Rule,
    /// Cells, or permits; not above what an unused key has.
    pub cost: u32,
    /// Who would hold the permits; nobody else's.
    pub id: u64,
}

/// Spends of several levels, all or none. Answers an [`Answer`] for each.
///
/// All levels are judged at one moment, and then all are written, or none: if one refuses, none is
/// debited, and the answers of the others are as if they had only been looked at. A refusing level
/// whose state is from the future is re-anchored, as by a check of its own.
#[derive(Clone, Debug)]
pub struct AllOrNone {
    keys: Vec<Key>,
    asks: Vec<Ask>,
    is_spending: bool,
}

impl AllOrNone {
    /// The most levels of one step.
    pub const LEVELS_MAX: usize = 8;

    /// The step that spends. `None` if there are no levels or more than
    /// [`LEVELS_MAX`](Self::LEVELS_MAX), if two have the same key, or keys of two tags, or if a cost
    /// is above what an unused key has, or is no permit.
    pub fn check(levels: Vec<(Key, Ask)>) -> Option<Self> {
        let count = levels.len();
        let (keys, asks): (Vec<Key>, Vec<Ask>) = levels.into_iter().unzip();
        let is_one_slot = keys.windows(2).all(|pair| pair[0].tag() == pair[1].tag());
        let is_distinct = keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key));
        let is_bounded = (1..=Self::LEVELS_MAX).contains(&count);
        let is_fitting = asks.iter().all(Ask::is_fitting);
        let is_right = is_bounded && is_one_slot && is_distinct && is_fitting;
        is_right.then_some(Self { keys, asks, is_spending: true })
    }

    /// The step that says what [`check`](Self::check) would, and changes nothing. What is left of a
    /// level is without the cost. `None` as there.
    pub fn peek(levels: Vec<(Key, Ask)>) -> Option<Self> {
        Some(Self { is_spending: false, ..Self::check(levels)? })
    }
}

impl AtomicOp for AllOrNone {
    type State = LevelState;
    type Reply = Vec<Answer>;

    fn script(&self) -> &'static Script {
        if self.is_spending { &script::CHECK } else { &script::PEEK }
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        for Ask { rule, cost, id } in &self.asks {
            let mut own: Vec<Vec<u8>> = Vec::with_capacity(4);
            rule.args(*id, *cost, &mut own);
            to.uint(rule.kind());
            to.uint(own.len() as u64);
            for arg in &own {
                to.bytes(arg);
            }
        }
    }

    fn apply(
        &self,
        cells: &[Option<&LevelState>],
        now: ServerTime,
        out: &mut Effects<LevelState>,
    ) -> Vec<Answer> {
        let levels = || self.asks.iter().zip(cells.iter().copied());
        let mut answers: Vec<Answer> = levels().map(|(ask, cell)| ask.judge(cell, now)).collect();
        if !self.is_spending {
            return answers;
        }
        let is_refused = answers.iter().any(|answer| !answer.verdict.is_allowed);
        for (place, (ask, cell)) in levels().enumerate() {
            if !is_refused || !answers[place].verdict.is_allowed {
                answers[place] = ask.carry_out(place, cell, now, out);
            }
        }
        answers
    }

    fn decode(&self, reply: Wire) -> Result<Vec<Answer>, Malformed> {
        let replies = reply.into_vec()?;
        if replies.len() != self.asks.len() {
            return Err(Malformed::new("an answer for each level", "another number of them"));
        }
        self.asks.iter().zip(replies).map(|(ask, reply)| op::decode(reply, ask.cost)).collect()
    }
}

impl Ask {
    const fn is_fitting(&self) -> bool {
        let is_something = self.cost > 0 || matches!(self.rule, Rule::Rate(_));
        is_something && self.cost <= cost_max(&self.rule)
    }

    fn judge(&self, cell: Option<&LevelState>, now: ServerTime) -> Answer {
        match &self.rule {
            Rule::Rate(quota) => by_quota!(quota, quota => peek(quota, cell, now, self.cost)),
            Rule::AtOnce(quota) => self.judge_at_once(*quota, leases(cell), now),
        }
    }

    fn judge_at_once(
        &self,
        quota: ConcurrencyQuota,
        state: Option<&ConcurrencyState>,
        now: ServerTime,
    ) -> Answer {
        let mut standing = Standing::of(state, now);
        let own = standing.release(self.id);
        let cost = self.cost as u16;
        let is_allowed = own.is_some() || standing.sum() + self.cost <= quota.max();
        let left = quota.max().saturating_sub(standing.sum() + own.map_or(0, u32::from));
        let retry = if is_allowed { 0 } else { standing.retry_after_us(quota.max(), cost) };
        self.permits(is_allowed, left, retry, now)
    }

    fn carry_out(
        &self,
        place: usize,
        cell: Option<&LevelState>,
        now: ServerTime,
        out: &mut Effects<LevelState>,
    ) -> Answer {
        match &self.rule {
            Rule::Rate(quota) => {
                by_quota!(quota, quota => check(quota, (place, cell), now, self.cost, out))
            }
            Rule::AtOnce(quota) => self.hold(*quota, (place, leases(cell)), now, out),
        }
    }

    fn hold(
        &self,
        quota: ConcurrencyQuota,
        (place, state): (usize, Option<&ConcurrencyState>),
        now: ServerTime,
        out: &mut Effects<LevelState>,
    ) -> Answer {
        let mut standing = Standing::of(state, now);
        let cost = self.cost as u16;
        let is_allowed = standing.hold(quota, self.id, cost);
        let left = quota.max().saturating_sub(standing.sum());
        let retry = if is_allowed { 0 } else { standing.retry_after_us(quota.max(), cost) };
        if is_allowed || standing.is_moved() {
            match standing.into_state() {
                Some(state) => {
                    let ttl = state.lives(now);
                    out.put(place, LevelState::AtOnce(state), ttl);
                }
                None => out.delete(place),
            }
        }
        self.permits(is_allowed, left, retry, now)
    }

    fn permits(&self, is_allowed: bool, left: u32, retry_us: u64, now: ServerTime) -> Answer {
        let verdict =
            Verdict { is_allowed, remaining: left, retry_after_us: retry_us, reset_after_us: 0 };
        let (at, granted) = if is_allowed { (now, self.cost) } else { Default::default() };
        Answer { verdict, at, granted, ..Answer::default() }
    }
}

fn leases(cell: Option<&LevelState>) -> Option<&ConcurrencyState> {
    cell.and_then(LevelState::leases)
}

fn peek<A: Rated>(quota: &A, cell: Option<&LevelState>, now: ServerTime, cost: u32) -> Answer {
    View::of(quota, cell.and_then(A::held), now).peek(cost)
}

fn check<A: Rated>(
    quota: &A,
    (place, cell): (usize, Option<&LevelState>),
    now: ServerTime,
    cost: u32,
    out: &mut Effects<LevelState>,
) -> Answer {
    let mut answer = Answer::default();
    let next = View::of(quota, cell.and_then(A::held), now).decide([cost], |one| answer = one);
    if let Some(next) = next {
        let ttl = lives::<A>(&next, now);
        out.put(place, A::level(next), ttl);
    }
    answer
}

/// The most that one call can ask of a level.
pub(super) const fn cost_max(rule: &Rule) -> u32 {
    match rule {
        Rule::Rate(quota) => Quota::cost_max(quota),
        Rule::AtOnce(quota) => quota.max(),
    }
}
