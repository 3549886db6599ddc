//! Instances of one session cache: over a real server, or in one process.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::time::Duration;

use fleetwide_core_traits::{Bus, Executor, Namespace};
use fleetwide_mem_backend::{MemExecutor, Memory, MokaLocal};
use fleetwide_pubsub_invalidation::Log;
use fleetwide_redis_backend::{Redis, RedisExecutor, RedisUrl};
use fleetwide_session_cache::{Answer, Session, SessionCache, SessionCacheBuilder, Stored};
use fleetwide_testkit::{RedisServer, unique_namespace};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Builder<E> = SessionCacheBuilder<String, E>;

pub fn namespace() -> Namespace {
    Namespace::new(&unique_namespace()).unwrap()
}

/// One instance over a server.
pub struct Node {
    pub sessions: SessionCache<String, RedisExecutor>,
    pub redis: Redis,
}

impl Node {
    pub async fn start(url: &str, namespace: &Namespace) -> Self {
        Self::start_with(url, namespace, |builder| builder).await
    }

    pub async fn start_with(
        url: &str,
        namespace: &Namespace,
        options: impl FnOnce(Builder<RedisExecutor>) -> Builder<RedisExecutor>,
    ) -> Self {
        let redis = Redis::builder(RedisUrl::parse(url).unwrap()).build().unwrap();
        redis.ready(PATIENCE).await.unwrap();
        let sessions = build(redis.executor(), namespace, options);
        follow(&sessions, redis.executor(), &redis.bus()).await;
        Self { sessions, redis }
    }

    pub fn session(&self, id: &str) -> Session<String, RedisExecutor> {
        self.sessions.session(id).unwrap()
    }
}

/// Some instances on one server of their own.
pub async fn fleet<const N: usize>() -> (RedisServer, [Node; N]) {
    fleet_with(|builder| builder).await
}

pub async fn fleet_with<const N: usize>(
    options: impl Fn(Builder<RedisExecutor>) -> Builder<RedisExecutor>,
) -> (RedisServer, [Node; N]) {
    let server = RedisServer::start().await.unwrap();
    let (url, namespace) = (server.url(), namespace());
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(Node::start_with(&url, &namespace, &options).await);
    }
    (server, nodes.try_into().ok().unwrap())
}

/// One instance that is alone, in memory.
pub async fn alone() -> SessionCache<String, MemExecutor> {
    let memory = Memory::new();
    let options = |builder: Builder<MemExecutor>| builder.alone(true);
    let sessions = build(memory.executor().clone(), &namespace(), options);
    follow(&sessions, memory.executor().clone(), memory.bus()).await;
    sessions
}

pub fn build<E: Executor + Clone>(
    executor: E,
    namespace: &Namespace,
    options: impl FnOnce(Builder<E>) -> Builder<E>,
) -> SessionCache<String, E> {
    let local = MokaLocal::builder().bytes_max(8 << 20).build();
    let builder = SessionCache::builder(executor, namespace, "nodes", local);
    // A read that is only late on a busy machine would be a miss, which is not the subject here.
    options(builder.options(|below| below.l2_budget(Duration::from_secs(10)))).build().unwrap()
}

pub async fn follow<E, B>(sessions: &SessionCache<String, E>, executor: E, bus: &B)
where
    E: Executor + Clone,
    B: Bus + Clone,
{
    let log = Log::builder(executor, bus.clone(), sessions.tag().clone())
        .follower(sessions.follower())
        .heartbeat(Duration::from_millis(50))
        .start();
    log.begun().await.unwrap();
    sessions.keep(Box::new(log)).ok().unwrap();
}

pub async fn put<E: Executor + Clone>(
    session: &Session<String, E>,
    key: &str,
    value: &str,
) -> Stored {
    session.put(key, value.to_owned()).await.unwrap()
}

pub async fn read<E: Executor + Clone>(session: &Session<String, E>, key: &str) -> Option<String> {
    text(session.get(key).await)
}

pub fn text(answer: Answer<String>) -> Option<String> {
    answer.found().map(|found| String::clone(found.value()))
}
