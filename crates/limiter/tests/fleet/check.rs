//! What the fleet was allowed, and whether that is too much.

use std::fs;
use std::path::Path;

use super::member::Kind;

/// A call that was allowed, or that the fleet's count refused, at no cost; µs of the clock that all share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) cost: u64,
    pub(crate) is_leased: bool,
    pub(crate) is_of_share: bool,
}

/// What the processes have written.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) admitted: Vec<Admitted>,
    pub(crate) refused: u64,
}

impl Calls {
    /// Reads the lines of one process. A last line that its death has cut off is left out.
    pub(crate) fn read(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse().expect("a number");
            match words[0] {
                "refused" => self.refused += number(1),
                source => self.admitted.push(Admitted {
                    begin: number(1),
                    end: number(2),
                    cost: number(3),
                    is_leased: source == "leased",
                    is_of_share: source == "local_share",
                }),
            }
        }
    }

    /// More was asked for than allowed, and the fleet did not just stand still.
    pub(crate) fn assert_limited(&self) {
        let (allowed, refused) = (self.admitted.len() as u64, self.refused);
        assert!(allowed >= 200, "{allowed} calls were allowed: it hardly limits, it stops");
        assert!(refused > allowed / 2, "{refused} refused, {allowed} allowed: there is no crowd");
    }
}

/// What may be admitted in an interval.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Cells at once.
    pub(crate) burst: u64,
    /// What leases may add.
    pub(crate) more: u64,
    /// µs in which no more than that, of a window.
    pub(crate) window_us: Option<u64>,
    /// µs that earn a cell, of GCRA.
    pub(crate) interval_us: Option<u64>,
    /// Instances that there were, and those that each assumes.
    pub(crate) instances: (u64, u64),
}

impl Bound {
    /// The stated one, with so many instances.
    pub(crate) fn of(kind: Kind, instances: usize) -> Self {
        let in_hand = kind.leasing().map_or(0, |_| instances as u64 * u64::from(Kind::CELLS_MAX));
        let is_share = kind == Kind::Share;
        let assumed = if is_share { u64::from(Kind::ASSUMED) } else { instances as u64 };
        let instances = (instances as u64, assumed);
        match kind {
            Kind::Window | Kind::LeasedWindow | Kind::Failover => {
                let quota = kind.window();
                let max = u64::from(quota.max());
                let more = in_hand.min(max);
                let window_us = Some(quota.window_us());
                Self { burst: max, more, window_us, interval_us: None, instances }
            }
            Kind::Gcra | Kind::LeasedGcra | Kind::Share => {
                let quota = kind.gcra();
                let lifetime_us = Kind::LIFETIME.as_micros() as u64;
                let more = in_hand.min(lifetime_us / quota.interval_us());
                let interval_us = Some(quota.interval_us());
                Self { burst: quota.burst().into(), more, window_us: None, interval_us, instances }
            }
        }
    }

    /// Judges all intervals.
    #[track_caller]
    pub(crate) fn assert_holds(&self, calls: &[Admitted], seed: u64) {
        let count = calls.len();
        let over = self.most_over(calls.to_vec());
        assert_eq!(over, None, "cells over {self:?}, of {count} calls; FLEETWIDE_SEED={seed}");
    }

    /// By how many cells it is broken, at most, if it is.
    pub(crate) fn most_over(&self, mut calls: Vec<Admitted>) -> Option<u64> {
        calls.sort_unstable_by_key(|call| call.end);
        let begins = calls.iter().map(|call| call.begin);
        begins.map(|begin| self.over_from(begin, &calls)).max().filter(|&over| over > 0)
    }

    /// The same of the intervals that begin then; the calls are in the order of their ends.
    fn over_from(&self, begin: u64, calls: &[Admitted]) -> u64 {
        let (mut sum, mut over) = (0, 0);
        let from = calls.partition_point(|call| call.end < begin);
        for call in calls[from..].iter().filter(|call| call.begin >= begin) {
            let length = call.end - begin;
            if self.window_us.is_some_and(|window| length >= window) {
                break;
            }
            sum += call.cost;
            let earned = self.interval_us.map_or(0, |interval| length / interval);
            let (actual, assumed) = self.instances;
            let most = (self.burst + earned) * actual / assumed + self.more;
            over = over.max(sum.saturating_sub(most));
        }
        over
    }
}
