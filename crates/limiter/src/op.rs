//! The atomic steps: spend, look, forget.
//!
//! [`Limiter`](crate::Limiter) makes them; who builds on the same states makes them directly.

use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Namespace, Script, ServerTime, Wire,
};

use crate::algorithm::Algorithm;
use crate::{PolicyName, Verdict};

static RESET: Script = Script::command("DEL");

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
    if user_key.is_empty() {
        return Err(KeyError::Empty);
    }
    let name = [policy.as_str().as_bytes(), b"/", user_key].concat();
    Ok(namespace.tag("limiter", &name)?.part(A::PART))
}

/// Spends cells of one key, if they are there. Answers a [`Verdict`].
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
}

impl<A: Algorithm> AtomicOp for Check<A> {
    type State = A::State;
    type Reply = Verdict;

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
        cells: &[Option<&A::State>],
        now: ServerTime,
        out: &mut Effects<A::State>,
    ) -> Verdict {
        let (verdict, next) = self.quota.decide(cells[0], now, self.cost);
        if let Some(next) = next {
            let ttl = A::lives(&next, now);
            out.put(0, next, ttl);
        }
        verdict
    }

    fn decode(&self, reply: Wire) -> Result<Verdict, Malformed> {
        decode(reply)
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
    type State = A::State;
    type Reply = Verdict;

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
        cells: &[Option<&A::State>],
        now: ServerTime,
        _out: &mut Effects<A::State>,
    ) -> Verdict {
        self.quota.peek(cells[0], now, self.cost)
    }

    fn decode(&self, reply: Wire) -> Result<Verdict, Malformed> {
        decode(reply)
    }
}

/// Forgets what was spent of one key.
#[derive(Clone, Debug)]
pub struct Reset<A> {
    key: Key,
    algorithm: std::marker::PhantomData<A>,
}

impl<A: Algorithm> Reset<A> {
    /// The step that forgets `key`.
    pub const fn new(key: Key) -> Self {
        Self { key, algorithm: std::marker::PhantomData }
    }
}

impl<A: Algorithm> AtomicOp for Reset<A> {
    type State = A::State;
    type Reply = ();

    fn script(&self) -> &'static Script {
        &RESET
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(&self, _: &[Option<&A::State>], _: ServerTime, out: &mut Effects<A::State>) {
        out.delete(0);
    }

    fn decode(&self, reply: Wire) -> Result<(), Malformed> {
        reply.into_unsigned().map(drop)
    }
}

/// Reads `{ allowed 0|1, cells left, retry_after µs, reset_after µs }`.
fn decode(reply: Wire) -> Result<Verdict, Malformed> {
    let [allowed, remaining, retry_after, reset_after] = reply.into_array()?;
    let is_allowed = match allowed.into_int()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed::new("0 or 1", "another integer")),
    };
    let remaining = u32::try_from(remaining.into_unsigned()?)
        .map_err(|_| Malformed::new("a count of cells", "a larger integer"))?;
    Ok(Verdict {
        is_allowed,
        remaining,
        retry_after_us: retry_after.into_unsigned()?,
        reset_after_us: reset_after.into_unsigned()?,
    })
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
        let reply = |items: &[i64]| decode(Wire::Array(items.iter().copied().map(int).collect()));
        assert!(reply(&[1, 99, 0, 5]).unwrap().is_allowed);
        assert!(reply(&[2, 99, 0, 5]).is_err());
        assert!(reply(&[1, 99, 0]).is_err());
        assert!(reply(&[1, -1, 0, 5]).is_err());
        assert!(reply(&[1, 1 << 32, 0, 5]).is_err());
        assert!(decode(Wire::Nil).is_err());
    }

    proptest! {
        #[test]
        fn any_reply_is_decoded_without_a_panic(items in prop::collection::vec(any::<i64>(), 0..6), text: Vec<u8>) {
            let mut items: Vec<Wire> = items.into_iter().map(Wire::Int).collect();
            let _ = decode(Wire::Array(items.clone()));
            items.push(Wire::Bytes(text.into()));
            let _ = decode(Wire::Array(items));
        }
    }
}
