//! The task that follows one log: it feeds the pursuit with what happens, and asks what it wants.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::{CHANNEL_PART, Epoch, FollowerId, LOG_TTL};
use fleetwide_core_traits::{
    AtomicOp, BackendError, Bus, Clock, Executor, ExecutorExt, Outage, Signal, Tag,
};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::log::Progress;
use crate::ops::{Beat, Presence, RaiseEpoch, Replay};
use crate::pursuit::{Answer, Command, Pursuit};
use crate::standing::Standing;
use crate::telemetry::Telemetry;

/// Messages that are taken before anything else gets its turn.
const MESSAGES_PER_TURN: usize = 256;

/// Catches a backend that never answers; the workspace's own answer or fail much sooner.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// What a beat showed has this long to arrive by message, at most; it is usually there already.
const PATIENCE_MAX: Duration = Duration::from_millis(50);

/// Beats that somebody has asked for keep this distance, however many ask.
const NUDGED_MIN: Duration = Duration::from_millis(20);

/// A beat renews the log this often: not each one, because that would make it a transaction.
const RENEW_EVERY: Duration = LOG_TTL.checked_div(1000).expect("a thousand is not zero");

/// The settings and the parts of one listener.
pub(crate) struct Listener<E, B> {
    pub(crate) executor: Arc<E>,
    pub(crate) bus: B,
    pub(crate) tag: Tag,
    pub(crate) id: FollowerId,
    pub(crate) heartbeat: Duration,
    pub(crate) life: Duration,
    pub(crate) page_entries_max: u32,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) pursuit: Pursuit,
    pub(crate) standing: Standing,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) checks: Arc<Notify>,
    pub(crate) stop: CancellationToken,
}

type Answered = Pin<Box<dyn Future<Output = Result<Answer, BackendError>> + Send>>;

/// What runs between two turns of the loop.
struct Running<S> {
    /// `None` while the bus has ended it.
    subscription: Option<S>,
    asked: Option<Answered>,
    beat_at: Instant,
    beaten_at: Option<Instant>,
    renewed_at: Option<Instant>,
    patience_until: Option<Instant>,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

impl<E: Executor, B: Bus> Listener<E, B> {
    /// Follows the log until it is told to stop. No error ends it.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let checks = self.checks.clone();
        let mut running = Running {
            subscription: Some(self.subscribe()),
            asked: None,
            beat_at: Instant::now() + self.heartbeat,
            beaten_at: None,
            renewed_at: None,
            patience_until: None,
            retry_at: None,
            backoff: Backoff::new(self.heartbeat),
        };
        loop {
            self.ask(&mut running);
            let wake_at = running.wake_at();
            tokio::select! {
                () = stop.cancelled() => return,
                signal = next_signal(&mut running.subscription) => {
                    self.take_signals(signal, &mut running).await;
                }
                answer = answered(&mut running.asked) => self.take_answer(answer, &mut running),
                () = sleep_until(wake_at) => self.take_time(&mut running),
                () = checks.notified() => {
                    running.retry_at = None;
                    self.pursuit.beat_is_due();
                }
            }
            self.report(&mut running);
        }
    }

    fn subscribe(&self) -> B::Subscription {
        self.bus.subscribe(&self.tag.channel(CHANNEL_PART))
    }

    /// Takes `first` and what else is there already.
    async fn take_signals(
        &mut self,
        first: Option<Signal>,
        running: &mut Running<B::Subscription>,
    ) {
        let mut next = Some(first);
        for _ in 0..MESSAGES_PER_TURN {
            match next {
                Some(Some(signal)) => self.take_signal(signal, running),
                Some(None) => {
                    running.subscription = None;
                    return self.pursuit.lost();
                }
                None => return,
            }
            next = next_signal(&mut running.subscription).now_or_never();
        }
        if let Some(Some(signal)) = next {
            self.take_signal(signal, running);
        }
        // There is more; but the other tasks of this thread want to run, too.
        tokio::task::yield_now().await;
    }

    fn take_signal(&mut self, signal: Signal, running: &mut Running<B::Subscription>) {
        match signal {
            Signal::Message(payload) => self.pursuit.message(&payload),
            Signal::Ready => {
                // The server is back, so whatever the last failure was, it is worth a try.
                running.retry_at = None;
                running.backoff.reset();
                self.pursuit.ready();
            }
            Signal::Lost => self.pursuit.lost(),
            // A signal that this version does not know says, at worst, that something was missed.
            _ => self.pursuit.lagged(),
        }
    }

