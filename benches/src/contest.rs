//! Two sides in turns: what a ratio is made of.

use std::env;
use std::time::Duration;

/// Set to 1 by the runner when shorter runs will do.
const QUICK: &str = "FLEETWIDE_BENCH_QUICK";

/// One side: does so many operations, and says how long they took.
///
/// It is the closure of criterion's `iter_custom`, so a side can run under both.
pub type Side<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// What a ratio divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Time of the side by time of the floor: 1.3 is a third slower.
    Cost,
    /// Operations per second of the side by those of the floor: 0.85 is 15 % fewer.
    Rate,
}

/// How long to measure: the spread narrows with time, the median hardly moves.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    rounds: usize,
    slice: Duration,
}

impl Effort {
    /// Rounds of four slices each. `slice` is what suits a full run; the runner can ask for less.
    pub fn slices_of(slice: Duration) -> Self {
        if env::var_os(QUICK).is_some_and(|value| value == "1") {
            Self { rounds: 5, slice: slice / 4 }
        } else {
            Self { rounds: 15, slice }
        }
    }

    /// How many rounds there are.
    pub fn rounds(self) -> usize {
        self.rounds
    }
}

/// Ratios of all rounds in three numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the rounds are below.
    pub median: f64,
    /// The lowest round.
    pub low: f64,
    /// The highest round.
    pub high: f64,
}

impl Spread {
    /// The spread of what several rounds gave.
    ///
    /// # Panics
    /// If there is no round.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let middle = rounds.len() / 2;
        let median = if rounds.len().is_multiple_of(2) {
            f64::midpoint(rounds[middle - 1], rounds[middle])
        } else {
            rounds[middle]
        };
        Self { median, low: rounds[0], high: rounds[rounds.len() - 1] }
    }
}

/// A floor that sides are measured against.
pub struct Contest<'a> {
    floor: Side<'a>,
    floor_count: u64,
    measure: Measure,
    effort: Effort,
}

impl<'a> Contest<'a> {
    /// A contest against `floor`.
    pub fn new(measure: Measure, effort: Effort, floor: impl FnMut(u64) -> Duration + 'a) -> Self {
        let mut floor: Side<'a> = Box::new(floor);
        let floor_count = calibrate(&mut floor, effort.slice);
        Self { floor, floor_count, measure, effort }
    }

    /// How many operations of the floor so much time is, here and now: for a target that is a time.
    ///
    /// # Panics
    /// If the floor does.
    pub fn floors_in(&mut self, time: Duration) -> f64 {
        let one = (self.floor)(self.floor_count).as_secs_f64() / self.floor_count as f64;
        time.as_secs_f64() / one
    }

    /// Measures one side in rounds of floor, side, side, floor.
    pub fn ratio(&mut self, side: impl FnMut(u64) -> Duration) -> Spread {
        let mut side: Side<'_> = Box::new(side);
        let count = calibrate(&mut side, self.effort.slice);
        let rounds = (0..self.effort.rounds).map(|_| {
            let before = (self.floor)(self.floor_count);
            let spent = side(count) + side(count);
            let after = (self.floor)(self.floor_count);
            let floor_time = (before + after).as_secs_f64() / self.floor_count as f64;
            let side_time = spent.as_secs_f64() / count as f64;
            match self.measure {
                Measure::Cost => side_time / floor_time,
                Measure::Rate => floor_time / side_time,
            }
        });
        Spread::of(rounds.collect())
    }
}

/// How many operations fill a slice. Finding that out also warms the side up.
fn calibrate(side: &mut Side<'_>, slice: Duration) -> u64 {
    let mut count = 64;
    loop {
        let spent = side(count);
        if spent >= slice / 4 {
            let per_op = spent.as_secs_f64() / count as f64;
            return (slice.as_secs_f64() / per_op).ceil() as u64;
        }
        count *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Contest, Effort, Measure, Spread};

    const EFFORT: Effort = Effort { rounds: 3, slice: Duration::from_millis(1) };

    fn takes(nanos: u64) -> impl FnMut(u64) -> Duration {
        move |count| Duration::from_nanos(nanos * count)
    }

    #[test]
    fn a_side_that_takes_twice_the_time_costs_two_and_has_half_the_rate() {
        let cost = Contest::new(Measure::Cost, EFFORT, takes(100)).ratio(takes(200));
        assert!((cost.median - 2.0).abs() < 1e-9, "{cost:?}");
        let rate = Contest::new(Measure::Rate, EFFORT, takes(100)).ratio(takes(200));
        assert!((rate.median - 0.5).abs() < 1e-9, "{rate:?}");
    }

    #[test]
    fn a_time_is_as_many_floors_as_fit_into_it() {
        let mut contest = Contest::new(Measure::Cost, EFFORT, takes(100));
        assert!((contest.floors_in(Duration::from_nanos(150)) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_machine_that_slows_down_evenly_does_not_move_the_ratio() {
        let clock = std::cell::Cell::new(0u32);
        let slowing = |nanos: u64| {
            let clock = &clock;
            move |count| {
                clock.set(clock.get() + 1);
                Duration::from_nanos(nanos * count) * (100 + clock.get())
            }
        };
        let mut contest = Contest::new(Measure::Cost, EFFORT, slowing(100));
        let cost = contest.ratio(slowing(100));
        assert!((cost.low - 1.0).abs() < 0.02 && (cost.high - 1.0).abs() < 0.02, "{cost:?}");
    }

    #[test]
    fn the_median_of_an_even_number_of_rounds_is_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(spread, Spread { median: 2.5, low: 1.0, high: 4.0 });
    }
}
