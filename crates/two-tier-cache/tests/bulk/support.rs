//! Loaders that can be watched, and instances whose every question is counted.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_mem_backend::MokaLocal;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_testkit::{RedisServer, Reply};
use fleetwide_two_tier_cache::Cache;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::common::PATIENCE;
use crate::counted::Counted;

pub(crate) type TextCache<E> = Cache<String, String, E>;
pub(crate) type Pairs = Vec<(String, String)>;

pub(crate) fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("key-{number:04}")).collect()
}

/// What an honest origin has for a key.
pub(crate) fn of(key: &str) -> String {
    format!("value of {key}")
}

pub(crate) fn all(missing: Vec<String>) -> Ready<Result<Pairs, std::io::Error>> {
    ready(Ok(missing.into_iter().map(|key| (key.clone(), of(&key))).collect()))
}

/// A loader that writes down what it was asked for.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Vec<Vec<String>>>>);

impl Asked {
    pub(crate) fn loader(
        &self,
    ) -> impl Fn(Vec<String>) -> Ready<Result<Pairs, std::io::Error>> + Send + Sync + 'static {
        let asked = Arc::clone(&self.0);
        move |missing| {
            asked.lock().push(missing.clone());
            all(missing)
        }
    }

    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        self.0.lock().clone()
    }
}

/// A loader that says when it began, and ends when it is told to.
#[derive(Clone)]
pub(crate) struct Slow {
    began: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Slow {
    pub(crate) fn new() -> Self {
        Self { began: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn loader(
        &self,
        value: &'static str,
    ) -> impl Fn(Vec<String>) -> BoxFuture<'static, Result<Pairs, std::io::Error>> + Send + Sync + 'static
    {
        let slow = self.clone();
        move |missing| {
            let slow = slow.clone();
            Box::pin(async move {
                slow.began.add_permits(1);
                slow.go.acquire().await.unwrap().forget();
                Ok(missing.into_iter().map(|key| (key, value.to_owned())).collect())
            })
        }
    }

    pub(crate) async fn began(&self) {
        self.began.acquire().await.unwrap().forget();
    }

    pub(crate) fn finish(&self) {
        self.go.add_permits(1);
    }
}

/// An instance over a real server whose cache, and nothing else, is counted.
pub(crate) struct Counting {
    pub(crate) cache: TextCache<Counted<RedisExecutor>>,
    pub(crate) counted: Counted<RedisExecutor>,
    _redis: Redis,
}

/// Its reads of L2 have all the time that a busy machine may take.
pub(crate) async fn counting(server: &RedisServer, namespace: &Namespace) -> Counting {
    counting_within(server, namespace, PATIENCE).await
}

pub(crate) async fn counting_within(
    server: &RedisServer,
    namespace: &Namespace,
    budget: Duration,
) -> Counting {
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap())
        .command_timeout(PATIENCE)
        .total_timeout(PATIENCE)
        .build()
        .unwrap();
    redis.ready(PATIENCE).await.unwrap();
    let counted = Counted::new(redis.executor());
    let local = MokaLocal::builder().bytes_max(64 << 20).build();
    let cache: TextCache<_> = Cache::builder(counted.clone(), namespace, "values", local)
        .l2_budget(budget)
        .build()
        .unwrap();
    let log = Log::builder(redis.executor(), redis.bus(), cache.tag().clone())
        .follower(cache.follower())
        .start();
    log.begun().await.unwrap();
    cache.keep(Box::new(log)).ok().unwrap();
    Counting { cache, counted, _redis: redis }
}

/// How often the server itself has seen a command.
pub(crate) async fn seen(server: &RedisServer, command: &str) -> u64 {
    let reply = server.admin(&[b"INFO".as_slice(), b"commandstats"]).await.unwrap();
    let Reply::Bulk(text) = reply else { panic!("{reply:?}") };
    let text = String::from_utf8(text.to_vec()).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}
