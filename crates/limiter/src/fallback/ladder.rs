//! When the rung is entered, when the backend is asked again, and when the fleet's count decides.
//!
//! Pure: the time is an argument. While the backend is away, one caller at a time asks it and all
//! others are answered by the rung at once, so an outage costs one deadline per probe, not one per
//! call. One good answer does not end an outage: a server that restarts answers, and goes again.

use std::time::Duration;

use fleetwide_core_traits::MonoTime;

/// A caller that is told to come back at once would only be refused again.
const UNTIL_PROBE_MIN: Duration = Duration::from_millis(1);

/// How readily the ladder moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hysteresis {
    /// Calls in a row without an answer, after which the rung is entered.
    pub(crate) failures: u32,
    /// Probes in a row with an answer, after which the fleet's count decides again.
    pub(crate) successes: u32,
    /// How long after a failed probe the next one is sent.
    pub(crate) probe_every: Duration,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ask the backend, as everybody does.
    Ask,
    /// Ask the backend, for all others.
    Probe,
    /// Take the rung's answer.
    Stay {
        /// The time until the backend is asked again, at least.
        until_probe: Duration,
    },
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer.
    Answered,
    /// No answer, and nobody knows what it would be for the next caller.
    Failed,
    /// No answer, and the backend says that there is none for anybody.
    Down,
    /// Nothing that says how the backend is doing: the caller left, or its own key was the matter.
    Nothing,
}

/// The rung was entered or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// From now on the rung answers.
    Entered,
    /// The fleet's count decides again.
    Left {
        /// How long the rung answered.
        after: Duration,
    },
}

#[derive(Debug)]
pub(crate) struct Ladder {
    hysteresis: Hysteresis,
    state: State,
}

#[derive(Debug)]
enum State {
    Shared { failures: u32 },
    Away { since: MonoTime, probe_at: MonoTime, is_probing: bool, successes: u32 },
}

impl Ladder {
    pub(crate) const fn new(hysteresis: Hysteresis) -> Self {
        Self { hysteresis, state: State::Shared { failures: 0 } }
    }

    /// Whether an answer would change nothing, so that it need not be reported.
    pub(crate) const fn is_calm(&self) -> bool {
        matches!(self.state, State::Shared { failures: 0 })
    }

    /// What the next caller does. After [`Turn::Ask`] and [`Turn::Probe`] it must call
    /// [`finish`](Self::finish) with the same turn.
    pub(crate) fn begin(&mut self, now: MonoTime) -> Turn {
        match &mut self.state {
            State::Shared { .. } => Turn::Ask,
            State::Away { probe_at, is_probing, .. } => {
                if *is_probing || now < *probe_at {
                    let until_probe = probe_at.since(now).max(UNTIL_PROBE_MIN);
                    return Turn::Stay { until_probe };
                }
                *is_probing = true;
                Turn::Probe
            }
        }
    }

    pub(crate) fn finish(&mut self, turn: Turn, outcome: Outcome, now: MonoTime) -> Option<Move> {
        match (&mut self.state, turn) {
            (State::Shared { failures }, _) => {
                match outcome {
                    Outcome::Answered => *failures = 0,
                    Outcome::Failed => *failures += 1,
                    Outcome::Down => *failures = self.hysteresis.failures,
                    Outcome::Nothing => {}
                }
                (*failures >= self.hysteresis.failures).then(|| self.enter(now))
            }
            (State::Away { since, probe_at, is_probing, successes }, Turn::Probe) => {
                *is_probing = false;
                match outcome {
                    Outcome::Answered => *successes += 1,
                    Outcome::Failed | Outcome::Down => {
                        *successes = 0;
                        *probe_at = now.plus(self.hysteresis.probe_every);
                    }
                    Outcome::Nothing => {}
                }
                if *successes < self.hysteresis.successes {
                    return None;
                }
                let after = now.since(*since);
                self.state = State::Shared { failures: 0 };
                Some(Move::Left { after })
            }
            // A call that began before the rung was entered says nothing new about the backend.
            (State::Away { .. }, _) => None,
        }
    }

