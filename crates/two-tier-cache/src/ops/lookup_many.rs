//! Reading many values and where the log is, in one native command.

use fleetwide_core_traits::log::{LogCell, LogState, Meta};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Wire,
};

use super::lookup::{Found, Lookup};
use super::state::live_values;
use super::value_key;
use super::variants::{Reader, Variants};

static LOOKUP_MANY: Script = Script::command("MGET");

/// `MGET value.. meta`: one step, so all that is found reflects everything up to the meta.
#[derive(Debug)]
pub(crate) struct LookupMany {
    /// The values' keys, and the meta's as the last.
    keys: Vec<Key>,
    reader: Reader,
}

/// What is in L2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundMany {
    /// Where the log is; `None` if it has not begun, or was lost.
    pub(crate) meta: Option<Meta>,
    /// For each key what counts.
    pub(crate) values: Vec<Variants>,
}

impl LookupMany {
    pub(crate) fn new<'a>(
        tag: &Tag,
        meta: &Key,
        names: impl Iterator<Item = &'a [u8]>,
        reader: Reader,
    ) -> Result<Self, KeyError> {
        let mut keys = names.map(|name| value_key(tag, name)).collect::<Result<Vec<_>, _>>()?;
        keys.push(meta.clone());
        Ok(Self { keys, reader })
    }

    /// Several lookups of one cache as one, with the eyes of the one that was made last.
    pub(crate) fn of<'a>(lookups: impl Iterator<Item = &'a Lookup>, meta: &Key) -> Option<Self> {
        let mut keys = Vec::new();
        let mut reader: Option<Reader> = None;
        for lookup in lookups {
            keys.push(lookup.value_key().clone());
            let is_later = reader.is_none_or(|reader| reader.now < lookup.reader().now);
            reader = if is_later { Some(lookup.reader()) } else { reader };
        }
        keys.push(meta.clone());
        Some(Self { keys, reader: reader? })
    }

    /// How many values it asks for.
    pub(crate) fn len(&self) -> usize {
        self.keys.len() - 1
    }
}

impl FoundMany {
    /// What a lookup of each key would have found.
    pub(crate) fn each(self) -> impl Iterator<Item = Found> {
        let meta = self.meta;
        self.values.into_iter().map(move |Variants { own, other }| Found {
            meta,
            value: own,
            other,
        })
    }

    /// A value counts only with the meta of its own history beside it.
    fn new<T>(
        meta: Option<Meta>,
        values: impl Iterator<Item = T>,
        choose: impl Fn(T, &Meta) -> Variants,
    ) -> Self {
        let choose = |value| meta.as_ref().map(|meta| choose(value, meta)).unwrap_or_default();
        Self { meta, values: values.map(choose).collect() }
    }
}

impl AtomicOp for LookupMany {
    type State = LogCell;
    type Reply = FoundMany;

    fn script(&self) -> &'static Script {
        &LOOKUP_MANY
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn args(&self, _to: &mut dyn ArgSink) {}

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        _out: &mut Effects<LogCell>,
    ) -> FoundMany {
        let (values, meta) = cells.split_at(self.keys.len() - 1);
        let meta = meta[0].and_then(LogCell::as_log).map(LogState::meta);
        FoundMany::new(meta, values.iter(), |cell, meta| {
            let several = live_values(*cell, now).nth(1).is_some();
            self.reader.choose(several, live_values(*cell, now).cloned(), meta)
        })
    }

    fn decode(&self, reply: Wire) -> Result<FoundMany, Malformed> {
        let mut parts = reply.into_vec()?;
        if parts.len() != self.keys.len() {
            return Err(Malformed::new("a value per key, and a meta", "another number of them"));
        }
        let meta = Meta::from_wire(parts.pop().unwrap_or(Wire::Nil))?;
        // What makes no sense is no value of ours: a miss, like one of another codec.
        let raw = |part: Wire| Ok(part.into_optional_bytes()?.unwrap_or_default());
        let values = parts.into_iter().map(raw).collect::<Result<Vec<_>, Malformed>>()?;
        Ok(FoundMany::new(meta, values.iter(), |raw, meta| self.reader.find(raw, meta)))
    }
}
