//! What does a strict decision cost?

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_benches::{
    Answer, BareScript, Contest, Effort, Measure, Row, Server, Work, keys, on_tasks, runtime, work,
};
use fleetwide_core_traits::Namespace;
use fleetwide_limiter::op::{Check, cell};
use fleetwide_limiter::{
    Algorithm, GcraQuota, Leasing, Limiter, LimiterBuilder, PolicyName, Quota, Shadow, Source,
    Unavailable, WindowQuota,
};
use fleetwide_redis_backend::RedisExecutor;
use tokio::runtime::Runtime;

/// Callers that are limited one by one.
const CALLERS: u64 = 16 * 1024;
/// So much that nobody is refused: a refusal would be another question.
const MAX: u64 = 100_000;
const BURST: u64 = 100_000;

/// Why it is not below the floor.
const WAVES: &str = "calls that come at the same time go out together, in waves";

/// So much that one key is not used up at the speed of leases.
const HOT_MAX: u64 = 4_000_000_000;

fn main() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start());
    let mut answer = Answer::new("What does a strict decision cost?");
    let second = Duration::from_secs(1);
    let gcra = GcraQuota::new(MAX, second, BURST).expect("within bounds");
    let window = WindowQuota::new(MAX, second).expect("within bounds");
    ask(&mut answer, &runtime, &server, "GCRA", gcra, Quota::Gcra(gcra));
    ask(&mut answer, &runtime, &server, "sliding window", window, Quota::SlidingWindow(window));
    ask_on_one_key(&mut answer, &runtime, &server);
    ask_with_a_shadow(&mut answer, &runtime, &server);
    answer.note(
        "Floor: `EVALSHA` of the same script text with the same arguments over one \
         `MultiplexedConnection` with `TCP_NODELAY`, the reply read as a list of integers. Ratios \
         are of decisions per second: more is better. 16,384 callers are limited one by one, and \
         none is refused. Ours names the key, keeps a deadline, counts and times each decision. *One \
         key* is one caller for all tasks, by the sliding window, on both sides; *leased* buys cells \
         ahead for it. The row after it has our GCRA as its floor, and the last ones our own limiter \
         without a candidate: it is tried on a quarter of the keys, as by default, or on all.",
    );
    answer.keep("limiter");
}

fn ask<A: Algorithm>(
    answer: &mut Answer,
    runtime: &Runtime,
    server: &Server,
    name: &str,
    algorithm: A,
    quota: Quota,
) {
    let effort = Effort::slices_of(Duration::from_millis(100));
    let bare = runtime.block_on(bare(server, algorithm));
    let ours = runtime.block_on(ours(server, quota));
    for tasks in [1, 64, 256] {
        let mut contest = Contest::new(Measure::Rate, effort, on_tasks(runtime, tasks, &bare));
        let spread = contest.ratio(on_tasks(runtime, tasks, &ours));
        let row = Row::new(format!("{name}, {}", counted(tasks)), spread);
        answer.row(if tasks == 64 { row.target(">= 0.9").note(WAVES) } else { row });
    }
}

/// A single key that all tasks call: trips that are shared, and cells that are bought ahead.
fn ask_on_one_key(answer: &mut Answer, runtime: &Runtime, server: &Server) {
    let effort = Effort::slices_of(Duration::from_millis(100));
    let window = WindowQuota::new(HOT_MAX, Duration::from_secs(1)).expect("within bounds");
    let bare = runtime.block_on(bare_on(server, window, 1));
    let sides: [(&str, Options, &str); 3] = [
        ("one key, combined", Box::new(|options| options), ">= 3"),
        ("one key, not combined", Box::new(|options| options.combining(false)), ""),
        ("one key, leased", Box::new(|options| options.leased(Leasing::new())), ">= 20"),
    ];
    for (name, options, target) in sides {
        let ours = runtime.block_on(ours_on(server, Quota::SlidingWindow(window), 1, options));
        let mut contest = Contest::new(Measure::Rate, effort, on_tasks(runtime, 256, &bare));
        let row =
            Row::new(format!("{name}, 256 tasks"), contest.ratio(on_tasks(runtime, 256, &ours)));
        answer.row(if target.is_empty() { row } else { row.target(target) });
    }
    let second = Duration::from_secs(1);
    let gcra = Quota::gcra(MAX, second, BURST).expect("within bounds");
    let window = Quota::sliding_window(MAX, second).expect("within bounds");
    let [gcra, window] = [gcra, window].map(|quota| runtime.block_on(ours(server, quota)));
    let mut contest = Contest::new(Measure::Rate, effort, on_tasks(runtime, 64, &gcra));
    let spread = contest.ratio(on_tasks(runtime, 64, &window));
    answer.row(Row::new("sliding window by GCRA, 64 tasks".to_owned(), spread));
}

