//! Step 3 for many keys: who loads which of them.

use std::iter::repeat_with;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::log::{Epoch, Meta, StoredValue};
use fleetwide_core_traits::{Executor, ExecutorExt};
use futures_util::FutureExt;
use futures_util::future::select_all;
use rand::Rng;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::load::{Ground, Held, Origin, Own};
use super::sight::Candidate;
use super::trips::{KEYS_PER_TRIP, grouped};
use crate::ask::{Ask, Recalled};
use crate::cache::Inner;
use crate::entry::Answer;
use crate::key::CacheKey;
use crate::l2::{Looked, went_back};
use crate::ops::{EntryKeys, Lease, Leased, Release, Wake};
use crate::origin::{PAUSE_MAX, PAUSE_MIN};
use crate::recovery::Target;
use crate::wake::Waiting;

/// After one key was woken, how long others may follow: who loads many fills them together, and
/// asking for each as it comes would cost a trip per key.
const GATHER: Duration = Duration::from_millis(1);

/// What a bulk read asks for, on its way to the server and to the loader.
pub(super) struct Turn<K, V> {
    pub(super) origin: Origin<K, V>,
    pub(super) ask: Ask,
    /// What looking into L2 has cost of the budget.
    pub(super) spent: Duration,
    /// Whether another loader waits for it.
    pub(super) nested: bool,
}

/// A key for which the right to load is asked.
struct Asking<K, V> {
    own: Own<K, V>,
    held: Held,
    /// From before the first question: a wake between question and wait must not be missed.
    waiting: Waiting,
}

/// A key that somebody else loads, until then unless they renew.
struct Elsewhere<K, V> {
    asking: Asking<K, V>,
    until: Instant,
}

