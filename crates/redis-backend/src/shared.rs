//! What all handles and tasks of one [`Redis`](crate::Redis) have in common, and one call on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fleetwide_core_traits::{
    BackendError, Clock, Epoch, Outage, Rejection, RejectionKind, ScriptClock, Wire,
};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::dial::Target;
use crate::gather::{self, Call, Gather, Said};
use crate::health::Board;
use crate::histories::Histories;
use crate::link::Link;
use crate::reply;
use crate::scripts::Scripts;
use crate::trouble::Trouble;

/// The parts of a handle that its tasks need too.
pub(crate) struct Shared {
    pub(crate) target: Target,
    pub(crate) limits: Limits,
    pub(crate) lanes: Box<[Lane]>,
    /// Where the next call looks first, if there is more than one lane.
    turn: AtomicUsize,
    /// Numbers the connections of all lanes.
    pub(crate) links: AtomicU64,
    pub(crate) histories: Histories,
    pub(crate) scripts: Scripts,
    pub(crate) script_clock: ScriptClock,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Board,
    /// Whether the first attempt to connect has ended, one way or the other.
    pub(crate) tried: watch::Sender<bool>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// That of the connections.
    pub(crate) runtime: Handle,
    pub(crate) gather: Gather,
}

/// The times and numbers that bound each call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) command_timeout: Duration,
    pub(crate) total_timeout: Duration,
    pub(crate) in_flight_max: usize,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
}

/// The place of one shared connection, whichever stands at the moment.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) link: ArcSwapOption<Link>,
    /// Told when a call has a reason to doubt the connection.
    pub(crate) doubt: Notify,
}

/// The connection that a call got.
pub(crate) struct Ride<'a> {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) lane: &'a Lane,
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
}

/// How long a call may take as a whole, and how long one trip to the server.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    start: Instant,
    total: Duration,
    trip: Duration,
}

impl Budget {
    pub(crate) fn new(total: Duration, trip: Duration) -> Self {
        Self { start: Instant::now(), total, trip }
    }

    /// When the first trip of the call must be over, and how long it may take.
    fn trip(&self) -> (Instant, Duration) {
        let within = self.trip.min(self.total);
        (self.start + within, within)
    }

    /// What is left of it now, for another trip.
    pub(crate) fn rest(self) -> Self {
        let now = Instant::now();
        Self { start: now, total: (self.start + self.total).saturating_duration_since(now), ..self }
    }
}

