//! The atomic steps of a log: each a script for a server and its twin for this process.

use bytes::Bytes;
use fleetwide_core_traits::log::{Append, Epoch, LOG_LUA, LOG_TTL, LogCell, LogState, Meta, Stamp};
use fleetwide_core_traits::{
    ArgSink, AtomicOp, Effects, Key, Malformed, Script, ServerTime, Tag, Wire,
};

static BEAT: Script = Script::timed("log_beat", &[LOG_LUA, include_str!("lua/beat.lua")]);
static REPLAY: Script = Script::untimed("log_replay", &[include_str!("lua/replay.lua")]);
static RAISE_EPOCH: Script =
    Script::untimed("log_raise_epoch", &[LOG_LUA, include_str!("lua/raise_epoch.lua")]);
static PUBLISH: Script =
    Script::untimed("log_publish", &[LOG_LUA, include_str!("lua/publish.lua")]);

/// All scripts of this crate, for [`Executor::prepare`](fleetwide_core_traits::Executor::prepare).
pub static SCRIPTS: [&Script; 4] = [&BEAT, &REPLAY, &RAISE_EPOCH, &PUBLISH];

/// Reads where a log is and the server's time, and renews the log's time to live.
///
/// Begins a history if there is none. It is a write on purpose: a primary that is cut off from its
/// replicas and has `min-replicas-to-write` refuses it, so nobody is verified by it.
#[derive(Clone, Debug)]
pub struct Beat {
    keys: [Key; 2],
    fresh: Epoch,
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
    /// A beat of the log under `tag`; `fresh`, drawn at random, names the history if one begins.
    pub fn new(tag: &Tag, fresh: Epoch) -> Self {
        Self { keys: keys(tag), fresh }
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
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.bytes(&self.fresh.0);
        to.uint(LOG_TTL.as_millis() as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Pulse {
        let meta = match meta_of(cells) {
            Some(meta) => {
                // Changes nothing but the time to live.
                out.update(0, LOG_TTL, LogCell::start_log, |_| {});
                meta
            }
            None => begin(self.fresh, out),
        };
        Pulse { meta, now }
    }

    fn decode(&self, reply: Wire) -> Result<Pulse, Malformed> {
        let [meta, now] = reply.into_array()?;
        let meta = Meta::read(&meta.into_bytes()?)?;
        Ok(Pulse { meta, now: ServerTime::from_micros(now.into_unsigned()?) })
    }
}

/// Reads one page of a log's entries, from a number on.
///
/// Reads only: a replica or a primary that is cut off answers it too, so it verifies nobody.
#[derive(Clone, Debug)]
pub struct Replay {
    keys: [Key; 2],
    from: u64,
    entries_max: u32,
}

/// What [`Replay`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the log is; `None` if there is no log.
    pub meta: Option<Meta>,
    /// Entries in wire form, in their order. An entry that was trimmed is left out.
    pub entries: Vec<Bytes>,
}

impl Replay {
    /// Entries of a page unless told otherwise: one round trip catches up with a short outage, and
    /// the server is not kept busy for longer than about a millisecond.
    pub const ENTRIES_MAX_DEFAULT: u32 = 256;

    /// A page ends with the entry that exceeds this. One entry is always far smaller, so a page
    /// holds at least two entries if there are two.
    pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

    /// A page of the log under `tag` that starts with entry number `from`.
    pub fn new(tag: &Tag, from: u64) -> Self {
        Self { keys: keys(tag), from, entries_max: Self::ENTRIES_MAX_DEFAULT }
    }

    /// Sets how many entries a page has, at least 2. Default: 256.
    #[must_use]
    pub fn entries_max(self, entries_max: u32) -> Self {
        Self { entries_max: entries_max.max(2), ..self }
    }

    fn cut<'a>(&self, entries: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for entry in entries.take(self.entries_max as usize) {
            page.push(entry.clone());
            bytes += entry.len();
            if bytes > Self::PAGE_BYTES_MAX {
                break;
            }
        }
        page
    }
}

impl AtomicOp for Replay {
    type State = LogCell;
    type Reply = Page;

    fn script(&self) -> &'static Script {
        &REPLAY
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        to.uint(self.from);
        to.uint(self.entries_max.into());
        to.uint(Self::PAGE_BYTES_MAX as u64);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        _out: &mut Effects<LogCell>,
    ) -> Page {
        match log_of(cells) {
            Some(log) => {
                Page { meta: Some(log.meta()), entries: self.cut(log.entries_from(self.from)) }
            }
            None => Page { meta: None, entries: Vec::new() },
        }
    }

    fn decode(&self, reply: Wire) -> Result<Page, Malformed> {
        let [meta, entries] = reply.into_array()?;
        let entries = entries.into_vec()?.into_iter().map(Wire::into_bytes);
        Ok(Page { meta: Meta::from_wire(meta)?, entries: entries.collect::<Result<_, _>>()? })
    }
}

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

/// Appends one event to a log.
#[derive(Clone, Debug)]
pub struct Publish {
    keys: [Key; 2],
    append: Append,
}

impl Publish {
    /// Appends `append` to the log under `tag`, which `append` was made for.
    pub fn new(tag: &Tag, append: Append) -> Self {
        Self { keys: keys(tag), append }
    }
}

impl AtomicOp for Publish {
    type State = LogCell;
    /// Where the log is then: at the new entry.
    type Reply = Meta;

    fn script(&self) -> &'static Script {
        &PUBLISH
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn cells(&self) -> usize {
        1
    }

    fn args(&self, to: &mut dyn ArgSink) {
        self.append.args(to);
    }

    fn apply(
        &self,
        cells: &[Option<&LogCell>],
        _now: ServerTime,
        out: &mut Effects<LogCell>,
    ) -> Meta {
        let meta = self.append.open(cells.first().copied().flatten());
        self.append.apply(0, meta, out)
    }

    fn decode(&self, reply: Wire) -> Result<Meta, Malformed> {
        Meta::read(&reply.into_bytes()?)
    }
}

fn keys(tag: &Tag) -> [Key; 2] {
    Append::keys(tag).into()
}

fn log_of<'a>(cells: &[Option<&'a LogCell>]) -> Option<&'a LogState> {
    cells.first().copied().flatten().and_then(LogCell::as_log)
}

fn meta_of(cells: &[Option<&LogCell>]) -> Option<Meta> {
    log_of(cells).map(LogState::meta)
}

/// Puts an empty history in place of whatever there is.
fn begin(epoch: Epoch, out: &mut Effects<LogCell>) -> Meta {
    let meta = Meta { at: Stamp { epoch, seq: 0 }, ..Meta::default() };
    out.put(0, LogCell::Log(LogState::begun(meta)), LOG_TTL);
    meta
}
