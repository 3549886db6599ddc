//! Tags: voiding everything that carries one, and asking when that happened last.

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LOG_LUA, LOG_TTL, LogCell, Meta, TagBumps};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

/// The part of a cache's tag that names its hash of tags.
const TAGS_PART: &str = "tags";

pub(super) const TAGS_LUA: &str = include_str!("../lua/tags.lua");

static BUMP: Script =
    Script::untimed("cache_bump", &[LOG_LUA, TAGS_LUA, include_str!("../lua/bump.lua")]);
static VERSIONS: Script = Script::command("HMGET");

pub(super) fn script() -> &'static Script {
    &BUMP
}

pub(crate) fn tags_key(tag: &Tag) -> Key {
    tag.part(TAGS_PART)
}

/// Twin of `tags_open`: the bumps of this history. If they were lost, `meta` is cleared.
pub(super) fn open(cell: Option<&LogCell>, meta: &mut Meta) -> TagBumps {
    let held = cell.and_then(LogCell::as_tags).filter(|tags| tags.epoch == meta.at.epoch);
    held.cloned().unwrap_or_else(|| {
        meta.clear_seq = meta.clear_seq.max(meta.at.seq);
        TagBumps { epoch: meta.at.epoch, floor: meta.at.seq, ..TagBumps::default() }
    })
}

/// Whether none of `tags` was bumped after number `seq`.
pub(super) fn unbumped(bumps: &TagBumps, tags: &[Bytes], seq: u64) -> bool {
    tags.iter().all(|tag| bumps.bumps.get(tag).is_none_or(|bumped| *bumped <= seq))
}

/// Voids everything that carries a tag.
#[derive(Debug)]
pub(crate) struct Bump {
    keys: [Key; 3],
    append: Append,
    tag: Bytes,
    tags_max: u32,
}

impl Bump {
    pub(crate) fn new(log: &Tag, append: Append, tag: Bytes, tags_max: u32) -> Self {
        let (meta, stream) = Append::keys(log);
        Self { keys: [meta, tags_key(log), stream], append, tag, tags_max }
    }
}

impl AtomicOp for Bump {
    type State = LogCell;
    /// Where the log is, the bump included.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        2
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
        to.bytes(&self.tag);
        to.uint(self.tags_max.into());
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Meta {
        let mut meta = self.append.open(cells[0]);
        let mut tags = open(cells[1], &mut meta);
        tags.bumps.insert(self.tag.clone(), meta.at.seq + 1);
        if tags.bumps.len() > self.tags_max as usize {
            prune(&mut tags, &mut meta);
        }
        out.put(1, LogCell::Tags(tags), LOG_TTL);
        self.append.apply(0, meta, out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}

/// Drops the older half, and clears what is older than they are.
fn prune(tags: &mut TagBumps, meta: &mut Meta) {
    let mut by_age: Vec<(u64, Bytes)> =
        tags.bumps.iter().map(|(tag, seq)| (*seq, tag.clone())).collect();
    by_age.sort_unstable();
    for (seq, tag) in by_age.drain(..by_age.len() / 2) {
        tags.bumps.remove(&tag);
        meta.clear_seq = meta.clear_seq.max(seq);
    }
    tags.floor = meta.clear_seq;
}

/// Asks for the versions of some tags, in one native command.
#[derive(Debug)]
pub(crate) struct Versions<'a> {
    keys: [Key; 1],
    tags: &'a [Bytes],
}

/// The versions of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bumped {
    /// The history that they belong to; `None` if there are none.
    pub(crate) epoch: Option<Epoch>,
    /// For each tag the number up to which it may have been bumped: that of its last bump, or the
    /// one up to which bumps are not remembered.
    pub(crate) seqs: Vec<u64>,
}

impl<'a> Versions<'a> {
    pub(crate) fn new(tags_key: &Key, tags: &'a [Bytes]) -> Self {
        Self { keys: [tags_key.clone()], tags }
    }
}

impl AtomicOp for Versions<'_> {
    type State = LogCell;
    type Reply = Bumped;

    fn script(&self) -> &'static Script {
        &VERSIONS
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(b"");
        for tag in self.tags {
            to.bytes(tag);
        }
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        _out: &mut Effects<LogCell>,
    ) -> Bumped {
        let held = cells[0].and_then(LogCell::as_tags);
        let seq =
            |tag| held.map_or(0, |held| held.bumps.get(tag).copied().unwrap_or(0).max(held.floor));
        Bumped { epoch: held.map(|held| held.epoch), seqs: self.tags.iter().map(seq).collect() }
    }

    fn decode(&self, reply: Wire) -> Result<Bumped, Malformed> {
        let mut fields = reply.into_vec()?.into_iter();
        let first = fields.next().ok_or(Malformed::new("an epoch", "an empty array"))?;
        let head = first.into_optional_bytes()?.map(|head| read_head(&head)).transpose()?;
        let (epoch, floor) = head.map_or((None, 0), |(epoch, floor)| (Some(epoch), floor));
        let seq = |field: Wire| match field {
            Wire::Nil => Ok(floor),
            field => Ok(field.into_unsigned()?.max(floor)),
        };
        let seqs = fields.map(seq).collect::<Result<Vec<_>, Malformed>>()?;
        if seqs.len() != self.tags.len() {
            return Err(Malformed::new("a number per tag", "an array of another length"));
        }
        Ok(Bumped { epoch, seqs })
    }
}

/// Reads what stands beside the tags: the epoch, and the floor in decimal.
fn read_head(head: &[u8]) -> Result<(Epoch, u64), Malformed> {
    let malformed = || Malformed::new("an epoch and a number", "other bytes");
    let (epoch, floor) = head.split_first_chunk().ok_or_else(malformed)?;
    let floor = std::str::from_utf8(floor).ok().and_then(|floor| floor.parse().ok());
    Ok((Epoch(*epoch), floor.ok_or_else(malformed)?))
}
