//! Instances over a real server, whose commands and messages can take different ways to it.

use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::MokaLocal;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_redis_backend::{Redis, RedisBuilder, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, eventually};
use fleetwide_two_tier_cache::{Cache, CacheBuilder};

use super::PATIENCE;

/// So long that only messages can tell anything.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// A cache over a real server.
pub(crate) type Values = Cache<String, String, RedisExecutor>;
/// Its options.
pub(crate) type Options = CacheBuilder<String, String, RedisExecutor>;

/// How an instance reaches its server.
#[derive(Clone)]
pub(crate) struct Ways {
    commands: String,
    messages: String,
    heartbeat: Duration,
    redis: fn(RedisBuilder) -> RedisBuilder,
}

/// One instance: a cache that follows its log.
pub(crate) struct Instance {
    pub(crate) cache: Values,
    pub(crate) log: Log,
    _handles: [Redis; 2],
}

impl Ways {
    /// Both ways lead straight to `server`; a beat is due each 100 ms.
    pub(crate) fn to(server: &RedisServer) -> Self {
        let heartbeat = Duration::from_millis(100);
        Self { commands: server.url(), messages: server.url(), heartbeat, redis: |redis| redis }
    }

    pub(crate) fn commands(self, url: String) -> Self {
        Self { commands: url, ..self }
    }

    pub(crate) fn messages(self, url: String) -> Self {
        Self { messages: url, ..self }
    }

    pub(crate) fn heartbeat(self, heartbeat: Duration) -> Self {
        Self { heartbeat, ..self }
    }

    pub(crate) fn redis(self, redis: fn(RedisBuilder) -> RedisBuilder) -> Self {
        Self { redis, ..self }
    }

    pub(crate) async fn instance(&self, namespace: &Namespace) -> Instance {
        self.instance_with(namespace, |options| options).await
    }

    /// An instance whose log has begun, and whose messages arrive.
    pub(crate) async fn instance_with(
        &self,
        namespace: &Namespace,
        options: impl FnOnce(Options) -> Options,
    ) -> Instance {
        let (commands, messages) = (self.connect(&self.commands), self.connect(&self.messages));
        for handle in [&commands, &messages] {
            handle.ready(PATIENCE).await.unwrap();
        }
        let local = MokaLocal::builder().bytes_max(16 << 20).build();
        let builder = Cache::builder(commands.executor(), namespace, "values", local);
        let cache = options(builder.l1_ttl(Duration::from_secs(60))).build().unwrap();
        let log = Log::builder(commands.executor(), messages.bus(), cache.tag().clone())
            .follower(cache.follower())
            .heartbeat(self.heartbeat)
            .start();
        log.begun().await.unwrap();
        eventually(PATIENCE, "the log is followed", async || log.health().is_up()).await;
        cache.keep(Box::new(log.clone())).ok().unwrap();
        Instance { cache, log, _handles: [commands, messages] }
    }

    fn connect(&self, url: &str) -> Redis {
        (self.redis)(Redis::builder(RedisUrl::parse(url).unwrap())).build().unwrap()
    }
}

impl Instance {
    /// Waits until so many entries of the log were applied here.
    pub(crate) async fn has_applied(&self, entries: u64) {
        let applied = || async { self.cache.stats().invalidations_applied == entries };
        eventually(PATIENCE, "the log is applied", applied).await;
    }
}
