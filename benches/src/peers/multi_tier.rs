//! `multi-tier-cache`: moka and Redis, values as bytes in both.

use std::sync::Arc;
use std::time::Duration;

use multi_tier_cache::serialization::BincodeSerializer;
use multi_tier_cache::{
    CacheManager, CacheSerializer, CacheStrategy, CacheTier, InvalidationConfig, L1Cache, L2Cache,
    L2CacheBackend, MokaCacheConfig,
};

/// Long enough that nothing expires in a run.
pub const STRATEGY: CacheStrategy = CacheStrategy::LongTerm;

const HOUR: Duration = Duration::from_hours(1);
const L2_ENTRIES: u64 = 1_000_000;

/// A cache in two tiers, both in memory.
///
/// # Panics
/// If the crate refuses its own options.
pub fn in_memory(l1_entries: u64) -> CacheManager {
    manager(l1_entries, moka(L2_ENTRIES))
}

/// A cache whose second tier is Redis.
///
/// # Panics
/// If it does not connect.
pub async fn on_redis(l1_entries: u64, url: &str) -> CacheManager {
    let l2 = L2Cache::with_url(url).await.expect("the server runs");
    manager(l1_entries, Arc::new(l2))
}

/// The same, with the messages by which instances tell each other what was invalidated. What is found
/// in Redis is taken into L1 one time in ten: this way to build it has no option for that.
///
/// # Panics
/// If it does not connect.
pub async fn told_on_redis(l1_entries: u64, url: &str) -> CacheManager {
    let l2 = Arc::new(L2Cache::with_url(url).await.expect("the server runs"));
    let config = InvalidationConfig::default();
    let manager = CacheManager::new_with_invalidation(moka(l1_entries), l2, url, config).await;
    let mut manager = manager.expect("the server runs");
    manager.set_serializer(CacheSerializer::Bincode(BincodeSerializer));
    manager
}

fn manager(l1_entries: u64, l2: Arc<dyn L2CacheBackend>) -> CacheManager {
    // The default promotes one of ten hits in L2; a cache that forgets the other nine would do
    // less than ours does for the same question.
    let tiers = vec![
        CacheTier::new(moka(l1_entries), 1, false, 1, 1.0),
        CacheTier::new(l2, 2, true, 1, 1.0),
    ];
    let mut manager = CacheManager::new_with_tiers(tiers, None).expect("tiers in their order");
    manager.set_serializer(CacheSerializer::Bincode(BincodeSerializer));
    manager
}

fn moka(entries: u64) -> Arc<L1Cache> {
    let config = MokaCacheConfig { max_capacity: entries, time_to_live: HOUR, time_to_idle: HOUR };
    Arc::new(L1Cache::new(config).expect("options within bounds"))
}
