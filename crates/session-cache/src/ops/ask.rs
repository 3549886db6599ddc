//! Asking for an id or for its place, each in one native command.

use bytes::Bytes;
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Wire,
};

use super::{IdCell, id_key, place_key};
use crate::id::ShortId;

static GET: Script = Script::command("GET");

/// Asks for the id of a place.
#[derive(Debug)]
pub(crate) struct IdOf([Key; 1]);

impl IdOf {
    /// `longest` is the longest id that the place could have.
    pub(crate) fn new(shard: &Tag, longest: &ShortId) -> Result<Self, KeyError> {
        Ok(Self([id_key(shard, longest)?]))
    }
}

impl AtomicOp for IdOf {
    type State = IdCell;
    type Reply = Option<ShortId>;

    fn script(&self) -> &'static Script {
        &GET
    }

    fn keys(&self) -> &[Key] {
        &self.0
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&IdCell>],
        _now: ServerTime,
        _out: &mut Effects<IdCell>,
    ) -> Option<ShortId> {
        match cells[0] {
            Some(IdCell::Id(id)) => Some(*id),
            _ => None,
        }
    }

    fn decode(&self, reply: Wire) -> Result<Option<ShortId>, Malformed> {
        read_id(reply)
    }
}

/// Asks for the place of an id.
#[derive(Debug)]
pub(crate) struct PlaceOf([Key; 1]);

impl PlaceOf {
    pub(crate) fn new(shard: &Tag, id: &ShortId) -> Result<Self, KeyError> {
        Ok(Self([place_key(shard, id)?]))
    }
}

impl AtomicOp for PlaceOf {
    type State = IdCell;
    /// The place in its wire form.
    type Reply = Option<Bytes>;

    fn script(&self) -> &'static Script {
        &GET
    }

    fn keys(&self) -> &[Key] {
        &self.0
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&IdCell>],
        _now: ServerTime,
        _out: &mut Effects<IdCell>,
    ) -> Option<Bytes> {
        match cells[0] {
            Some(IdCell::Place(place)) => Some(place.clone()),
            _ => None,
        }
    }

    fn decode(&self, reply: Wire) -> Result<Option<Bytes>, Malformed> {
        reply.into_optional_bytes()
    }
}

pub(super) fn read_id(reply: Wire) -> Result<Option<ShortId>, Malformed> {
    let Some(text) = reply.into_optional_bytes()? else { return Ok(None) };
    let id = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or(Malformed::new("a short id", "other bytes"))
}
