//! Ending a history that the server no longer tells as it was.

use fleetwide_core_traits::log::{Epoch, LOG_LUA, LOG_TTL, LogCell, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::{begin, keys, meta_of};

pub(super) static RAISE_EPOCH: Script =
    Script::untimed("log_raise_epoch", &[LOG_LUA, include_str!("../lua/raise_epoch.lua")]);

/// Ends a history that diverged, if the server still tells it; whoever is second finds the new one.
#[derive(Clone, Debug)]
pub struct RaiseEpoch {
    keys: [Key; 2],
    diverged: Epoch,
    fresh: Epoch,
}

/// What [`RaiseEpoch`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Whether this call has ended the history.
    pub raised: bool,
    /// Where the log is now.
    pub meta: Meta,
}

impl RaiseEpoch {
    /// Ends history `diverged` of the log under `tag`; `fresh`, drawn at random, names the next.
    pub fn new(tag: &Tag, diverged: Epoch, fresh: Epoch) -> Self {
        Self { keys: keys(tag), diverged, fresh }
    }
}

impl AtomicOp for RaiseEpoch {
    type State = LogCell;
    type Reply = Raised;

    fn script(&self) -> &'static Script {
        &RAISE_EPOCH
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.diverged.0);
        to.bytes(&self.fresh.0);
        to.uint(LOG_TTL.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Raised {
        match meta_of(cells) {
            Some(meta) if meta.at.epoch != self.diverged => Raised { raised: false, meta },
            Some(_) => Raised { raised: true, meta: begin(self.fresh, out) },
            None => Raised { raised: false, meta: begin(self.fresh, out) },
        }
    }

    fn decode(&self, reply: Wire) -> Result<Raised, Malformed> {
        let [raised, meta] = reply.into_array()?;
        Ok(Raised { raised: raised.into_int()? == 1, meta: Meta::read(&meta.into_bytes()?)? })
    }
}
