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

const PEERS: [(&str, Make); 4] = [
    ("`cachet`, two tiers", warm::cachet),
    ("`multi-tier-cache`, its bytes undecoded", warm::multi_tier_bytes),
    ("`multi-tier-cache`, typed", warm::multi_tier),
    ("`hitbox`, two tiers", warm::hitbox),
];

fn main() {
    let runtime = runtime();
    let (ours, bare) = (warm::ours(runtime.handle()), warm::bare(runtime.handle()));
    let mut answer = Answer::new("Does a hit in L1 allocate?");
    let beyond = rounds(|| thousandths(per_hit(&ours) - per_hit(&bare)));
    answer.row(Row::new("**ours**, beyond the bare moka below", beyond).target("<= 0"));
    answer.row(
        Row::new("bare moka", rounds(|| per_hit(&bare)))
            .note("one in about 128 hits: moka's own housekeeping"),
    );
    for (name, make) in PEERS {
        let hits = make(runtime.handle());
        answer.row(Row::new(name, rounds(|| per_hit(&hits))));
    }
    answer.note(
        "Counts, not ratios: allocations per hit on the calling thread, over 100,000 hits. What a \
         cache allocates in its own tasks is not in them. Peers are counted as they are, with what \
         the moka inside them allocates.",
    );
    answer.keep("l1_allocations");
}

fn rounds(one: impl Fn() -> f64) -> Spread {
    Spread::of((0..ROUNDS).map(|_| one()).collect())
}

/// Allocations of one hit. A batch of none tells what entering the runtime takes.
fn per_hit(hits: &Hits) -> f64 {
    hits(0, HITS);
    let entering = measure(|| hits(0, 0)).count_total;
    let all = measure(|| hits(0, HITS)).count_total;
    all.saturating_sub(entering) as f64 / HITS as f64
}

/// Two batches of the same work differ by what falls on their edges, one allocation at most.
fn thousandths(count: f64) -> f64 {
    (count * 1000.0).round() / 1000.0
}
