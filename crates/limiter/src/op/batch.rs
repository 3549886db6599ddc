//! Several calls of one key in one step.

use bytes::Buf;
use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

use super::put;
use crate::algorithm::Algorithm;
use crate::held::View;
use crate::{Answer, Held, Mark, Verdict};

/// Bytes of a reply per cost: allowed 1, cells left 4, `retry_after` 8, `reset_after` 8.
const REPLY_BYTES: usize = 21;
/// Bytes after the replies: the time, and if the key has a preface its generation, life and refunds,
/// and for how long it is blocked.
const TAIL_BYTES: [usize; 2] = [8, 40];

/// Spends several costs of one key, one after the other. Answers an [`Answer`] for each.
///
/// The answers are those of a [`Check`](super::Check) for each cost, all at the same moment: a cost
/// that does not fit is refused, and a smaller one after it may be spent. A server finds out once
/// where the key stands, and writes once, which makes a batch of 16 about as dear as two checks.
#[derive(Clone, Debug)]
pub struct Batch<A> {
    quota: A,
    key: Key,
    costs: Vec<u32>,
    script: &'static Script,
}

impl<A: Algorithm> Batch<A> {
    /// The most costs of one step. A script holds the server up for all others while it runs: this
    /// many take it about as long as a dozen checks.
    pub const COSTS_MAX: usize = 256;

    /// The step that spends `costs` of `key`, in their order. None of them may be above the quota's
    /// [`cost_max`](Algorithm::cost_max).
    ///
    /// `None` if there are no costs or more than [`COSTS_MAX`](Self::COSTS_MAX), or if the algorithm
    /// has no script for it.
    pub fn new(quota: A, key: Key, costs: Vec<u32>) -> Option<Self> {
        let script = A::batch_script()?;
        (1..=Self::COSTS_MAX).contains(&costs.len()).then_some(Self { quota, key, costs, script })
    }
}

impl<A: Algorithm> AtomicOp for Batch<A> {
    type State = Held<A::State>;
    type Reply = Vec<Answer>;

    fn script(&self) -> &'static Script {
        self.script
    }

    fn keys(&self) -> &[Key] {
        std::slice::from_ref(&self.key)
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.quota.args(to);
        to.uint(0);
        let costs: Vec<u8> = self.costs.iter().flat_map(|cost| cost.to_be_bytes()).collect();
        to.bytes(&costs);
    }

    fn apply(
        &self,
        cells: &[Option<&Held<A::State>>],
        now: ServerTime,
        out: &mut Effects<Held<A::State>>,
    ) -> Vec<Answer> {
        let view = View::of(&self.quota, cells[0], now);
        let mut answers = Vec::with_capacity(self.costs.len());
        let next = view.decide(self.costs.iter().copied(), |answer| answers.push(answer));
        put::<A>(out, next, now);
        answers
    }

    fn decode(&self, reply: Wire) -> Result<Vec<Answer>, Malformed> {
        decode_answers(reply, &self.costs)
    }
}

/// Reads the answers to `costs`.
pub(super) fn decode_answers(reply: Wire, costs: &[u32]) -> Result<Vec<Answer>, Malformed> {
    let reply = reply.into_bytes()?;
    let Some((replies, tail)) = reply.split_at_checked(costs.len() * REPLY_BYTES) else {
        return Err(Malformed::new("an answer for each cost", "fewer of them"));
    };
    let tail = Tail::read(tail)?;
    let each = costs.iter().zip(replies.chunks_exact(REPLY_BYTES));
    each.map(|(&cost, bytes)| answer(bytes, cost, &tail)).collect()
}

/// What is the same for all costs.
#[derive(Default)]
struct Tail {
    now: ServerTime,
    mark: Mark,
    blocked_us: u64,
}

impl Tail {
    fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        if !TAIL_BYTES.contains(&bytes.len()) {
            return Err(Malformed::new("a time after the answers", "something else"));
        }
        let now = ServerTime::from_micros(bytes.get_u64());
        if bytes.is_empty() {
            return Ok(Self { now, ..Self::default() });
        }
        let mut next = || bytes.get_u64();
        let mark = Mark { generation: next(), life: next(), refunds: next() };
        Ok(Self { now, mark, blocked_us: next() })
    }
}

fn answer(mut bytes: &[u8], cost: u32, tail: &Tail) -> Result<Answer, Malformed> {
    let is_allowed = match bytes.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(Malformed::new("0 or 1", "another byte")),
    };
    let (at, granted) = if is_allowed { (tail.now, cost) } else { (ServerTime::default(), 0) };
    let verdict = Verdict {
        is_allowed,
        remaining: bytes.get_u32(),
        retry_after_us: bytes.get_u64(),
        reset_after_us: bytes.get_u64(),
    };
    Ok(Answer { verdict, at, granted, mark: tail.mark, blocked_us: tail.blocked_us })
}

#[cfg(test)]
mod tests {
    use fleetwide_core_traits::Namespace;
    use proptest::prelude::*;

    use super::*;
    use crate::GcraQuota;

    fn batch(costs: Vec<u32>) -> Option<Batch<GcraQuota>> {
        let quota = GcraQuota::new(1, std::time::Duration::from_secs(1), 10).unwrap();
        let key = Namespace::new("shop").unwrap().tag("limiter", b"a").unwrap().key();
        Batch::new(quota, key, costs)
    }

    #[test]
    fn batch_of_nothing_or_of_too_much_is_none() {
        assert!(batch(vec![]).is_none());
        assert!(batch(vec![1; 256]).is_some());
        assert!(batch(vec![1; 257]).is_none());
    }

    proptest! {
        #[test]
        fn any_reply_is_decoded_without_a_panic(bytes: Vec<u8>, count in 1usize..4) {
            let batch = batch(vec![1; count]).unwrap();
            let replies = bytes.chunks(21).take(count);
            let is_whole = matches!(bytes.len().checked_sub(21 * count), Some(8 | 40))
                && replies.into_iter().all(|one| one[0] < 2);
            prop_assert_eq!(batch.decode(Wire::Bytes(bytes.into())).is_ok(), is_whole);
            prop_assert!(batch.decode(Wire::Nil).is_err());
        }

        #[test]
        fn reply_reads_as_it_was_written(
            remaining: u32, retry: u64, reset: u64, is_allowed: bool, now in 1u64..1 << 53, life: u64,
        ) {
            let mut bytes = vec![u8::from(is_allowed)];
            bytes.extend(remaining.to_be_bytes());
            bytes.extend([retry, reset, now, 1, life, 3, 4].map(u64::to_be_bytes).concat());
            let answers = batch(vec![7]).unwrap().decode(Wire::Bytes(bytes.into())).unwrap();
            let verdict =
                Verdict { is_allowed, remaining, retry_after_us: retry, reset_after_us: reset };
            let at = ServerTime::from_micros(if is_allowed { now } else { 0 });
            let mark = Mark { generation: 1, life, refunds: 3 };
            let granted = if is_allowed { 7 } else { 0 };
            prop_assert_eq!(answers, [Answer { verdict, at, granted, mark, blocked_us: 4 }]);
        }
    }
}
