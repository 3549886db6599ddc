//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// Doubles from `min` to `max`, and draws each pause from the whole range below ('full jitter'):
/// instances that lost their server at the same moment must not come back at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next pause: between nothing and a limit that doubles each time.
    pub(crate) fn pause(&mut self) -> Duration {
        let limit = self.next;
        self.next = (limit * 2).min(self.max);
        limit.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// Starts again from the shortest, after `lived`, the life of what now failed. What never lived
    /// long would otherwise be tried again at full speed for ever.
    pub(crate) fn reset_after(&mut self, lived: Duration) {
        if lived >= self.max {
            self.next = self.min;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_to_the_maximum_and_never_beyond() {
        let mut backoff = Backoff::new(MIN, MAX);
        assert!(backoff.pause() <= MIN);
        for _ in 0..100 {
            assert!(backoff.pause() <= MAX);
        }
        assert_eq!(backoff.next, MAX);
    }

    #[test]
    fn only_what_lived_starts_the_pauses_anew() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..10 {
            backoff.pause();
            backoff.reset_after(Duration::from_millis(3));
        }
        assert_eq!(backoff.next, MAX);
        backoff.reset_after(MAX);
        assert_eq!(backoff.next, MIN);
    }
}
