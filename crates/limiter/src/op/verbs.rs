//! The steps beyond check and peek.

use std::marker::PhantomData;
use std::time::Duration;

use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

use super::{decode, put};
use crate::algorithm::{Algorithm, Debit};
use crate::held::View;
use crate::{Answer, Held};

static DELETE: Script = Script::command("DEL");

/// Spends as many cells of one key as are left, up to a number. Answers an [`Answer`], whose
/// `granted` says how many; if none are left, it is the refusal of one cell.
#[derive(Clone, Debug)]
pub struct AtMost<A> {
    quota: A,
    key: Key,
    cost: u32,
}

impl<A: Algorithm> AtMost<A> {
    /// The step that spends up to `cost` of `key`, which is from 1 to the quota's
    /// [`cost_max`](Algorithm::cost_max).
    pub const fn new(quota: A, key: Key, cost: u32) -> Self {
        Self { quota, key, cost }
    }
}

impl<A: Algorithm> AtomicOp for AtMost<A> {
    type State = Held<A::State>;
    type Reply = Answer;

    fn script(&self) -> &'static Script {
        &A::verbs().at_most
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.quota.args(to);
        to.uint(self.cost.into());
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Answer {
        let (answer, next) = View::of(&self.quota, cells[0], now).decide_at_most(self.cost);
        put::<A>(out, next, now);
        answer
    }

    fn decode(&self, reply: Wire) -> Result<Answer, Malformed> {
        decode(reply, self.cost)
    }
}

/// Gives back what a call has spent, as far as time has not done so already. Answers how much that
/// is, in the units of the algorithm: µs of debt for GCRA and the token bucket, otherwise cells.
///
/// It recognises nothing: sent twice, it gives back twice.
#[derive(Clone, Debug)]
pub struct Refund<A> {
    quota: A,
    key: Key,
    debit: Debit,
}

impl<A: Algorithm> Refund<A> {
    /// The step that gives `debit` back to `key`.
    pub const fn new(quota: A, key: Key, debit: Debit) -> Self {
        Self { quota, key, debit }
    }
}

impl<A: Algorithm> AtomicOp for Refund<A> {
    type State = Held<A::State>;
    type Reply = u64;

    fn script(&self) -> &'static Script {
        &A::verbs().refund
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        let Debit { cost, at, upto, mark } = self.debit;
        self.quota.args(to);
        to.uint(cost.into());
        for number in [at.as_micros(), upto.as_micros(), mark.refunds, mark.generation, mark.life] {
            to.uint(number);
        }
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> u64 {
        let (given, next) = View::of(&self.quota, cells[0], now).refund(&self.debit);
        put::<A>(out, next, now);
        given
    }

    fn decode(&self, reply: Wire) -> Result<u64, Malformed> {
        reply.into_unsigned()
    }
}

/// Refuses everything of one key for a while, whatever is left. A longer block stays as it is.
/// Answers how long the key is blocked from now.
#[derive(Clone, Debug)]
pub struct Block<A> {
    quota: A,
    key: Key,
    duration: Duration,
}

impl<A: Algorithm> Block<A> {
    /// The longest block: a year.
    pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

    /// The step that blocks `key` for `duration`, which is cut to
    /// [`DURATION_MAX`](Self::DURATION_MAX).
    pub fn new(quota: A, key: Key, duration: Duration) -> Self {
        Self { quota, key, duration: duration.min(Self::DURATION_MAX) }
    }

    fn duration_us(&self) -> u64 {
        self.duration.as_micros() as u64
    }
}

impl<A: Algorithm> AtomicOp for Block<A> {
    type State = Held<A::State>;
    type Reply = Duration;

    fn script(&self) -> &'static Script {
        &A::verbs().block
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.quota.args(to);
        to.uint(0);
        to.uint(self.duration_us());
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Duration {
        let view = View::of(&self.quota, cells[0], now);
        let (blocked_us, next) = view.block(self.duration_us());
        put::<A>(out, next, now);
        Duration::from_micros(blocked_us)
    }

    fn decode(&self, reply: Wire) -> Result<Duration, Malformed> {
        reply.into_unsigned().map(Duration::from_micros)
    }
}

/// Deletes a key, whatever it holds.
#[derive(Clone, Debug)]
pub struct Delete<A> {
    key: Key,
    algorithm: PhantomData<A>,
}

impl<A: Algorithm> Delete<A> {
    /// The step that deletes `key`.
    pub const fn new(key: Key) -> Self {
        Self { key, algorithm: PhantomData }
    }
}

impl<A: Algorithm> AtomicOp for Delete<A> {
    type State = Held<A::State>;
    type Reply = ();

    fn script(&self) -> &'static Script {
        &DELETE
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        _: &[Option<&Held<A::State>>],
        _: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) {
        out.delete(0);
    }

    fn decode(&self, reply: Wire) -> Result<(), Malformed> {
        reply.into_unsigned().map(drop)
    }
}

/// Forgets what was spent of one key, and every block. Answers the key's new generation and for how
/// long it is remembered; `None` if there was nothing to forget.
#[derive(Clone, Debug)]
pub struct Reset<A> {
    quota: A,
    key: Key,
}

impl<A: Algorithm> Reset<A> {
    /// The step that forgets `key`.
    pub const fn new(quota: A, key: Key) -> Self {
        Self { quota, key }
    }
}

impl<A: Algorithm> AtomicOp for Reset<A> {
    type State = Held<A::State>;
    type Reply = Option<(u64, Duration)>;

    fn script(&self) -> &'static Script {
        &A::verbs().reset
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.quota.args(to);
        to.uint(0);
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Option<(u64, Duration)> {
        let (generation, kept_us, held) = View::of(&self.quota, cells[0], now).reset()?;
        put::<A>(out, Some(held), now);
        Some((generation, Duration::from_micros(kept_us)))
    }

    fn decode(&self, reply: Wire) -> Result<Option<(u64, Duration)>, Malformed> {
        let [generation, kept] = reply.into_array()?;
        let (generation, kept_us) = (generation.into_unsigned()?, kept.into_unsigned()?);
        Ok((generation > 0).then_some((generation, Duration::from_micros(kept_us))))
    }
}
