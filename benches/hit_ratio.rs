//! How often does L1 have what it is asked for?

use std::sync::Arc;

use fleetwide_benches::trace::{KEYS, Request, Trace, weight_of};
use fleetwide_benches::{Answer, Row, Spread};
use fleetwide_core_traits::Local;
use fleetwide_mem_backend::MokaLocal;
use lru::LruCache;

type Make = fn(&Trace, usize, u64) -> Vec<Request>;

const REQUESTS: usize = 1_000_000;
const SEEDS: u64 = 5;
/// What an entry takes beside its value. Both sides count it, so they have room for the same.
const ENTRY_BYTES: u32 = 256;

fn main() {
    let trace = Trace::new();
    let total: u64 = (0..KEYS).map(|key| u64::from(weight_of(key) + ENTRY_BYTES)).sum();
    let mut answer = Answer::new("How often does L1 have what it is asked for?");
    let traces: [(&str, Make); 2] = [("Zipf", Trace::zipf), ("Zipf and scans", Trace::scans)];
    for (name, make) in traces {
        for percent in [1, 5, 20] {
            let bytes_max = total * percent / 100;
            let rounds: Vec<Round> = (0..SEEDS)
                .map(|seed| Round::of(&make(&trace, REQUESTS, seed), bytes_max))
                .collect();
            let mean = |of: fn(&Round) -> f64| {
                100.0 * rounds.iter().map(of).sum::<f64>() / rounds.len() as f64
            };
            let shares = (mean(|round| round.ours), mean(|round| round.lru));
            let spread = Spread::of(rounds.iter().map(|round| round.ours / round.lru).collect());
            let row = Row::new(format!("{name}, room for {percent} % of the bytes"), spread);
            let note = format!("hits: {:.1} % of ours, {:.1} % of LRU", shares.0, shares.1);
            answer.row(row.target(">= 1").note(note));
        }
    }
    answer.note(
        "Floor: the `lru` crate under the same budget of bytes, which evicts what was not asked \
         for the longest. Ratios are of the share of requests that are hits: more is better. A \
         trace has 1,000,000 requests for 200,000 keys, with the exponent 0.99; values have 64 \
         bytes to 4 KiB, and 256 bytes are counted for an entry on both sides. In the second one, \
         a scan of 20,000 keys that nobody asks for again follows each 20,000 requests; hits are \
         counted among the requests that are no scan. Five seeds.",
    );
    answer.keep("hit_ratio");
}

/// The shares of hits on one trace.
struct Round {
    ours: f64,
    lru: f64,
}

impl Round {
    fn of(requests: &[Request], bytes_max: u64) -> Self {
        let ours: MokaLocal<u64, Arc<()>> = MokaLocal::builder().bytes_max(bytes_max).build();
        let value = Arc::new(());
        let ours = share(requests, |key| {
            let is_hit = ours.get(&key).is_some();
            if !is_hit {
                ours.insert(key, Arc::clone(&value), weight_of(key));
            }
            is_hit
        });
        let mut lru = Lru::new(bytes_max);
        Self { ours, lru: share(requests, |key| lru.get_or_insert(key)) }
    }
}

/// How many of the requests that are no scan are hits.
fn share(requests: &[Request], mut is_hit: impl FnMut(u64) -> bool) -> f64 {
    let (mut asked, mut hits) = (0_u64, 0_u64);
    for request in requests {
        let hit = is_hit(request.key);
        if !request.is_scan {
            asked += 1;
            hits += u64::from(hit);
        }
    }
    hits as f64 / asked as f64
}

/// LRU by bytes.
struct Lru {
    entries: LruCache<u64, u32>,
    bytes: u64,
    bytes_max: u64,
}

impl Lru {
    fn new(bytes_max: u64) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    fn get_or_insert(&mut self, key: u64) -> bool {
        if self.entries.get(&key).is_some() {
            return true;
        }
        let weight = weight_of(key) + ENTRY_BYTES;
        self.entries.put(key, weight);
        self.bytes += u64::from(weight);
        while self.bytes > self.bytes_max {
            let (_, evicted) = self.entries.pop_lru().expect("what weighs something is there");
            self.bytes -= u64::from(evicted);
        }
        false
    }
}
