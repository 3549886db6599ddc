//! Reading a value and where the log is, in one native command.

use fleetwide_core_traits::log::{LogCell, Meta, StoredValue};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, KeyError, Malformed, Script, ServerTime, Tag, Wire, log,
};

use super::state::{live_value, read_value, usable};
use super::value_key;

static LOOKUP: Script = Script::command("MGET");

/// `MGET value meta`: because both are read in one step, what is found reflects everything up to
/// the meta.
#[derive(Debug)]
pub(crate) struct Lookup {
    keys: [Key; 2],
}

/// What is in L2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where the log is; `None` if it has not begun, or was lost.
    pub(crate) meta: Option<Meta>,
    /// The value, if it counts.
    pub(crate) value: Option<StoredValue>,
}

impl Lookup {
    pub(crate) fn new(tag: &Tag, meta: &Key, key: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { keys: [value_key(tag, key)?, meta.clone()] })
    }
}

impl Found {
    /// A value counts only with the meta of its own history beside it.
    fn new(meta: Option<Meta>, value: Option<StoredValue>) -> Self {
        let value = value.filter(|value| meta.is_some_and(|meta| usable(value.stamp, &meta)));
        Self { meta, value }
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
        Found::new(meta, live_value(cells[0], now).cloned())
    }

    fn decode(&self, reply: Wire) -> Result<Found, Malformed> {
        let [value, meta] = reply.into_array()?;
        // A value too short to have a head is no value of ours: a miss, like one of another codec.
        let value = value.into_optional_bytes()?.and_then(|raw| read_value(&raw).ok());
        Ok(Found::new(Meta::from_wire(meta)?, value))
    }
}
