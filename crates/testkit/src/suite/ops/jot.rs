//! A step whose state is of another type than that of the others, here and on the server.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Wire};

/// Adds a line to a list of lines.
#[derive(Clone, Debug)]
pub struct Jot {
    /// The list: a stream on a server.
    pub key: [Key; 1],
    /// Any bytes.
    pub line: Bytes,
    /// How long the list is kept.
    pub ttl: Duration,
}

// KEYS[1] stream  one field `l` per entry;  ARGV line, ttl in ms;  returns all lines
static JOT: Script = Script::untimed(
    "suite.jot",
    &["redis.call('XADD', KEYS[1], '*', 'l', ARGV[1])
       redis.call('PEXPIRE', KEYS[1], ARGV[2])
       local lines = {}
       for at, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
         lines[at] = entry[2][2]
       end
       return lines"],
);

impl AtomicOp for Jot {
    type State = Vec<Bytes>;
    type Reply = Vec<Bytes>;

    fn script(&self) -> &'static Script {
        &JOT
    }

    fn keys(&self) -> &[Key] {
        &self.key
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.line);
        to.uint(self.ttl.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&Vec<Bytes>>],
        _: ServerTime,
        out: &mut Effects<Vec<Bytes>>,
    ) -> Vec<Bytes> {
        let line = self.line.clone();
        out.update(0, self.ttl, Vec::new, |lines| lines.push(line));
        let before = cells[0].into_iter().flatten();
        before.chain([&self.line]).cloned().collect()
    }

    fn decode(&self, reply: Wire) -> Result<Vec<Bytes>, Malformed> {
        reply.into_vec()?.into_iter().map(Wire::into_bytes).collect()
    }
}