    fn enter(&mut self, now: MonoTime) -> Move {
        let probe_at = now.plus(self.hysteresis.probe_every);
        self.state = State::Away { since: now, probe_at, is_probing: false, successes: 0 };
        Move::Entered
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Answered, Down, Failed, Nothing};
    use super::*;

    const HYSTERESIS: Hysteresis =
        Hysteresis { failures: 3, successes: 2, probe_every: Duration::from_millis(200) };

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_micros(millis * 1_000)
    }

    /// A ladder, and the time in ms at which its rung was entered.
    fn away(since: u64) -> Ladder {
        let mut ladder = Ladder::new(HYSTERESIS);
        assert_eq!(ladder.finish(Turn::Ask, Down, at(since)), Some(Move::Entered));
        ladder
    }

    #[test]
    fn rung_is_entered_after_failures_in_a_row_and_not_by_a_lone_one() {
        let mut ladder = Ladder::new(HYSTERESIS);
        for outcome in [Failed, Failed, Answered, Failed, Nothing, Failed] {
            assert_eq!(ladder.begin(at(0)), Turn::Ask);
            assert_eq!(ladder.finish(Turn::Ask, outcome, at(0)), None);
        }
        assert_eq!(ladder.finish(Turn::Ask, Failed, at(0)), Some(Move::Entered));
        assert!(matches!(ladder.begin(at(0)), Turn::Stay { .. }));
    }

    #[test]
    fn rung_is_entered_at_once_when_the_backend_knows_that_it_is_down() {
        let mut ladder = away(0);
        assert_eq!(ladder.begin(at(1)), Turn::Stay { until_probe: Duration::from_millis(199) });
    }

    #[test]
    fn one_caller_probes_and_all_others_are_answered_at_once() {
        let mut ladder = away(0);
        assert_eq!(ladder.begin(at(200)), Turn::Probe);
        for _ in 0..100 {
            assert!(matches!(ladder.begin(at(10_000)), Turn::Stay { .. }));
        }
        assert_eq!(ladder.finish(Turn::Probe, Failed, at(10_000)), None);
        assert!(matches!(ladder.begin(at(10_199)), Turn::Stay { .. }));
        assert_eq!(ladder.begin(at(10_200)), Turn::Probe);
    }

    #[test]
    fn fleet_decides_again_after_good_probes_in_a_row_and_not_after_a_lone_one() {
        let mut ladder = away(0);
        assert_eq!(ladder.begin(at(200)), Turn::Probe);
        assert_eq!(ladder.finish(Turn::Probe, Answered, at(201)), None);
        assert_eq!(ladder.begin(at(201)), Turn::Probe, "the second probe need not wait");
        assert_eq!(ladder.finish(Turn::Probe, Failed, at(202)), None);
        for _ in 0..2 {
            assert_eq!(ladder.begin(at(500)), Turn::Probe);
            let moved = ladder.finish(Turn::Probe, Answered, at(500));
            assert!(matches!(moved, None | Some(Move::Left { .. })));
        }
        assert_eq!(ladder.begin(at(500)), Turn::Ask);
    }

    #[test]
    fn leaving_says_how_long_the_rung_answered() {
        let mut ladder = away(100);
        for _ in 0..2 {
            ladder.begin(at(900));
            let moved = ladder.finish(Turn::Probe, Answered, at(900));
            assert!(moved.is_none() || moved == Some(Move::Left { after: at(800).since(at(0)) }));
        }
        assert!(ladder.is_calm());
    }

    #[test]
    fn probe_whose_caller_left_gives_its_place_to_the_next() {
        let mut ladder = away(0);
        assert_eq!(ladder.begin(at(300)), Turn::Probe);
        assert_eq!(ladder.finish(Turn::Probe, Nothing, at(310)), None);
        assert_eq!(ladder.begin(at(310)), Turn::Probe);
    }

    #[test]
    fn late_results_of_calls_from_before_the_outage_change_nothing() {
        let mut ladder = away(0);
        for outcome in [Answered, Failed, Answered, Down, Answered] {
            assert_eq!(ladder.finish(Turn::Ask, outcome, at(50)), None);
        }
        assert!(matches!(ladder.begin(at(50)), Turn::Stay { .. }));
    }
}
