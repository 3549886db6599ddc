//! A step that publishes.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Channel, Effects, Key, Malformed, Script, ServerTime, Wire,
};

use super::Counted;

/// Counts to `limit`, and publishes each new count as decimal text.
#[derive(Clone, Debug)]
pub struct Say {
    /// The counter.
    pub key: [Key; 1],
    /// Where to.
    pub channel: Channel,
    /// What the counter may reach. A refusal says nothing.
    pub limit: u64,
    /// How long the counter is kept.
    pub ttl: Duration,
}

// KEYS[1] string  the count;  ARGV channel, limit, ttl in ms;  returns { allowed 0|1, count }
static SAY: Script = Script::untimed(
    "suite.say",
    &["local count = tonumber(redis.call('GET', KEYS[1]) or 0)
       if count >= tonumber(ARGV[2]) then return { 0, count } end
       local text = string.format('%.0f', count + 1)
       redis.call('SET', KEYS[1], text, 'PX', ARGV[3])
       redis.call('PUBLISH', ARGV[1], text)
       return { 1, count + 1 }"],
);

impl AtomicOp for Say {
    type State = u64;
    type Reply = Counted;

    fn script(&self) -> &'static Script {
        &SAY
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(self.channel.as_bytes());
        to.uint(self.limit);
        to.uint(self.ttl.as_millis() as u64);
    }

    fn apply(&self, cells: &[Option<&u64>], _: ServerTime, out: &mut Effects<u64>) -> Counted {
        let count = cells[0].copied().unwrap_or(0);
        if count >= self.limit {
            return Counted { allowed: false, count };
        }
        out.put(0, count + 1, self.ttl);
        out.publish(self.channel.clone(), Bytes::from((count + 1).to_string()));
        Counted { allowed: true, count: count + 1 }
    }

    fn decode(&self, reply: Wire) -> Result<Counted, Malformed> {
        Counted::read(reply)
    }
}
