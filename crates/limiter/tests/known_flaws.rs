//! How others limit, and what comes of it: each flaw beside this limiter, on a real Redis, with the same
//! calls at the same times. The flawed scheme must fail what this one is held to, or the test is none.
//!
//! Time goes by hand. The server's keys expire by its own clock, so where that is the matter they are made
//! older by the time that goes by. What a promoted stale replica admits twice, and does not here, is in
//! `tests/failover.rs`.

#[path = "support/clocked.rs"]
mod clocked;
mod support;

use std::sync::Arc;
use std::time::Duration;

use clocked::{Backend, HOUR};
use fleetwide_core_traits::{Clock as _, Namespace};
use fleetwide_limiter::{Limiter, Quota, Unavailable};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::{Reply, RespConnection, SimClock};
use futures_util::future::join_all;

/// All that have a rate of so many an hour, with as many at once.
fn quotas(max: u64) -> [Quota; 5] {
    [
        Quota::gcra(max, HOUR, max),
        Quota::sliding_window(max, HOUR),
        Quota::token_bucket(max, HOUR, max),
        Quota::fixed_window(max, HOUR),
        Quota::sliding_log(max, HOUR),
    ]
    .map(Result::unwrap)
}

async fn is_allowed(limiter: &Limiter<clocked::Counted>) -> bool {
    limiter.check("a").await.unwrap().is_allowed()
}

/// The flawed schemes' own connection.
async fn connection(backend: &Backend) -> RespConnection {
    backend.server().connect_admin().await.unwrap()
}

async fn number(connection: &mut RespConnection, words: &[&str]) -> i64 {
    match connection.command(words).await.unwrap() {
        Reply::Integer(number) => number,
        Reply::Bulk(text) => std::str::from_utf8(&text).unwrap().parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?} is no number"),
    }
}

/// Windows in which less than half of the maximum was admitted, although twice as much was asked for.
fn starved(admitted: &[u64], max: u64) -> usize {
    admitted.iter().filter(|&&count| count < max / 2).count()
}

// The flaw: a pipeline that removes what is old, counts, and adds in any case, so that what is refused
// keeps the window full.
#[tokio::test]
async fn flood_of_refusals_starves_a_log_that_always_adds_and_not_this_limiter() {
    const MAX: u64 = 10;
    let step = HOUR / (2 * MAX as u32);
    for quota in quotas(MAX) {
        let backend = Backend::redis().await;
        let limiter = backend.limiter(quota);
        let mut connection = connection(&backend).await;
        let (mut flawed, mut ours) = ([0; 6], [0; 6]);
        for call in 0..12 * MAX {
            let window = (call / (2 * MAX)) as usize;
            let now = backend.clock.server_time().as_micros();
            let old = (now - HOUR.as_micros() as u64).to_string();
            let (score, member) = (now.to_string(), call.to_string());
            number(&mut connection, &["ZREMRANGEBYSCORE", "log", "0", &old]).await;
            let held = number(&mut connection, &["ZCARD", "log"]).await;
            number(&mut connection, &["ZADD", "log", &score, &member]).await;
            flawed[window] += u64::from(held < MAX as i64);
            ours[window] += u64::from(is_allowed(&limiter).await);
            backend.clock.advance(step);
        }
        assert_eq!(flawed, [10, 0, 0, 0, 0, 0], "the flaw is not there");
        assert_eq!(starved(&ours, MAX), 0, "{ours:?} by {quota:?}");
    }
}

// The flaw: whether there is room is asked in one trip, and what is spent is said in another.
#[tokio::test]
async fn callers_at_once_go_over_where_the_check_is_one_trip_and_the_debit_another_and_not_here() {
    const MAX: u64 = 100;
    for quota in quotas(MAX) {
        let backend = Backend::redis().await;
        let mut connection = connection(&backend).await;
        let mut flawed = number(&mut connection, &["INCRBY", "count", "95"]).await;
        let mut fitting = 0;
        for _ in 0..32 {
            fitting += i64::from(number(&mut connection, &["GET", "count"]).await < MAX as i64);
        }
        for _ in 0..fitting {
            flawed = number(&mut connection, &["INCR", "count"]).await;
        }
        // 32 instances, so that none of them shares a trip with another.
        let instances: Vec<_> = (0..32).map(|_| backend.limiter(quota)).collect();
        assert!(instances[0].check_cost("a", 95).await.unwrap().is_allowed());
        let ours = join_all(instances.iter().map(is_allowed)).await;
        let ours = 95 + ours.into_iter().filter(|&is_allowed| is_allowed).count() as u64;
        assert_eq!(flawed, 127, "the flaw is not there");
        assert_eq!(ours, MAX, "{quota:?}");
    }
}

/// Lets time go by for the keys of the flawed scheme.
async fn age(connection: &mut RespConnection, by: Duration) {
    let age = "for _, key in ipairs(redis.call('KEYS', 'flawed*')) do \
          local left = redis.call('PTTL', key) - tonumber(ARGV[1]) \
          if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end \
        end \
        return 0";
    number(connection, &["EVAL", age, "0", &by.as_millis().to_string()]).await;
}

