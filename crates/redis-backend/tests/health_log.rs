//! What an operator reads: each change once, in words that tell what to do, and no secret.

mod common;

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{SOON, builder, count, key, ready, trouble, up};
use fleetwide_core_traits::{BackendError, Health, Store, Ttl};
use fleetwide_testkit::{RedisServer, eventually};
use tracing_subscriber::fmt::MakeWriter;

/// Collects what is logged by the code of one test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Logs of this thread go here; the runtime of these tests has only this one.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::INFO)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_change_is_logged_once_with_its_reason() {
    let server = RedisServer::start().await.unwrap();
    let (log, _guard) = Log::start();
    let redis = ready(builder(&server.url())).await;
    server.kill();
    let refused = format!("connection refused by {}", server.addr());
    eventually(SOON, "the reason", async || redis.health().reason() == Some(&refused)).await;
    // Many attempts and many failed calls later there is still nothing new to say.
    for _ in 0..200 {
        assert!(count(&redis, "a").await.is_err());
    }
    server.restart().await.unwrap();
    up(&redis).await;
    server.replicaof("127.0.0.1", 1).await.unwrap();
    for _ in 0..50 {
        assert!(count(&redis, "a").await.is_err());
    }
    trouble(&redis, "degraded").await;
    server.promote().await.unwrap();
    up(&redis).await;

    let place = format!("server=redis://***@{}/0", server.addr());
    let mut expected = String::new();
    for (level, text, reason) in [
        ("INFO", "redis is up", None),
        ("WARN", "redis is down", Some("the connection was closed")),
        ("WARN", "redis is down", Some(refused.as_str())),
        ("INFO", "redis is up", None),
        ("WARN", "redis is degraded", Some("the server is a read-only replica")),
        ("INFO", "redis is up", None),
    ] {
        let reason = reason.map_or(String::new(), |reason| format!(" reason={reason}"));
        let target = "fleetwide_redis_backend::health";
        writeln!(expected, "{level} {target}: {text} {place}{reason}").unwrap();
    }
    assert_eq!(log.lines().join("\n") + "\n", expected);
    assert!(!expected.contains(server.password()));
}

#[tokio::test]
async fn watch_tells_each_state_with_the_time_it_began() {
    let server = RedisServer::start().await.unwrap();
    let clock = fleetwide_testkit::SimClock::new();
    let redis = builder(&server.url()).clock(Arc::new(clock.clone())).build().unwrap();
    let mut health = redis.health_watch();
    assert_eq!(health.borrow_and_update().reason(), Some("no connection yet"));
    redis.ready(SOON).await.unwrap();
    assert_eq!(*health.borrow_and_update(), Health::Up);
    clock.advance(Duration::from_secs(60));
    let began = fleetwide_core_traits::Clock::now(&clock);
    server.kill();
    health.changed().await.unwrap();
    clock.advance(Duration::from_secs(60));
    let refused = format!("connection refused by {}", server.addr());
    let down = health.wait_for(|health| health.reason() == Some(&refused)).await.unwrap().clone();
    let Health::Down { since, .. } = down else { panic!("{down:?}") };
    assert_eq!(since, began, "another reason is no other outage");
}

#[tokio::test]
async fn many_full_server_replies_are_one_line() {
    let server = RedisServer::start().await.unwrap();
    let (log, _guard) = Log::start();
    let redis = ready(builder(&server.url())).await;
    server.config_set("maxmemory", "1").await.unwrap();
    let minute = Ttl::clamped(Duration::from_secs(60));
    for _ in 0..100 {
        let refused = redis.store().set(&key("a"), Bytes::new(), minute).await;
        assert!(matches!(refused, Err(BackendError::Rejected(_))), "{refused:?}");
    }
    server.config_set("maxmemory", "0").await.unwrap();
    up(&redis).await;
    let lines = log.lines();
    let texts: Vec<_> = lines.iter().map(|line| line.split_once(": ").unwrap().1).collect();
    let place = format!("server=redis://***@{}/0", server.addr());
    assert_eq!(
        texts,
        [
            format!("redis is up {place}"),
            format!(
                "redis is degraded {place} reason=the server is out of memory and refuses writes"
            ),
            format!("redis is up {place}"),
        ]
    );
}
