//! Whether the caches of an instance are laid out as those that share them say.

use fleetwide_core_traits::Health;
use fleetwide_two_tier_cache::{LayoutError, LayoutWatch};
use parking_lot::Mutex;

/// The caches that live.
#[derive(Debug, Default)]
pub(crate) struct Layouts(Mutex<Vec<LayoutWatch>>);

impl Layouts {
    pub(crate) fn add(&self, watch: LayoutWatch) {
        let mut watched = self.0.lock();
        watched.retain(|watch| !watch.is_over());
        watched.push(watch);
    }

    /// The first that is refused.
    pub(crate) fn refused(&self) -> Option<LayoutError> {
        self.0.lock().iter().find_map(LayoutWatch::refused)
    }

    /// Degraded if one is.
    pub(crate) fn health(&self) -> Health {
        let watched = self.0.lock();
        watched.iter().map(LayoutWatch::health).find(|health| !health.is_up()).unwrap_or(Health::Up)
    }
}
