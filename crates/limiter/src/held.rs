//! What is kept of one key: the state of the algorithm, and before it a preface if something rare
//! has happened. The twin of `lua/open.lua`, `settle.lua` and the verbs that are no algorithm's own.
//!
//! Refunds, resets, blocks and changes of what the times in a state mean are rare, so a state says
//! nothing about them; a plain check reads and writes the same bytes as if they did not exist. What
//! such an event leaves behind stands in the preface, which lives as long as its key, and at least
//! until nobody can hold a receipt or a debt from before.

use fleetwide_core_traits::ServerTime;

use crate::Verdict;
use crate::algorithm::{Algorithm, Debit, Owed};
use crate::multi::LevelState;
use crate::told::Told;

/// What is kept of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<S> {
    /// What rare events have left behind.
    preface: Option<Box<Preface>>,
    /// What the algorithm keeps; `None` only behind a preface.
    state: Option<S>,
    /// Under a key that stands beside another one: what it is there for, and nothing else.
    aside: Option<Box<Aside>>,
}

/// What is kept beside what was spent of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Aside {
    /// What a request was answered.
    Told(Told),
    /// What would have been spent by the quota of a candidate.
    Candidate(LevelState),
}

/// What rare events leave behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Preface {
    /// When this was written.
    at_us: u64,
    mark: Mark,
    /// Until when somebody may hold a receipt or a debt that needs the mark.
    kept_us: u64,
    /// Until when everything is refused.
    blocked_us: u64,
}

/// Where the history of a key stands, apart from what was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Raised by each reset. 0: there was none that still matters.
    pub generation: u64,
    /// Raised when the times in the state came to mean something else: the clock went back, the
    /// parameters changed, or a merge wrote what another server had decided. After a merge of a
    /// sliding window or a log it is when the cells are back that the merge has added.
    pub life: u64,
    /// All that was given back, in the units of the algorithm.
    pub refunds: u64,
}

/// What a check or a peek answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub verdict: Verdict,
    /// When it was made, by the clock of the executor; the epoch if it was a refusal.
    pub at: ServerTime,
    /// Cells that were granted: the cost, what was left of it if less will do, or 0.
    pub granted: u32,
    /// Where the history of the key stands.
    pub mark: Mark,
    /// For how many µs from now the key is blocked.
    pub blocked_us: u64,
}

impl<S> Held<S> {
    /// A key to which nothing rare has happened.
    pub const fn plain(state: S) -> Self {
        Self { preface: None, state: Some(state), aside: None }
    }

    /// The bytes as the scripts store them; `state` writes the algorithm's own.
    pub fn to_wire(&self, state: impl FnOnce(&S) -> Vec<u8>) -> Vec<u8> {
        let mut wire = self.preface.as_ref().map_or_else(Vec::new, |preface| preface.to_wire());
        wire.extend(self.state.as_ref().map(state).unwrap_or_default());
        match self.aside.as_deref() {
            Some(Aside::Told(told)) => wire.extend(told.to_wire()),
            Some(Aside::Candidate(state)) => wire.extend(state.to_wire()),
            None => {}
        }
        wire
    }

    /// What a request was answered, to be remembered under its key; `None` if nothing was spent.
    pub(crate) fn of_answer(answer: &Answer) -> Option<Self> {
        Some(Self::aside(Aside::Told(Told::of(answer)?)))
    }

    /// What the request of this key was answered, if that is remembered.
    pub(crate) fn told(&self, now: ServerTime) -> Option<Answer> {
        match self.aside.as_deref()? {
            Aside::Told(told) => told.answer(now),
            Aside::Candidate(_) => None,
        }
    }

    /// What would have been spent by a candidate, to be kept under its key.
    pub(crate) fn of_candidate(state: LevelState) -> Self {
        Self::aside(Aside::Candidate(state))
    }

    /// What would have been spent by the candidate of this key.
    pub(crate) fn candidate(&self) -> Option<&LevelState> {
        match self.aside.as_deref()? {
            Aside::Candidate(state) => Some(state),
            Aside::Told(_) => None,
        }
    }

    fn aside(aside: Aside) -> Self {
        Self { preface: None, state: None, aside: Some(Box::new(aside)) }
    }
}

impl Preface {
    /// The bytes of it that are on the wire, the first of which tells it from a state.
    fn to_wire(self) -> Vec<u8> {
        let Mark { generation, life, refunds } = self.mark;
        let fields = [self.at_us, generation, life, refunds, self.kept_us, self.blocked_us];
        [vec![1], fields.map(u64::to_be_bytes).concat()].concat()
    }

    /// As it is on a clock that may have gone back: what was to last, lasts as long as it was to.
    fn as_of(self, now_us: u64) -> Self {
        if self.at_us <= now_us {
            return self;
        }
        let moved = |time_us: u64| time_us.saturating_sub(self.at_us) + now_us;
        Self {
            at_us: now_us,
            kept_us: moved(self.kept_us),
            blocked_us: moved(self.blocked_us),
            ..self
        }
    }
}

