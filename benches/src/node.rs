//! One instance of ours, put together as an application does it.

use std::time::Duration;

use fleetwide_core_traits::{Bus, Executor, Namespace};
use fleetwide_mem_backend::MokaLocal;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_two_tier_cache::Cache;

use crate::record::User;

/// An instance: its cache, whose log is followed, so that L1 entries count.
pub struct Node<E> {
    /// The cache.
    pub cache: Cache<String, User, E>,
}

/// What differs between the instances of the benches.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// Budget of L1, bytes.
    pub l1_bytes: u64,
}

/// Enough that nothing is evicted unless a bench wants it.
const L1_BYTES_DEFAULT: u64 = 64 << 20;
/// Longer than a run: no bench is about expiry.
const HOUR: Duration = Duration::from_hours(1);

/// A read must not become a miss because this machine was busy elsewhere.
const PATIENCE: Duration = Duration::from_secs(1);

impl Default for NodeOptions {
    fn default() -> Self {
        Self { l1_bytes: L1_BYTES_DEFAULT }
    }
}

impl<E: Executor + Clone> Node<E> {
    /// Builds a cache and follows its log; returns when the baseline of the log was read.
    ///
    /// # Panics
    /// If the options do not fit together, which they do.
    pub async fn start<B: Bus>(
        executor: E,
        bus: B,
        namespace: &Namespace,
        options: NodeOptions,
    ) -> Self {
        let local = MokaLocal::builder().bytes_max(options.l1_bytes).build();
        let cache: Cache<String, User, E> =
            Cache::builder(executor.clone(), namespace, "users", local)
                .ttl(HOUR)
                .l1_ttl(HOUR)
                .l2_budget(PATIENCE)
                .build()
                .expect("the options fit together");
        let log =
            Log::builder(executor, bus, cache.tag().clone()).follower(cache.follower()).start();
        log.begun().await.expect("the log is followed for as long as the cache lives");
        let kept = cache.keep(Box::new(log));
        assert!(kept.is_ok(), "a new cache keeps nothing yet");
        Self { cache }
    }
}
