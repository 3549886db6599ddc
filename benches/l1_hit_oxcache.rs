//! What does a hit in L1 cost, against `oxcache`?
//!
//! A binary of its own: that crate keeps state for the whole process, in which two caches can meet.

use std::time::Duration;

use fleetwide_benches::{Answer, Contest, Effort, Measure, Row, on_threads, runtime, warm};

fn main() {
    let runtime = runtime();
    let runtime = runtime.handle();
    let effort = Effort::slices_of(Duration::from_millis(40));
    let mut answer = Answer::new("What does a hit in L1 cost, against `oxcache`?");
    let (bare, ours, oxcache) = (warm::bare(runtime), warm::ours(runtime), warm::oxcache(runtime));
    for threads in [1, 2] {
        let mut contest = Contest::new(Measure::Cost, effort, |n| on_threads(threads, n, &bare));
        for (name, hits) in [("**ours**", &ours), ("`oxcache`", &oxcache)] {
            let spread = contest.ratio(|n| on_threads(threads, n, hits));
            let threads = if threads == 1 { "1 thread" } else { "2 threads" };
            answer.row(Row::new(format!("{name}, {threads}"), spread));
        }
    }
    answer.note(
        "Floor, records and keys as for the other peers: a bare `moka::sync` hit, and the time per \
         hit, so less is better. `oxcache` 0.4.3, the newest release, with its tier in memory; it \
         keeps JSON there, so a typed hit decodes. Its pre-release 0.5.0-rc.12 asks for Rust 1.97.",
    );
    answer.keep("l1_hit_oxcache");
}
