//! An offline checker for the promises of a cache.
//!
//! It takes a [`History`] and says whether any order of what is in it could have kept the promises.
//! It concludes only from what came strictly before something else in real time: two operations
//! that overlap may have happened in either order, so it reports nothing that could be an accident
//! of timing. Each violation is proof; no violation is none.
//!
//! # What it concludes, and from what
//! A value that was read has a **source**: a load or a put of its version. A source is **born** at
//! the latest when its load began, or when its put returned Ok (a put of unknown outcome may be
//! carried out at any later moment). A write **voids** a source if it began after the birth, and if
//! its target covers the source: its key, one of its tags, or everything. A read is wrong if a
//! write that it had to reflect voids *every* source whose value could be there when it ended.
//!
//! Which writes a read `R` had to reflect:
//!
//! | rule | the write | returned | the value came from |
//! | --- | --- | --- | --- |
//! | [`Fenced`](Rule::Fenced) | of the same process; Ok, queued or unknown | before `R` began | anywhere |
//! | [`Fenced`](Rule::Fenced) | of any process; Ok | [`join_bound`](Checker::join_bound) before `R` began | L2 |
//! | [`Bounded`](Rule::Bounded) | of any process; Ok | [`staleness_bound`](Checker::staleness_bound) before `R` began | L1 or a load, marked as verified |
//! | [`ReadYourWrites`](Rule::ReadYourWrites) | the one whose token `R` has; Ok | before `R` began | anywhere |
//!
//! - A process answers for its own queued writes at once: it no longer serves what they void.
//! - A read that L2 answers may have joined one that was sent a moment earlier, hence `join_bound`.
//! - An [`Event::Settled`] turns every write that was queued into one that returned Ok just then,
//!   unless its process had died: the queue has been worked off.
//! - After an [`Event::Loss`] the server shows an older state until somebody finds out: see below.
//! - Without recorded loads, the birth of a version is bounded by the origin: it was loaded at the
//!   latest when the write of the next version returned.
//!
//! # What is exempt
//! The promises end at a write that no surviving server or instance saw. From a history that cannot
//! be told exactly, so a loss of acknowledged writes exempts this, and no more:
//! - A write that began before the loss says nothing about the reads that overlap the span of the
//!   [`Event::Loss`], in which whoever knows of the write has the time to find out and to say so.
//!   After the span it counts again, for all.
//! - If the write's process died before the end of the span, it says nothing at all: nobody may be
//!   left who saw it.
//! - A token says nothing to a read that overlaps the span: read-your-writes is exempt during a loss
//!   of acknowledged writes. The token names a place in a history that is about to be given up, and
//!   until then the server may give that place to another write.
//! - Loads may overlap in the span, because leases are lost too.
//!
//! Writes that begin after the loss are not exempt, nor are the other reads of that time.
//!
//! # The other rules
//! [`Invented`](Rule::Invented): where loads are recorded, a version that was neither loaded nor put
//! before the read ended is wrong by itself.
//!
//! [`OneLoad`](Rule::OneLoad): two loads of one key overlap, and between `join_bound` before the
//! first began and the moment the second began there is no write that could have taken effect, of
//! this key, of any tag or of everything, no outage of either process, and no loss. (A queued or
//! unanswered write can take effect at any later moment.)
//!
//! # What it cannot see
//! A read that found nothing is never wrong. The first value with tags that a new server is given
//! acts like a clear; a history should begin after it, or such a load counts as a second one. A load
//! whose lease was lost without anybody recording why looks like a violation: record pauses and
//! outages. Loads for reads that leave L2 out, or have a token, are not coalesced with others: record
//! them as [`alone`](crate::LoadSpan::alone).

mod histogram;
mod index;
mod judge;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::time::Duration;

pub use histogram::Histogram;

use crate::history::{Event, History};
use index::{Collected, Index};

/// The default of a cache.
const STALENESS_BOUND_DEFAULT: Duration = Duration::from_secs(1);
/// The default budget of a cache for L2: no read of L2 is joined when it is older.
const JOIN_BOUND_DEFAULT: Duration = Duration::from_millis(100);

