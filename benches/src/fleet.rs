//! Several instances of a side over one Redis, asked through one interface.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use multi_tier_cache::CacheManager;

use crate::node::{Node, NodeOptions};
use crate::origin::Origin;
use crate::peers::{cachet, hitbox, multi_tier};
use crate::record::User;
use crate::server::Server;
use fleetwide_core_traits::Namespace;

/// Room for all that a bench of crowds asks for.
const L1_ENTRIES: u64 = 4096;

type Load = dyn Fn(String, Arc<Origin>) -> BoxFuture<'static, u32> + Send + Sync;
type Invalidate = dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync;

/// One instance.
#[derive(Clone)]
pub struct Instance {
    load: Arc<Load>,
    invalidate: Arc<Invalidate>,
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Us.
    Ours,
    /// `cachet`.
    Cachet,
    /// `multi-tier-cache`.
    MultiTier,
    /// `hitbox`.
    Hitbox,
}

impl Side {
    /// All of them, us first.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Cachet, Self::MultiTier, Self::Hitbox];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "**ours**",
            Self::Cachet => "`cachet`",
            Self::MultiTier => "`multi-tier-cache`",
            Self::Hitbox => "`hitbox`",
        }
    }

    /// Starts an instance. Those of one side share what is in Redis.
    pub async fn start(self, server: &Server) -> Instance {
        match self {
            Self::Ours => ours(server).await,
            Self::Cachet => cachet(server).await,
            Self::MultiTier => multi_tier(server).await,
            Self::Hitbox => hitbox(server).await,
        }
    }
}

impl Instance {
    fn new<L, I>(
        load: impl Fn(String, Arc<Origin>) -> L + Send + Sync + 'static,
        invalidate: impl Fn(String) -> I + Send + Sync + 'static,
    ) -> Self
    where
        L: Future<Output = u32> + Send + 'static,
        I: Future<Output = ()> + Send + 'static,
    {
        Self {
            load: Arc::new(move |key, origin| Box::pin(load(key, origin))),
            invalidate: Arc::new(move |key| Box::pin(invalidate(key))),
        }
    }

    /// The version of `key` that the cache gives, from the origin if it has none.
    pub async fn load(&self, key: String, origin: Arc<Origin>) -> u32 {
        (self.load)(key, origin).await
    }

    /// Invalidates `key`, and returns when the side says that it is done.
    pub async fn invalidate(&self, key: String) {
        (self.invalidate)(key).await;
    }
}

async fn ours(server: &Server) -> Instance {
    let redis = server.ours().await;
    let namespace = Namespace::new("bench").expect("a plain name");
    let options = NodeOptions::default();
    let node = Arc::new(Node::start(redis.executor(), redis.bus(), &namespace, options).await);
    let same = Arc::clone(&node);
    Instance::new(
        move |key, origin| {
            let node = Arc::clone(&node);
            async move {
                let loader = |key| async move { Ok::<_, Infallible>(origin.load(key).await) };
                node.cache.get_or_load(&key, loader).await.expect("the origin answers").version
            }
        },
        move |key| {
            let node = Arc::clone(&same);
            async move {
                node.cache.invalidate(&key).await.expect("the server is there");
            }
        },
    )
}

async fn cachet(server: &Server) -> Instance {
    let cache = Arc::new(cachet::on_redis(L1_ENTRIES, server.bare().await));
    let same = Arc::clone(&cache);
    Instance::new(
        move |key, origin| {
            let cache = Arc::clone(&cache);
            async move {
                let load = || {
                    let key = key.clone();
                    async move { Arc::new(origin.load(key).await) }
                };
                let entry = cache.get_or_insert(&key, load).await.expect("the server is there");
                entry.value().version
            }
        },
        move |key| {
            let cache = Arc::clone(&same);
            async move { cache.invalidate(&key).await.expect("the server is there") }
        },
    )
}

async fn multi_tier(server: &Server) -> Instance {
    let cache: Arc<CacheManager> =
        Arc::new(multi_tier::told_on_redis(L1_ENTRIES, &server.url_for_peers()).await);
    let same = Arc::clone(&cache);
    Instance::new(
        move |key, origin| {
            let cache = Arc::clone(&cache);
            async move {
                let load = || {
                    let key = key.clone();
                    async move { Ok(origin.load(key).await) }
                };
                let user: User = cache
                    .get_or_compute_typed(&key, multi_tier::STRATEGY, load)
                    .await
                    .expect("the origin answers");
                user.version
            }
        },
        move |key| {
            let cache = Arc::clone(&same);
            async move { cache.invalidate(&key).await.expect("the server is there") }
        },
    )
}

async fn hitbox(server: &Server) -> Instance {
    let cache = Arc::new(hitbox::on_redis(L1_ENTRIES, &server.url_for_peers()).await);
    let same = Arc::clone(&cache);
    Instance::new(
        move |key, origin| {
            let cache = Arc::clone(&cache);
            async move {
                let load = hitbox::Origin::new(move |key| Arc::clone(&origin).load(key));
                hitbox::user(key, load).cache(&*cache).await.version
            }
        },
        move |key| {
            let cache = Arc::clone(&same);
            async move { hitbox::invalidate(&cache, key).await }
        },
    )
}
