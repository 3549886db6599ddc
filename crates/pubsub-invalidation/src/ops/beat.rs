//! Where is the log, and is it alive?

use fleetwide_core_traits::log::{Epoch, LOG_LUA, LOG_TTL, LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::{begin, keys, meta_of};

pub(super) static BEAT: Script =
    Script::timed("log_beat", &[LOG_LUA, include_str!("../lua/beat.lua")]);

/// Reads where a log is and the server's time, and renews the log's time to live.
///
/// Begins a history if there is none. It is a write on purpose: a primary that is cut off from its
/// replicas and has `min-replicas-to-write` refuses it, so nobody is verified by it.
#[derive(Clone, Debug)]
pub struct Beat {
    keys: [Key; 2],
    fresh: Epoch,
}

/// What [`Beat`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Where the log is.
    pub meta: Meta,
    /// The server's time.
    pub now: ServerTime,
}

impl Beat {
    /// A beat of the log under `tag`; `fresh`, drawn at random, names the history if one begins.
    pub fn new(tag: &Tag, fresh: Epoch) -> Self {
        Self { keys: keys(tag), fresh }
    }
}

impl AtomicOp for Beat {
    type State = LogCell;
    type Reply = Pulse;

    fn script(&self) -> &'static Script {
        &BEAT
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.fresh.0);
        to.uint(LOG_TTL.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Pulse {
        let meta = match meta_of(cells) {
            Some(meta) => {
                // Changes nothing but the time to live.
                out.update(0, LOG_TTL, LogCell::start_log, |_| {});
                meta
            }
            None => begin(self.fresh, out),
        };
        Pulse { meta, now }
    }

    fn decode(&self, reply: Wire) -> Result<Pulse, Malformed> {
        let [meta, now] = reply.into_array()?;
        let meta = Meta::read(&meta.into_bytes()?)?;
        Ok(Pulse { meta, now: ServerTime::from_micros(now.into_unsigned()?) })
    }
}