/// A key as the next write finds it.
pub(crate) struct View<'a, A: Algorithm> {
    quota: &'a A,
    now: ServerTime,
    /// What stands before the state in the next write.
    preface: Option<Preface>,
    /// Whether the preface was written by a clock that has gone back.
    is_preface_moved: bool,
    state: Option<&'a A::State>,
    /// When the stored state is over; now if there is none.
    ends_us: u64,
    /// Whether a write changes what the times in the state mean.
    is_shift: bool,
}

impl<'a, A: Algorithm> View<'a, A> {
    pub(crate) fn of(quota: &'a A, held: Option<&'a Held<A::State>>, now: ServerTime) -> Self {
        let now_us = now.as_micros();
        let state = held.and_then(|held| held.state.as_ref());
        let reanchored = state.and_then(|state| quota.reanchor(state, now));
        let lives = state.map(|state| A::lives(reanchored.as_ref().unwrap_or(state), now));
        let lives_us = lives.map_or(0, |lives| lives.as_micros() as u64);
        let is_shift = reanchored.is_some()
            || lives_us > 0 && state.is_some_and(|state| quota.is_other(state));
        let stored = held.and_then(|held| held.preface.as_deref().copied());
        let mut view = Self {
            quota,
            now,
            preface: stored.map(|preface| preface.as_of(now_us)),
            is_preface_moved: stored.is_some_and(|preface| preface.at_us > now_us),
            state,
            ends_us: now_us + lives_us,
            is_shift,
        };
        if view.ends_us <= now_us && view.kept_us().max(view.blocked_until_us()) <= now_us {
            // Nothing of the key means anything any more.
            (view.preface, view.is_preface_moved) = (None, false);
        }
        if is_shift {
            let mut preface = view.preface.unwrap_or_default();
            preface.at_us = now_us;
            preface.mark.life = now_us.max(preface.mark.life + 1);
            preface.kept_us = preface.kept_us.max(view.ends_us);
            view.preface = Some(preface);
        }
        view
    }

    fn mark(&self) -> Mark {
        self.preface.map_or_else(Mark::default, |preface| preface.mark)
    }

    fn kept_us(&self) -> u64 {
        self.preface.map_or(0, |preface| preface.kept_us)
    }

    fn blocked_until_us(&self) -> u64 {
        self.preface.map_or(0, |preface| preface.blocked_us)
    }

    fn blocked_us(&self) -> u64 {
        self.blocked_until_us().saturating_sub(self.now.as_micros())
    }

    fn holding(&self, state: Option<A::State>) -> Held<A::State> {
        Held { preface: self.preface.map(Box::new), state, aside: None }
    }

    /// What is kept if only the preface changes.
    fn with(mut self, preface: Preface) -> Held<A::State> {
        self.preface = Some(preface);
        let state = self.state.filter(|_| self.ends_us > self.now.as_micros()).cloned();
        self.holding(state)
    }

    /// A preface to change, written now.
    fn fresh(&self) -> Preface {
        Preface { at_us: self.now.as_micros(), ..self.preface.unwrap_or_default() }
    }

    /// Decides over `costs` in their order, at this moment.
    pub(crate) fn decide(
        &self,
        costs: impl IntoIterator<Item = u32>,
        mut each: impl FnMut(Answer),
    ) -> Option<Held<A::State>> {
        let mut next: Option<A::State> = None;
        let mut is_refused = false;
        for cost in costs {
            let held = next.as_ref().or(self.state);
            if self.blocked_us() > 0 {
                is_refused = true;
                let verdict = self.quota.peek(held, self.now, cost);
                each(self.answer(verdict, cost));
                continue;
            }
            let (verdict, put) = self.quota.decide(held, self.now, cost);
            is_refused |= !verdict.is_allowed;
            next = put.or(next);
            each(self.answer(verdict, cost));
        }
        if next.is_none() && is_refused {
            let moved = self.state.and_then(|state| self.quota.reanchor(state, self.now));
            if moved.is_some() || self.is_preface_moved {
                next = moved.or_else(|| self.state.cloned());
                return Some(self.holding(next));
            }
        }
        next.map(|next| self.holding(Some(next)))
    }

    /// Decides over as many of `cost` cells as are left, or over one if none are.
    pub(crate) fn decide_at_most(&self, cost: u32) -> (Answer, Option<Held<A::State>>) {
        let left = self.quota.peek(self.state, self.now, 0).remaining;
        let mut answer = Answer::default();
        let next = self.decide([cost.min(left.max(1))], |one| answer = one);
        (answer, next)
    }

    /// What a check of `cost` cells would say, with the cells that are left as they are.
    pub(crate) fn peek(&self, cost: u32) -> Answer {
        self.answer(self.quota.peek(self.state, self.now, cost), cost)
    }

