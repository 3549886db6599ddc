//! How long does a decision take while Redis is frozen?

use std::time::{Duration, Instant};

use fleetwide_benches::{Answer, Row, Server, Spread, keys, runtime};
use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{Limiter, Quota, Source, Unavailable};
use fleetwide_redis_backend::RedisExecutor;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The default.
const DEADLINE: Duration = Duration::from_millis(20);
const TASKS: usize = 64;
const CALLS_EACH: usize = 300;
/// A service under steady load, and not one that does nothing but ask.
const PAUSE: Duration = Duration::from_millis(5);
const ROUNDS: usize = 5;

fn main() {
    runtime().block_on(async { ask().await.keep("limiter_frozen") });
}

async fn ask() -> Answer {
    let server = Server::start().await;
    let mut shares: [Vec<f64>; 4] = Default::default();
    for round in 0..ROUNDS {
        let limiter = limiter(&server, round).await;
        server.freeze();
        let times = decisions(&limiter).await;
        server.thaw();
        for (all, part) in shares.iter_mut().zip([0.5, 0.99, 0.999, 1.0]) {
            let rank = ((times.len() - 1) as f64 * part).ceil() as usize;
            all.push(times[rank].as_secs_f64() / DEADLINE.as_secs_f64());
        }
    }
    let mut answer = Answer::new("How long does a decision take while Redis is frozen?");
    let names = ["p50", "p99", "p99.9", "the longest"];
    for (name, share) in names.into_iter().zip(shares) {
        let row = Row::new(name, Spread::of(share));
        answer.row(if name == "p99.9" { row.target("<= 1.5") } else { row });
    }
    answer.note(
        "In deadlines of 20 ms, the default. The server is stopped (`SIGSTOP`) before the first of \
         19,200 decisions of 64 tasks, which come every 5 ms; five rounds. The first ones wait for \
         their deadline, then one caller in 200 ms asks and waits, and the others are answered by \
         this instance's share. What is beyond 1 is the timer, which counts milliseconds, and this \
         machine's scheduler.",
    );
    answer
}

async fn limiter(server: &Server, round: usize) -> Limiter<RedisExecutor> {
    let executor = server.ours().await.executor();
    let namespace = Namespace::new("bench").expect("a plain name");
    let quota = Quota::sliding_window(1_000_000, Duration::from_mins(1)).expect("within bounds");
    let limiter = Limiter::builder(executor, &namespace, &format!("frozen-{round}"), quota)
        .on_unavailable(Unavailable::LocalShare { instances: 3 })
        .build()
        .expect("the options fit together");
    let warm = limiter.check("warm").await.expect("a good key");
    assert_eq!(warm.source(), Source::Shared, "the server answers before it is stopped");
    limiter
}

/// How long each took, the shortest first.
async fn decisions(limiter: &Limiter<RedisExecutor>) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for key in keys(TASKS as u64) {
        let limiter = limiter.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(CALLS_EACH);
            for _ in 0..CALLS_EACH {
                let begun = Instant::now();
                let decision = limiter.check(&key).await.expect("a good key");
                times.push(begun.elapsed());
                assert_eq!(decision.source(), Source::LocalShare, "the server is stopped");
                sleep(PAUSE).await;
            }
            times
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    times.sort_unstable();
    times
}
