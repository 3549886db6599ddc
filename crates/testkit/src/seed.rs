//! Randomness that can be had again.

use std::{env, fmt};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The variable that replays a run.
const REPLAY: &str = "FLEETWIDE_SEED";

/// The number that all randomness of one test follows from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// Returns the number itself.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Returns a generator that gives the same numbers for the same seed.
    pub fn rng(self) -> StdRng {
        StdRng::seed_from_u64(self.0)
    }
}

impl fmt::Debug for Seed {
    /// Shows how to have the run again, so that a seed in an assertion's message suffices.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REPLAY}={}", self.0)
    }
}

/// Returns the seed in the variable `FLEETWIDE_SEED`, or a fresh one, and prints it.
///
/// # Panics
/// If the variable holds no number below 2^64.
pub fn seed() -> Seed {
    let seed = match env::var(REPLAY) {
        Ok(text) => Seed(text.parse().unwrap_or_else(|_| panic!("{REPLAY}={text} is no number"))),
        Err(_) => Seed(rand::random()),
    };
    announce(seed);
    seed
}

#[expect(clippy::print_stdout, reason = "a test runner shows it exactly when the test fails")]
fn announce(seed: Seed) {
    println!("replay with {seed:?}");
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn same_seed_gives_the_same_numbers() {
        let (mut first, mut second) = (Seed(7).rng(), Seed(7).rng());
        assert_eq!(first.random::<[u64; 4]>(), second.random::<[u64; 4]>());
    }

    #[test]
    fn seed_shows_how_to_replay_it() {
        assert_eq!(format!("{:?}", Seed(7)), "FLEETWIDE_SEED=7");
    }
}
