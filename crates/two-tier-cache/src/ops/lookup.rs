//! Reading a value and where the log is, in one native command.

use fleetwide_core_traits::log::{LogCell, Meta, StoredValue};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Wire, log,
};

use super::state::live_values;
use super::value_key;
use super::variants::{Reader, Variants};

static LOOKUP: Script = Script::command("MGET");

/// `MGET value meta`: because both are read in one step, what is found reflects everything up to
/// the meta.
#[derive(Debug)]
pub(crate) struct Lookup {
    keys: [Key; 2],
    reader: Reader,
}

/// What is in L2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where the log is; `None` if it has not begun, or was lost.
    pub(crate) meta: Option<Meta>,
    /// The value in the schema that was asked for, if it counts.
    pub(crate) value: Option<StoredValue>,
    /// Whether a value that counts is there in another schema.
    pub(crate) other: bool,
}

impl Lookup {
    pub(crate) fn new(tag: &Tag, meta: &Key, key: &[u8], reader: Reader) -> Result<Self, KeyError> {
        Ok(Self { keys: [value_key(tag, key)?, meta.clone()], reader })
    }

    pub(super) fn value_key(&self) -> &Key {
        &self.keys[0]
    }

    pub(super) const fn reader(&self) -> Reader {
        self.reader
    }
}

impl Found {
    /// A value counts only with the meta of its own history beside it.
    fn new(meta: Option<Meta>, choose: impl FnOnce(&Meta) -> Variants) -> Self {
        let Variants { own, other } = meta.as_ref().map(choose).unwrap_or_default();
        Self { meta, value: own, other }
    }
}

impl AtomicOp for Lookup {
    type State = LogCell;
    type Reply = Found;

    fn script(&self) -> &'static Script {
        &LOOKUP
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
    ) -> Found {
        let meta = cells[1].and_then(LogCell::as_log).map(log::LogState::meta);
        let several = live_values(cells[0], now).nth(1).is_some();
        let values = live_values(cells[0], now).cloned();
        Found::new(meta, |meta| self.reader.choose(several, values, meta))
    }

    fn decode(&self, reply: Wire) -> Result<Found, Malformed> {
        let [value, meta] = reply.into_array()?;
        // What makes no sense is no value of ours: a miss, like one of another codec.
        let raw = value.into_optional_bytes()?.unwrap_or_default();
        Ok(Found::new(Meta::from_wire(meta)?, |meta| self.reader.find(&raw, meta)))
    }
}