/// What came of one round of questions.
struct Answers<K, V> {
    /// To be asked again at once.
    again: Vec<Asking<K, V>>,
    /// To be loaded here.
    ours: Vec<(Own<K, V>, Ground)>,
    elsewhere: Vec<Elsewhere<K, V>>,
    /// Leases that may have been granted without our knowing.
    late: Vec<Held>,
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Lands all flights of a bulk read that are its own, in a task that nobody's leaving stops,
    /// unless the cache was told that it should.
    ///
    /// Has everything loaded that is ours to load, and then waits for what others load. In this
    /// order: who waits for another instance while it keeps rights that it does not use can be
    /// waited for by that very instance.
    pub(super) async fn lead(self: Arc<Self>, owns: Vec<Own<K, V>>, turn: Turn<K, V>) {
        // Before the leases: who waits here must not keep the rest of the fleet waiting.
        let mut permit = tokio::select! {
            biased;
            permit = self.permit(&turn) => permit,
            () = self.all_abandoned(&owns) => return self.telemetry.loads_cancelled.add(),
        };
        let (mut asking, mut ours) = self.sorted(owns, turn.ask);
        let (mut elsewhere, mut pause) = (Vec::new(), PAUSE_MIN);
        let budget = self.settings.l2_budget;
        let mut ends = Instant::now() + budget.saturating_sub(turn.spent);
        loop {
            while !asking.is_empty() {
                let answers = self.ask_who_loads(asking, turn.ask, ends).await;
                asking = answers.again;
                ours.extend(answers.ours);
                elsewhere.extend(answers.elsewhere);
                if !answers.late.is_empty() {
                    let inner = Arc::clone(&self);
                    tokio::spawn(async move { inner.release_many(answers.late).await });
                }
            }
            if !ours.is_empty() {
                let (batch, origin) = (std::mem::take(&mut ours), Arc::clone(&turn.origin));
                tokio::spawn(Arc::clone(&self).load_batch(batch, origin, permit.take()));
            }
            // Not while it waits: what others load takes nothing of our origin.
            drop(permit.take());
            if elsewhere.is_empty() {
                return;
            }
            (asking, elsewhere) = next_to_ask(elsewhere, pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            permit = self.permit(&turn).await;
            ends = Instant::now() + budget;
        }
    }

    /// The right to load, one of [`loads_max`](crate::CacheBuilder::loads_max). A loader that asks for
    /// more keys has one already: if all that have one waited here for another, nobody would ever
    /// give one back.
    async fn permit(&self, turn: &Turn<K, V>) -> Option<OwnedSemaphorePermit> {
        if turn.nested { None } else { Arc::clone(&self.turns).acquire_owned().await.ok() }
    }

    /// Those for which L2 is to be asked, and those that are loaded without it.
    fn sorted(&self, owns: Vec<Own<K, V>>, ask: Ask) -> Sorted<K, V> {
        let (mut asking, mut ours) = (Vec::new(), Vec::new());
        for own in owns {
            // The flight before this one may have landed since the caller looked.
            match self.recall(&own.key, &ask) {
                Recalled::Fresh(hit) => {
                    own.flight.land(Ok(Answer::Value(hit)));
                    continue;
                }
                Recalled::Absent => {
                    own.flight.land(Ok(Answer::Absent));
                    continue;
                }
                _ => {}
            }
            match EntryKeys::new(&self.tag, &own.wire) {
                Ok(keys) if own.l2 => {
                    let (waiting, token) = (self.wakes.listen(&own.wire), rand::random());
                    let wake = Wake::new(&self.tag, &own.wire);
                    asking.push(Asking { own, held: Held { token, keys, wake }, waiting });
                }
                _ => {
                    let ground = self.ground_of(&own);
                    ours.push((own, ground));
                }
            }
        }
        (asking, ours)
    }

    /// One question for each key, in one round trip.
    async fn ask_who_loads(
        &self,
        asking: Vec<Asking<K, V>>,
        ask: Ask,
        ends: Instant,
    ) -> Answers<K, V> {
        let (again, ours, elsewhere, late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut answers = Answers { again, ours, elsewhere, late };
        for trip in grouped(asking, KEYS_PER_TRIP, usize::MAX, |_| 0) {
            self.ask_trip(trip, ask, ends, &mut answers).await;
        }
        answers
    }

    async fn ask_trip(
        &self,
        trip: Vec<Asking<K, V>>,
        ask: Ask,
        ends: Instant,
        answers: &mut Answers<K, V>,
    ) {
        let (known, fence) = self.floors.here();
        // After the fence was read: what is queued from here on raises it.
        let is_blocked = |asking: &Asking<K, V>| self.blocked(Target::Key, &asking.own.wire);
        let (blocked, trip): (Vec<_>, Vec<_>) = trip.into_iter().partition(is_blocked);
        for asking in blocked {
            self.go_without(asking, answers);
        }
        let (fresh, schema) = (Epoch(rand::random()), self.codec.schema());
        let ops: Vec<Lease> =
            trip.iter().map(|one| one.op(self.settings.lease, fresh, schema)).collect();
        let in_time = Instant::now() < ends;
        let asked = async { timeout_at(ends, self.executor.run_many(&ops)).await.ok() };
        let Some(said) = (if in_time { asked.await } else { None }) else {
            self.telemetry.l2_errors.add();
            for asking in trip {
                if in_time {
                    answers.late.push(asking.held.clone());
                }
                self.go_without(asking, answers);
            }
            return;
        };
        let mut found = Vec::new();
        for (asking, said) in trip.into_iter().zip(said) {
            match said {
                Ok(Leased::Value(meta, _))
                    if !self.has_seen(Some(meta.at), ask.at_least) || went_back(meta.at, known) =>
                {
                    self.go_without(asking, answers);
                }
                Ok(Leased::Value(meta, stored)) => found.push((asking, meta, stored)),
                Ok(Leased::Granted(meta)) => {
                    let Asking { own, held, .. } = asking;
                    let ground = self.granted(&own, held, meta, fence);
                    answers.ours.push((own, ground));
                }
                Ok(Leased::Guarded) => {
                    answers.ours.push((asking.own, Ground::UNKEPT));
                }
                Ok(Leased::Held(rest)) => {
                    answers.elsewhere.push(Elsewhere { asking, until: Instant::now() + rest });
                }
                Err(_) => {
                    self.telemetry.l2_errors.add();
                    answers.late.push(asking.held.clone());
                    self.go_without(asking, answers);
                }
            }
        }
        let candidates: Vec<_> = found.iter().map(candidate).collect();
        let promoted = timeout_at(ends, self.promote_many(candidates, fence)).await;
        let promoted = promoted.into_iter().flatten().chain(repeat_with(|| Looked::Unavailable));
        for ((mut asking, _, stored), looked) in found.into_iter().zip(promoted) {
            match looked {
                Looked::Fresh(hit) => asking.own.flight.land(Ok(Answer::Value(hit))),
                Looked::Absent(_) => asking.own.flight.land(Ok(Answer::Absent)),
                _ => {
                    asking.own.seen = Some(stored.stored_at);
                    answers.again.push(asking);
                }
            }
        }
    }

    /// The key is loaded here, and L2 knows nothing of it.
    fn go_without(&self, asking: Asking<K, V>, answers: &mut Answers<K, V>) {
        let ground = self.ground_of(&asking.own);
        answers.ours.push((asking.own, ground));
    }

    /// Gives leases back. Without an answer they run out by themselves.
    pub(super) async fn release_many(&self, leases: Vec<Held>) {
        for trip in leases.chunks(KEYS_PER_TRIP) {
            let release = |held: &Held| Release::new(&held.keys, held.token, held.wake.clone());
            let ops: Vec<_> = trip.iter().map(release).collect();
            let released = timeout(self.settings.lease, self.executor.run_many(&ops)).await;
            if !released.is_ok_and(|answers| answers.iter().all(Result::is_ok)) {
                self.telemetry.l2_errors.add();
            }
        }
    }
}

/// What L2 is asked for, and what is loaded without it.
type Sorted<K, V> = (Vec<Asking<K, V>>, Vec<(Own<K, V>, Ground)>);

impl<K, V> Clone for Turn<K, V> {
    fn clone(&self) -> Self {
        Self { origin: Arc::clone(&self.origin), ..*self }
    }
}

impl<K, V> Asking<K, V> {
    fn op(&self, length: Duration, fresh: Epoch, schema: u32) -> Lease {
        let mut op = Lease::new(&self.held.keys, self.held.token, length, fresh, schema);
        op.ignore(self.own.seen);
        op
    }
}

fn candidate<K, V>((asking, meta, stored): &(Asking<K, V>, Meta, StoredValue)) -> Candidate<'_, K> {
    let Own { key, wire, .. } = &asking.own;
    Candidate { key, wire, stored: stored.clone(), at: meta.at }
}

/// Waits until there is something to ask again: what was woken, or all after a pause, for the case
/// that a message was lost or that a loader died. The others stay.
async fn next_to_ask<K, V>(
    elsewhere: Vec<Elsewhere<K, V>>,
    pause: Duration,
) -> (Vec<Asking<K, V>>, Vec<Elsewhere<K, V>>) {
    let jitter = rand::rng().random_range(0.5..1.0);
    let first_end = elsewhere.iter().map(|one| one.until).min().unwrap_or_else(Instant::now);
    let rest = first_end.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    let nap = pause.mul_f64(jitter).min(rest);
    let woken = select_all(elsewhere.iter().map(|one| Box::pin(one.asking.waiting.woken())));
    let first = timeout(nap, woken).await.map(|((), first, _others)| first);
    let Ok(first) = first else {
        return (elsewhere.into_iter().map(|one| one.asking).collect(), Vec::new());
    };
    sleep(GATHER).await;
    let (mut asking, mut waiting) = (Vec::new(), Vec::new());
    for (at, one) in elsewhere.into_iter().enumerate() {
        if at == first || one.asking.waiting.woken().now_or_never().is_some() {
            asking.push(one.asking);
        } else {
            waiting.push(one);
        }
    }
    (asking, waiting)
}
