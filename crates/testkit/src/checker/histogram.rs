//! Durations, counted in buckets.

use std::fmt;
use std::time::Duration;

/// Buckets between two powers of two: a bucket is at most 1/16 wide.
const PARTS: u64 = 16;
const BUCKETS: usize = 64 * PARTS as usize;

/// Counts durations with an error of at most 1/16, from 1 ns up, in 8 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts one duration, ns.
    pub fn add(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// How many were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The duration that `part` of all do not exceed, from 0.0 to 1.0; too long by 1/16 at most.
    /// Zero if none was counted.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (part.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        let bucket = self.buckets.iter().position(reached).unwrap_or(0);
        Duration::from_nanos(last_of(bucket).min(self.max))
    }
}

/// Below two powers each number has a bucket of its own.
fn bucket(nanos: u64) -> usize {
    if nanos < 2 * PARTS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - PARTS.ilog2();
    (u64::from(shift) * PARTS + (nanos >> shift)) as usize
}

/// The longest duration that falls into a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let start = (bucket % PARTS + PARTS) << shift;
    start + ((1 << shift) - 1)
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), count: 0, max: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_number_and_is_a_sixteenth_wide_at_most() {
        for power in 0..64 {
            for near in [-1_i64, 0, 1, 12_345] {
                let nanos = (1_u64 << power).saturating_add_signed(near);
                let last = last_of(bucket(nanos));
                assert!(last >= nanos && last - nanos <= nanos / 16, "{nanos} in ..={last}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (0..100).for_each(|_| histogram.add(0));
        (1..=100).for_each(|micros| histogram.add(micros * 1_000));
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        let most = histogram.quantile(0.99).as_nanos();
        assert!((98_000..=98_000 + 98_000 / 16).contains(&most), "{most}");
        assert_eq!((histogram.quantile(1.0), histogram.count()), (histogram.max(), 200));
    }
}
