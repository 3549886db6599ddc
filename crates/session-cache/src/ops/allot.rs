//! Giving a place its short id.

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Ttl, Wire,
};

use super::{IdCell, id_key, place_key};
use crate::id::{CANDIDATES, ShortId};

static ALLOT: Script = Script::untimed("session_allot", &[include_str!("../lua/allot.lua")]);

pub(super) fn script() -> &'static Script {
    &ALLOT
}

/// Gives a place an id if it has none, and lets it keep the one that it has.
#[derive(Debug)]
pub(crate) struct Allot {
    keys: [Key; CANDIDATES + 1],
    place: Bytes,
    candidates: [ShortId; CANDIDATES],
    ttl: Ttl,
}

impl Allot {
    /// `candidates` are the ids that the place could have, shortest first.
    pub(crate) fn new(
        shard: &Tag,
        place: Bytes,
        candidates: [ShortId; CANDIDATES],
        ttl: Ttl,
    ) -> Result<Self, KeyError> {
        let [one, two, three, four] = &candidates;
        let of = |id| place_key(shard, id);
        let keys = [id_key(shard, four)?, of(one)?, of(two)?, of(three)?, of(four)?];
        Ok(Self { keys, place, candidates, ttl })
    }

    /// How well a candidate suits, 0 if it belongs to another place.
    fn suits(&self, candidate: ShortId, owner: Option<&IdCell>, held: Option<ShortId>) -> u8 {
        let suits = match owner {
            None => 1,
            Some(IdCell::Place(place)) if *place == self.place => 2,
            Some(_) => return 0,
        };
        if held == Some(candidate) { suits + 2 } else { suits }
    }
}

impl AtomicOp for Allot {
    type State = IdCell;
    /// The id; `None` if other places have all that it could have.
    type Reply = Option<ShortId>;

    fn script(&self) -> &'static Script {
        script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.place);
        to.uint(self.ttl.as_millis());
        for id in &self.candidates {
            to.bytes(id.as_str().as_bytes());
        }
    }

    fn apply(
        &self,
        cells: &[Option<&IdCell>],
        _now: ServerTime,
        out: &mut Effects<IdCell>,
    ) -> Option<ShortId> {
        let held = match cells[0] {
            Some(IdCell::Id(id)) => Some(*id),
            _ => None,
        };
        let mut best: Option<(usize, u8)> = None;
        for (at, candidate) in self.candidates.iter().enumerate() {
            let suits = self.suits(*candidate, cells[at + 1], held);
            if suits > best.map_or(0, |(_, best)| best) {
                best = Some((at, suits));
            }
        }
        let (at, _) = best?;
        let ttl = self.ttl.as_duration();
        out.put(at + 1, IdCell::Place(self.place.clone()), ttl);
        out.put(0, IdCell::Id(self.candidates[at]), ttl);
        Some(self.candidates[at])
    }

    fn decode(&self, reply: Wire) -> Result<Option<ShortId>, Malformed> {
        super::ask::read_id(reply)
    }
}
