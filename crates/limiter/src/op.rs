//! The atomic steps: spend, spend several times, look, give back, refuse for a while, forget.
//!
//! [`Limiter`](crate::Limiter) makes them; who builds on the same states makes them directly.

use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Namespace, Script, ServerTime, Tag, Wire,
};

use crate::algorithm::Algorithm;
use crate::held::{View, lives};
use crate::{Answer, Held, Mark, PolicyName, Verdict};

mod batch;
mod merge;
mod once;
mod shadowed;
mod verbs;
mod within;

pub use crate::accuracy::op::{Admitted, Judge, Judgement, Made, exact, judged_cells};
pub use batch::Batch;
pub use merge::Merge;
pub use once::{Once, id_cell};
pub(crate) use shadowed::OfCandidate;
pub use shadowed::{Compared, Shadowed, candidate_cell};
pub use verbs::{AtMost, Block, Delete, Refund, Reset};
pub(crate) use within::{Form, Permits, Rate};

/// The key of what `user_key` has spent of a policy, as algorithm `A` counts it.
///
/// Policies have no `/` in their names, so no two pairs share a key.
///
/// # Errors
/// [`KeyError`] if `user_key` is empty or too long.
pub fn cell<A: Algorithm>(
    namespace: &Namespace,
    policy: &PolicyName,
    user_key: &[u8],
) -> Result<Key, KeyError> {
    Ok(tag(namespace, policy, user_key)?.part(A::PART))
}

/// What the keys of one user's key have in common.
pub(crate) fn tag(
    namespace: &Namespace,
    policy: &PolicyName,
    user_key: &[u8],
) -> Result<Tag, KeyError> {
    if user_key.is_empty() {
        return Err(KeyError::Empty);
    }
    namespace.tag("limiter", &[policy.as_str().as_bytes(), b"/", user_key].concat())
}

/// Spends cells of one key, if they are there. Answers an [`Answer`].
#[derive(Clone, Debug)]
pub struct Check<A> {
    quota: A,
    key: Key,
    cost: u32,
}

impl<A: Algorithm> Check<A> {
    /// The step that spends `cost` of `key`, which must not be above the quota's
    /// [`cost_max`](Algorithm::cost_max).
    pub const fn new(quota: A, key: Key, cost: u32) -> Self {
        Self { quota, key, cost }
    }

    pub(crate) const fn quota(&self) -> A {
        self.quota
    }

    pub(crate) const fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) const fn cost(&self) -> u32 {
        self.cost
    }
}

impl<A: Algorithm> AtomicOp for Check<A> {
    type State = Held<A::State>;
    type Reply = Answer;

    fn script(&self) -> &'static Script {
        A::check_script()
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
        let view = View::of(&self.quota, cells[0], now);
        let mut answer = Answer::default();
        put::<A>(out, view.decide([self.cost], |one| answer = one), now);
        answer
    }

    fn decode(&self, reply: Wire) -> Result<Answer, Malformed> {
        decode(reply, self.cost)
    }
}

/// Says what a [`Check`] would, and changes nothing. The cells that are left are without the cost.
#[derive(Clone, Debug)]
pub struct Peek<A> {
    quota: A,
    key: Key,
    cost: u32,
}

impl<A: Algorithm> Peek<A> {
    /// The step that looks at `key` with the eyes of who wants `cost`.
    pub const fn new(quota: A, key: Key, cost: u32) -> Self {
        Self { quota, key, cost }
    }
}

impl<A: Algorithm> AtomicOp for Peek<A> {
    type State = Held<A::State>;
    type Reply = Answer;

    fn script(&self) -> &'static Script {
        A::peek_script()
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
        _out: &mut Effects<Held<A::State>>,
    ) -> Answer {
        View::of(&self.quota, cells[0], now).peek(self.cost)
    }

    fn decode(&self, reply: Wire) -> Result<Answer, Malformed> {
        decode(reply, self.cost)
    }
}

/// Writes what a step leaves behind, if it changes anything.
fn put<A: Algorithm>(
    out: &mut Effects<Held<A::State>>,
    next: Option<Held<A::State>>,
    now: ServerTime,
) {
    if let Some(next) = next {
        let ttl = lives::<A>(&next, now);
        out.put(0, next, ttl);
    }
}

