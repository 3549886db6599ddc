//! Ten thousand decisions while a real Redis is frozen: by whom, how late, and what they leave behind.
//!
//! The runtime's time stands unless nothing can go on, and then goes to the next timer at once. So each
//! wait has its exact length, whatever the machine is busy with.

mod support;
#[path = "support/timed.rs"]
mod timed;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetwide_core_traits::{BackendError, ErasedOp, Executor, Namespace, Script};
use fleetwide_limiter::{Limiter, Quota, Source, Unavailable};
use fleetwide_redis_backend::RedisExecutor;
use fleetwide_testkit::eventually;
use futures_util::future::join_all;
use timed::TimerClock;
use tokio::runtime::Handle;
use tokio::time::{Instant, pause, resume, sleep};

const DEADLINE: Duration = Duration::from_millis(20);
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Timers count milliseconds, and begin one late.
const TIMER: Duration = Duration::from_millis(2);
/// How long an event of these tests may take; they take milliseconds.
const SOON: Duration = Duration::from_secs(20);
const CALLERS: usize = 100;
const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Counts the steps that were asked for, and those that are under way.
#[derive(Clone)]
struct Watched {
    executor: RedisExecutor,
    asked: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
}

/// A step is under way until its future is gone, answered or dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Executor for Watched {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let _under_way = UnderWay(&self.under_way);
        self.executor.execute(op).await
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        self.executor.prepare(scripts);
    }
}

// Seen red: with a deadline that comes 30 ms late, and when every caller asks in an outage.
#[tokio::test]
async fn frozen_redis_makes_no_decision_late_and_leaves_no_task_and_no_queue() {
    let server = support::server().await;
    // The handle waits far longer than any limiter.
    let redis = support::redis(&server, |options| options).await;
    let executor =
        Watched { executor: redis.executor(), asked: Arc::default(), under_way: Arc::default() };
    let namespace = Namespace::new("shop").unwrap();
    let quota = Quota::sliding_window(100_000, Duration::from_secs(3600)).unwrap();
    let limiter = |deadline| {
        Limiter::builder(executor.clone(), &namespace, "api", quota)
            .on_unavailable(Unavailable::LocalShare { instances: 1 })
            .probe_every(PROBE_EVERY)
            .clock(Arc::new(TimerClock::new()))
            .deadline(deadline)
            .build()
            .unwrap()
    };
    let patient = limiter(SOON);
    assert_eq!(patient.check("hot").await.unwrap().source(), Source::Shared);
    server.stop();
    pause();
    let begun = Instant::now();
    let limiter = limiter(DEADLINE);
    let (mut late, mut waited, mut tasks) = (0, 0, Vec::new());
    for round in 0..ROUNDS {
        // Half of them want one key, and would share a trip; the others want one each.
        let calls = (0..CALLERS).map(|caller| {
            let limiter = &limiter;
            async move {
                let begun = Instant::now();
                let hot = "hot".to_owned();
                let key = if caller % 2 == 0 { hot } else { format!("{round}/{caller}") };
                let decision = limiter.check(key).await.unwrap();
                assert_eq!(decision.source(), Source::LocalShare);
                begun.elapsed()
            }
        });
        let waits = join_all(calls).await;
        late += waits.iter().filter(|wait| **wait > DEADLINE + TIMER).count();
        waited += waits.iter().filter(|wait| !wait.is_zero()).count();
        sleep(PAUSE).await;
        tasks.push(Handle::current().metrics().num_alive_tasks());
        let under_way = executor.under_way.load(Ordering::SeqCst);
        assert_eq!(under_way, 0, "nobody waits for them any more, in round {round}");
    }
    let probes = (begun.elapsed().as_millis() / PROBE_EVERY.as_millis()) as usize + 1;
    assert_eq!(late, 0, "of {} decisions", CALLERS * ROUNDS);
    // All of the first round waited, and then one caller for each probe.
    assert!(waited <= CALLERS + probes, "{waited} waited, of which {probes} may have probed");
    let asked = executor.asked.load(Ordering::SeqCst);
    assert!(asked <= CALLERS + probes + 2, "{asked} questions to a server that does not answer");
    // What mends the connection comes and goes; the decisions leave none.
    let (early, last) = (tasks[ROUNDS / 10], tasks[ROUNDS - 1]);
    assert!(last <= early + 3, "tasks: {tasks:?}");
    resume();
    server.cont();
    let is_back = async || limiter.check("hot").await.unwrap().source() == Source::Shared;
    eventually(SOON, "the fleet's count", is_back).await;
}
