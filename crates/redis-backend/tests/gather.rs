//! Many calls at once: they share their trips, and nothing else.

mod common;

use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::{SOON, builder, connected, count, key, ready, timed};
use fleetwide_core_traits::{BackendError, ExecutorExt, Outage, Store, Ttl};
use fleetwide_testkit::suite::ops::Count;
use fleetwide_testkit::{RedisServer, eventually};
use futures_util::future::{BoxFuture, join_all};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio::time::timeout;

/// Several waves, and some calls that are none.
const CROWD: usize = 200;
/// Calls that go out each for itself while no more are under way.
const ALONE: usize = 8;

type Counting = BoxFuture<'static, Result<u64, BackendError>>;

fn crowd(redis: &fleetwide_redis_backend::Redis, deadline: Duration) -> Vec<Counting> {
    let call = |number: usize| -> Counting {
        // The first ones wait for longer, so that what comes of the others is not their doing.
        let deadline = if number < ALONE { SOON } else { deadline };
        let executor = redis.executor().with_deadline(deadline);
        let one = Count::one(&key(&number.to_string()));
        Box::pin(async move { executor.run(&one).await.map(|counted| counted.count) })
    };
    (0..CROWD).map(call).collect()
}

/// Has all of them begin.
fn begin(calls: &mut [Counting]) {
    let mut context = Context::from_waker(Waker::noop());
    for call in calls {
        assert!(Pin::new(call).poll(&mut context).is_pending());
    }
}

async fn role_questions(server: &RedisServer) -> u64 {
    let stats = server.info("commandstats").await.unwrap();
    let calls =
        stats["cmdstat_role"].split(',').next().and_then(|calls| calls.strip_prefix("calls="));
    calls.unwrap().parse().unwrap()
}

// Red when the answers of a wave are handed out in another order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_crowd_gets_its_own_answer() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    let minute = Ttl::clamped(Duration::from_secs(60));
    let name = |number: usize| key(&number.to_string());
    for number in 0..CROWD {
        let value = Bytes::from(number.to_string());
        redis.store().set(&name(number), value, minute).await.unwrap();
    }
    for _ in 0..20 {
        let reads = (0..CROWD).map(|number| {
            let store = redis.store();
            tokio::spawn(async move { store.get(&name(number)).await })
        });
        for (number, answer) in join_all(reads).await.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), Ok(Some(number.to_string().into())));
        }
    }
}

// Red when a wave takes those along who have left.
#[tokio::test]
async fn who_leaves_before_the_wave_is_not_on_it() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    // The server must know the script: what it does not know does nothing.
    count(&redis, "warm").await.unwrap();
    let mut calls = crowd(&redis, SOON);
    begin(&mut calls);
    let stay = calls.split_off(CROWD - 3);
    drop(calls);
    for answer in join_all(stay).await {
        assert_eq!(answer, Ok(1));
    }
    for number in ALONE..CROWD - 3 {
        assert_eq!(count(&redis, &number.to_string()).await, Ok(1), "{number} was sent");
    }
}

// Red when a wave goes on for nobody: then the places are free only at its deadline. Red when a place is
// given back with its caller, although the server may have the call.
#[tokio::test]
async fn place_is_taken_until_the_wave_is_over_and_it_is_over_when_all_have_left() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(builder(&server.url()).in_flight_max(CROWD)).await;
    server.stop();
    let mut calls = crowd(&redis, SOON);
    begin(&mut calls);
    turns().await;
    let first: Vec<Counting> = calls.drain(..ALONE).collect();
    // One of each wave stays.
    let mut place = 0;
    calls.retain(|_| {
        place += 1;
        place % 16 == 1
    });
    turns().await;
    let saturated = BackendError::NotSent(Outage::Saturated(CROWD));
    assert_eq!(count(&redis, "more").await, Err(saturated));
    drop(calls);
    turns().await;
    let mut again = crowd(&redis, SOON);
    begin(&mut again[ALONE..]);
    server.cont();
    drop(again);
    for answer in join_all(first).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
}

/// Lets all that can run do so.
async fn turns() {
    for _ in 0..100 {
        yield_now().await;
    }
}

// Red when a missed deadline of a wave is not told to the connection's supervisor. On the frozen
// server the first calls wait for longer, so only the waves can miss theirs.
#[tokio::test]
async fn waves_that_are_not_answered_in_time_cast_doubt_on_the_connection() {
    let server = RedisServer::start().await.unwrap();
    let redis = connected(&server).await;
    count(&redis, "warm").await.unwrap();
    let before = role_questions(&server).await;
    server.stop();
    let hasty = Duration::from_millis(50);
    let mut calls = crowd(&redis, hasty);
    begin(&mut calls);
    let first: Vec<Counting> = calls.drain(..ALONE).collect();
    for answer in join_all(calls).await {
        assert_eq!(answer, Err(BackendError::Unknown(Outage::Deadline(hasty))));
    }
    server.cont();
    for answer in join_all(first).await {
        assert_eq!(answer, Ok(1));
    }
    let is_asked = async || role_questions(&server).await > before;
    eventually(SOON, "the supervisor to ask", is_asked).await;
}

// Red without the end of an errand: who waits for one does so until its deadline. Red without the
// look at the size: a large command waits as they do.
#[test]
fn who_waits_for_a_wave_is_told_when_its_runtime_ends() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (home, away) = (runtime(), runtime());
    let (_server, redis) = home.block_on(async {
        let server = RedisServer::start().await.unwrap();
        let redis = ready(builder(&server.url())).await;
        (server, redis)
    });
    away.block_on(async {
        // Nobody drives the runtime of the connection, so nothing is sent.
        let mut calls = crowd(&redis, SOON);
        calls.truncate(ALONE + 3);
        begin(&mut calls);
        let (store, name) = (redis.store(), key("large"));
        let large = Bytes::from(vec![b'x'; 64 * 1024]);
        let mut large = Box::pin(store.set(&name, large, Ttl::clamped(SOON)));
        assert!(large.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        thread::spawn(move || drop(home)).join().unwrap();
        let (answers, took) = timed(timeout(SOON, join_all(calls))).await;
        let answers: Vec<_> = answers.unwrap().into_iter().map(Result::unwrap_err).collect();
        for error in &answers {
            assert!(matches!(error, BackendError::Unknown(_)), "{error:?}");
        }
        assert_ne!(answers[0], answers[ALONE], "who went alone was told by the client library");
        assert_eq!(large.await.unwrap_err(), answers[0]);
        assert!(took < SOON / 2, "{took:?}");
        // The next ones are told at once, and the queue is empty.
        let later = count(&redis, "later").await;
        assert!(matches!(later, Err(BackendError::NotSent(_))), "{later:?}");
    });
}
