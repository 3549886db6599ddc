//! What answers for several levels while the backend does not: their shares, all or none.

use std::time::Duration;

use fleetwide_core_traits::{Key, MonoTime};
use parking_lot::Mutex;

use super::Level;
use super::rule::Rule;
use crate::concurrency::ConcurrencyQuota;
use crate::concurrency::keeper::share_of;
use crate::fallback::share::{Instances, Share};
use crate::{
    BucketQuota, FixedQuota, GcraQuota, LogQuota, Quota, Source, Unavailable, Verdict, WindowQuota,
};

pub(super) struct Rung {
    unavailable: Unavailable,
    /// Those that have a share, if there are shares.
    instances: Option<Instances>,
    /// One per level, if there are shares.
    shares: Vec<LevelShare>,
    /// Between the judging and the spending nobody else spends.
    deciding: Mutex<()>,
}

/// This instance's share of one level.
enum LevelShare {
    Gcra(Share<GcraQuota>),
    SlidingWindow(Share<WindowQuota>),
    TokenBucket(Share<BucketQuota>),
    FixedWindow(Share<FixedQuota>),
    SlidingLog(Share<LogQuota>),
    /// What is held at once is counted where it is held.
    AtOnce,
}

/// Hands a call through to the share of a rate; others have a value of their own.
macro_rules! by_share {
    ($share:expr, $own:ident => $call:expr, else $other:expr) => {
        match $share {
            LevelShare::Gcra($own) => $call,
            LevelShare::SlidingWindow($own) => $call,
            LevelShare::TokenBucket($own) => $call,
            LevelShare::FixedWindow($own) => $call,
            LevelShare::SlidingLog($own) => $call,
            LevelShare::AtOnce => $other,
        }
    };
}

impl Rung {
    pub(super) fn new(
        unavailable: Unavailable,
        instances: Option<Instances>,
        levels: &[Level],
        keys_max: usize,
    ) -> Self {
        let shares = instances.as_ref().map(|instances| {
            let share = |level: &Level| LevelShare::new(&level.rule, instances, keys_max);
            levels.iter().map(share).collect()
        });
        let shares = shares.unwrap_or_default();
        Self { unavailable, instances, shares, deciding: Mutex::new(()) }
    }

    /// How many permits of a key this process may hold by itself; `None`: any number.
    pub(super) fn permits(&self, quota: ConcurrencyQuota) -> Option<u32> {
        share_of(quota, self.unavailable, self.instances.as_ref())
    }

    pub(super) const fn source(&self) -> Source {
        self.unavailable.source()
    }

    /// Remembers what the fleet says is left of a level.
    pub(super) fn learn(&self, level: usize, key: &Key, remaining: u32, now: MonoTime) {
        if let Some(share) = self.shares.get(level) {
            by_share!(share, share => share.learn(key, remaining, now), else ());
        }
    }

    /// Decides over `cost` cells of each level, and spends them if `is_spending`: all or none.
    pub(super) fn decide(
        &self,
        levels: &[(Key, &Level)],
        cost: u32,
        is_spending: bool,
        now: MonoTime,
        until_probe: Duration,
    ) -> Vec<Verdict> {
        if self.shares.is_empty() {
            let is_allowed = self.source() == Source::Open;
            return levels
                .iter()
                .map(|(_, level)| blanket(level, cost, is_allowed, until_probe))
                .collect();
        }
        let _deciding = self.deciding.lock();
        let each = || self.shares.iter().zip(levels);
        let judged: Vec<Verdict> = each()
            .map(|(share, (key, level))| share.judge(key, level, cost, now, until_probe))
            .collect();
        if !is_spending || judged.iter().any(|verdict| !verdict.is_allowed) {
            return judged;
        }
        each()
            .zip(judged)
            .map(|((share, (key, _)), judged)| share.spend(key, cost, now).unwrap_or(judged))
            .collect()
    }
}

impl LevelShare {
    fn new(rule: &Rule, instances: &Instances, keys_max: usize) -> Self {
        let instances = instances.clone();
        match *rule {
            Rule::Rate(Quota::Gcra(quota)) => Self::Gcra(Share::new(quota, instances, keys_max)),
            Rule::Rate(Quota::SlidingWindow(quota)) => {
                Self::SlidingWindow(Share::new(quota, instances, keys_max))
            }
            Rule::Rate(Quota::TokenBucket(quota)) => {
                Self::TokenBucket(Share::new(quota, instances, keys_max))
            }
            Rule::Rate(Quota::FixedWindow(quota)) => {
                Self::FixedWindow(Share::new(quota, instances, keys_max))
            }
            Rule::Rate(Quota::SlidingLog(quota)) => {
                Self::SlidingLog(Share::new(quota, instances, keys_max))
            }
            Rule::AtOnce(_) => Self::AtOnce,
        }
    }

    fn judge(
        &self,
        key: &Key,
        level: &Level,
        cost: u32,
        now: MonoTime,
        until_probe: Duration,
    ) -> Verdict {
        by_share!(self, share => {
            let verdict = share.peek(key, cost, now);
            let is_possible = share.can_have(cost) && (cost == 0 || share.has_room(key, now));
            if is_possible { verdict } else { blanket(level, cost, false, until_probe) }
        }, else blanket(level, cost, true, until_probe))
    }

    fn spend(&self, key: &Key, cost: u32, now: MonoTime) -> Option<Verdict> {
        by_share!(self, share => share.decide(key, cost, now).ok().flatten(), else None)
    }
}

/// The answer of nobody: as for an unused key, or until the backend is asked again.
fn blanket(level: &Level, cost: u32, is_allowed: bool, until_probe: Duration) -> Verdict {
    if is_allowed {
        let remaining = level.cost_max().saturating_sub(cost);
        return Verdict { is_allowed, remaining, ..Verdict::default() };
    }
    let until_us = until_probe.as_micros() as u64;
    Verdict { is_allowed, remaining: 0, retry_after_us: until_us, reset_after_us: until_us }
}
