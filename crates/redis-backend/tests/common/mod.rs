//! What the tests of this crate share: a handle on a real server, and short ways to use it.
#![allow(dead_code, reason = "each test file uses another part")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetwide_core_traits::{
    BackendError, Channel, ExecutorExt, Health, Key, Namespace, Signal, Tag,
};
use fleetwide_redis_backend::{Redis, RedisBuilder, RedisUrl, Subscription};
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{RedisServer, eventually};
use futures_util::StreamExt;
use tokio::time::timeout;

/// Far more than anything here takes on an idle machine; a test that waits so long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// How long a call takes at most where a test lets servers hang. Twice the default, because a busy
/// machine was seen to stop for a quarter of a second.
pub(crate) const HASTY: Duration = Duration::from_secs(1);

/// Deadlines for tests in which nothing hangs, so that a busy machine cannot fail them.
pub(crate) fn builder(url: &str) -> RedisBuilder {
    let builder = Redis::builder(RedisUrl::parse(url).unwrap());
    builder.connect_timeout(SOON).command_timeout(SOON).total_timeout(SOON * 2)
}

/// Deadlines for tests that wait for them.
pub(crate) fn hasty(url: &str) -> RedisBuilder {
    builder(url).connect_timeout(HASTY).command_timeout(HASTY).total_timeout(HASTY * 2)
}

/// A handle on a running server, connected.
pub(crate) async fn connected(server: &RedisServer) -> Redis {
    ready(builder(&server.url())).await
}

pub(crate) async fn ready(builder: RedisBuilder) -> Redis {
    let redis = builder.build().unwrap();
    redis.ready(SOON).await.unwrap();
    redis
}

pub(crate) fn tag(name: &str) -> Tag {
    Namespace::new("test").unwrap().tag("case", name.as_bytes()).unwrap()
}

pub(crate) fn key(name: &str) -> Key {
    tag(name).key()
}

pub(crate) fn channel(name: &str) -> Channel {
    tag(name).channel("news")
}

/// Adds one to the counter `name`, and says where it is then.
pub(crate) async fn count(redis: &Redis, name: &str) -> Result<u64, BackendError> {
    redis.executor().run(&Count::one(&key(name))).await.map(|counted| counted.count)
}

/// The next thing that a subscription says.
pub(crate) async fn hear(subscription: &mut Subscription) -> Signal {
    timeout(SOON, subscription.next()).await.expect("a signal in time").expect("a living bus")
}

pub(crate) fn message(text: &str) -> Signal {
    Signal::Message(Bytes::copy_from_slice(text.as_bytes()))
}

/// Runs `call` and says how long it took.
pub(crate) async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let done = call.await;
    (done, start.elapsed())
}

/// Waits until health is `down` or `degraded`, and says why it is.
pub(crate) async fn trouble(redis: &Redis, state: &str) -> String {
    let mut health = redis.health_watch();
    let bad = health.wait_for(|health| health.name() == state);
    let bad = timeout(SOON, bad).await.unwrap_or_else(|_| panic!("never {state}"));
    bad.unwrap().reason().unwrap_or_default().to_owned()
}

/// Waits until health is up again.
pub(crate) async fn up(redis: &Redis) {
    eventually(SOON, "health to be up", async || redis.health() == Health::Up).await;
}
