//! Calls on one key over time, and how many of them were too many.

use std::collections::VecDeque;
use std::time::Duration;

use crate::trace::SplitMix;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it comes, counted from the first.
    pub at: Duration,
    /// On which instance.
    pub instance: usize,
}

/// Calls for `length`, `rate` of them a second on average, at random moments and on random
/// instances; once in two seconds a crowd of half a second's calls comes at once.
pub fn arrivals(rate: f64, length: Duration, instances: usize, seed: u64) -> Vec<Arrival> {
    let mut random = SplitMix::new(seed);
    let (mut at, mut all) = (Duration::ZERO, Vec::new());
    // The crowds bring a quarter of the calls.
    let (alone, crowd) = (rate * 0.75, rate / 2.0);
    while at < length {
        at += Duration::from_secs_f64(-(1.0 - random.unit()).ln() / alone);
        let comes = if random.unit() < 0.5 / alone { crowd as usize } else { 1 };
        for _ in 0..comes {
            all.push(Arrival { at, instance: (random.next() % instances as u64) as usize });
        }
    }
    all
}

/// What an exact limit of `max` in any `window` lets through.
pub fn exact(arrivals: &[Arrival], max: usize, window: Duration) -> usize {
    let (mut inside, mut admitted) = (VecDeque::new(), 0);
    for arrival in arrivals {
        while inside.front().is_some_and(|first| *first + window <= arrival.at) {
            inside.pop_front();
        }
        if inside.len() < max {
            inside.push_back(arrival.at);
            admitted += 1;
        }
    }
    admitted
}

/// The most of these times, which are in order, that lie in any `window`.
pub fn fullest(admitted: &[Duration], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in admitted.iter().enumerate() {
        while admitted[first] + window <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Arrival, arrivals, exact, fullest};

    const WINDOW: Duration = Duration::from_millis(10);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_window_has_its_first_moment_and_not_its_last() {
        let times = [0, 1, 9, 10, 11, 30].map(at);
        assert_eq!(fullest(&times, WINDOW), 3);
        let calls = times.map(|at| Arrival { at, instance: 0 });
        assert_eq!(exact(&calls, 2, WINDOW), 5);
        assert_eq!((exact(&calls, 1, WINDOW), exact(&[], 1, WINDOW)), (3, 0));
    }

    #[test]
    fn as_many_come_as_were_asked_for_and_the_seed_decides_which() {
        let length = Duration::from_secs(100);
        let calls = arrivals(200.0, length, 4, 1);
        assert!((16_000..24_000).contains(&calls.len()), "{}", calls.len());
        assert!(calls.is_sorted_by_key(|call| call.at));
        assert_eq!(calls, arrivals(200.0, length, 4, 1));
        assert_ne!(calls, arrivals(200.0, length, 4, 2));
    }
}
