//! Each read against all writes.

use std::collections::HashMap;

use super::histogram::Histogram;
use super::writes::{Loss, Process, Writes};
use super::{Promise, Verdict};
use crate::origin::Origin;
use crate::record::{FreshnessCode, Record, TierCode};
use crate::settings::{L2_BUDGET_MS, STALENESS_BOUND_MS};

/// How much older than the read a value out of L2 may be, µs: the read may join a look into L2
/// that is under way, for the budget at most. Twice that, because a timer may be late.
const L2_US_MAX: u64 = 2 * L2_BUDGET_MS * 1000;
const BOUND_US: u64 = STALENESS_BOUND_MS * 1000;

/// A run of hits is spread over its time in so many steps, for the histogram alone.
const STEPS: u64 = 8;

/// How many reads returned what.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadCounts {
    /// All that returned a value.
    pub all: u64,
    /// By tier: L1, L2, load.
    pub tiers: [u64; 3],
    /// Marked as verified.
    pub verified: u64,
    /// Marked as unverified.
    pub unverified: u64,
    /// The longest staleness of a value out of L2, µs.
    pub l2_us_max: u64,
    /// The longest staleness of a loaded value that was marked as verified, µs.
    pub load_us_max: u64,
    /// Reads that showed an older state of Redis which nobody had found out yet.
    pub in_loss: u64,
    /// The longest staleness of these, µs.
    pub in_loss_us_max: u64,
}

/// The check of one process.
pub(super) struct Reads<'a> {
    pub(super) process: Process,
    pub(super) writes: &'a Writes,
    pub(super) pauses: &'a [(u64, u64)],
    pub(super) losses: &'a [Loss],
    pub(super) origin: &'a Origin,
    /// The last version of each key that was asked for.
    pub(super) newest: HashMap<u32, u64>,
    pub(super) verdict: &'a mut Verdict,
}

/// Equal hits.
#[derive(Clone, Copy)]
struct Hits {
    key: u32,
    version: u64,
    tier: TierCode,
    freshness: FreshnessCode,
    first: u64,
    last: u64,
    count: u64,
}

impl Reads<'_> {
    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Hits { key, version, tier, freshness, first, last, count } => {
                let count = count.into();
                self.judge(Hits { key, version, tier, freshness, first, last, count });
            }
            Record::Nonsense { key, at } => {
                let process = self.process;
                self.verdict.broken(Promise::Nonsense, 1, || {
                    format!("{process:?} read something that is no value of key {key} at {at}")
                });
            }
            _ => {}
        }
    }

    fn judge(&mut self, hits: Hits) {
        let Hits { key, version, tier, freshness, first, last, count } = hits;
        self.count(hits);
        // Nobody writes any more, so the last version stands.
        let origin = self.origin;
        let newest = self.newest.entry(key);
        if version > *newest.or_insert_with(|| origin.read(key).unwrap_or(u64::MAX)) {
            self.violation(Promise::Nonsense, hits, 0);
        }
        let (outdated, own) = self.outdated(hits);
        if own < last {
            self.violation(Promise::C1Own, hits, last - own);
        }
        let stale = last.saturating_sub(outdated);
        let verified = freshness == FreshnessCode::Verified;
        let reads = &mut self.verdict.reads;
        match (tier, verified) {
            (TierCode::L1, true) => {
                spread(&mut self.verdict.verified, first, last, count, outdated);
            }
            (TierCode::L2, _) => {
                reads.l2_us_max = reads.l2_us_max.max(stale);
                if stale > L2_US_MAX + self.paused_before(last) {
                    self.violation(Promise::C1Shared, hits, stale);
                }
            }
            (TierCode::Load, true) => reads.load_us_max = reads.load_us_max.max(stale),
            (TierCode::L1 | TierCode::Load, false) => {}
        }
        if !verified {
            spread(&mut self.verdict.unverified, first, last, count, outdated);
        } else if stale > BOUND_US {
            self.violation(Promise::C2, hits, stale);
        }
    }

    /// Since when this version was out of date, for the fleet and for this process; the largest time
    /// if it was not.
    fn outdated(&mut self, hits: Hits) -> (u64, u64) {
        let Hits { key, version, last, count, .. } = hits;
        let or_never = |time: Option<u64>| time.unwrap_or(u64::MAX);
        let outdated = or_never(self.writes.outdated(key, version));
        let own = or_never(self.writes.outdated_by_own(self.process, key, version));
        let open = |loss: &&Loss| loss.from <= last && last <= loss.known;
        let losses: Vec<Loss> = self.losses.iter().filter(open).copied().collect();
        if losses.is_empty() || outdated.min(own) >= last {
            return (outdated, own);
        }
        let (kept, own_kept) = self.writes.outdated_but_lost(self.process, key, version, &losses);
        let (kept, own_kept) = (or_never(kept), or_never(own_kept));
        if kept.min(own_kept) > outdated.min(own) {
            let reads = &mut self.verdict.reads;
            reads.in_loss += count;
            reads.in_loss_us_max = reads.in_loss_us_max.max(last - outdated.min(own));
        }
        (kept, own_kept)
    }

    fn count(&mut self, hits: Hits) {
        let reads = &mut self.verdict.reads;
        reads.all += hits.count;
        reads.tiers[hits.tier as usize] += hits.count;
        match hits.freshness {
            FreshnessCode::Verified => reads.verified += hits.count,
            FreshnessCode::Unverified | FreshnessCode::Stale => reads.unverified += hits.count,
        }
    }

    /// How long this process did not run shortly before `at`, µs.
    fn paused_before(&self, at: u64) -> u64 {
        let near = |(from, to): &&(u64, u64)| *from <= at && to + L2_US_MAX >= at;
        self.pauses.iter().filter(near).map(|(from, to)| to - from).sum()
    }

    fn violation(&mut self, promise: Promise, hits: Hits, stale: u64) {
        let Hits { key, version, tier, freshness, first, last, count } = hits;
        let (node, life) = self.process;
        self.verdict.first.get_or_insert((key, last));
        self.verdict.broken(promise, count, || {
            format!(
                "node {node}, life {life}: {count} reads of key {key} from {first} to {last} µs \
                 gave version {version} ({tier:?}, {freshness:?}), out of date for {stale} µs"
            )
        });
    }
}

/// Counts the staleness of a run of hits, spread evenly from its first to its last.
fn spread(times: &mut Histogram, first: u64, last: u64, count: u64, outdated: u64) {
    if last <= outdated {
        return times.add(0, count);
    }
    let steps = STEPS.min(count);
    for step in 0..steps {
        let at = if steps == 1 { last } else { first + (last - first) * step / (steps - 1) };
        let share = count / steps + u64::from(step < count % steps);
        times.add(at.saturating_sub(outdated), share);
    }
}