// The flaw: each hit, also one that is refused, gives the count a whole window more to live.
#[tokio::test]
async fn client_that_keeps_trying_is_locked_out_by_a_count_whose_hits_prolong_it_and_not_here() {
    const MAX: u64 = 3;
    let pause = HOUR * 9 / 10;
    for quota in quotas(MAX) {
        let backend = Backend::redis().await;
        let limiter = backend.limiter(quota);
        let mut connection = connection(&backend).await;
        let (mut flawed, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let count = number(&mut connection, &["INCR", "flawed"]).await;
            number(&mut connection, &["PEXPIRE", "flawed", "3600000"]).await;
            flawed.push(count <= MAX as i64);
            ours.push(is_allowed(&limiter).await);
            age(&mut connection, pause).await;
            backend.clock.advance(pause);
        }
        let locked_out = [true, true, true, false, false, false, false, false];
        assert_eq!(flawed, locked_out, "the flaw is not there");
        assert_eq!(ours, [true; 8], "two in any window are not too many: {quota:?}");
    }
}

/// An instance on a machine whose clock says what `clock` says, as production has it: the server is not
/// told the time.
async fn instance(backend: &Backend, clock: &SimClock, quota: Quota) -> Limiter<RedisExecutor> {
    let clock = Arc::new(clock.clone());
    let of_machine = Arc::clone(&clock);
    let redis = support::redis(backend.server(), |options| options.clock(of_machine)).await;
    Limiter::builder(redis.executor(), &Namespace::new("shop").unwrap(), "api", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(30))
        .deny_cache(Duration::ZERO)
        .clock(clock)
        .build()
        .unwrap()
}

// The flaw: the caller's clock says in which window a call is counted. Seen red with the limiter when the
// handle tells the server the time (`ScriptClock::Argument`).
#[tokio::test]
async fn machines_whose_clocks_differ_get_twice_as_much_by_their_own_clocks_and_not_by_the_servers()
{
    const MAX: u64 = 10;
    let mut fixed = quotas(MAX);
    fixed[3] = support::fixed_window_just_begun(MAX);
    for quota in fixed {
        let backend = Backend::redis().await;
        let clocks = [SimClock::new(), SimClock::new()];
        let hour_us = HOUR.as_micros() as u64;
        let until_next = hour_us - clocks[0].server_time().as_micros() % hour_us;
        clocks[0].advance(Duration::from_micros(until_next));
        clocks[1].advance(Duration::from_micros(until_next) + HOUR / 2);
        let machines = [
            instance(&backend, &clocks[0], quota).await,
            instance(&backend, &clocks[1], quota).await,
        ];
        let mut connection = connection(&backend).await;
        let (mut flawed, mut ours) = (0, 0);
        // 38 calls of each, within 0.95 of a window.
        for _ in 0..38 {
            for (clock, limiter) in clocks.iter().zip(&machines) {
                let window = clock.server_time().as_micros() / hour_us;
                let key = format!("flawed:{window}");
                flawed += u64::from(number(&mut connection, &["INCR", &key]).await <= MAX as i64);
                ours += u64::from(limiter.check("a").await.unwrap().is_allowed());
                clock.advance(HOUR / 40);
            }
        }
        assert_eq!(flawed, 2 * MAX, "the flaw is not there");
        assert_eq!(ours, MAX, "{quota:?}");
    }
}

/// Keys without a ttl.
const IMMORTAL: &str = "local immortal = 0 \
    for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
      if redis.call('PTTL', key) < 0 then immortal = immortal + 1 end \
    end \
    return immortal";

// The flaw: a number is compared with an argument, which is a string, so that the first call is never
// found to be the first, and the key never gets its ttl.
#[tokio::test]
async fn key_stays_for_ever_where_a_number_is_compared_with_a_string_and_not_here() {
    let flawed = "local count = redis.call('INCRBY', KEYS[1], ARGV[2]) \
        if count == ARGV[2] then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
        return count";
    for quota in quotas(10) {
        let backend = Backend::redis().await;
        let limiter = backend.limiter(quota);
        let mut connection = connection(&backend).await;
        for _ in 0..12 {
            number(&mut connection, &["EVAL", flawed, "1", "flawed", "3600000", "1"]).await;
            is_allowed(&limiter).await;
        }
        let receipt = limiter.check_with_receipt("b", 4).await.unwrap().receipt.unwrap();
        limiter.refund(receipt).await.unwrap();
        limiter.block("c", HOUR).await.unwrap();
        limiter.reset("a").await.unwrap();
        assert!(limiter.check_idempotent("d", 1, "request").await.unwrap().is_allowed());
        let immortal = async |connection: &mut RespConnection, keys: &str| {
            number(connection, &["EVAL", IMMORTAL, "0", keys]).await
        };
        assert_eq!(immortal(&mut connection, "flawed").await, 1, "the flaw is not there");
        let keys = number(&mut connection, &["DBSIZE"]).await;
        assert!(keys >= 4, "{keys} keys are not all that were used");
        assert_eq!(immortal(&mut connection, "{*").await, 0, "{quota:?}");
    }
}