/// A candidate beside the real quota, by the plain check: it is asked in the same trip.
fn ask_with_a_shadow(answer: &mut Answer, runtime: &Runtime, server: &Server) {
    let effort = Effort::slices_of(Duration::from_millis(100));
    let second = Duration::from_secs(1);
    let gcra = Quota::gcra(MAX, second, BURST).expect("within bounds");
    let window = Quota::sliding_window(MAX, second).expect("within bounds");
    let candidate = Shadow::new(Quota::gcra(MAX / 2, second, BURST).expect("within bounds"));
    for (name, quota) in [("GCRA", gcra), ("sliding window", window)] {
        let plain = runtime.block_on(ours(server, quota));
        let mut contest = Contest::new(Measure::Rate, effort, on_tasks(runtime, 64, &plain));
        let default: Options = Box::new(move |options| options.shadow(candidate));
        let all: Options = Box::new(move |options| options.shadow(candidate.share_of_keys(1.0)));
        for (keys, target, options) in [("", ">= 0.77", default), (" for all keys", "", all)] {
            let shadowed = runtime.block_on(ours_on(server, quota, CALLERS, options));
            let spread = contest.ratio(on_tasks(runtime, 64, &shadowed));
            let row = format!("{name} with a GCRA candidate{keys} by without, 64 tasks");
            let row = Row::new(row, spread);
            answer.row(if target.is_empty() { row } else { row.target(target) });
        }
    }
}

type Options = Box<dyn Fn(LimiterBuilder<RedisExecutor>) -> LimiterBuilder<RedisExecutor>>;

async fn ours(server: &Server, quota: Quota) -> Work {
    ours_on(server, quota, CALLERS, Box::new(|options| options)).await
}

async fn ours_on(server: &Server, quota: Quota, callers: u64, options: Options) -> Work {
    let executor = server.ours().await.executor();
    let namespace = Namespace::new("bench").expect("a plain name");
    // What was spent by a larger quota counts by a smaller one too.
    let name = if callers == 1 { "hot" } else { "ours" };
    let limiter = Limiter::builder(executor, &namespace, name, quota)
        .on_unavailable(Unavailable::Deny)
        // A round of measuring must not end because this machine was busy elsewhere.
        .deadline(Duration::from_secs(1));
    let limiter = options(limiter).build().expect("the options fit together");
    let keys: Arc<[String]> = keys(callers).into();
    work(move |mut turns| {
        let (limiter, keys) = (limiter.clone(), Arc::clone(&keys));
        async move {
            while let Some(turn) = turns.next() {
                let decision = limiter.check(&keys[(turn % callers) as usize]).await;
                let decision = decision.expect("the keys are good");
                let is_counted = matches!(decision.source(), Source::Shared | Source::Leased);
                assert!(decision.is_allowed() && is_counted);
                let _ = black_box(decision);
            }
        }
    })
}

async fn bare<A: Algorithm>(server: &Server, algorithm: A) -> Work {
    bare_on(server, algorithm, CALLERS).await
}

async fn bare_on<A: Algorithm>(server: &Server, algorithm: A, callers: u64) -> Work {
    let connection = server.bare().await;
    let namespace = Namespace::new("bench").expect("a plain name");
    let policy = PolicyName::new("bare").expect("a plain name");
    let key = |name: String| cell::<A>(&namespace, &policy, name.as_bytes()).expect("short names");
    let keys: Arc<[_]> = keys(callers).into_iter().map(key).collect();
    let op = Check::new(algorithm, keys[0].clone(), 1);
    let script = Arc::new(BareScript::of(&op, connection.clone()).await);
    work(move |mut turns| {
        let (mut connection, script) = (connection.clone(), Arc::clone(&script));
        let keys = Arc::clone(&keys);
        async move {
            while let Some(turn) = turns.next() {
                let key = keys[(turn % callers) as usize].as_bytes();
                let reply: [i64; 4] = script.call(&mut connection, key).await;
                assert!(reply[0] > 0, "nobody is refused");
                black_box(reply);
            }
        }
    })
}

fn counted(tasks: u64) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}
