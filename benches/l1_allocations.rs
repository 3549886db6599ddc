//! Does a hit in L1 allocate?
//!
//! A bench of its own, because an allocator that counts would slow the others down, and those that
//! allocate most.

use allocation_counter::measure;
use fleetwide_benches::warm::{self, Hits};
use fleetwide_benches::{Answer, Row, Spread, runtime};
use tokio::runtime::Handle;

/// Enough that what happens once in a while shows.
const HITS: u64 = 100_000;
const ROUNDS: usize = 5;

type Make = fn(&Handle) -> Hits;

const SIDES: [(&str, Make); 6] = [
    ("**ours**", warm::ours),
    ("bare moka", warm::bare),
    ("`cachet`, two tiers", warm::cachet),
    ("`multi-tier-cache`, its bytes undecoded", warm::multi_tier_bytes),
    ("`multi-tier-cache`, typed", warm::multi_tier),
    ("`hitbox`, two tiers", warm::hitbox),
];

fn main() {
    let runtime = runtime();
    let mut answer = Answer::new("Does a hit in L1 allocate?");
    for (name, make) in SIDES {
        let hits = make(runtime.handle());
        let spread = Spread::of((0..ROUNDS).map(|_| per_hit(&hits)).collect());
        let row = Row::new(name, spread);
        answer.row(if name == "**ours**" { row.target("<= 0") } else { row });
    }
    answer.note(
        "Counts, not ratios: allocations on the calling thread, divided by 100,000 hits. What a \
         cache allocates in its own tasks is not in them.",
    );
    answer.keep("l1_allocations");
}

/// Allocations of one hit. A batch of none tells what entering the runtime takes.
fn per_hit(hits: &Hits) -> f64 {
    hits(0, HITS);
    let entering = measure(|| hits(0, 0)).count_total;
    let all = measure(|| hits(0, HITS)).count_total;
    all.saturating_sub(entering) as f64 / HITS as f64
}
