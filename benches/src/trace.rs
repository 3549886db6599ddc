//! Requests as services get them: few keys often, most keys seldom, and now and then a scan.

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which value.
    pub key: u64,
    /// Whether it belongs to a scan, which asks for each key once.
    pub is_scan: bool,
}

/// Keys that are asked for again and again.
pub const KEYS: u64 = 200_000;
/// How unequal they are: the exponent of YCSB, near to what caches of services see.
const SKEW: f64 = 0.99;
/// Requests between two scans, and requests of a scan: half of all requests are then of scans.
const STRETCH: usize = 20_000;

/// Requests that follow a Zipf distribution, and the same ones with scans in between.
pub struct Trace {
    /// Up to each rank, the share of all requests.
    shares: Vec<f64>,
}

impl Trace {
    /// A trace over [`KEYS`].
    pub fn new() -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=KEYS)
            .map(|rank| {
                sum += (rank as f64).powf(-SKEW);
                sum
            })
            .collect();
        for share in &mut shares {
            *share /= sum;
        }
        Self { shares }
    }

    /// So many requests without scans. The same seed gives the same ones on every machine.
    pub fn zipf(&self, count: usize, seed: u64) -> Vec<Request> {
        let mut random = SplitMix::new(seed);
        let mut one = || {
            let drawn = random.unit();
            let rank = self.shares.partition_point(|share| *share < drawn) as u64;
            Request { key: rank.min(KEYS - 1), is_scan: false }
        };
        std::iter::repeat_with(&mut one).take(count).collect()
    }

    /// The same requests, with a scan of new keys after each stretch of them.
    pub fn scans(&self, count: usize, seed: u64) -> Vec<Request> {
        let mut new = KEYS..;
        let mut requests = Vec::with_capacity(2 * count);
        for stretch in self.zipf(count, seed).chunks(STRETCH) {
            requests.extend_from_slice(stretch);
            let scan = new.by_ref().take(STRETCH);
            requests.extend(scan.map(|key| Request { key, is_scan: true }));
        }
        requests
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// What the value of a key weighs: 64 bytes to 4 KiB, small ones more often.
pub fn weight_of(key: u64) -> u32 {
    let random = SplitMix::new(key).unit();
    (64.0 * 64.0_f64.powf(random)) as u32
}

/// A generator that is the same everywhere and for ever.
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS, STRETCH, Trace, weight_of};

    #[test]
    fn the_first_key_gets_its_share_and_the_seed_decides_the_rest() {
        let trace = Trace::new();
        let requests = trace.zipf(100_000, 1);
        let first = requests.iter().filter(|request| request.key == 0).count() as f64 / 100_000.0;
        assert!((first - trace.shares[0]).abs() < 0.01, "{first}");
        assert_eq!(requests, trace.zipf(100_000, 1));
        assert_ne!(requests, trace.zipf(100_000, 2));
    }

    #[test]
    fn a_scan_asks_for_each_key_once_and_takes_half_of_the_requests() {
        let requests = Trace::new().scans(2 * STRETCH, 1);
        let mut scanned: Vec<u64> =
            requests.iter().filter(|request| request.is_scan).map(|request| request.key).collect();
        assert_eq!(scanned.len(), requests.len() / 2);
        scanned.dedup();
        assert!(scanned.len() == 2 * STRETCH && scanned.iter().all(|key| *key >= KEYS));
    }

    #[test]
    fn weights_are_within_their_bounds() {
        assert!((0..10_000).map(weight_of).all(|weight| (64..=4096).contains(&weight)));
    }
}
