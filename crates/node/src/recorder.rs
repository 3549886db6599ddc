//! Where every crate's metrics are collected.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;
use tokio_util::task::AbortOnDropHandle;

/// From a hit in this process to the longest a request may take.
const SECONDS: [f64; 14] =
    [0.000_01, 0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Samples wait in memory until they are sorted into buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The recorder of this process: installed once, however many nodes a test starts in it.
pub(crate) fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(install).clone()
}

fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let builder =
        match builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS) {
            Ok(builder) => builder,
            // Only an empty list is refused.
            Err(error) => unreachable!("the list of buckets is not empty: {error}"),
        };
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("this process has a recorder of its own already; /metrics stays empty");
    }
    handle
}

/// Keeps the memory of `recorder` bounded while nobody asks for `/metrics`.
pub(crate) fn keep_up(recorder: PrometheusHandle) -> AbortOnDropHandle<()> {
    let upkeep = async move {
        let mut ticks = interval(UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            recorder.run_upkeep();
        }
    };
    AbortOnDropHandle::new(tokio::spawn(upkeep))
}
