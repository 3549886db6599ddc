//! What goes wrong, and when.

use std::time::Duration;

use fleetwide_testkit::{Event, Span, Weather};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::day::{COPIES, Day, NODES};

/// 15 minutes, µs.
const CLOCK_STEP_MAX: i64 = 15 * 60 * 1_000_000;
/// How long the fleet takes to find out what the server has lost, ms, once all of it runs in fair
/// weather: a beat that got lost is given up, and the next comes after a pause of a second at most.
const FOUND_OUT: u64 = 1_600;
/// How long it may be kept from that by bad weather, ms.
const UNNOTICED_MAX: u64 = 200;

/// One kind of trouble. Weather lasts until the node gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A bit of everything on the network.
    Rough,
    /// The same for all.
    RoughForAll,
    /// No trouble.
    Fair,
    /// No message arrives, and none says so.
    Deaf,
    /// The same, and heartbeats are late.
    DeafAndSlow,
    /// The connection for messages is known to be broken.
    NoMessages,
    /// Messages overtake the answers of commands.
    SlowCommands,
    /// Every other command is not even sent.
    Refused,
    /// None is sent.
    NoCommands,
    /// Commands vanish.
    BlackHole,
    /// Messages too.
    CutOff,
    /// A node stands still.
    Stop,
    /// A node dies.
    Restart,
    /// The server's clock is set.
    ServerClock,
    /// A node's clock is set.
    NodeClock,
    /// The server loses what it confirmed.
    Loss,
}

impl Trouble {
    pub(crate) const ALL: [Self; 16] = [
        Self::Rough,
        Self::RoughForAll,
        Self::Fair,
        Self::Deaf,
        Self::DeafAndSlow,
        Self::NoMessages,
        Self::SlowCommands,
        Self::Refused,
        Self::NoCommands,
        Self::BlackHole,
        Self::CutOff,
        Self::Stop,
        Self::Restart,
        Self::ServerClock,
        Self::NodeClock,
        Self::Loss,
    ];

    /// The weather that a node gets by it.
    fn weather(self) -> Option<Weather> {
        let (fair, ms) = (Weather::fair(), Duration::from_millis);
        Some(match self {
            Self::Rough | Self::RoughForAll => Weather::rough(),
            Self::Fair => fair,
            Self::Deaf => Weather { message_lost: 1.0, ..fair },
            Self::DeafAndSlow => Weather { command_delay_max: ms(250), message_lost: 1.0, ..fair },
            Self::NoMessages => Weather { no_messages: true, ..fair },
            Self::SlowCommands => Weather { command_delay_max: ms(30), ..fair },
            Self::Refused => Weather { command_refused: 0.5, ..fair },
            Self::NoCommands => Weather { no_commands: true, ..fair },
            Self::BlackHole => Weather { black_hole: true, ..fair },
            Self::CutOff => Weather { black_hole: true, message_lost: 1.0, ..fair },
            Self::Stop | Self::Restart | Self::ServerClock | Self::NodeClock | Self::Loss => {
                return None;
            }
        })
    }
}

/// The troubles of one day.
pub(crate) struct Troubles {
    /// When the next one comes, ms.
    next: u64,
    /// When the server loses what it has confirmed since its copies were frozen.
    loss: Option<u64>,
    calming: Option<Calming>,
    /// Copies that have not served.
    copies: usize,
    /// Until when some node stands still, ms.
    stopped: u64,
}

/// The loss that the fleet is still getting over.
struct Calming {
    /// When it came, by the recorder.
    came: u64,
    /// When the weather becomes fair, and when all have found out, ms.
    fair: u64,
    known: u64,
}

impl Troubles {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        let next = rng.random_range(100..500);
        Self { next, loss: None, calming: None, copies: COPIES, stopped: 0 }
    }

    /// Whether the fleet still has to find out what the server has lost.
    pub(crate) const fn is_calming(&self) -> bool {
        self.calming.is_some()
    }

    /// Causes what is due.
    pub(crate) fn cause(&mut self, day: &mut Day) {
        self.calm(day);
        if self.loss.is_some_and(|at| day.now >= at) {
            self.lose(day);
        }
        if day.now < self.next || self.calming.is_some() {
            return;
        }
        self.next = day.now + day.rng.random_range(50..500);
        let habits = &day.habits;
        let trouble = habits.troubles.choose(&mut day.rng).copied().unwrap_or(Trouble::Rough);
        let node = day.rng.random_range(0..NODES);
        match trouble {
            Trouble::Stop => {
                let length = day.rng.random_range(20..2_000);
                self.stopped = self.stopped.max(day.now + length);
                day.world.stop(node, Duration::from_millis(length));
            }
            Trouble::Restart => day.restart(node),
            Trouble::ServerClock => day.world.step_server_clock(step(&mut day.rng)),
            Trouble::NodeClock => day.world.step_node_clock(node, step(&mut day.rng)),
            Trouble::Loss => self.prepare_loss(day),
            Trouble::RoughForAll => {
                (0..NODES).for_each(|node| day.world.set_weather(node, Weather::rough()));
            }
            weather => {
                let weather = weather.weather().unwrap_or(Weather::fair());
                day.world.set_weather(node, weather);
            }
        }
    }

    /// From now on what the server confirms will be lost.
    fn prepare_loss(&mut self, day: &mut Day) {
        if self.loss.is_some() {
            return;
        }
        if self.copies > 0 {
            day.world.freeze(self.copies);
        }
        self.loss = Some(day.now + day.rng.random_range(0..800));
    }

    /// The server loses what it confirmed, and the fleet gets the time to find out.
    fn lose(&mut self, day: &mut Day) {
        if self.calming.is_some() {
            return;
        }
        self.loss = None;
        let came = day.recorder.now();
        if self.copies > 0 && day.rng.random_bool(0.8) {
            day.world.fail_over(self.copies);
            self.copies -= 1;
        } else {
            day.replace_server();
        }
        let fair = day.now + day.rng.random_range(0..UNNOTICED_MAX);
        let known = fair.max(self.stopped) + FOUND_OUT;
        self.calming = Some(Calming { came, fair, known });
    }

    /// Goes on with getting over a loss.
    fn calm(&mut self, day: &mut Day) {
        let Some(&Calming { came, fair, known }) = self.calming.as_ref() else { return };
        if day.now == fair {
            day.mend();
        }
        if day.now >= known {
            let span = Span { start: came, end: day.recorder.now() };
            day.recorder.record(&Event::Loss { at: span });
            self.calming = None;
        }
    }
}

fn step(rng: &mut StdRng) -> i64 {
    rng.random_range(-CLOCK_STEP_MAX..CLOCK_STEP_MAX)
}
