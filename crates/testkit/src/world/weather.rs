//! What happens to commands and messages on their way.

use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;

/// What lies between a node and the server. All chances are from 0.0 to 1.0.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// How long a command, and its answer, is under way at most.
    pub command_delay_max: Duration,
    /// How long a message is under way at most. Later ones can overtake it.
    pub message_delay_max: Duration,
    /// The chance that a delay is ten times as long.
    pub late: f64,
    /// The chance that a command is lost on its way there, and the client library says so.
    pub command_refused: f64,
    /// The chance that a command is lost on its way there, and nothing is heard of it.
    pub command_lost: f64,
    /// The chance that a command is carried out, and its answer is lost.
    pub answer_lost: f64,
    /// The chance that a command whose caller leaves before it has arrived is carried out then.
    pub carried_out_late: f64,
    /// The chance that a message is lost without a sign.
    pub message_lost: f64,
    /// The chance that a message comes twice.
    pub message_doubled: f64,
    /// Whether the connection for messages is known to be broken.
    pub no_messages: bool,
    /// Whether every command is refused at once.
    pub no_commands: bool,
    /// Whether every command vanishes, like in a half-open connection.
    pub black_hole: bool,
}

impl Weather {
    /// Short delays, and nothing is lost.
    pub const fn fair() -> Self {
        Self {
            command_delay_max: Duration::from_millis(2),
            message_delay_max: Duration::from_millis(2),
            late: 0.0,
            command_refused: 0.0,
            command_lost: 0.0,
            answer_lost: 0.0,
            carried_out_late: 0.5,
            message_lost: 0.0,
            message_doubled: 0.0,
            no_messages: false,
            no_commands: false,
            black_hole: false,
        }
    }

    /// Delays of all lengths; a few percent are lost or doubled.
    pub const fn rough() -> Self {
        Self {
            command_delay_max: Duration::from_millis(12),
            message_delay_max: Duration::from_millis(40),
            late: 0.05,
            command_refused: 0.08,
            command_lost: 0.02,
            answer_lost: 0.03,
            message_lost: 0.1,
            message_doubled: 0.1,
            ..Self::fair()
        }
    }
}

/// The weather of one node, and its dice.
pub(super) struct Link {
    state: Mutex<(Weather, StdRng)>,
}

/// Where a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// On this side, and the caller is told.
    Refused,
    /// On its way there.
    Lost,
    /// On its way back.
    AnswerLost,
    /// With its answer.
    Answered,
}

/// What becomes of one command.
pub(super) struct Journey {
    pub(super) fate: Fate,
    /// Whether it is carried out when its caller leaves before it has arrived.
    pub(super) carried_out_late: bool,
    pub(super) there: Duration,
    pub(super) back: Duration,
}

impl Link {
    pub(super) fn new(rng: StdRng) -> Self {
        Self { state: Mutex::new((Weather::fair(), rng)) }
    }

    pub(super) fn set(&self, weather: Weather) {
        self.state.lock().0 = weather;
    }

    pub(super) fn brings_messages(&self) -> bool {
        !self.state.lock().0.no_messages
    }

    pub(super) fn command(&self) -> Journey {
        let (weather, rng) = &mut *self.state.lock();
        // All dice are thrown for each command, so that a change of one does not move the others.
        let [refused, lost, answer_lost, late] = [
            weather.command_refused,
            weather.command_lost,
            weather.answer_lost,
            weather.carried_out_late,
        ]
        .map(|chance| rng.random_bool(chance));
        let fate = match () {
            () if refused || weather.no_commands => Fate::Refused,
            () if lost || weather.black_hole => Fate::Lost,
            () if answer_lost => Fate::AnswerLost,
            () => Fate::Answered,
        };
        let carried_out_late = late && fate != Fate::Lost;
        Journey {
            fate,
            carried_out_late,
            there: delay(weather.command_delay_max, weather.late, rng),
            back: delay(weather.command_delay_max, weather.late, rng),
        }
    }

    /// After which times a message arrives; none if it is lost.
    pub(super) fn message(&self) -> Vec<Duration> {
        let (weather, rng) = &mut *self.state.lock();
        if rng.random_bool(weather.message_lost) {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.random_bool(weather.message_doubled));
        (0..copies).map(|_| delay(weather.message_delay_max, weather.late, rng)).collect()
    }
}

fn delay(max: Duration, late: f64, rng: &mut StdRng) -> Duration {
    let delay = max.mul_f64(rng.random());
    if rng.random_bool(late) { delay * 10 } else { delay }
}
