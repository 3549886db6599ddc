//! How long to wait after a failure.

use std::time::Duration;

/// Longer waits would only delay the return: one question a second costs a server nothing.
const LONGEST: Duration = Duration::from_secs(1);

/// Doubles from a first wait up to a second, and spreads each wait over its second half, so that
/// a fleet does not come back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Self {
        let first = first.min(LONGEST);
        Self { first, next: first }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(200));
        for whole in [200, 400, 800, 1000, 1000] {
            let wait = backoff.next().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole} ms");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(200));
    }
}
