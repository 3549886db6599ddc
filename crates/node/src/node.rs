//! A node from its start to its end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fleetwide::Fleetwide;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::app::router;
use crate::config::Config;
use crate::recorder::keep_up;
use crate::server::serve;
use crate::state::State;

/// How long a start waits for Redis to answer or refuse, so that the first request meets a node
/// that knows how it stands. A server that hangs costs this much and no more.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// A running node. Dropping it stops it at once; [`stop`](Self::stop) lets requests finish.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    fleet: Fleetwide,
    stopping: CancellationToken,
    serving: AbortOnDropHandle<()>,
    _upkeep: AbortOnDropHandle<()>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The fleet cannot be made from these settings.
    #[error(transparent)]
    Fleet(#[from] fleetwide::StartError),
    /// A setting does not fit where it is used.
    #[error("{0}")]
    Setting(String),
    /// Other nodes lay out a cache in another way.
    #[error(transparent)]
    Layout(fleetwide::cache::LayoutError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

impl Node {
    /// Starts a node; when this returns, it accepts requests.
    ///
    /// # Errors
    /// [`StartError`]. A Redis that is away is never the reason.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let address = config.listen;
        let unusable = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let fleet = Fleetwide::from_settings(config.fleet)?;
        let stopping = CancellationToken::new();
        let state = State::new(fleet.clone(), config.trusted_proxies, stopping.clone())?;
        fleet.settled(SETTLE_MAX).await;
        if let Some(error) = fleet.layout_conflict() {
            return Err(StartError::Layout(error));
        }
        let upkeep = keep_up(state.recorder.clone());
        let serving =
            tokio::spawn(serve(listener, router(state), config.connections_max, stopping.clone()));
        let serving = AbortOnDropHandle::new(serving);
        tracing::info!(%address, mode = fleet.mode().name(), "serving");
        Ok(Self { address, fleet, stopping, serving, _upkeep: upkeep })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops taking requests, lets those that run finish for 10 s, and ends all connections.
    ///
    /// # Cancel safety
    /// A dropped call ends the node at once.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.stopping.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server ended in the middle");
        }
        self.fleet.shutdown().await;
        tracing::info!("stopped");
    }
}
