//! What a limiter says about itself: metrics, and one log line per rung entered or left.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::fallback::gate::RungChange;
use crate::{Decision, Divergence, PolicyName, Source, Unavailable};

/// The handles of one limiter's metrics, all with the label `policy`.
///
/// | Metric | Meaning |
/// | --- | --- |
/// | `fleetwide_limiter_decisions_total` | answers; `outcome` is `allow` or `deny`, `source` who decided |
/// | `fleetwide_limiter_backend_seconds` | how long the backend took, or was waited for |
/// | `fleetwide_limiter_failures_total` | questions to the backend without an answer |
/// | `fleetwide_limiter_away` | 1 while the rung answers, else 0 |
/// | `fleetwide_limiter_rung_entered_total` | how often the rung was entered; `rung` says which |
/// | `fleetwide_limiter_share_full_total` | refusals because the table of local shares is full |
/// | `fleetwide_limiter_flights_total` | trips that calls on one key shared |
/// | `fleetwide_limiter_combined_total` | calls that came with one of them |
/// | `fleetwide_limiter_unclaimed_total` | costs that were spent for a caller who had left |
///
/// They are made when the limiter is built, so the recorder is installed before.
#[derive(Clone)]
pub(crate) struct Telemetry {
    policy: PolicyName,
    rung: &'static str,
    shared: Outcomes,
    remembered: Outcomes,
    leased: Outcomes,
    /// By the rung, whichever it is.
    fallback: Outcomes,
    backend_seconds: Histogram,
    failures: Counter,
    away: Gauge,
    entered: Counter,
    share_full: Counter,
    flights: Counter,
    combined: Counter,
    unclaimed: Counter,
}

#[derive(Clone)]
struct Outcomes {
    allow: Counter,
    deny: Counter,
}

impl Telemetry {
    pub(crate) fn new(policy: &PolicyName, unavailable: Unavailable) -> Self {
        let label = || policy.as_str().to_owned();
        let rung = unavailable.name();
        Self {
            policy: policy.clone(),
            rung,
            shared: Outcomes::new(policy, Source::Shared),
            remembered: Outcomes::new(policy, Source::Remembered),
            leased: Outcomes::new(policy, Source::Leased),
            fallback: Outcomes::new(policy, unavailable.source()),
            backend_seconds: histogram!("fleetwide_limiter_backend_seconds", "policy" => label()),
            failures: counter!("fleetwide_limiter_failures_total", "policy" => label()),
            away: gauge!("fleetwide_limiter_away", "policy" => label()),
            entered: counter!("fleetwide_limiter_rung_entered_total", "policy" => label(), "rung" => rung),
            share_full: counter!("fleetwide_limiter_share_full_total", "policy" => label()),
            flights: counter!("fleetwide_limiter_flights_total", "policy" => label()),
            combined: counter!("fleetwide_limiter_combined_total", "policy" => label()),
            unclaimed: counter!("fleetwide_limiter_unclaimed_total", "policy" => label()),
        }
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let outcomes = match decision.source() {
            Source::Shared => &self.shared,
            Source::Remembered => &self.remembered,
            Source::Leased => &self.leased,
            _ => &self.fallback,
        };
        if decision.is_allowed() { &outcomes.allow } else { &outcomes.deny }.increment(1);
    }

    pub(crate) fn asked(&self, seconds: f64) {
        self.backend_seconds.record(seconds);
    }

    pub(crate) fn failed(&self) {
        self.failures.increment(1);
    }

    pub(crate) fn share_full(&self) {
        self.share_full.increment(1);
    }

    pub(crate) fn flew(&self, passengers: usize) {
        self.flights.increment(1);
        self.combined.increment(passengers as u64);
    }

    pub(crate) fn unclaimed(&self) {
        self.unclaimed.increment(1);
    }

    pub(crate) fn moved(&self, change: &RungChange) {
        let (policy, rung) = (self.policy.as_str(), self.rung);
        match change {
            RungChange::Entered { reason } => {
                self.entered.increment(1);
                self.away.set(1.0);
                tracing::warn!(policy, rung, %reason, "limiter: backend away, the rung answers");
            }
            RungChange::Left { after } => {
                self.away.set(0.0);
                tracing::info!(policy, rung, ?after, "limiter: the fleet's count decides again");
            }
        }
    }
}

/// What is said of leases, with the label `policy`.
///
/// | Metric | Meaning |
/// | --- | --- |
/// | `fleetwide_limiter_leases_total` | leases that were bought |
/// | `fleetwide_limiter_leased_cells_total` | cells of them |
/// | `fleetwide_limiter_returned_cells_total` | those that were given back unused |
#[derive(Clone)]
pub(crate) struct LeaseTelemetry {
    leases: Counter,
    cells: Counter,
    returned: Counter,
}

