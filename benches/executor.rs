//! What does an atomic step cost?
//!
//! The part in memory is a criterion bench as well, when it is started by hand.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::Criterion;
use fleetwide_benches::{
    Answer, BareScript, Contest, Effort, Measure, Row, Server, Work, keys, on_tasks, on_threads,
    runtime, work,
};
use fleetwide_core_traits::{ExecutorExt, Key, Namespace};
use fleetwide_mem_backend::Memory;
use fleetwide_testkit::suite::ops::Count;
use tokio::runtime::{Handle, Runtime};

/// Counters that the steps count on, one after the other.
const COUNTERS: u64 = 1024;

type Steps = Box<dyn Fn(u64, u64) + Sync>;

fn main() {
    let runtime = runtime();
    if !Answer::is_kept() {
        return compare(runtime.handle());
    }
    let mut answer = Answer::new("What does an atomic step cost?");
    in_memory(&mut answer, runtime.handle());
    over_redis(&mut answer, &runtime);
    answer.note(
        "In memory the floor is `Mutex<HashMap<Key, u64>>` and one addition, and ratios are of the \
         time per step: less is better. Ours is the same step as over Redis: it has an expiry, a \
         clock, a bound on the number of cells, and any type of state.",
    );
    answer.note(
        "Over Redis the floor is `EVALSHA` of the same script over one `MultiplexedConnection` \
         with `TCP_NODELAY`, and ratios are of steps per second: more is better.",
    );
    answer.keep("executor");
}

fn in_memory(answer: &mut Answer, runtime: &Handle) {
    let effort = Effort::slices_of(Duration::from_millis(40));
    let (bare, ours) = (bare_in_memory(), ours_in_memory(runtime));
    for threads in [1, 2] {
        let floor = |n| on_threads(threads, n, &bare);
        let spread =
            Contest::new(Measure::Cost, effort, floor).ratio(|n| on_threads(threads, n, &ours));
        answer.row(Row::new(format!("in memory, {}", counted(threads, "thread")), spread));
    }
}

fn over_redis(answer: &mut Answer, runtime: &Runtime) {
    let effort = Effort::slices_of(Duration::from_millis(100));
    let server = runtime.block_on(Server::start());
    let bare = runtime.block_on(bare_on_redis(&server));
    let ours = runtime.block_on(ours_on_redis(&server));
    for tasks in [1, 64, 256] {
        let mut contest = Contest::new(Measure::Rate, effort, on_tasks(runtime, tasks, &bare));
        let spread = contest.ratio(on_tasks(runtime, tasks, &ours));
        answer.row(Row::new(format!("over Redis, {}", counted(tasks, "task")), spread));
    }
}

fn compare(runtime: &Handle) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("executor");
    for (name, steps) in [("bare map", bare_in_memory()), ("ours", ours_in_memory(runtime))] {
        group.bench_function(name, |bench| bench.iter_custom(|n| on_threads(1, n, &steps)));
    }
    group.finish();
    criterion.final_summary();
}

fn bare_in_memory() -> Steps {
    let cells = counters("bare");
    let map: Mutex<HashMap<Key, u64>> =
        Mutex::new(cells.iter().cloned().map(|key| (key, 0)).collect());
    Box::new(move |thread, count| {
        for at in turns(thread, count) {
            let mut map = map.lock().expect("no step panics");
            let counter = map.get_mut(&cells[at]).expect("all counters are there");
            *counter += 1;
            black_box(*counter);
        }
    })
}

fn ours_in_memory(runtime: &Handle) -> Steps {
    let (runtime, executor) = (runtime.clone(), Memory::new().executor().clone());
    let ops: Vec<Count> = counters("ours").iter().map(Count::one).collect();
    Box::new(move |thread, count| {
        runtime.block_on(async {
            for at in turns(thread, count) {
                black_box(executor.run(&ops[at]).await.expect("memory is there"));
            }
        });
    })
}

async fn bare_on_redis(server: &Server) -> Work {
    let connection = server.bare().await;
    let cells: Arc<[Key]> = counters("bare").into();
    let script = Arc::new(BareScript::of(&Count::one(&cells[0]), connection.clone()).await);
    work(move |mut turns| {
        let (mut connection, cells) = (connection.clone(), Arc::clone(&cells));
        let script = Arc::clone(&script);
        async move {
            while let Some(turn) = turns.next() {
                let key = cells[(turn % COUNTERS) as usize].as_bytes();
                black_box(script.call::<[i64; 2]>(&mut connection, key).await);
            }
        }
    })
}

async fn ours_on_redis(server: &Server) -> Work {
    let executor = server.ours().await.executor();
    let ops: Arc<[Count]> = counters("ours").iter().map(Count::one).collect();
    work(move |mut turns| {
        let (executor, ops) = (executor.clone(), Arc::clone(&ops));
        async move {
            while let Some(turn) = turns.next() {
                let counted = executor.run(&ops[(turn % COUNTERS) as usize]).await;
                black_box(counted.expect("the server runs it"));
            }
        }
    })
}

fn counters(side: &str) -> Vec<Key> {
    let namespace = Namespace::new("bench").expect("a plain name");
    let tag = namespace.tag("executor", side.as_bytes()).expect("a plain name");
    let key = |name: String| tag.named("count", name.as_bytes()).expect("short names");
    keys(COUNTERS).into_iter().map(key).collect()
}

/// Which counters a thread counts on. Threads walk through the same ones half a round apart.
fn turns(thread: u64, count: u64) -> impl Iterator<Item = usize> {
    let start = thread * COUNTERS / 2;
    (start..start + count).map(|at| (at % COUNTERS) as usize)
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