    fn answer(&self, mut verdict: Verdict, cost: u32) -> Answer {
        let blocked_us = self.blocked_us();
        if blocked_us > 0 {
            verdict = Verdict {
                is_allowed: false,
                remaining: 0,
                retry_after_us: verdict.retry_after_us.max(blocked_us),
                reset_after_us: verdict.reset_after_us.max(blocked_us),
            };
        }
        let (at, granted) =
            if verdict.is_allowed { (self.now, cost) } else { (ServerTime::default(), 0) };
        Answer { verdict, at, granted, mark: self.mark(), blocked_us }
    }

    /// Gives back what a call has spent, as far as time has not done so. Answers how much that is.
    pub(crate) fn refund(self, debit: &Debit) -> (u64, Option<Held<A::State>>) {
        let Mark { generation, life, refunds } = self.mark();
        let is_of_this_history = (debit.mark.generation, debit.mark.life) == (generation, life);
        let Some(state) = self.state else { return (0, None) };
        if self.is_shift || debit.at > self.now || !is_of_this_history {
            return (0, None);
        }
        let since = refunds.saturating_sub(debit.mark.refunds);
        let Some((given, next)) = self.quota.give_back(state, debit, since, self.now) else {
            return (0, None);
        };
        let mut preface = self.fresh();
        preface.mark.refunds += given;
        preface.kept_us = preface.kept_us.max(self.ends_us);
        (given, Some(Held { preface: Some(Box::new(preface)), state: next, aside: None }))
    }

    /// Makes good what a survivor of a failover knows and this key does not. Answers where it stands
    /// then.
    ///
    /// A debt from before a reset counts for nothing. If it is the survivor who knows of a reset that
    /// this key has missed, the larger of both counts, and the generation, so that no debt from
    /// before that reset is made good after it.
    pub(crate) fn merge(mut self, owed: &Owed) -> (Answer, Option<Held<A::State>>) {
        let mark = self.mark();
        let is_newer = owed.is_newer_than(&mark);
        if owed.left_us == 0 || owed.generation < mark.generation {
            return (self.peek(0), None);
        }
        let merged = self.quota.owe(self.state, owed, &mark, self.now);
        if merged.is_none() && !is_newer {
            return (self.peek(0), None);
        }
        let until_us =
            |state: &A::State| self.now.as_micros() + A::lives(state, self.now).as_micros() as u64;
        let mut preface = self.fresh();
        preface.mark.generation = owed.generation;
        // What was given back before the reset says nothing of debts from after it.
        let refunds = if is_newer { 0 } else { mark.refunds };
        preface.mark.refunds = refunds.max(owed.refunds);
        let merged = merged.map(|(state, life)| {
            // The clock that the receipts speak of may be another server's.
            preface.mark.life = life;
            state
        });
        let ends_us = merged.as_ref().map_or(self.ends_us, until_us);
        preface.kept_us = preface.kept_us.max(ends_us);
        if is_newer {
            // Debts from before the reset live no longer than all that can be spent.
            let longest = self.quota.spent(self.quota.cost_max(), self.now);
            preface.kept_us = preface.kept_us.max(until_us(&longest));
        }
        self.preface = Some(preface);
        let verdict = self.quota.peek(merged.as_ref().or(self.state), self.now, 0);
        let answer = self.answer(verdict, 0);
        let held = match merged {
            Some(state) => self.holding(Some(state)),
            None => self.with(preface),
        };
        (answer, Some(held))
    }

    /// Refuses everything for `duration_us`, or as long as it was refused before if that is longer.
    pub(crate) fn block(self, duration_us: u64) -> (u64, Option<Held<A::State>>) {
        let before_us = self.blocked_us();
        if duration_us <= before_us {
            return (before_us, None);
        }
        let blocked_us = self.now.as_micros() + duration_us;
        let preface = Preface { blocked_us, ..self.fresh() };
        (duration_us, Some(self.with(preface)))
    }

    /// Forgets what was spent, and every block. Answers the new generation and for how long it must
    /// be remembered.
    pub(crate) fn reset(self) -> Option<(u64, u64, Held<A::State>)> {
        let now_us = self.now.as_micros();
        let kept_us = self.ends_us.max(self.kept_us()).max(self.blocked_until_us());
        if kept_us <= now_us {
            return None;
        }
        let Mark { generation, life, .. } = self.mark();
        let generation = now_us.max(generation + 1);
        let mark = Mark { generation, life, refunds: 0 };
        let preface = Preface { at_us: now_us, mark, kept_us, blocked_us: 0 };
        let held = Held { preface: Some(Box::new(preface)), state: None, aside: None };
        Some((generation, kept_us - now_us, held))
    }
}

/// For how long `held`, which was written now, means more than no key at all.
pub(crate) fn lives<A: Algorithm>(held: &Held<A::State>, now: ServerTime) -> std::time::Duration {
    let until = held.preface.as_ref().map_or(0, |preface| preface.kept_us.max(preface.blocked_us));
    let state = held.state.as_ref().map(|state| A::lives(state, now)).unwrap_or_default();
    ServerTime::from_micros(until).since(now).max(state)
}
