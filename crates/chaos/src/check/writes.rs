//! All writes, arranged for one question: since when is a version out of date?

use std::collections::HashMap;

use crate::record::{Outcome, Record};

/// A process: node and life.
pub(super) type Process = (u32, u32);

/// The writes of a run.
#[derive(Default)]
pub(super) struct Writes {
    /// Those that returned Ok.
    done: HashMap<u32, Since>,
    /// Those of one process, whatever came of them: it has voided what it held.
    own: HashMap<(Process, u32), Since>,
    /// All of them, with when they may have been carried out.
    spans: HashMap<u32, Vec<Span>>,
    /// The same, for the few questions that need each by itself.
    settled: HashMap<u32, Vec<Settled>>,
    /// Those that have begun and not returned.
    open: HashMap<(Process, u32, u64), u64>,
    counts: [u64; 3],
}

/// When a write may have been carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A write that has ended, or that its caller has left.
#[derive(Clone, Copy, Debug)]
struct Settled {
    process: Process,
    version: u64,
    done: bool,
    span: Span,
}

/// A time in which Redis showed an older state than it had confirmed, and nobody had found out yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    /// When the older state was taken.
    pub(super) from: u64,
    /// When Redis answered again.
    pub(super) back: u64,
    /// When everybody knows.
    pub(super) known: u64,
}

/// How long after its call a write may still be carried out that did not return Ok, µs: longer
/// than any fault lasts, because what is queued waits for its end.
const UNSETTLED_US: u64 = 60_000_000;

/// Versions in ascending order, each with the earliest time from which it or a later one counts.
#[derive(Default)]
struct Since(Vec<(u64, u64)>);

impl Writes {
    pub(super) fn take(&mut self, process: Process, record: Record) {
        match record {
            Record::Writing { key, version, at } => {
                self.open.insert((process, key, version), at);
            }
            Record::Written { key, version, outcome, called, returned } => {
                self.open.remove(&(process, key, version));
                self.settle(process, key, version, outcome, Span { from: called, to: returned });
            }
            _ => {}
        }
    }

    fn settle(&mut self, process: Process, key: u32, version: u64, outcome: Outcome, span: Span) {
        let at = (version, span.to);
        self.own.entry((process, key)).or_default().0.push(at);
        let to = match outcome {
            Outcome::Done => {
                self.done.entry(key).or_default().0.push(at);
                span.to
            }
            Outcome::Queued | Outcome::Dropped => span.from + UNSETTLED_US,
        };
        let done = outcome == Outcome::Done;
        self.settled.entry(key).or_default().push(Settled { process, version, done, span });
        self.spans.entry(key).or_default().push(Span { to, ..span });
        self.counts[match outcome {
            Outcome::Done => 0,
            Outcome::Queued => 1,
            Outcome::Dropped => 2,
        }] += 1;
    }

    /// All writes are known now. Returns how many were done, queued, and left.
    pub(super) fn seal(&mut self) -> [u64; 3] {
        for ((_, key, _), from) in std::mem::take(&mut self.open) {
            self.spans.entry(key).or_default().push(Span { from, to: from + UNSETTLED_US });
            self.counts[2] += 1;
        }
        self.done.values_mut().chain(self.own.values_mut()).for_each(Since::seal);
        self.counts
    }

    /// Since when all of the fleet has to know that `version` of `key` is out of date.
    pub(super) fn outdated(&self, key: u32, version: u64) -> Option<u64> {
        self.done.get(&key)?.after(version)
    }

    /// Since when `process` has to know it by its own writes.
    pub(super) fn outdated_by_own(&self, process: Process, key: u32, version: u64) -> Option<u64> {
        self.own.get(&(process, key))?.after(version)
    }

    /// The same two answers, for a time within `losses`: without the writes that Redis may have
    /// lost. First for all of the fleet, then for `process` itself.
    pub(super) fn outdated_but_lost(
        &self,
        process: Process,
        key: u32,
        version: u64,
        losses: &[Loss],
    ) -> (Option<u64>, Option<u64>) {
        let lost =
            |span: &Span| losses.iter().any(|loss| span.from <= loss.back && span.to >= loss.from);
        let settled = self.settled.get(&key).map(Vec::as_slice).unwrap_or_default();
        let kept = || settled.iter().filter(|write| write.version > version && !lost(&write.span));
        let first = |times: &mut dyn Iterator<Item = &Settled>| times.map(|one| one.span.to).min();
        let all = first(&mut kept().filter(|write| write.done));
        (all, first(&mut kept().filter(|write| write.process == process)))
    }

    /// Whether a write of `key` may have been carried out between these times.
    pub(super) fn touches(&self, key: u32, from: u64, to: u64) -> bool {
        let spans = self.spans.get(&key).map(Vec::as_slice).unwrap_or_default();
        spans.iter().any(|span| span.from <= to && from <= span.to)
    }
}

impl Since {
    fn seal(&mut self) {
        self.0.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, at) in self.0.iter_mut().rev() {
            earliest = earliest.min(*at);
            *at = earliest;
        }
    }

    /// The earliest time of all versions above `version`.
    fn after(&self, version: u64) -> Option<u64> {
        let above = self.0.partition_point(|(other, _)| *other <= version);
        self.0.get(above).map(|(_, at)| *at)
    }
}
