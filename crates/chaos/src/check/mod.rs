//! What the histories of all nodes prove, or disprove.
//!
//! The database is outside the cache and linearizable, so a version that a read returns says
//! exactly which writes it reflects. For every read the check asks: is there a write of a later
//! version whose cache call had returned Ok before this read began, and how long before? That is
//! the staleness of the read, and the promises bound it:
//!
//! 1. **C1**, the writer's own process: none at all, from the moment the write has returned,
//!    or its caller has left, whatever came of it.
//! 2. **C1**, Redis: a value out of L2 is as of its request, which is at most the read's L2 budget
//!    older than the read.
//! 3. **C2**: what is marked as verified is at most the staleness bound behind.
//! 4. **C3**: two loaders of a key overlap only for a stated reason.
//!
//! A Redis that is restored to an older state shows that state until a node has found out, which it
//! does by its next look at the log. Of the writes that Redis has lost, reads in that time need show
//! none; afterwards all of them count again.
//!
//! Times are read before a read begins and after a write has returned, so what the check finds is
//! never longer than what was: each violation is one.

mod histogram;
mod loads;
mod reads;
mod trace;
mod writes;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

pub use histogram::Histogram;
pub use loads::{Load, LoadCounts};
pub use reads::ReadCounts;

use crate::faults::{Fault, Window};
use crate::origin::Origin;
use crate::record::{self, Record};
use loads::{Loads, Reasons};
use reads::Reads;
use writes::{Loss, Writes};

/// Violations that are shown one by one; beyond it they are only counted.
const SHOWN_MAX: usize = 20;

/// One process of a node, from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// Which node.
    pub node: u32,
    /// Which process of it.
    pub life: u32,
    /// Where its history is.
    pub history: PathBuf,
    /// When it was gone; the largest time if it ended by itself.
    pub died: u64,
}

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// A process served what one of its own writes had voided.
    C1Own,
    /// L2 served what a write had voided.
    C1Shared,
    /// A verified value was older than the staleness bound allows.
    C2,
    /// Two loaders of a key ran at the same time for no stated reason.
    C3,
    /// A value was never in the database, or was another key's.
    Nonsense,
    /// A node did not come back, or did not see the last writes.
    Recovery,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How often each promise was broken.
    pub broken: HashMap<Promise, u64>,
    /// The first of the violations, in words.
    pub shown: Vec<String>,
    /// What happened to the key of the first of them about that time, on all nodes.
    pub trace: Vec<String>,
    /// The key and the time of the first of them that has one.
    first: Option<(u32, u64)>,
    /// Reads by tier and freshness.
    pub reads: ReadCounts,
    /// Writes: done, queued or unknown, and those whose caller went away or was killed.
    pub writes: [u64; 3],
    /// Loads, and those that overlapped, by reason.
    pub loads: LoadCounts,
    /// Staleness of hits of L1 that were marked as verified, µs.
    pub verified: Histogram,
    /// Staleness of hits that were marked as unverified, µs.
    pub unverified: Histogram,
}

impl Verdict {
    /// Notes a violation.
    pub fn broken(&mut self, promise: Promise, times: u64, what: impl FnOnce() -> String) {
        *self.broken.entry(promise).or_default() += times;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(format!("{promise:?}: {}", what()));
        }
    }

    /// How often any promise was broken.
    pub fn violations(&self) -> u64 {
        self.broken.values().sum()
    }
}

/// Checks the histories of `lives`, while `windows` were open, against `origin`.
///
/// # Errors
/// The operating system's error, or a history that is none.
pub fn check(lives: &[Life], windows: &[Window], origin: &Origin) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    let (mut writes, mut loads) = (Writes::default(), Loads::default());
    let mut pauses: HashMap<(u32, u32), Vec<(u64, u64)>> = HashMap::new();
    for life in lives {
        let process = (life.node, life.life);
        record::read(&life.history, |record| {
            if let Record::Pause { from, to } = record {
                pauses.entry(process).or_default().push((from, to));
            }
            writes.take(process, record);
            loads.take(process, record);
        })?;
        loads.end(process, life.died);
    }
    verdict.writes = writes.seal();
    loads.check(&Reasons { writes: &writes, pauses: &pauses, windows }, &mut verdict);
    let losses: Vec<Loss> = windows.iter().filter_map(loss).collect();
    for life in lives {
        let process = (life.node, life.life);
        let none = Vec::new();
        let mut reads = Reads {
            process,
            writes: &writes,
            pauses: pauses.get(&process).unwrap_or(&none),
            losses: &losses,
            origin,
            newest: HashMap::new(),
            verdict: &mut verdict,
        };
        record::read(&life.history, |record| reads.take(record))?;
    }
    if let Some((key, at)) = verdict.first {
        verdict.trace = trace::of(key, at, lives, windows)?;
    }
    Ok(verdict)
}

/// How long after a restart from older data the fleet may take until it has found out, µs: nodes
/// come back within a second, and compare what they know with the server's log at once.
const FOUND_OUT_US: u64 = 3_000_000;

fn loss(window: &Window) -> Option<Loss> {
    let Window { fault, from, to, .. } = *window;
    (fault == Fault::Rewind).then_some(Loss { from, back: to, known: to + FOUND_OUT_US })
}

#[cfg(test)]
mod tests;
