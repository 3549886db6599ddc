//! How far have all who follow a log come?

use std::time::Duration;

use fleetwide_core_traits::log::{
    CHANNEL_PART, Incoming, LOG_LUA, LOG_TTL, LogCell, META_PART, Meta, ROLL_PART, Roll, Stamp,
};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Channel, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::roll::{call, micros};
use super::{ROLL_LUA, meta_of};

pub(super) static MUSTER: Script =
    Script::timed("log_muster", &[LOG_LUA, ROLL_LUA, include_str!("../lua/muster.lua")]);

/// Reads who follows a log and how far the last of them has come, and nudges them all if somebody
/// is not where the log is.
#[derive(Clone, Debug)]
pub struct Muster {
    keys: [Key; 2],
    channel: Channel,
    life: Duration,
}

/// What [`Muster`] answers: the place of the last of all live followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mustered {
    /// Where the log is; `None` if there is none.
    pub meta: Option<Meta>,
    /// How many followers live.
    pub live: u64,
    /// How many of them are in another history.
    pub strangers: u64,
    /// The least number that any of the others has applied; the log's own if there is no other.
    pub least: u64,
    /// Whether all who live are among them: not so within a life after the server lost the roll.
    pub complete: bool,
}

impl Mustered {
    /// Whether everything up to `stamp` has been applied by all who live. `None` if its history is
    /// no longer the log's.
    pub fn has_applied(&self, stamp: Stamp) -> Option<bool> {
        let at = self.meta.map(|meta| meta.at).filter(|at| at.epoch == stamp.epoch)?;
        // A log that does not have the entry either was read before it was appended, and then who
        // joined in between is missing; or has lost it.
        let has = at.seq >= stamp.seq && self.least >= stamp.seq;
        Some(has && self.strangers == 0 && self.complete)
    }
}

impl Muster {
    /// Asks about the log under `tag`. A roll counts as complete when it has stood for the longest
    /// life that any sign in it has, and for `life`.
    pub fn new(tag: &Tag, life: Duration) -> Self {
        let keys = [tag.part(META_PART), tag.part(ROLL_PART)];
        Self { keys, channel: tag.channel(CHANNEL_PART), life }
    }
}

impl AtomicOp for Muster {
    type State = LogCell;
    type Reply = Mustered;

    fn script(&self) -> &'static Script {
        &MUSTER
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(micros(self.life));
        to.uint(LOG_TTL.as_millis() as u64);
        to.bytes(self.channel.as_bytes());
        to.bytes(&Incoming::nudge());
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Mustered {
        let Some(meta) = meta_of(cells) else {
            return Mustered { meta: None, live: 0, strangers: 0, least: 0, complete: false };
        };
        let held = cells.get(1).copied().flatten().and_then(LogCell::as_roll);
        let mut roll = held.map_or(Roll { since: now, ..Roll::default() }, |held| call(held, now));
        roll.since = roll.since.min(now);
        let here = |at: &Stamp| at.epoch == meta.at.epoch;
        let places = || roll.signs.values().map(|sign| sign.at);
        let least = places().filter(here).map(|at| at.seq).fold(meta.at.seq, u64::min);
        let strangers = places().filter(|at| !here(at)).count() as u64;
        let own = Duration::from_micros(micros(self.life));
        let longest = roll.signs.values().map(|sign| sign.life).fold(own, Duration::max);
        let complete = roll.since.plus(longest) <= now;
        let live = roll.signs.len() as u64;
        if strangers > 0 || least < meta.at.seq {
            out.publish(self.channel.clone(), Incoming::nudge());
        }
        if held != Some(&roll) {
            out.put(1, LogCell::Roll(roll), LOG_TTL);
        }
        Mustered { meta: Some(meta), live, strangers, least, complete }
    }

    fn decode(&self, reply: Wire) -> Result<Mustered, Malformed> {
        let [meta, live, strangers, least, complete] = reply.into_array()?;
        Ok(Mustered {
            meta: Meta::from_wire(meta)?,
            live: live.into_unsigned()?,
            strangers: strangers.into_unsigned()?,
            least: least.into_unsigned()?,
            complete: complete.into_int()? == 1,
        })
    }
}
