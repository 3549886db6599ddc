//! A server, or something in front of it, answers nonsense. Nothing panics, nothing is made up,
//! and honest answers are back as soon as the other side is honest.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{SOON, count, hasty, hear, key, ready, trouble, up};
use fleetwide_core_traits::{BackendError, Bus, ExecutorExt, Signal, Store, Ttl};
use fleetwide_redis_backend::Redis;
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{Proxy, RedisServer, eventually};

const MINUTE: Ttl = Ttl::clamped(Duration::from_secs(60));

async fn behind_a_proxy() -> (RedisServer, Proxy, Redis) {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let redis = ready(hasty(&proxy.url_like(&server.url()))).await;
    (server, proxy, redis)
}

fn is_malformed<T>(answer: &Result<T, BackendError>) -> bool {
    matches!(answer, Err(BackendError::Malformed(_)))
}

#[tokio::test]
async fn replies_of_a_wrong_type_are_errors_that_name_both() {
    let (_server, proxy, redis) = behind_a_proxy().await;
    let store = redis.store();
    proxy.lie(":7\r\n");
    let answer = store.get(&key("a")).await.unwrap_err();
    assert_eq!(
        answer.to_string(),
        "the reply makes no sense: expected bytes, the server sent an integer"
    );
    assert!(is_malformed(&store.set(&key("a"), Bytes::new(), MINUTE).await));
    assert!(is_malformed(&store.get_many(&[key("a"), key("b")]).await));
    assert!(is_malformed(&count(&redis, "a").await));
    proxy.lie("*1\r\n$1\r\nx\r\n");
    assert!(is_malformed(&store.get_many(&[key("a"), key("b")]).await), "too few values");
    assert!(is_malformed(&store.remove(&key("a")).await));
    assert!(is_malformed(&redis.info().await.map(drop)));
    for counted in redis.executor().run_many(&[Count::one(&key("a")), Count::one(&key("b"))]).await
    {
        assert!(is_malformed(&counted));
    }
    proxy.lie("*2\r\n-ERR in here\r\n:1\r\n");
    assert!(is_malformed(&count(&redis, "a").await));
    proxy.pass();
    assert_eq!(count(&redis, "a").await, Ok(1));
    assert!(redis.health().is_up(), "a wrong reply is no outage");
}

#[tokio::test]
async fn bytes_that_are_no_reply_cost_the_connection_and_nothing_else() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x46\r\n",
        b":not-a-number\r\n",
        b"*1\r\n?\r\n",
        b"$-7\r\n\xff\xfe\r\n",
    ] {
        let (_server, proxy, redis) = behind_a_proxy().await;
        proxy.lie(Bytes::from_static(garbage));
        let answer = redis.store().get(&key("a")).await;
        let honest =
            matches!(answer, Err(BackendError::Malformed(_) | BackendError::Unknown(_)) | Ok(None));
        assert!(honest, "{answer:?}");
        proxy.pass();
        eventually(SOON, "honest answers", async || count(&redis, "a").await.is_ok()).await;
        up(&redis).await;
    }
}

#[tokio::test]
async fn what_speaks_no_redis_is_said_to() {
    let (_server, proxy, redis) = behind_a_proxy().await;
    proxy.lie("HTTP/1.1 400 Bad Request\r\n\r\n");
    proxy.cut();
    eventually(SOON, "the reason", async || {
        redis.health().reason() == Some("what answers there does not speak Redis")
    })
    .await;
}

#[tokio::test]
async fn huge_lengths_neither_hang_nor_take_memory() {
    for huge in [
        "*2147483647\r\n",
        "*9223372036854775807\r\n",
        "$9223372036854775807\r\n",
        "%4611686018427387904\r\n",
        "%9223372036854775807\r\n",
        ">9223372036854775807\r\n",
        "|9223372036854775807\r\n",
    ] {
        let (_server, proxy, redis) = behind_a_proxy().await;
        proxy.lie(huge);
        let answer = redis.store().get(&key("a")).await;
        assert!(answer.is_err(), "{huge:?} was taken for {answer:?}");
        proxy.pass();
        eventually(SOON, "honest answers", async || count(&redis, "a").await.is_ok()).await;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    assert!(kib.is_none_or(|kib| kib < 512 * 1024), "{kib:?} KiB at the peak");
}

#[tokio::test]
async fn deeply_nested_reply_is_refused() {
    let (_server, proxy, redis) = behind_a_proxy().await;
    proxy.lie("*1\r\n".repeat(100_000));
    let answer = redis.store().get(&key("a")).await;
    assert!(answer.is_err(), "{answer:?}");
    proxy.pass();
    eventually(SOON, "honest answers", async || count(&redis, "a").await.is_ok()).await;
}

#[tokio::test]
async fn subscription_that_is_answered_with_nonsense_is_never_ready() {
    let (_server, proxy, redis) = behind_a_proxy().await;
    proxy.lie_to("SUBSCRIBE", "+OK\r\n");
    let mut heard = redis.bus().subscribe(&common::channel("a"));
    trouble(&redis, "degraded").await;
    let early = tokio::time::timeout(Duration::ZERO, hear(&mut heard)).await;
    assert!(early.is_err(), "{early:?}");
    proxy.pass();
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    up(&redis).await;
}
