//! A log on a real Redis, followed by one instance.

use std::time::Duration;

use fleetwide_core_traits::Tag;
use fleetwide_pubsub_invalidation::Log;
use fleetwide_redis_backend::{Redis, RedisBus, RedisExecutor, RedisUrl};
use fleetwide_testkit::eventually;

use super::{DEADLINE, LossyBus, Recorder, append};

/// A busy machine may take this long for a healthy step; a frozen server is found by it, too.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn connect(url: &str) -> Redis {
    let redis = Redis::builder(RedisUrl::parse(url).unwrap());
    redis.command_timeout(PATIENCE).total_timeout(2 * PATIENCE).build().unwrap()
}

/// One instance that follows a log.
pub(crate) struct Instance {
    pub(crate) told: Recorder,
    pub(crate) log: Log,
    pub(crate) executor: RedisExecutor,
    pub(crate) bus: LossyBus<RedisBus>,
}

impl Instance {
    /// Commands go to one URL and the subscription to another, so that a test can break either.
    pub(crate) async fn start(
        commands: &str,
        messages: &str,
        tag: &Tag,
        heartbeat: Duration,
    ) -> Self {
        let (commands, messages) = (connect(commands), connect(messages));
        let (told, executor) = (Recorder::new(), commands.executor());
        let bus = LossyBus::new(messages.bus());
        let log = Log::builder(executor.clone(), bus.clone(), tag.clone())
            .follower(told.follower())
            .heartbeat(heartbeat)
            .start();
        let instance = Self { told, log, executor, bus };
        instance.is_up().await;
        instance
    }

    /// Waits until both the subscription and commands are there.
    pub(crate) async fn is_up(&self) {
        let is_up = async || {
            self.log.check();
            self.log.health().is_up()
        };
        eventually(DEADLINE, "the log to be followed", is_up).await;
    }

    /// Appends when the server takes it: after a restart connections may still be on their way.
    pub(crate) async fn append_when_back(&self, bodies: &str) {
        self.is_up().await;
        self.append(bodies).await;
    }

    /// Appends, and loses the messages on their way to this instance.
    pub(crate) async fn append_silently(&self, bodies: &str) {
        self.bus.lose(bodies.split_whitespace().count());
        self.append(bodies).await;
    }

    pub(crate) async fn append(&self, bodies: &str) {
        for body in bodies.split_whitespace() {
            append(&self.executor, self.log.tag(), body).await;
        }
    }
}
