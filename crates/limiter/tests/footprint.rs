//! What a key costs the server: bytes, a ttl, and commands.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{Limiter, Quota, Unavailable};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::RedisServer;
use futures_util::future::join_all;
use rand::Rng as _;

const HOUR: Duration = Duration::from_secs(3600);

/// What `MEMORY USAGE` says of a key with a name of 48 bytes, which is a long one; the figures in
/// the documentation are for a name of 1 byte.
const GCRA_BYTES: i64 = 80 + 48;
const WINDOW_BYTES: i64 = 368 + 64;
const BUCKET_BYTES: i64 = 96 + 48;
const FIXED_BYTES: i64 = 80 + 48;
/// With the most cells that a log takes.
const LOG_BYTES: i64 = 1_072 + 64;
/// What a preface adds: 49 bytes, rounded up by the server's allocator.
const PREFACE_BYTES: i64 = 64;

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

/// When a state is over, by its bytes.
const GCRA_OVER: &str = "return (struct.unpack('>I8', state))";
const WINDOW_OVER: &str = "local at, width = struct.unpack('>I8I8', state) \
    return (math.floor(at / width) + 64) * width";
const BUCKET_OVER: &str = "\
    local at, missing, gain, token, earned = struct.unpack('>I8I4I4I8I8', state) \
    return at + math.ceil((missing * token - earned) / gain)";
/// It is kept for a window more, but for a minute at most.
const FIXED_OVER: &str = "local at, ends, window = struct.unpack('>I8I8I8', state) \
    return ends + math.min(window, 60000000)";
const LOG_OVER: &str = "\
    return struct.unpack('>I7', state, #state - 6) + struct.unpack('>I8', state)";

/// By how many ms a key expires before or after its state is over, at most.
fn expiry_off_by(over: &str) -> String {
    format!(
        "local time, most = redis.call('TIME'), 0 \
        for _, key in ipairs(redis.call('KEYS', '*')) do \
          local state = redis.call('GET', key) \
          local rare = 0 \
          if #state >= 49 and state:byte(1) == 1 then \
            local kept, blocked = struct.unpack('>I8I8', state, 34) \
            rare = math.max(kept, blocked) \
            state = state:sub(50) \
          end \
          local over = rare \
          if state ~= '' then over = math.max(rare, (function() {over} end)()) end \
          local expires = time[1] * 1000 + time[2] / 1000 + redis.call('PTTL', key) \
          most = math.max(most, math.abs(expires - over / 1000)) \
        end \
        return most"
    )
}

/// Random calls on some keys, by the real clock; with refunds, blocks and resets if `rare`.
async fn use_keys(limiter: &Limiter<RedisExecutor>, rare: bool) {
    let mut rng = fleetwide_testkit::seed().rng();
    let most = limiter.quota().cost_max().into();
    for _ in 0..1_500 {
        let key = format!("tenant-{}", rng.random_range(0..20));
        let cost = rng.random_range(0..=most);
        match rng.random_range(0..30) {
            0 if rare => limiter.reset(&key).await.unwrap(),
            1 if rare => {
                let duration = Duration::from_millis(rng.random_range(1..5_000));
                limiter.block(&key, duration).await.unwrap();
            }
            2..=8 if rare && cost > 0 => {
                let grant = limiter.check_with_receipt(&key, cost).await.unwrap();
                if let Some(receipt) = grant.receipt {
                    limiter.refund(receipt).await.unwrap();
                }
            }
            9..=12 => _ = limiter.peek(&key).await.unwrap(),
            _ => _ = limiter.check_cost(&key, cost).await.unwrap(),
        }
    }
}

// Red without the PEXPIRE when a sub-window begins: the key would expire with the first one.
#[tokio::test]
async fn key_takes_the_stated_bytes_and_expires_when_its_state_is_over() {
    let second = Duration::from_secs(1);
    for (quota, bytes, over) in [
        (Quota::gcra(100, 100 * second, 20).unwrap(), GCRA_BYTES, GCRA_OVER),
        // Sub-windows of 32 ms: the ring is used.
        (Quota::sliding_window(20, 2 * second).unwrap(), WINDOW_BYTES, WINDOW_OVER),
        (Quota::token_bucket(100, 101 * second, 20).unwrap(), BUCKET_BYTES, BUCKET_OVER),
        (Quota::fixed_window(20, 2 * second).unwrap(), FIXED_BYTES, FIXED_OVER),
        (Quota::sliding_log(128, 20 * second).unwrap(), LOG_BYTES, LOG_OVER),
    ] {
        let fixture = Fixture::new().await;
        use_keys(&fixture.limiter(quota), false).await;
        let most = fixture.ask(LARGEST_KEY).await;
        assert!((1..=bytes).contains(&most), "{most} bytes for {quota:?}");
        let off_by = fixture.ask(&expiry_off_by(over)).await;
        assert!(off_by <= 25, "{off_by} ms for {quota:?}");
    }
}