/// Judges histories. See the head of this file for what it may conclude.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use fleetwide_testkit::{Checker, FoundIn, Mark, Recorder};
///
/// # fn main() -> std::io::Result<()> {
/// let recorder = Recorder::in_memory();
/// let (writer, reader) = (recorder.client(1, 1), recorder.client(2, 1));
/// // Each operation of the cache under test goes between the two calls of its span.
/// let load = reader.load(7);
/// load.found(100, &[]);
/// let write = writer.invalidate(7);
/// write.ok();
/// let read = reader.read(7);
/// read.found(100, FoundIn::L1, Mark::Verified);
///
/// let checker = Checker::new().staleness_bound(Duration::from_secs(1));
/// let report = checker.check(&recorder.finish()?)?;
/// report.assert_clean(); // it may be out of date for a second
/// assert_eq!((report.reads, report.stale), (1, 1));
///
/// let read = writer.read(7);
/// read.found(100, FoundIn::L1, Mark::Verified);
/// let report = checker.check(&recorder.finish()?)?;
/// assert!(!report.is_clean(), "the writer itself must not see it again");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a checker does nothing until `check`"]
pub struct Checker {
    staleness_bound: u64,
    join_bound: u64,
}

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Nothing from before a write is in L2 after it, or is served by the writer.
    Fenced,
    /// A verified value reflects every write from before the staleness bound.
    Bounded,
    /// A read with a token reflects the write that returned it.
    ReadYourWrites,
    /// One load at a time.
    OneLoad,
    /// A value was loaded or put before it was read.
    Invented,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When, ns of the history's clock.
    pub at: u64,
    /// What happened, in one line.
    pub what: String,
}

/// What a history has shown.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Reads in the history.
    pub reads: u64,
    /// Reads that found a value, and were judged.
    pub judged: u64,
    /// Reads whose value had been voided by a write that had returned Ok, which is allowed within
    /// the bounds.
    pub stale: u64,
    /// Loads in the history.
    pub loads: u64,
    /// Writes in the history.
    pub writes: u64,
    /// How many promises were broken.
    pub violations: u64,
    /// The earliest of them.
    pub first: Option<Violation>,
    /// For how long the values read from L1 and L2 had been void, 0 if they were not. Without the
    /// reads during a loss.
    pub staleness: Histogram,
}

impl Checker {
    /// A checker for a cache with default settings.
    pub fn new() -> Self {
        let checker = Self { staleness_bound: 0, join_bound: 0 };
        checker.staleness_bound(STALENESS_BOUND_DEFAULT).join_bound(JOIN_BOUND_DEFAULT)
    }

    /// Sets how old a verified value may be. Default: 1 s, like that of a cache.
    pub fn staleness_bound(self, bound: Duration) -> Self {
        Self { staleness_bound: nanos(bound), ..self }
    }

    /// Sets for how long a read of L2 can be joined: the cache's budget for L2. Default: 100 ms.
    pub fn join_bound(self, bound: Duration) -> Self {
        Self { join_bound: nanos(bound), ..self }
    }

    /// Judges a history. It is read twice: what is not a read is held in memory, the reads are not.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub fn check(&self, history: &History) -> io::Result<Report> {
        let mut collected = Collected::default();
        history.for_each(|event| collected.add(event))?;
        let (loads, writes) = (collected.loads(), collected.writes());
        let index = Index::new(collected);
        let mut report = Report { loads, writes, ..Report::default() };
        self.judge_loads(&index, &mut report);
        history.for_each(|event| {
            if let Event::Read(read) = event {
                self.judge_read(&index, &read, &mut report);
            }
        })?;
        Ok(report)
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    /// Whether no promise was broken.
    pub const fn is_clean(&self) -> bool {
        self.violations == 0
    }

    /// Fails with what was broken first.
    ///
    /// # Panics
    /// If a promise was broken.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }

    fn broken(&mut self, violation: Violation) {
        self.violations += 1;
        if self.first.as_ref().is_none_or(|first| violation.at < first.at) {
            self.first = Some(violation);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Violation { rule, what, .. }) = &self.first {
            write!(f, "{rule:?} is broken ({} in all): {what}. ", self.violations)?;
        }
        let [half, most, max] = [0.5, 0.99, 1.0].map(|part| self.staleness.quantile(part));
        write!(
            f,
            "{} reads ({} judged, {} stale), {} loads, {} writes; staleness p50 {half:?}, p99 \
             {most:?}, max {max:?}",
            self.reads, self.judged, self.stale, self.loads, self.writes
        )
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
