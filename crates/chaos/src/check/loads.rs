//! Loaders that ran at the same time, and why.

use std::collections::HashMap;

use super::writes::{Process, Writes};
use super::{Promise, Verdict};
use crate::faults::Window;
use crate::record::{ALL_KEYS, Record};
use crate::settings::{L2_BUDGET_MS, LEASE_MS};

/// A lease is asked for before its loader begins, so what voids it may come that much earlier, µs.
const ASKED_US: u64 = 2 * L2_BUDGET_MS * 1000;
/// A lease is renewed each third of its length, so an owner loses it after two at the earliest.
const PAUSE_US_MIN: u64 = LEASE_MS * 1000 * 2 / 3;

/// One loader.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Node and life.
    pub process: (u32, u32),
    /// When it began.
    pub from: u64,
    /// When it ended, or its process did.
    pub to: u64,
    /// Whether its process had no answer of Redis when it began.
    pub trouble: bool,
}

/// How many loaders ran, and how many of them beside another one of the same key, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadCounts {
    /// All.
    pub all: u64,
    /// Beside another one, after an invalidation.
    pub invalidated: u64,
    /// Beside one whose process was paused past its lease.
    pub paused: u64,
    /// Beside another one, while Redis did not answer one of the two, or had lost the lease.
    pub unanswered: u64,
}

/// The loads of a run.
#[derive(Default)]
pub(super) struct Loads {
    by_key: HashMap<u32, Vec<Load>>,
    running: HashMap<(Process, u32), (u32, Load)>,
}

impl Loads {
    pub(super) fn take(&mut self, process: Process, record: Record) {
        match record {
            Record::Loading { key, load, at, trouble } => {
                let begun = Load { process, from: at, to: at, trouble };
                self.running.insert((process, load), (key, begun));
            }
            Record::Loaded { load, at, .. } => {
                if let Some((key, begun)) = self.running.remove(&(process, load)) {
                    self.by_key.entry(key).or_default().push(Load { to: at, ..begun });
                }
            }
            _ => {}
        }
    }

    /// A process has ended, and with it all its loaders.
    pub(super) fn end(&mut self, process: Process, died: u64) {
        let of_it: Vec<_> =
            self.running.keys().filter(|(running, _)| *running == process).copied().collect();
        for id in of_it {
            if let Some((key, begun)) = self.running.remove(&id) {
                self.by_key.entry(key).or_default().push(Load { to: died, ..begun });
            }
        }
    }

    /// Finds all loaders that ran side by side, and the reason of each.
    pub(super) fn check(&mut self, reasons: &Reasons<'_>, verdict: &mut Verdict) {
        for (&key, loads) in &mut self.by_key {
            verdict.loads.all += loads.len() as u64;
            loads.sort_unstable_by_key(|load| load.from);
            let mut running: Vec<Load> = Vec::new();
            for &load in &*loads {
                running.retain(|other| other.to > load.from);
                for &other in &running {
                    reasons.judge(key, other, load, verdict);
                }
                running.push(load);
            }
        }
    }
}

/// All for which two loaders may run side by side.
pub(super) struct Reasons<'a> {
    pub(super) writes: &'a Writes,
    pub(super) pauses: &'a HashMap<Process, Vec<(u64, u64)>>,
    pub(super) windows: &'a [Window],
}

impl Reasons<'_> {
    /// Finds the reason for which `second` began while `first` ran.
    fn judge(&self, key: u32, first: Load, second: Load, verdict: &mut Verdict) {
        let (from, to) = (first.from.saturating_sub(ASKED_US), second.from);
        if self.writes.touches(key, from, to) || self.writes.touches(ALL_KEYS, from, to) {
            verdict.loads.invalidated += 1;
        } else if self.was_paused(first.process, from, to) {
            verdict.loads.paused += 1;
        } else if first.trouble || second.trouble || self.was_hit([first, second], from, to) {
            verdict.loads.unanswered += 1;
        } else {
            verdict.first.get_or_insert((key, second.from));
            verdict.broken(Promise::C3, 1, || {
                format!("key {key} was loaded by {first:?} and at the same time by {second:?}")
            });
        }
    }

    /// Whether a process stood still for so long that it may have lost a lease.
    fn was_paused(&self, process: Process, from: u64, to: u64) -> bool {
        let overlap = |&(begun, ended): &(u64, u64)| ended.min(to).saturating_sub(begun.max(from));
        let all = self.pauses.get(&process).map(Vec::as_slice).unwrap_or_default();
        all.iter().map(overlap).sum::<u64>() >= PAUSE_US_MIN
    }

    /// Whether a fault hit Redis, or the node of one of the loads.
    fn was_hit(&self, loads: [Load; 2], from: u64, to: u64) -> bool {
        let concerns = |node: Option<u32>| {
            node.is_none_or(|node| loads.iter().any(|load| load.process.0 == node))
        };
        let mut hits = self.windows.iter().filter(|window| concerns(window.node));
        hits.any(|window| window.is_open_between(from, to))
    }
}
