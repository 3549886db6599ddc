//! Where is the log, and is it alive? And who is alive that follows it?

use std::time::Duration;

use fleetwide_core_traits::log::{
    EntryId, Epoch, FollowerId, LOG_LUA, LOG_TTL, LogCell, LogState, Meta, Roll, Sign, Stamp,
};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

use super::roll::{call, micros};
use super::{ROLL_LUA, begin, log_of, meta_of, roll_keys};

pub(super) static BEAT: Script =
    Script::timed("log_beat", &[LOG_LUA, ROLL_LUA, include_str!("../lua/beat.lua")]);

/// Reads where a log is and the server's time, and leaves a sign of life of the follower.
///
/// Begins a history if there is none. It is a write on purpose: a primary that is cut off from its
/// replicas and has `min-replicas-to-write` refuses it, so nobody is verified by it.
#[derive(Clone, Debug)]
pub struct Beat {
    keys: [Key; 3],
    fresh: Epoch,
    presence: Presence,
    renew: bool,
    followers_max: u32,
}

/// What a follower signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Its name.
    pub follower: FollowerId,
    /// How long the sign is good, 24 h at most: whoever has not signed again by then is dead.
    pub life: Duration,
    /// What it has applied, and the name of the last entry of that; `None` before its first
    /// baseline, which may be the answer to this beat.
    pub applied: Option<(Stamp, EntryId)>,
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
    /// Followers that a roll takes unless told otherwise, in about 1 MiB. With more of them, nobody
    /// is told that all have applied something.
    pub const FOLLOWERS_MAX_DEFAULT: u32 = 10_000;

    /// A beat of the log under `tag`; `fresh`, drawn at random, names the history if one begins.
    pub fn new(tag: &Tag, fresh: Epoch, presence: Presence) -> Self {
        let followers_max = Self::FOLLOWERS_MAX_DEFAULT;
        Self { keys: roll_keys(tag), fresh, presence, renew: true, followers_max }
    }

    /// Sets whether it renews the time to live of the log, which is seven days. Default: yes.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        Self { renew, ..self }
    }

    /// Sets how many followers the roll takes. Default: 10,000.
    #[must_use]
    pub fn followers_max(self, followers_max: u32) -> Self {
        Self { followers_max: followers_max.max(1), ..self }
    }

    /// What the follower is known to have applied, by the log itself.
    fn place(&self, held: Option<&Sign>, meta: &Meta, log: Option<&LogState>) -> Stamp {
        match (self.presence.applied, held) {
            (Some((at, id)), _) => {
                let has = at.seq == 0 || log.and_then(|log| log.entry_id(at.seq)) == Some(id);
                if at.epoch == meta.at.epoch && has { at } else { Stamp::default() }
            }
            // It has begun nowhere yet, or this beat was overtaken by one that came after it had:
            // either way it knows nothing later than what it has signed.
            (None, Some(held)) => held.at,
            // It will begin here, if it gets the answer.
            (None, None) => meta.at,
        }
    }

    /// Writes the sign of life into the roll.
    fn sign(
        &self,
        roll: Option<&Roll>,
        meta: &Meta,
        log: Option<&LogState>,
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) {
        let Presence { follower, life, .. } = self.presence;
        let held = roll.and_then(|roll| roll.signs.get(&follower));
        let at = self.place(held, meta, log);
        let sign = Sign { seen_at: now, life: Duration::from_micros(micros(life)), at };
        if held.is_some() {
            return out.update(1, LOG_TTL, LogCell::start_roll, move |cell| {
                if let LogCell::Roll(roll) = cell {
                    roll.signs.insert(follower, sign);
                }
            });
        }
        let begun = Roll { since: now, ..Roll::default() };
        let mut roll = roll.map_or(begun, |roll| call(roll, now));
        if roll.signs.len() < self.followers_max as usize {
            roll.signs.insert(follower, sign);
        } else {
            // Somebody is missing: a roll that has just begun says so, too.
            roll.since = now;
        }
        out.put(1, LogCell::Roll(roll), LOG_TTL);
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
        2
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.fresh.0);
        to.uint(LOG_TTL.as_millis() as u64);
        to.bytes(&self.presence.follower);
        to.uint(micros(self.presence.life));
        match self.presence.applied {
            None => to.bytes(b""),
            Some((at, id)) => {
                let mut place = [0; 24];
                place[..8].copy_from_slice(&at.epoch.0);
                place[8..16].copy_from_slice(&at.seq.to_be_bytes());
                place[16..].copy_from_slice(&id);
                to.bytes(&place);
            }
        }
        to.uint(self.renew.into());
        to.uint(self.followers_max.into());
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Pulse {
        let meta = match meta_of(cells) {
            Some(meta) => {
                if self.renew {
                    // Changes nothing but the time to live.
                    out.update(0, LOG_TTL, LogCell::start_log, |_| {});
                }
                meta
            }
            None => begin(self.fresh, out),
        };
        let roll = cells.get(1).copied().flatten().and_then(LogCell::as_roll);
        self.sign(roll, &meta, log_of(cells), now, out);
        Pulse { meta, now }
    }

    fn decode(&self, reply: Wire) -> Result<Pulse, Malformed> {
        let [meta, now] = reply.into_array()?;
        let meta = Meta::read(&meta.into_bytes()?)?;
        Ok(Pulse { meta, now: ServerTime::from_micros(now.into_unsigned()?) })
    }
}
