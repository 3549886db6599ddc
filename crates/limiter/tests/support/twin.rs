//! What all differential tests of the steps have in common.

use std::env;
use std::str::FromStr;
use std::sync::Arc;

use fleetwide_core_traits::ScriptClock;
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{RedisServer, SimClock};

/// How many histories are played: `usual`, or what `FLEETWIDE_HISTORIES` says.
pub(crate) fn histories<T: FromStr>(usual: T) -> T {
    let Ok(text) = env::var("FLEETWIDE_HISTORIES") else { return usual };
    let Ok(count) = text.parse() else { panic!("FLEETWIDE_HISTORIES={text}: use a number") };
    count
}

/// An executor whose scripts go by `clock`.
pub(crate) async fn redis_by(clock: &SimClock, server: &RedisServer) -> RedisExecutor {
    let redis = super::redis(server, |builder| {
        builder.clock(Arc::new(clock.clone())).script_clock(ScriptClock::Argument)
    });
    redis.await.executor()
}

/// Checks that all keys of `server` will expire, and removes them.
pub(crate) async fn no_key_is_immortal(server: &RedisServer) {
    let count_and_flush = "local immortal = 0 \
        for _, key in ipairs(redis.call('KEYS', '*')) do \
          if redis.call('PTTL', key) < 0 then immortal = immortal + 1 end \
        end \
        redis.call('FLUSHALL') \
        return immortal";
    let reply = server.admin(&["EVAL", count_and_flush, "0"]).await.expect("a script of our own");
    assert_eq!(reply.as_integer(), Some(0), "keys without a ttl");
}
