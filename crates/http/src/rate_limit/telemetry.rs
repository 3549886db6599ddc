//! What a layer says about itself.

use fleetwide_limiter::PolicyName;
use metrics::{Counter, counter};

use super::refusal::Refusal;

/// The handles of one layer's metrics, all with the label `policy`.
///
/// | Metric | Meaning |
/// | --- | --- |
/// | `fleetwide_http_rate_limit_requests_total` | requests; `outcome` is `served`, `exempt`, or why not: `exceeded`, `reduced`, `oversize`, `key`, `cost` |
///
/// They are made when the layer is built, so the recorder is installed before.
pub(super) struct Telemetry {
    served: Counter,
    exempt: Counter,
    exceeded: Counter,
    reduced: Counter,
    oversize: Counter,
    key: Counter,
    cost: Counter,
}

impl Telemetry {
    pub(super) fn new(policy: &PolicyName) -> Self {
        let of = |outcome: &'static str| {
            let policy = policy.as_str().to_owned();
            counter!("fleetwide_http_rate_limit_requests_total", "policy" => policy, "outcome" => outcome)
        };
        Self {
            served: of("served"),
            exempt: of("exempt"),
            exceeded: of("exceeded"),
            reduced: of("reduced"),
            oversize: of("oversize"),
            key: of("key"),
            cost: of("cost"),
        }
    }

    pub(super) fn served(&self) {
        self.served.increment(1);
    }

    pub(super) fn exempt(&self) {
        self.exempt.increment(1);
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Exceeded(_) => &self.exceeded,
            Refusal::Reduced(_) => &self.reduced,
            Refusal::Oversize { .. } => &self.oversize,
            Refusal::Key(_) => &self.key,
            Refusal::Cost(_) => &self.cost,
        };
        counter.increment(1);
    }
}
