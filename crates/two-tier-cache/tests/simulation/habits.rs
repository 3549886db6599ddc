//! What a day is like: how its clients behave, and which troubles come.
//!
//! All of it is drawn from the seed, so that each day leans to another side. A fleet with a bit of
//! everything on all days hardly ever sees what takes much of one thing and nothing of another
//! (Groce et al., Swarm Testing, 2012).

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::trouble::Trouble;

/// How the clients of one day behave.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Keys that are read and written.
    pub(crate) keys: u64,
    /// Tags that are bumped.
    pub(crate) tags: u64,
    /// The chance that a value carries one of them.
    pub(crate) tagged: f64,
    /// The chance that a loader is slow, and how slow at most, ms.
    pub(crate) slow: (f64, u64),
    /// The chance that an operation is a write, while somebody may write.
    pub(crate) writes: f64,
    /// Shares of the writes: invalidations, puts, writes that are left, bumps, clears.
    pub(crate) kinds: [u32; 5],
    /// The chance that a read has a token.
    pub(crate) tokens: f64,
    /// Tags that the cache remembers.
    pub(crate) tags_max: u32,
    /// Whether clients write while the server loses what it has confirmed.
    pub(crate) writes_in_loss: bool,
    /// The troubles of this day; one that is there twice comes twice as often.
    pub(crate) troubles: Vec<Trouble>,
}

impl Habits {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        let mut one_of = |of: &[u64]| *of.choose(rng).expect("there is one");
        let (keys, tags) = (one_of(&[1, 2, 6, 6, 40]), one_of(&[1, 3, 3, 8]));
        let (slow_max, tags_max) = (one_of(&[300, 900, 900, 1_800]), one_of(&[2, 10_000]) as u32);
        let kinds: [u32; 5] =
            std::array::from_fn(|_| [0, 1, 1, 4].choose(rng).copied().unwrap_or(1));
        let mut troubles = Trouble::ALL.to_vec();
        if rng.random_bool(0.7) {
            let few = rng.random_range(1..5);
            troubles = (0..few).filter_map(|_| Trouble::ALL.choose(rng).copied()).collect();
        }
        Self {
            keys,
            tags,
            tagged: rng.random_range(0.0..0.5),
            slow: (rng.random_range(0.05..0.6), slow_max),
            writes: rng.random_range(0.1..0.6),
            // An invalidation is there on each day.
            kinds: [kinds[0] + 1, kinds[1], kinds[2], kinds[3], kinds[4].min(1)],
            tokens: rng.random_range(0.05..0.4),
            tags_max,
            writes_in_loss: rng.random(),
            troubles,
        }
    }
}
