//! The same histories on two executors: every reply and every state must be equal.
//!
//! This is what holds the two halves of an op together. One executor runs the pure half in memory,
//! the other the script on a server, both by a clock that the histories move.
//!
//! # Examples
//! ```no_run
//! use fleetwide_core_traits::{Executor, Key};
//! use fleetwide_testkit::suite::differential::{Histories, Side, compare};
//! use fleetwide_testkit::suite::ops::{Count, Read};
//! use rand::Rng;
//!
//! # async fn check(memory: impl Executor, server: impl Executor) {
//! # async fn state_in_memory(_: &Key) -> Option<u64> { None }
//! # async fn state_on_server(_: &Key) -> Option<u64> { None }
//! let histories = Histories { count: 100, steps: 50, ..Histories::seeded() };
//! let memory = Side { executor: &memory, probe: state_in_memory };
//! let server = Side { executor: &server, probe: state_on_server };
//! let steps = compare(histories, memory, server, |_rng, namespace| {
//!     let tag = namespace.tag("limit", b"one").unwrap();
//!     move |rng| Count { by: rng.random_range(0..9), ..Count::one(&tag.key()) }
//! });
//! assert_eq!(steps.await, 5_000);
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt::{Debug, Write};

use fleetwide_core_traits::{AtomicOp, BackendError, Executor, ExecutorExt, Key, Namespace};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fresh_namespace;
use crate::{Seed, seed};

/// Steps that are shown before the one that differs.
const SHOWN: usize = 8;

/// How many histories are played, and how long each is.
#[derive(Clone, Copy, Debug)]
pub struct Histories {
    /// Where all their randomness comes from.
    pub seed: Seed,
    /// How many. Each has keys of its own.
    pub count: u32,
    /// Steps of each.
    pub steps: u32,
    /// Plays this one only, to look at a failure again. Default: all.
    pub only: Option<u32>,
}

impl Histories {
    /// Fifty histories of a hundred steps, from the seed in `FLEETWIDE_SEED` or a fresh one, which
    /// is printed. `FLEETWIDE_HISTORY` plays one of them only.
    ///
    /// # Panics
    /// If one of the variables is set and is no number.
    pub fn seeded() -> Self {
        let only = std::env::var("FLEETWIDE_HISTORY").ok();
        let only = only.map(|text| text.parse().expect("FLEETWIDE_HISTORY is a number"));
        Self { seed: seed(), count: 50, steps: 100, only }
    }
}

/// One of the two executors, and how to look at its state.
pub struct Side<'a, E, P> {
    /// Runs the steps.
    pub executor: &'a E,
    /// The state of a cell in a form that both sides can be brought to. What has expired by its
    /// own deadline may be shown as absent: when a backend really drops it is its own affair.
    pub probe: P,
}

/// Plays the histories on both sides, and returns how many steps that were.
///
/// `history` begins one: it gets the randomness of the history and a namespace for its keys, and
/// returns what makes the next step. That may move the clock of both sides first. For the same
/// seed and number a history is the same, so it must set the clock when it begins, and take all
/// randomness from its argument.
///
/// # Panics
/// At the first difference, with the seed, the history, the step, both answers, and the steps
/// before it.
pub async fn compare<L, R, O, G, S>(
    histories: Histories,
    left: Side<'_, L, impl AsyncFn(&Key) -> S>,
    right: Side<'_, R, impl AsyncFn(&Key) -> S>,
    mut history: impl FnMut(&mut StdRng, &Namespace) -> G,
) -> u64
where
    L: Executor,
    R: Executor,
    O: AtomicOp<Reply: Debug + PartialEq> + Debug,
    G: FnMut(&mut StdRng) -> O,
    S: Debug + PartialEq,
{
    let mut seeds = histories.seed.rng();
    let mut compared = 0;
    for number in 0..histories.count {
        let mut rng = StdRng::seed_from_u64(seeds.random());
        if histories.only.is_some_and(|only| only != number) {
            continue;
        }
        let mut next = history(&mut rng, &fresh_namespace());
        let mut place =
            Place { seed: histories.seed, history: number, step: 0, last: VecDeque::new() };
        for step in 0..histories.steps {
            let op = next(&mut rng);
            place.enter(step, &op);
            let (one, other) = (left.executor.run(&op).await, right.executor.run(&op).await);
            place.check("reply", &Answer(one), &Answer(other));
            for key in &op.keys()[..op.cells()] {
                let (one, other) = ((left.probe)(key).await, (right.probe)(key).await);
                place.check(&format!("state of {key:?}"), &one, &other);
            }
            compared += 1;
        }
    }
    compared
}

/// Where a comparison is.
struct Place {
    seed: Seed,
    history: u32,
    step: u32,
    last: VecDeque<String>,
}

impl Place {
    fn enter(&mut self, step: u32, op: &impl Debug) {
        self.step = step;
        self.last.push_back(format!("{step}: {op:?}"));
        if self.last.len() > SHOWN {
            self.last.pop_front();
        }
    }

    fn check<T: Debug + PartialEq>(&self, what: &str, one: &T, other: &T) {
        assert!(one == other, "{}", self.report(what, one, other));
    }

    fn report(&self, what: &str, one: &impl Debug, other: &impl Debug) -> String {
        let Self { seed, history, step, last } = self;
        let mut text = format!(
            "the {what} differs at step {step} of history {history}\n left: {one:?}\nright: {other:?}\n\
             replay with {seed:?} FLEETWIDE_HISTORY={history}; the steps up to it:"
        );
        for line in last {
            let _ = write!(text, "\n  {line}");
        }
        text
    }
}

/// An answer, equal to another if both are the same reply, or rejections for the same reason: the
/// text of a rejection is the server's.
#[derive(Debug)]
struct Answer<T>(Result<T, BackendError>);

impl<T: PartialEq> PartialEq for Answer<T> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Ok(one), Ok(other)) => one == other,
            (Err(BackendError::Rejected(one)), Err(BackendError::Rejected(other))) => {
                one.kind == other.kind
            }
            _ => false,
        }
    }
}
