//! The atomic steps of a log: each a script for a server and its twin for this process.

mod beat;
mod muster;
mod publish;
mod raise_epoch;
mod replay;
mod roll;

use fleetwide_core_traits::log::{
    Append, Epoch, LOG_TTL, LogCell, LogState, Meta, ROLL_PART, Stamp,
};
use fleetwide_core_traits::{Effects, Key, Script, Tag};

pub use beat::{Beat, Presence, Pulse};
pub use muster::{Muster, Mustered};
pub use publish::Publish;
pub use raise_epoch::{RaiseEpoch, Raised};
pub use replay::{Page, Replay};

/// All scripts of this crate, for [`Executor::prepare`](fleetwide_core_traits::Executor::prepare).
pub static SCRIPTS: [&Script; 5] =
    [&beat::BEAT, &muster::MUSTER, &replay::REPLAY, &raise_epoch::RAISE_EPOCH, &publish::PUBLISH];

/// Lua functions for scripts that read or sign the roll.
const ROLL_LUA: &str = include_str!("lua/roll.lua");

fn keys(tag: &Tag) -> [Key; 2] {
    Append::keys(tag).into()
}

/// The keys of a step that signs: two cells, and the stream, which belongs to the first.
fn roll_keys(tag: &Tag) -> [Key; 3] {
    let [meta, stream] = keys(tag);
    [meta, tag.part(ROLL_PART), stream]
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
