//! What does a hit in L1 cost?
//!
//! Asked by the runner it answers in ratios; started by hand it is a criterion bench, which tells a
//! developer what changed since the last run on the same machine.

use std::time::Duration;

use criterion::Criterion;
use fleetwide_benches::{Answer, Contest, Effort, Measure, Row, on_threads, runtime, warm};
use tokio::runtime::Handle;
use warm::Hits;

type Make = fn(&Handle) -> Hits;

const PEERS: [(&str, Make); 4] = [
    ("`cachet`, two tiers", warm::cachet),
    ("`multi-tier-cache`, its bytes undecoded", warm::multi_tier_bytes),
    ("`multi-tier-cache`, typed", warm::multi_tier),
    ("`hitbox`, two tiers", warm::hitbox),
];

/// What stands between ours and the floor.
const OVERHEAD: &str = "above the floor: one reading of a clock that goes on in suspend, \
     the floors, one counter";

fn main() {
    let runtime = runtime();
    if Answer::is_kept() {
        answer(runtime.handle()).keep("l1_hit");
    } else {
        compare(runtime.handle());
    }
}

fn answer(runtime: &Handle) -> Answer {
    let effort = Effort::slices_of(Duration::from_millis(40));
    let mut answer = Answer::new("What does a hit in L1 cost?");
    let (bare, bare_ours) = (warm::bare(runtime), warm::bare_with_our_hasher(runtime));
    let (ours, tier, ttl) =
        (warm::ours(runtime), warm::our_tier(runtime), warm::bare_with_a_ttl(runtime));
    for threads in [1, 2] {
        let mut contest = Contest::new(Measure::Cost, effort, |n| timed(threads, n, &bare));
        let mut row = |name: &str, hits: &Hits| {
            let spread = contest.ratio(|n| timed(threads, n, hits));
            Row::new(format!("{name}, {}", counted(threads)), spread)
        };
        answer.row(row("**ours**", &ours).target("<= 1.3").note(OVERHEAD));
        answer.row(row("our L1 tier alone", &tier).note("foldhash instead of SipHash"));
        answer.row(row("bare moka with a ttl", &ttl));
        for (name, make) in PEERS {
            answer.row(row(name, &make(runtime)));
        }
        let mut contest = Contest::new(Measure::Cost, effort, |n| timed(threads, n, &bare_ours));
        let spread = contest.ratio(|n| timed(threads, n, &ours));
        let name = format!("ours against moka with our hasher, {}", counted(threads));
        answer.row(Row::new(name, spread).note("the same floor, made as fast as ours can"));
    }
    answer.note(
        "Floor: `moka::sync::Cache<String, Arc<User>>` as it comes, bounded by a weigher. Ratios \
         are of the time per hit: less is better. All sides hold the same 1,024 records under the \
         same keys, and are read by one thread or by two at once. Ours checks epoch, floors, time \
         and freshness on each hit and counts it; its log is followed, so each hit is verified.",
    );
    answer
}

fn compare(runtime: &Handle) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("l1_hit");
    let sides: [(&str, Make); 4] = [
        ("bare moka", warm::bare),
        ("bare moka with our hasher", warm::bare_with_our_hasher),
        ("our tier", warm::our_tier),
        ("ours", warm::ours),
    ];
    for (name, make) in sides.into_iter().chain(PEERS) {
        let hits = make(runtime);
        group.bench_function(name, |bench| bench.iter_custom(|n| timed(1, n, &hits)));
    }
    group.finish();
    criterion.final_summary();
}

fn timed(threads: u64, count: u64, hits: &Hits) -> Duration {
    on_threads(threads, count, hits)
}

fn counted(threads: u64) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}