impl Shared {
    pub(crate) fn new(
        target: Target,
        limits: Limits,
        lanes: usize,
        script_clock: ScriptClock,
        clock: Arc<dyn Clock>,
        board: Board,
    ) -> Self {
        Self {
            target,
            limits,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            turn: AtomicUsize::new(0),
            links: AtomicU64::new(1),
            histories: Histories::new(),
            scripts: Scripts::default(),
            script_clock,
            clock,
            board,
            tried: watch::Sender::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            gather: Gather::default(),
        }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.limits.backoff_min, self.limits.backoff_max)
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.limits.total_timeout, self.limits.command_timeout)
    }

    /// One command and its reply.
    pub(crate) async fn command(
        self: &Arc<Self>,
        command: Cmd,
        budget: Budget,
    ) -> Result<Wire, BackendError> {
        let (value, _) = self.send(command, budget).await?;
        self.answer(value)
    }

    /// One command and what the server says to it, which may be an error reply, and in which history
    /// of its data. Where many are under way, it goes out with others.
    pub(crate) async fn send(self: &Arc<Self>, command: Cmd, budget: Budget) -> Said {
        let place = self.enter()?;
        if place.before >= gather::ALONE_MAX && gather::is_small(&command) {
            return self.send_with_others(command, budget, place).await;
        }
        let (mut ride, (by, within)) = self.ride(budget).await?;
        let sent = timeout_at(by, ride.connection.send_packed_command(&command)).await;
        arrived(sent.ok(), &ride, within)
    }

    async fn send_with_others(
        self: &Arc<Self>,
        command: Cmd,
        budget: Budget,
        place: Place,
    ) -> Said {
        // While there is no connection, it may have to wait for the first one.
        let (by, within) = if self.is_standing() {
            budget.trip()
        } else {
            self.first_ride(budget).await?;
            budget.rest().trip()
        };
        let (call, answered) = Call::new(command, (by, within), place);
        Gather::send(self, call);
        match timeout_at(by, answered).await {
            Ok(Ok(said)) => said,
            Ok(Err(_)) => Err(BackendError::Unknown(Outage::Disconnected(
                "the runtime of the connection has ended".to_owned(),
            ))),
            Err(_) => Err(BackendError::Unknown(Outage::Deadline(within))),
        }
    }

    /// Several commands in one trip. The list has one value per command.
    pub(crate) async fn send_all(
        &self,
        commands: &Pipeline,
        budget: Budget,
    ) -> Result<(Vec<Value>, Epoch), BackendError> {
        let _place = self.enter()?;
        let (mut ride, (by, within)) = self.ride(budget).await?;
        let count = commands.len();
        let sent = timeout_at(by, ride.connection.send_packed_commands(commands, 0, count)).await;
        arrived(sent.ok(), &ride, within)
    }

    /// Turns what the server said into an answer, and notes a refusal that concerns all.
    pub(crate) fn answer(&self, value: Value) -> Result<Wire, BackendError> {
        let answer = reply::answer(value);
        if let Err(BackendError::Rejected(rejection)) = &answer {
            self.note(rejection);
        }
        answer
    }

    #[cold]
    fn note(&self, rejection: &Rejection) {
        match rejection.kind {
            RejectionKind::ReadOnly => {
                self.board.refused(Trouble::ReadOnly);
                self.doubt_all();
            }
            RejectionKind::Loading | RejectionKind::Unauthorized => self.doubt_all(),
            RejectionKind::OutOfMemory
            | RejectionKind::Misconfigured
            | RejectionKind::NoPermission
            | RejectionKind::Busy
            | RejectionKind::Isolated => match Trouble::from_rejection(rejection) {
                Trouble::PrimaryLost => self.doubt_all(),
                trouble => self.board.refused(trouble),
            },
            // Concerns the request alone.
            _ => {}
        }
    }

    /// Makes the supervisors ask how the server is doing.
    pub(crate) fn doubt_all(&self) {
        for lane in &self.lanes {
            lane.doubt.notify_one();
        }
    }

    /// Takes one of the places for waiting calls, or says that all are taken.
    fn enter(&self) -> Result<Place, BackendError> {
        let max = self.limits.in_flight_max;
        let in_flight = &self.target.in_flight;
        let before = in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place { in_flight: Arc::clone(in_flight), before };
        if place.before >= max {
            // Dropping `place` gives back what was just taken.
            return Err(BackendError::NotSent(Outage::Saturated(max)));
        }
        Ok(place)
    }

    async fn ride(&self, budget: Budget) -> Result<(Ride<'_>, (Instant, Duration)), BackendError> {
        match self.standing_ride() {
            Some(ride) => Ok((ride, budget.trip())),
            None => Ok((self.first_ride(budget).await?, budget.rest().trip())),
        }
    }

    pub(crate) fn standing_ride(&self) -> Option<Ride<'_>> {
        let count = self.lanes.len();
        let first = if count == 1 { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) };
        (0..count).find_map(|step| {
            let lane = &self.lanes[first.wrapping_add(step) % count];
            let guard = lane.link.load();
            let link = guard.as_ref().filter(|link| !link.is_closed())?;
            Some(Ride {
                connection: link.connection(),
                lane,
                number: link.number,
                epoch: link.epoch(),
            })
        })
    }

    /// Nothing stands. While the very first attempt runs, a call waits for it; after that it fails
    /// at once, because a caller has better things to do than to wait for a lost server.
    #[cold]
    async fn first_ride(&self, budget: Budget) -> Result<Ride<'_>, BackendError> {
        let within = budget.total;
        let mut tried = self.tried.subscribe();
        if timeout_at(budget.start + within, tried.wait_for(|tried| *tried)).await.is_err() {
            return Err(BackendError::NotSent(Outage::Deadline(within)));
        }
        self.standing_ride().ok_or_else(|| self.down())
    }

    /// What a call is told for which there is no connection.
    pub(crate) fn down(&self) -> BackendError {
        BackendError::NotSent(Outage::Down(self.board.why_down()))
    }

    fn is_standing(&self) -> bool {
        let stands = |lane: &Lane| lane.link.load().as_ref().is_some_and(|link| !link.is_closed());
        self.lanes.iter().any(stands)
    }
}

/// Sorts what came of a trip.
fn arrived<T>(
    sent: Option<RedisResult<T>>,
    ride: &Ride<'_>,
    within: Duration,
) -> Result<(T, Epoch), BackendError> {
    match sent {
        Some(Ok(value)) => Ok((value, ride.epoch)),
        Some(Err(error)) => Err(reply::failure(&error)),
        None => {
            ride.lane.doubt_link(ride.number);
            Err(BackendError::Unknown(Outage::Deadline(within)))
        }
    }
}

impl Lane {
    /// Has the connection `number` examined, unless another one took its place already.
    #[cold]
    pub(crate) fn doubt_link(&self, number: u64) {
        if self.link.load().as_ref().is_some_and(|link| link.number == number) {
            self.doubt.notify_one();
        }
    }
}

/// One of the places for waiting calls.
pub(crate) struct Place {
    in_flight: Arc<AtomicUsize>,
    /// How many there were.
    before: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