// Red without a ttl that covers the preface, in any of the scripts.
#[tokio::test]
async fn key_with_a_preface_takes_the_stated_bytes_more_and_expires_when_nobody_needs_it() {
    let second = Duration::from_secs(1);
    for (quota, bytes, over) in [
        (Quota::gcra(100, 100 * second, 20).unwrap(), GCRA_BYTES, GCRA_OVER),
        (Quota::sliding_window(20, 2 * second).unwrap(), WINDOW_BYTES, WINDOW_OVER),
        (Quota::token_bucket(100, 101 * second, 20).unwrap(), BUCKET_BYTES, BUCKET_OVER),
        (Quota::fixed_window(20, 2 * second).unwrap(), FIXED_BYTES, FIXED_OVER),
        // The allocator has rounded so many cells up by more than a preface.
        (Quota::sliding_log(128, 20 * second).unwrap(), LOG_BYTES - PREFACE_BYTES, LOG_OVER),
    ] {
        let fixture = Fixture::new().await;
        use_keys(&fixture.limiter(quota), true).await;
        let most = fixture.ask(LARGEST_KEY).await;
        let bytes = bytes + PREFACE_BYTES;
        assert!((bytes - 64..=bytes).contains(&most), "{most} bytes for {quota:?}");
        let off_by = fixture.ask(&expiry_off_by(over)).await;
        assert!(off_by <= 25, "{off_by} ms for {quota:?}");
    }
}

// Red without `kept` in the ttl of a check, or of a batch.
#[tokio::test]
async fn generation_outlives_the_calls_after_a_reset_as_long_as_it_is_needed() {
    let second = Duration::from_secs(1);
    for (quota, over) in [
        (Quota::gcra(10, second, 10).unwrap(), GCRA_OVER),
        (Quota::sliding_window(10, second).unwrap(), WINDOW_OVER),
        (Quota::token_bucket(10, second, 10).unwrap(), BUCKET_OVER),
        (Quota::fixed_window(10, second).unwrap(), FIXED_OVER),
        (Quota::sliding_log(10, second).unwrap(), LOG_OVER),
    ] {
        let fixture = Fixture::new().await;
        let limiter = fixture.limiter(quota);
        for key in ["one call", "a batch"] {
            assert_eq!(limiter.block(key, HOUR).await.unwrap(), HOUR);
            limiter.reset(key).await.unwrap();
        }
        assert!(limiter.check("one call").await.unwrap().is_allowed());
        let calls = [0; 3].map(|_| limiter.check("a batch"));
        for decision in join_all(calls).await {
            assert!(decision.unwrap().is_allowed());
        }
        assert_eq!(fixture.ask("return #redis.call('KEYS', '*')").await, 2);
        let off_by = fixture.ask(&expiry_off_by(over)).await;
        assert!(off_by <= 25, "{off_by} ms for {quota:?}");
    }
}

// The figures in the documentation.
#[tokio::test]
async fn state_of_a_key_with_a_short_name_takes_what_the_documentation_says() {
    for (quota, cost, bytes) in [
        (Quota::gcra(10, HOUR, 10).unwrap(), 1, 80),
        (Quota::sliding_window(10, HOUR).unwrap(), 1, 368),
        (Quota::token_bucket(10, HOUR, 10).unwrap(), 1, 96),
        (Quota::fixed_window(10, HOUR).unwrap(), 1, 80),
        (Quota::sliding_log(128, HOUR).unwrap(), 1, 80),
        (Quota::sliding_log(128, HOUR).unwrap(), 10, 144),
        (Quota::sliding_log(128, HOUR).unwrap(), 128, 1_072),
    ] {
        let fixture = Fixture::new().await;
        assert!(fixture.limiter(quota).check_cost("a", cost).await.unwrap().is_allowed());
        let rename = "local key = redis.call('KEYS', '*')[1] \
            redis.call('RENAME', key, 'k') \
            return redis.call('MEMORY', 'USAGE', 'k')";
        assert_eq!(fixture.ask(rename).await, bytes, "{quota:?} with {cost} spent");
    }
}

#[tokio::test]
async fn refusal_and_peek_write_nothing() {
    let writes = ["set", "setrange", "pexpire", "del"];
    for quota in [
        Quota::gcra(5, HOUR, 5).unwrap(),
        Quota::sliding_window(5, HOUR).unwrap(),
        Quota::token_bucket(5, HOUR, 5).unwrap(),
        support::fixed_window_just_begun(5),
        Quota::sliding_log(5, HOUR).unwrap(),
    ] {
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
