//! Several processes with several tasks each on one key of a real Redis: never over.
//!
//! Each call notes when it began and when it was answered, by the clock that the server shares. The
//! decision lay between the two, so what certainly lay within one window is counted, and nothing is
//! blamed on the server that the network did.

mod support;

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{GcraQuota, Limiter, Quota, Source, Unavailable, WindowQuota};
use fleetwide_redis_backend::{Redis, RedisUrl};

const PROCESSES: usize = 4;
const TASKS: usize = 8;
/// Long enough for several windows; the contract must hold in all of them.
const DURATION: Duration = Duration::from_millis(1_500);

/// Set for a process that this test started: the server, and which quota.
const CHILD_URL: &str = "FLEETWIDE_NEVER_OVER_URL";
const CHILD_QUOTA: &str = "FLEETWIDE_NEVER_OVER_QUOTA";

fn gcra() -> GcraQuota {
    GcraQuota::new(200, Duration::from_secs(1), 15).unwrap()
}

fn window() -> WindowQuota {
    WindowQuota::new(40, Duration::from_millis(300)).unwrap()
}

/// An allowed call: µs at which it began and was answered, and its cost.
type Admitted = (u64, u64, u64);

// Red with a maximum of one cell more in the script.
#[tokio::test]
async fn window_of_four_processes_is_never_over() {
    let admitted = run_processes("window").await;
    let (max, length) = (u64::from(window().max()), window().window_us());
    for &(begin, _, _) in &admitted {
        let end = begin + length;
        let within = admitted.iter().filter(|call| call.0 >= begin && call.1 <= end);
        let sum: u64 = within.map(|call| call.2).sum();
        assert!(sum <= max, "{sum} of {max} within one window");
    }
    let sum: u64 = admitted.iter().map(|call| call.2).sum();
    assert!(sum >= 3 * max, "{sum} in {DURATION:?}: it hardly limits, it stops");
}

// Red with a burst of one cell more in the script.
#[tokio::test]
async fn gcra_of_four_processes_is_never_over() {
    let mut admitted = run_processes("gcra").await;
    admitted.sort_unstable();
    let quota = gcra();
    for (first, &(begin, _, _)) in admitted.iter().enumerate() {
        // All intervals that begin with this call, by the latest answer in them.
        let mut later: Vec<_> = admitted[first..].iter().map(|call| (call.1, call.2)).collect();
        later.sort_unstable();
        let mut sum = 0;
        for (end, cost) in later {
            sum += cost;
            let earned = (end - begin) / quota.interval_us();
            let most = u64::from(quota.burst()) + earned;
            assert!(sum <= most, "{sum} of {most} within {} µs", end - begin);
        }
    }
    let sum: u64 = admitted.iter().map(|call| call.2).sum();
    assert!(sum >= 100, "{sum} in {DURATION:?}: it hardly limits, it stops");
}

/// Starts the processes at once and collects what they were allowed.
async fn run_processes(quota: &str) -> Vec<Admitted> {
    let server = support::server().await;
    let start = || {
        Command::new(env::current_exe().expect("this test is a file"))
            .args(["--exact", "process_of_a_fleet", "--nocapture"])
            .env(CHILD_URL, server.url())
            .env(CHILD_QUOTA, quota)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test can be started again")
    };
    let children: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output().expect("it ends"));
    let mut admitted = Vec::new();
    for output in outputs {
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("numbers are text");
        for line in text.lines().filter_map(|line| line.strip_prefix("admitted ")) {
            let mut numbers = line.split(' ').map(|text| text.parse().expect("a number"));
            let mut next = || numbers.next().expect("three numbers");
            admitted.push((next(), next(), next()));
        }
    }
    admitted
}

/// One process of the fleet; for the test runner itself it is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_of_a_fleet() {
    let Ok(url) = env::var(CHILD_URL) else { return };
    let quota = match env::var(CHILD_QUOTA).as_deref() {
        Ok("gcra") => Quota::Gcra(gcra()),
        _ => Quota::SlidingWindow(window()),
    };
    let redis = Redis::builder(RedisUrl::parse(&url).unwrap()).build().unwrap();
    redis.ready(Duration::from_secs(30)).await.unwrap();
    let namespace = Namespace::new("fleet").unwrap();
    let limiter = Limiter::builder(redis.executor(), &namespace, "test", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(Duration::from_secs(5))
        .build()
        .unwrap();
    let until = Instant::now() + DURATION;
    let tasks = (0..TASKS).map(|task| tokio::spawn(call_until(limiter.clone(), task, until)));
    let mut text = String::new();
    for task in tasks.collect::<Vec<_>>() {
        for (begin, end, cost) in task.await.unwrap() {
            writeln!(text, "admitted {begin} {end} {cost}").unwrap();
        }
    }
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

async fn call_until(
    limiter: Limiter<impl fleetwide_core_traits::Executor>,
    task: usize,
    until: Instant,
) -> Vec<Admitted> {
    let cost = 1 + task as u64 % 3;
    let mut admitted = Vec::new();
    while Instant::now() < until {
        let begin = now_us();
        let decision = limiter.check_cost("one", cost).await.unwrap();
        let is_remembered = decision.source() == Source::Remembered && !decision.is_allowed();
        assert!(is_remembered || decision.source() == Source::Shared, "{decision:?}");
        if decision.is_allowed() {
            admitted.push((begin, now_us(), cost));
        }
    }
    admitted
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}
