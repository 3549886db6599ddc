//! A check that may be sent again.

use std::time::Duration;

use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Namespace, Script, ServerTime, Wire,
};

use super::{decode, put, tag};
use crate::algorithm::Algorithm;
use crate::held::View;
use crate::{Answer, Held, PolicyName, told};

/// The key under which it is remembered what a request was answered: beside that of
/// [`cell`](super::cell), in the same slot.
///
/// # Errors
/// [`KeyError`] if `user_key` or `id` is empty or too long.
pub fn id_cell<A: Algorithm>(
    namespace: &Namespace,
    policy: &PolicyName,
    user_key: &[u8],
    id: &[u8],
) -> Result<Key, KeyError> {
    if id.is_empty() {
        return Err(KeyError::Empty);
    }
    let name = [A::PART.as_bytes(), b"/", id].concat();
    tag(namespace, policy, user_key)?.named("id", &name)
}

/// Spends cells of one key, as a [`Check`](super::Check), once per request: who asks again in the
/// name of a request that was allowed gets the first answer again, and spends nothing. Answers an
/// [`Answer`].
///
/// Of a refusal nothing is remembered, so that the same request can be allowed later. The time in
/// which all cells are back is answered as it was at first.
#[derive(Clone, Debug)]
pub struct Once<A> {
    quota: A,
    keys: [Key; 2],
    cost: u32,
}

impl<A: Algorithm> Once<A> {
    /// How long an answer is remembered, by the server's clock: a minute.
    pub const HORIZON: Duration = told::HORIZON;

    /// The step that spends `cost` of `key` for the request whose answer is remembered under `id`.
    /// Both are of one tag. The cost must not be above the quota's
    /// [`cost_max`](Algorithm::cost_max).
    pub const fn new(quota: A, key: Key, id: Key, cost: u32) -> Self {
        Self { quota, keys: [key, id], cost }
    }
}

impl<A: Algorithm> AtomicOp for Once<A> {
    type State = Held<A::State>;
    type Reply = Answer;

    fn script(&self) -> &'static Script {
        A::once_script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.quota.args(to);
        to.uint(self.cost.into());
        to.uint(self.cost.into());
        to.uint(Self::HORIZON.as_micros() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Answer {
        if let Some(answer) = cells[1].and_then(|held| held.told(now)) {
            return answer;
        }
        let view = View::of(&self.quota, cells[0], now);
        let mut answer = Answer::default();
        put::<A>(out, view.decide([self.cost], |one| answer = one), now);
        if let Some(told) = Held::of_answer(&answer) {
            out.put(1, told, Self::HORIZON);
        }
        answer
    }

    fn decode(&self, reply: Wire) -> Result<Answer, Malformed> {
        decode(reply, self.cost)
    }
}