    fn take_answer(
        &mut self,
        answer: Result<Answer, BackendError>,
        running: &mut Running<B::Subscription>,
    ) {
        running.asked = None;
        match answer {
            Ok(answer) => {
                running.backoff.reset();
                self.pursuit.answer(answer);
                self.standing.answered(&self.pursuit, self.clock.now());
            }
            Err(error) => {
                running.retry_at = Some(Instant::now() + running.backoff.next());
                self.telemetry.failed();
                self.pursuit.failed();
                self.standing.failed(&self.pursuit, &error, self.clock.now());
            }
        }
        if self.pursuit.is_deaf() {
            tracing::warn!(
                log = self.telemetry.log(),
                "the subscription is deaf; subscribes again"
            );
            self.pursuit.lost();
            running.subscription = Some(self.subscribe());
        }
    }

    fn take_time(&mut self, running: &mut Running<B::Subscription>) {
        let now = Instant::now();
        let over = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        over(&mut running.retry_at);
        if over(&mut running.patience_until) {
            self.pursuit.patience_is_over();
        }
        if running.beat_at <= now {
            running.beat_at = now + self.heartbeat;
            self.pursuit.beat_is_due();
            running.subscription.get_or_insert_with(|| self.subscribe());
        }
    }

    /// Sends what the pursuit wants to know, unless a question is under way or has to wait.
    fn ask(&mut self, running: &mut Running<B::Subscription>) {
        if running.retry_at.is_some() {
            return;
        }
        let Some(command) = self.pursuit.next_command(self.clock.now()) else { return };
        let question = match command {
            Command::Beat => self.question(self.beat(running), Answer::Beat),
            Command::Replay { from } => {
                let replay = Replay::new(&self.tag, from).entries_max(self.page_entries_max);
                self.question(replay, Answer::Replay)
            }
            Command::Raise { diverged } => {
                let raise = RaiseEpoch::new(&self.tag, diverged, Epoch(rand::random()));
                self.question(raise, Answer::Raise)
            }
        };
        running.asked = Some(question);
    }

    fn question<O>(&self, op: O, answer: fn(O::Reply) -> Answer) -> Answered
    where
        O: AtomicOp + 'static,
    {
        let executor = Arc::clone(&self.executor);
        Box::pin(async move {
            let late = |_| Err(BackendError::Unknown(Outage::Deadline(COMMAND_DEADLINE)));
            let reply = timeout(COMMAND_DEADLINE, executor.run(&op)).await.unwrap_or_else(late);
            reply.map(answer)
        })
    }

    /// A beat that is sent now.
    fn beat(&self, running: &mut Running<B::Subscription>) -> Beat {
        let applied = self.pursuit.applied();
        let presence = Presence { follower: self.id, life: self.life, applied };
        let now = Instant::now();
        let renew = running.renewed_at.is_none_or(|at| now - at >= RENEW_EVERY);
        if renew {
            running.renewed_at = Some(now);
        }
        running.beat_at = now + self.heartbeat;
        running.beaten_at = Some(now);
        Beat::new(&self.tag, Epoch(rand::random()), presence).renew(renew)
    }

    /// Lets others see where the follower is now.
    fn report(&mut self, running: &mut Running<B::Subscription>) {
        if self.pursuit.take_nudge() {
            let distance = NUDGED_MIN.min(self.heartbeat);
            let soon = running.beaten_at.map_or_else(Instant::now, |at| at + distance);
            running.beat_at = running.beat_at.min(soon);
        }
        running.patience_until = self.pursuit.awaits_messages().then(|| {
            let patience = PATIENCE_MAX.min(self.heartbeat / 4);
            running.patience_until.unwrap_or_else(|| Instant::now() + patience)
        });
        self.telemetry.lag(self.pursuit.lag());
        if let Some(as_of) = self.pursuit.verified_as_of() {
            self.telemetry.verified_age(self.clock.now().since(as_of));
        }
        let pursuit = &self.pursuit;
        pursuit.tick();
        self.progress.send_if_modified(|progress| progress.update(pursuit));
    }
}

impl<S> Running<S> {
    fn wake_at(&self) -> Instant {
        let others = [self.patience_until, self.retry_at];
        others.into_iter().flatten().fold(self.beat_at, Instant::min)
    }
}

async fn next_signal<S>(subscription: &mut Option<S>) -> Option<Signal>
where
    S: futures_core::Stream<Item = Signal> + Unpin,
{
    match subscription {
        Some(subscription) => subscription.next().await,
        None => pending().await,
    }
}

async fn answered(asked: &mut Option<Answered>) -> Result<Answer, BackendError> {
    match asked {
        Some(asked) => asked.await,
        None => pending().await,
    }
}
