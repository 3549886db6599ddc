//! One step on two cells.

use std::time::Duration;

use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

/// Moves `amount` from one counter to another, if the first has as much. Answers whether it did.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// From the first to the second. They differ, and have one tag.
    pub keys: [Key; 2],
    /// How much.
    pub amount: u64,
    /// How long both are kept.
    pub ttl: Duration,
}

// KEYS[1] string  from;  KEYS[2] string  to;  ARGV amount, ttl in ms;  returns 1 if moved, else 0
static TRANSFER: Script = Script::untimed(
    "suite.transfer",
    &["local from = tonumber(redis.call('GET', KEYS[1]) or 0)
       local to = tonumber(redis.call('GET', KEYS[2]) or 0)
       local amount = tonumber(ARGV[1])
       if from < amount then return 0 end
       if from == amount then
         redis.call('DEL', KEYS[1])
       else
         redis.call('SET', KEYS[1], string.format('%.0f', from - amount), 'PX', ARGV[2])
       end
       redis.call('SET', KEYS[2], string.format('%.0f', to + amount), 'PX', ARGV[2])
       return 1"],
);

impl AtomicOp for Transfer {
    type State = u64;
    type Reply = bool;

    fn script(&self) -> &'static Script {
        &TRANSFER
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.amount);
        to.uint(self.ttl.as_millis() as u64);
    }

    fn apply(&self, cells: &[Option<&u64>], _: ServerTime, out: &mut Effects<u64>) -> bool {
        let from = cells[0].copied().unwrap_or(0);
        let to = cells[1].copied().unwrap_or(0);
        if from < self.amount {
            return false;
        }
        if from == self.amount {
            out.delete(0);
        } else {
            out.put(0, from - self.amount, self.ttl);
        }
        out.put(1, to + self.amount, self.ttl);
        true
    }

    fn decode(&self, reply: Wire) -> Result<bool, Malformed> {
        Ok(reply.into_int()? == 1)
    }
}
