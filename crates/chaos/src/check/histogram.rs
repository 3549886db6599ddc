//! How often a time was how long.

/// Counts of times in µs, exact below 16 and within an eighth above.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    zero: u64,
    max: u64,
}

impl Histogram {
    /// Counts `us`, `times` times.
    pub fn add(&mut self, us: u64, times: u64) {
        self.max = self.max.max(us);
        if us == 0 {
            self.zero += times;
            return;
        }
        let bucket = bucket(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += times;
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.zero + self.counts.iter().sum::<u64>()
    }

    /// How many were nothing.
    pub fn zero(&self) -> u64 {
        self.zero
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// What `share` of all are not longer than; 0 if there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total() as f64 * share).ceil() as u64;
        let mut below = self.zero;
        if below >= wanted {
            return 0;
        }
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted {
                return ceiling(bucket).min(self.max);
            }
        }
        self.max
    }

    /// How many were longer than `from` and not longer than `to`, as the buckets allow to say. None is
    /// taken to be longer than the longest.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        let counted = self.counts.iter().enumerate();
        let inside = |bucket: usize| (from + 1..=to).contains(&ceiling(bucket).min(self.max));
        counted.filter(|(bucket, _)| inside(*bucket)).map(|(_, count)| count).sum()
    }
}

/// Sixteen buckets of one, and then eight for each power of two.
fn bucket(us: u64) -> usize {
    if us < 16 {
        return us as usize;
    }
    let power = 63 - us.leading_zeros() as usize;
    16 + (power - 4) * 8 + ((us >> (power - 3)) & 7) as usize
}

/// The longest time in a bucket.
fn ceiling(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let (power, eighth) = ((bucket - 16) / 8 + 4, (bucket - 16) as u64 % 8);
    (1 << power) + ((eighth + 1) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_at_most_an_eighth_above_it() {
        for us in (0..5000).chain([1 << 20, (1 << 30) + 12_345]) {
            let top = ceiling(bucket(us));
            assert!(top >= us && top <= us + us / 8 + 1, "{us} is in a bucket up to {top}");
            assert!(us == 0 || ceiling(bucket(us) - usize::from(bucket(us) > 0)) <= us.max(top));
        }
    }

    #[test]
    fn quantiles_are_of_all_that_was_counted() {
        let mut times = Histogram::default();
        assert_eq!(times.quantile(0.5), 0);
        times.add(0, 90);
        times.add(10, 9);
        times.add(1000, 1);
        assert_eq!([0.5, 0.9, 0.95, 0.99, 1.0].map(|q| times.quantile(q)), [0, 0, 10, 10, 1000]);
        assert_eq!((times.total(), times.zero(), times.max()), (100, 90, 1000));
        assert_eq!((times.between(0, 10), times.between(10, 5000)), (9, 1));
        // Its bucket goes on to 1023.
        assert_eq!((times.between(10, 1000), times.between(1000, u64::MAX)), (1, 0));
    }
}
