//! What all requests of a node share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide::Fleetwide;
use fleetwide::Raw;
use fleetwide::cache::Cache;
use fleetwide::events::Events;
use fleetwide::http::client::TrustedProxies;
use fleetwide::http::rate_limit::RateLimitLayer;
use fleetwide::sessions::Sessions;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::node::StartError;
use crate::recorder::recorder;
use crate::routes::events::STREAMS_MAX;
use crate::routes::limited;
use crate::routes::load::{Loaded, Loads};
use crate::routes::source::Source;

/// What a read may spend on the shared tier. Longer than the library's default: a node that says 404
/// for a value that is only late would be right, and of no help on a busy machine.
const L2_BUDGET: Duration = Duration::from_millis(300);

/// Cheap to clone: each request has one.
#[derive(Clone)]
pub(crate) struct State(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) fleet: Fleetwide,
    /// Behind `/cache`: bytes as they came.
    pub(crate) cache: Cache<String, Bytes>,
    /// Behind `/load`, apart from what `PUT /cache` stores under the same keys.
    pub(crate) loaded: Cache<String, Loaded>,
    /// Behind `/sessions` and `/nodes`.
    pub(crate) sessions: Sessions<Bytes>,
    pub(crate) loads: Loads,
    pub(crate) source: Source,
    /// Before `/limited`.
    pub(crate) limited: RateLimitLayer,
    pub(crate) events: Events,
    /// Places for event streams.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) recorder: PrometheusHandle,
    /// Cancelled when the node stops: event streams end, and `/ready` says so.
    pub(crate) stopping: CancellationToken,
}

impl State {
    pub(crate) fn new(
        fleet: Fleetwide,
        proxies: TrustedProxies,
        stopping: CancellationToken,
    ) -> Result<Self, StartError> {
        // First, so that the counters of what follows are collected.
        let recorder = recorder();
        let wrong = |error: &dyn std::error::Error| StartError::Setting(error.to_string());
        let quota = fleet.settings().limiter.quota().map_err(|error| wrong(&error))?;
        let limiter = fleet.limiter(limited::POLICY, quota).build();
        let limiter = limiter.map_err(|error| wrong(&error))?;
        Ok(Self(Arc::new(Parts {
            cache: fleet
                .cache_with_codec("node", Raw)
                .options(|cache| cache.l2_budget(L2_BUDGET))
                .build()
                .map_err(|error| wrong(&error))?,
            loaded: fleet
                .cache("load")
                .options(|cache| cache.l2_budget(L2_BUDGET))
                .build()
                .map_err(|error| wrong(&error))?,
            sessions: fleet
                .sessions_with_codec("node", Raw)
                .options(|sessions| sessions.options(|cache| cache.l2_budget(L2_BUDGET)))
                .build()
                .map_err(|error| wrong(&error))?,
            loads: Loads::default(),
            source: Source::new(fleet.store(), fleet.namespace().clone()),
            limited: limited::layer(limiter, proxies).map_err(|error| wrong(&error))?,
            events: fleet.events(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            recorder,
            stopping,
            fleet,
        })))
    }
}

impl std::ops::Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
