//! What a survivor of a failover knows, made good on the new primary.

use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

use super::{decode, put};
use crate::algorithm::{Algorithm, Owed};
use crate::held::View;
use crate::{Answer, Held};

/// Makes good what a new primary has missed of one key, as a survivor knows it. Answers an
/// [`Answer`]: where the key stands then, to the eyes of who wants nothing.
///
/// What is kept says no less after it than the survivor knows, but for what the server knows to have
/// been reset or given back since. It is never the sum of what both know, so it may come any number
/// of times, from any number of survivors, in any order, and from one who was told nothing new. It
/// writes nothing if the server knows as much.
#[derive(Clone, Debug)]
pub struct Merge<A> {
    quota: A,
    key: Key,
    owed: Owed,
    script: &'static Script,
}

impl<A: Algorithm> Merge<A> {
    /// The step that makes `key` owe as much. `None` if the algorithm has no script for it.
    pub fn new(quota: A, key: Key, owed: Owed) -> Option<Self> {
        Some(Self { quota, key, owed, script: A::merge_script()? })
    }
}

impl<A: Algorithm> AtomicOp for Merge<A> {
    type State = Held<A::State>;
    type Reply = Answer;

    fn script(&self) -> &'static Script {
        self.script
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        let Owed { left_us, cells, generation, refunds } = self.owed;
        self.quota.args(to);
        to.uint(0);
        for number in [left_us, cells.into(), generation, refunds] {
            to.uint(number);
        }
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Answer {
        let (answer, next) = View::of(&self.quota, cells[0], now).merge(&self.owed);
        put::<A>(out, next, now);
        answer
    }

    fn decode(&self, reply: Wire) -> Result<Answer, Malformed> {
        decode(reply, 0)
    }
}