impl LeaseTelemetry {
    pub(crate) fn new(policy: &PolicyName) -> Self {
        let label = || policy.as_str().to_owned();
        Self {
            leases: counter!("fleetwide_limiter_leases_total", "policy" => label()),
            cells: counter!("fleetwide_limiter_leased_cells_total", "policy" => label()),
            returned: counter!("fleetwide_limiter_returned_cells_total", "policy" => label()),
        }
    }

    pub(crate) fn bought(&self, cells: u32) {
        self.leases.increment(u64::from(cells > 0));
        self.cells.increment(cells.into());
    }

    pub(crate) fn given_back(&self, cells: u32) {
        self.returned.increment(cells.into());
    }
}

/// What is said of a candidate, with the label `policy`, and one log line for the first call that it
/// decides otherwise.
///
/// | Metric | Meaning |
/// | --- | --- |
/// | `fleetwide_limiter_shadow_judged_total` | calls that both decided; `real` and `candidate` are `allow` or `deny` |
/// | `fleetwide_limiter_shadow_unjudged_total` | calls that the candidate has not seen |
/// | `fleetwide_limiter_shadow_failures_total` | those of them for which its key held what is not its own |
pub(crate) struct ShadowTelemetry {
    policy: PolicyName,
    /// By whether the real quota allows, and then by whether the candidate's does.
    judged: [[Counter; 2]; 2],
    unjudged: Counter,
    failures: Counter,
}

impl ShadowTelemetry {
    pub(crate) fn new(policy: &PolicyName) -> Self {
        let label = || policy.as_str().to_owned();
        let of = |real: &'static str, candidate: &'static str| {
            counter!(
                "fleetwide_limiter_shadow_judged_total",
                "policy" => label(),
                "real" => real,
                "candidate" => candidate,
            )
        };
        let pair = |real| [of(real, "deny"), of(real, "allow")];
        Self {
            policy: policy.clone(),
            judged: [pair("deny"), pair("allow")],
            unjudged: counter!("fleetwide_limiter_shadow_unjudged_total", "policy" => label()),
            failures: counter!("fleetwide_limiter_shadow_failures_total", "policy" => label()),
        }
    }

    pub(crate) fn judged(&self, real: bool, candidate: bool) {
        self.judged[usize::from(real)][usize::from(candidate)].increment(1);
    }

    pub(crate) fn unjudged(&self) {
        self.unjudged.increment(1);
    }

    pub(crate) fn failed(&self) {
        self.failures.increment(1);
    }

    pub(crate) fn diverged(&self, first: &Divergence) {
        let Divergence { key, cost, real, candidate, .. } = first;
        let policy = self.policy.as_str();
        tracing::info!(
            policy,
            key,
            cost,
            ?real,
            ?candidate,
            "limiter: the candidate decides otherwise for the first time"
        );
    }
}

/// What is said of the decisions over sampled keys, with the label `policy`.
///
/// | Metric | Meaning |
/// | --- | --- |
/// | `fleetwide_limiter_accuracy_allowed_total` | calls that were allowed, and judged |
/// | `fleetwide_limiter_accuracy_allowed_cells_total` | their cells |
/// | `fleetwide_limiter_accuracy_over_cells_total` | those of them that were above the quota |
/// | `fleetwide_limiter_accuracy_refused_total` | calls that were refused, and judged |
/// | `fleetwide_limiter_accuracy_under_refusals_total` | those of them that the quota had room for |
/// | `fleetwide_limiter_accuracy_unjudged_total` | decisions that cannot be judged |
/// | `fleetwide_limiter_accuracy_dropped_total` | decisions that were lost before they were judged |
pub(crate) struct AccuracyTelemetry {
    counters: [Counter; 7],
}

impl AccuracyTelemetry {
    pub(crate) fn new(policy: &PolicyName) -> Self {
        let label = || policy.as_str().to_owned();
        Self {
            counters: [
                counter!("fleetwide_limiter_accuracy_allowed_total", "policy" => label()),
                counter!("fleetwide_limiter_accuracy_allowed_cells_total", "policy" => label()),
                counter!("fleetwide_limiter_accuracy_over_cells_total", "policy" => label()),
                counter!("fleetwide_limiter_accuracy_refused_total", "policy" => label()),
                counter!("fleetwide_limiter_accuracy_under_refusals_total", "policy" => label()),
                counter!("fleetwide_limiter_accuracy_unjudged_total", "policy" => label()),
                counter!("fleetwide_limiter_accuracy_dropped_total", "policy" => label()),
            ],
        }
    }

    /// Adds to the counter at `place` of the list above.
    pub(crate) fn add(&self, place: usize, number: u64) {
        self.counters[place].increment(number);
    }
}

impl Outcomes {
    fn new(policy: &PolicyName, source: Source) -> Self {
        let of = |outcome: &'static str| {
            counter!(
                "fleetwide_limiter_decisions_total",
                "policy" => policy.as_str().to_owned(),
                "outcome" => outcome,
                "source" => source.name(),
            )
        };
        Self { allow: of("allow"), deny: of("deny") }
    }
}
