//! `hitbox`: a cached function over two composed backends.

// The macro makes public items and cannot document them.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::offload::OffloadManager;
use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
use hitbox::{CacheKey, Extractor};
use hitbox_backend::composition::policy::RefillPolicy;
use hitbox_backend::format::BincodeFormat;
use hitbox_backend::{Backend, CacheBackend, CompositionBackend};
use hitbox_fn::{Arg, Args, Cache, FnExtractor, Skipped, cached};
use hitbox_moka::MokaBackend;
use hitbox_redis::{ConnectionMode, RedisBackend};

use crate::record::User;

const HOUR: Duration = Duration::from_hours(1);
const L2_ENTRIES: u64 = 1_000_000;

/// A cache of users in two tiers.
pub type Tiers<L2> = Cache<
    CompositionBackend<MokaBackend<BincodeFormat>, L2, OffloadManager>,
    BroadcastConcurrencyManager<User>,
>;

/// Where the cached function finds what is in no tier.
#[derive(Clone)]
pub struct Origin(Arc<dyn Fn(String) -> BoxFuture<'static, User> + Send + Sync>);

impl Origin {
    /// An origin that `load` asks.
    pub fn new<F>(load: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = User> + Send + 'static,
    {
        Self(Arc::new(move |key| Box::pin(load(key))))
    }
}

/// The cached function: `user(key, origin).cache(&cache).await`.
#[cached(prefix = "users", skip(origin))]
pub async fn user(key: String, origin: Origin) -> User {
    (origin.0)(key).await
}

/// Removes what is kept of a user. The crate has no such operation on functions, so the key is made
/// as its macro makes it.
///
/// # Panics
/// If a tier does not answer.
pub async fn invalidate<L2: CacheBackend + Clone + 'static>(cache: &Tiers<L2>, key: String) {
    let nobody = Origin::new(|_| async { User::new(0) });
    let args = Args((Arg::new("key", key), Skipped::new(nobody)));
    let (_, key) = FnExtractor::new("users").get(args).await.into_cache_key();
    cache.backend().remove(&key).await.expect("both tiers are there");
}

/// A cache in two tiers, both in memory.
///
/// # Panics
/// If called outside a Tokio runtime.
pub fn in_memory(l1_entries: u64) -> Tiers<MokaBackend<BincodeFormat>> {
    tiers(l1_entries, moka(L2_ENTRIES))
}

/// A cache whose second tier is Redis.
///
/// # Panics
/// If it does not connect.
pub async fn on_redis(l1_entries: u64, url: &str) -> Tiers<RedisBackend<BincodeFormat>> {
    let l2 = RedisBackend::builder().connection(ConnectionMode::single(url)).build();
    let l2 = l2.expect("a plain address");
    // The composition clones the backend for each call, and a clone of one that has not connected
    // yet connects by itself: every read would open a connection of its own.
    let nothing = l2.read(&CacheKey::from_str("no", "one")).await.expect("the server runs");
    assert!(nothing.is_none(), "the server is new");
    tiers(l1_entries, l2)
}

fn tiers<L2: CacheBackend + Clone + 'static>(l1_entries: u64, l2: L2) -> Tiers<L2> {
    // The default never promotes; then it would answer another question than ours does.
    let both = CompositionBackend::new(moka(l1_entries), l2, OffloadManager::with_defaults())
        .refill(RefillPolicy::Always);
    let one = ConcurrencyLimit::new(1).expect("one is within the bounds");
    Cache::builder()
        .backend(both)
        .policy(PolicyConfig::builder().ttl(HOUR).concurrency(one).build())
        .concurrency_manager(BroadcastConcurrencyManager::new())
        .build()
}

fn moka(entries: u64) -> MokaBackend<BincodeFormat> {
    MokaBackend::builder().max_entries(entries).value_format(BincodeFormat).build()
}
