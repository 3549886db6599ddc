//! Writing several values through in one step, with one entry in the log for all of them.

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, LOG_LUA, LOG_TTL, LogCell, Meta, Stored, StoredValue};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Ttl, Wire,
};

use super::state::save_at;
use super::tags::{self, TAGS_LUA, tags_key};
use super::value_key;

static PUT_MANY: Script = Script::timed(
    "cache_put_many",
    &[LOG_LUA, include_str!("../lua/value.lua"), TAGS_LUA, include_str!("../lua/put_many.lua")],
);

pub(super) fn script() -> &'static Script {
    &PUT_MANY
}

/// Stores values whatever was there, takes their leases away, and appends one entry that names all
/// their keys.
#[derive(Debug)]
pub(crate) struct PutMany {
    /// Meta, tags, values, leases, stream: the first `2 + values` are cells.
    keys: Vec<Key>,
    puts: Vec<OnePut>,
    append: Append,
    until: Option<ServerTime>,
}

/// One of the values of a [`PutMany`].
#[derive(Clone, Debug)]
pub(crate) struct OnePut {
    pub(crate) wire: Bytes,
    pub(crate) envelope: Bytes,
    pub(crate) ttl: Ttl,
    pub(crate) tagged: bool,
}

/// Keys in front of the values'.
const FIRST: usize = 2;

impl PutMany {
    /// What is late, by `until`, only invalidates.
    pub(crate) fn new(
        tag: &Tag,
        puts: Vec<OnePut>,
        append: Append,
        until: Option<ServerTime>,
    ) -> Result<Self, KeyError> {
        let (meta, stream) = Append::keys(tag);
        let mut keys = vec![meta, tags_key(tag)];
        for put in &puts {
            keys.push(value_key(tag, &put.wire)?);
        }
        for put in &puts {
            keys.push(tag.named("l", &put.wire)?);
        }
        keys.push(stream);
        Ok(Self { keys, puts, append, until })
    }
}

impl AtomicOp for PutMany {
    type State = LogCell;
    /// Where the log is, the puts included.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        script()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        FIRST + self.puts.len()
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
        to.uint(self.until.map_or(0, ServerTime::as_micros));
        for put in &self.puts {
            to.bytes(&put.envelope);
            to.uint(put.ttl.as_millis());
            to.uint(put.tagged.into());
        }
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Meta {
        let mut meta = self.append.open(cells[0]);
        if self.puts.iter().any(|put| put.tagged) {
            let tags = tags::open(cells[1], &mut meta);
            out.put(1, LogCell::Tags(tags), LOG_TTL);
        }
        let meta = self.append.apply(0, meta, out);
        let in_time = self.until.is_none_or(|until| now <= until);
        for (at, put) in self.puts.iter().enumerate() {
            let values = in_time.then(|| StoredValue {
                stamp: meta.at,
                stored_at: now,
                expires_at: now.plus(put.ttl.as_duration()),
                envelope: put.envelope.clone(),
            });
            let next = Stored { values: values.into_iter().collect(), lease: None };
            save_at(FIRST + at, next, now, out);
        }
        meta
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}
