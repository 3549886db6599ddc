//! The rung's answers, while the backend gives none.

use std::time::Duration;

use fleetwide_core_traits::Key;

use super::share::Full;
use crate::algorithm::Algorithm;
use crate::limiter::{Counter, Inner};
use crate::{Decision, Source, Verdict};

impl<E> Inner<E> {
    /// The rung's answer to a check.
    pub(crate) fn stand_in<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        cost: u32,
        until_probe: Duration,
    ) -> Decision {
        let source = self.unavailable.source();
        match (&counter.share, source) {
            (Some(share), _) => match share.decide(key, cost, self.clock.now()) {
                Ok(Some(verdict)) => Decision::new(verdict, source),
                Ok(None) => refused(until_probe, source),
                Err(Full) => {
                    self.telemetry.share_full();
                    refused(until_probe, source)
                }
            },
            (None, Source::Open) => untouched(counter.quota, cost, source),
            (None, _) => refused(until_probe, source),
        }
    }

    /// The rung's answer to a peek.
    pub(crate) fn stand_in_peek<A: Algorithm>(
        &self,
        counter: &Counter<A>,
        key: &Key,
        cost: u32,
        until_probe: Duration,
    ) -> Decision {
        let source = self.unavailable.source();
        match (&counter.share, source) {
            (Some(share), _) => Decision::new(share.peek(key, cost, self.clock.now()), source),
            (None, Source::Open) => untouched(counter.quota, 0, source),
            (None, _) => refused(until_probe, source),
        }
    }
}

/// The answer of nobody: as for an unused key.
fn untouched<A: Algorithm>(quota: A, cost: u32, source: Source) -> Decision {
    let remaining = quota.cost_max() - cost;
    let verdict = Verdict { is_allowed: true, remaining, retry_after_us: 0, reset_after_us: 0 };
    Decision::new(verdict, source)
}

/// A refusal because the fleet's count cannot be asked: until it can.
const fn refused(until_probe: Duration, source: Source) -> Decision {
    let until_us = until_probe.as_micros() as u64;
    let verdict = Verdict {
        is_allowed: false,
        remaining: 0,
        retry_after_us: until_us,
        reset_after_us: until_us,
    };
    Decision::new(verdict, source)
}
