//! What a limiter says about itself: metrics, and one log line per rung entered or left.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::fallback::gate::RungChange;
use crate::{Decision, PolicyName, Source, Unavailable};

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