/// Reads `{ µs of the decision if allowed, else 0; cells left; retry_after µs; reset_after µs }`, and
/// after it `{ generation; life; refunds; µs blocked; granted }` if there is anything to say of them.
/// If there is not, all of `cost` was granted.
pub(crate) fn decode(reply: Wire, cost: u32) -> Result<Answer, Malformed> {
    let mut numbers = [0; 9];
    let items = reply.into_vec()?;
    let count = items.len();
    if count != 4 && count != 9 {
        return Err(Malformed::new("4 or 9 integers", "another number of them"));
    }
    for (number, item) in numbers.iter_mut().zip(items) {
        *number = item.into_unsigned()?;
    }
    let [
        at,
        remaining,
        retry_after_us,
        reset_after_us,
        generation,
        life,
        refunds,
        blocked,
        granted,
    ] = numbers;
    let granted = match count {
        9 => cells(granted)?,
        _ if at > 0 => cost,
        _ => 0,
    };
    let remaining = cells(remaining)?;
    let verdict = Verdict { is_allowed: at > 0, remaining, retry_after_us, reset_after_us };
    let mark = Mark { generation, life, refunds };
    let at = ServerTime::from_micros(at);
    Ok(Answer { verdict, at, granted, mark, blocked_us: blocked })
}

fn cells(number: u64) -> Result<u32, Malformed> {
    u32::try_from(number).map_err(|_| Malformed::new("a count of cells", "a larger integer"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{GcraQuota, WindowQuota};

    fn key_of(policy: &str, user_key: &str) -> String {
        let namespace = Namespace::new("shop").unwrap();
        let policy = PolicyName::new(policy).unwrap();
        format!("{:?}", cell::<GcraQuota>(&namespace, &policy, user_key.as_bytes()).unwrap())
    }

    #[test]
    fn key_says_whose_it_is_and_all_of_it_is_the_hash_tag() {
        assert_eq!(key_of("login", "203.0.113.7"), "{shop:limiter:login/203.0.113.7}:gcra");
        assert_eq!(key_of("login", "a}b"), "{shop:limiter:login/a%7db}:gcra");
    }

    #[test]
    fn no_two_policies_algorithms_or_users_share_a_key() {
        assert_ne!(key_of("a", "b/c"), key_of("a.b", "c"));
        assert_ne!(key_of("a", "/b"), key_of("a", "b"));
        let (namespace, policy) =
            (Namespace::new("shop").unwrap(), PolicyName::new("login").unwrap());
        assert_ne!(
            cell::<GcraQuota>(&namespace, &policy, b"u").unwrap(),
            cell::<WindowQuota>(&namespace, &policy, b"u").unwrap()
        );
    }

    #[test]
    fn reply_of_another_form_is_an_error() {
        let int = Wire::Int;
        let reply =
            |items: &[i64]| decode(Wire::Array(items.iter().copied().map(int).collect()), 3);
        let plain = reply(&[77, 99, 0, 5]).unwrap();
        assert_eq!((plain.at.as_micros(), plain.granted, plain.mark), (77, 3, Mark::default()));
        assert_eq!(reply(&[0, 2, 9, 9]).unwrap().granted, 0);
        let full = reply(&[77, 99, 0, 5, 1, 2, 3, 4, 1]).unwrap();
        assert_eq!((full.mark.refunds, full.blocked_us, full.granted), (3, 4, 1));
        assert!(reply(&[1, 99, 0]).is_err());
        assert!(reply(&[1, 99, 0, 5, 1]).is_err());
        assert!(reply(&[1, -1, 0, 5]).is_err());
        assert!(reply(&[-1, 1, 0, 5]).is_err());
        assert!(reply(&[1, 1 << 32, 0, 5]).is_err());
        assert!(reply(&[1, 1, 0, 5, 0, 0, 0, 0, 1 << 32]).is_err());
        assert!(decode(Wire::Nil, 1).is_err());
    }

    proptest! {
        #[test]
        fn any_reply_is_decoded_without_a_panic(items in prop::collection::vec(any::<i64>(), 0..11), text: Vec<u8>) {
            let mut items: Vec<Wire> = items.into_iter().map(Wire::Int).collect();
            let _ = decode(Wire::Array(items.clone()), 1);
            items.push(Wire::Bytes(text.into()));
            let _ = decode(Wire::Array(items), 1);
        }
    }
}
