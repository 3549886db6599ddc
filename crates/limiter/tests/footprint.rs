//! What a key costs the server: bytes, a ttl, and commands.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{Limiter, Quota, Unavailable};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::RedisServer;
use rand::Rng as _;

const HOUR: Duration = Duration::from_secs(3600);

/// What `MEMORY USAGE` says of a key with a name of 48 bytes, which is a long one; the figures in
/// the documentation are for a name of 1 byte.
const GCRA_BYTES: i64 = 80 + 48;
const WINDOW_BYTES: i64 = 368 + 64;

struct Fixture {
    server: RedisServer,
    executor: RedisExecutor,
}

impl Fixture {
    async fn new() -> Self {
        let server = support::server().await;
        let executor = support::redis(&server, |builder| builder).await.executor();
        Self { server, executor }
    }

    fn limiter(&self, quota: Quota) -> Limiter<RedisExecutor> {
        let namespace = Namespace::new("shop").unwrap();
        Limiter::builder(self.executor.clone(), &namespace, "api", quota)
            .on_unavailable(Unavailable::Deny)
            .deadline(Duration::from_secs(30))
            .build()
            .unwrap()
    }

    async fn ask(&self, script: &str) -> i64 {
        let reply = self.server.admin(&["EVAL", script, "0"]).await.unwrap();
        reply.as_integer().unwrap()
    }

    /// Commands that ran since the last call, of which only those named count.
    async fn commands(&self, names: &[&str]) -> BTreeMap<String, u64> {
        let stats = self.server.command_stats().await.unwrap();
        self.server.reset_stats().await.unwrap();
        stats.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect()
    }
}

const LARGEST_KEY: &str = "local most = 0 \
    for _, key in ipairs(redis.call('KEYS', '*')) do \
      assert(#key <= 48, key) \
      most = math.max(most, redis.call('MEMORY', 'USAGE', key)) \
    end \
    return most";

/// By how many ms a key expires before or after its state is over, at most.
const EXPIRY_OFF_BY: &str = "local time, most = redis.call('TIME'), 0 \
    for _, key in ipairs(redis.call('KEYS', '*')) do \
      local state = redis.call('GET', key) \
      local over, width = struct.unpack('>I8I8', state) \
      if #state > 24 then over = (math.floor(over / width) + 64) * width end \
      local expires = time[1] * 1000 + time[2] / 1000 + redis.call('PTTL', key) \
      most = math.max(most, math.abs(expires - over / 1000)) \
    end \
    return most";

/// Random calls on some keys, by the real clock.
async fn use_keys(limiter: &Limiter<RedisExecutor>) {
    let mut rng = fleetwide_testkit::seed().rng();
    let most = limiter.quota().cost_max().into();
    for _ in 0..1_500 {
        let key = format!("tenant-{}", rng.random_range(0..20));
        let cost = rng.random_range(0..=most);
        match rng.random_range(0..30) {
            0 => limiter.reset(&key).await.unwrap(),
            1..=3 => _ = limiter.peek(&key).await.unwrap(),
            _ => _ = limiter.check_cost(&key, cost).await.unwrap(),
        }
    }
}

// Red without the PEXPIRE when a sub-window begins: the key would expire with the first one.
#[tokio::test]
async fn key_takes_the_stated_bytes_and_expires_when_its_state_is_over() {
    for (quota, bytes) in [
        (Quota::gcra(100, Duration::from_secs(100), 20).unwrap(), GCRA_BYTES),
        // Sub-windows of 32 ms: the ring is used.
        (Quota::sliding_window(20, Duration::from_secs(2)).unwrap(), WINDOW_BYTES),
    ] {
        let fixture = Fixture::new().await;
        use_keys(&fixture.limiter(quota)).await;
        let most = fixture.ask(LARGEST_KEY).await;
        assert!((1..=bytes).contains(&most), "{most} bytes for {quota:?}");
        let off_by = fixture.ask(EXPIRY_OFF_BY).await;
        assert!(off_by <= 25, "{off_by} ms for {quota:?}");
    }
}

#[tokio::test]
async fn refusal_and_peek_write_nothing() {
    let writes = ["set", "setrange", "pexpire", "del"];
    for quota in [Quota::gcra(5, HOUR, 5).unwrap(), Quota::sliding_window(5, HOUR).unwrap()] {
        let fixture = Fixture::new().await;
        let limiter = fixture.limiter(quota);
        assert!(limiter.check_cost("a", 5).await.unwrap().is_allowed());
        assert!(!fixture.commands(&writes).await.is_empty());
        for _ in 0..20 {
            assert!(!limiter.check("a").await.unwrap().is_allowed());
            assert!(!limiter.peek("a").await.unwrap().is_allowed());
            assert!(limiter.check_cost("a", 0).await.unwrap().is_allowed());
            assert!(limiter.peek("b").await.unwrap().is_allowed());
        }
        assert_eq!(fixture.commands(&writes).await, BTreeMap::new());
    }
}

#[tokio::test]
async fn window_moves_its_head_and_not_its_ring_on_the_common_path() {
    let fixture = Fixture::new().await;
    let limiter = fixture.limiter(Quota::sliding_window(1_000, 100 * HOUR).unwrap());
    assert!(limiter.check("a").await.unwrap().is_allowed());
    fixture.commands(&[]).await;
    for _ in 0..50 {
        assert!(limiter.check("a").await.unwrap().is_allowed());
    }
    let all = ["get", "set", "getrange", "setrange", "pexpire", "evalsha", "time"];
    let expected = ["evalsha", "getrange", "setrange", "time"].map(|name| (name.to_owned(), 50));
    assert_eq!(fixture.commands(&all).await, BTreeMap::from(expected));
}
