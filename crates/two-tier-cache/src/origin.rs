//! Steps 3 to 6 of a read: one loader in the fleet, and what becomes of its value.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{EntryId, Epoch, Stamp};
use fleetwide_core_traits::{Executor, ExecutorExt, MonoTime, ServerTime, Ttl};
use futures_util::FutureExt;
use rand::Rng;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout, timeout_at};

use crate::ask::{Ask, Recalled};
use crate::cache::Inner;
use crate::context::{BoxError, LoadContext, Loaded, Loader, Said};
use crate::entry::{Answer, Freshness, Head, Hit, Tier};
use crate::error::{LoadError, WriteError};
use crate::flight::Leader;
use crate::floors::Pass;
use crate::keep::Keep;
use crate::key::CacheKey;
use crate::l2::{Looked, went_back};
use crate::load::Landed;
use crate::ops::{EntryKeys, Fill, Lease, Leased, Release, Renew, Wake};
use crate::payload::{self, Label, Sealed};
use crate::recovery::Target;

/// First and longest pause between two looks at somebody else's load. Usually a message comes
/// first; the looks are for the case that it is lost.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(10);
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A loader that takes this many times the hard timeout keeps its lease and its place no longer.
pub(crate) const OVERDUE: u32 = 2;

tokio::task_local! {
    /// Set while a loader runs, for the loads that it asks for itself.
    pub(crate) static LOADING: ();
}

/// Whether the caller is itself a loader.
pub(crate) fn is_nested() -> bool {
    LOADING.try_with(|()| ()).is_ok()
}

/// A load that is to be done.
pub(crate) struct Job<K, V> {
    key: K,
    wire: Bytes,
    /// What L2 has, and is of no use.
    seen: Option<ServerTime>,
    /// What is to be renewed.
    previous: Option<Hit<V>>,
    flight: Leader<Landed<V>>,
    l2: bool,
    negative: bool,
    at_least: Option<Stamp>,
    /// What its caller asks of L1, if it is the only one who waits.
    ask: Option<Box<Ask>>,
    /// What looking into L2 has cost of the budget.
    spent: Duration,
    /// Whether another loader waits for it.
    nested: bool,
}

/// On what ground a loader runs.
struct Ground {
    /// What the loaded value will claim.
    pass: Pass,
    /// The lease, if L2 gave one.
    lease: Option<Held>,
}

/// A lease that was granted to us.
struct Held {
    token: EntryId,
    keys: Box<EntryKeys>,
}

/// What a loader gave.
struct Outcome<V> {
    given: Loaded<V>,
    said: Said,
    began: MonoTime,
    /// How long it took.
    cost: Duration,
}

/// What was loaded and is to be stored in L2.
pub(crate) struct Unstored {
    pub(crate) envelope: Bytes,
    pub(crate) ttl: Ttl,
    pub(crate) tags: Vec<Bytes>,
}

/// The answer to the question who loads.
enum Turn<V> {
    /// Nobody: there is an answer now.
    Answer(Answer<V>),
    /// We do.
    Ours(Ground),
}

/// How a loader ended.
enum Ended<V> {
    Loaded(Loaded<V>),
    Failed(BoxError),
    Panicked(Arc<str>),
    /// Nobody waits for it any more, and the cache does not want it for itself.
    Abandoned,
}

impl<K, V> Job<K, V> {
    /// To be called where the load is asked for.
    pub(crate) fn new(
        key: K,
        wire: Bytes,
        seen: Option<ServerTime>,
        previous: Option<Hit<V>>,
        flight: Leader<Landed<V>>,
    ) -> Self {
        let (l2, negative, at_least, spent) = (true, false, None, Duration::ZERO);
        let (ask, nested) = (None, is_nested());
        Self { key, wire, seen, previous, flight, l2, negative, at_least, ask, spent, nested }
    }

    /// Whether L2 is asked who loads.
    pub(crate) fn via_l2(self, l2: bool) -> Self {
        Self { l2, ..self }
    }

    /// Whether it is an answer that the origin has no value.
    pub(crate) fn taking_absent(self, negative: bool) -> Self {
        Self { negative, ..self }
    }

    /// A write that the answer must reflect.
    pub(crate) fn reflecting(self, at_least: Option<Stamp>) -> Self {
        Self { at_least, ..self }
    }

    /// Who asked for it: a flight that nobody could join may find, when its turn comes, that others
    /// have loaded the key.
    pub(crate) fn asked(mut self, ask: Ask) -> Self {
        if !self.flight.has_place() {
            self.ask = Some(Box::new(ask));
        }
        self
    }

    /// What was spent on L2 before.
    pub(crate) fn spent(self, spent: Duration) -> Self {
        Self { spent, ..self }
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// The load itself, in a task of its own: no caller's leaving stops it, unless the cache was
    /// told that it should.
    pub(crate) async fn load(self: Arc<Self>, job: Job<K, V>, loader: Loader<K, V>) {
        let permit = if job.nested {
            // The loader that asks for it has a permit already: if all that have one waited here
            // for another, nobody would ever give one back.
            None
        } else {
            // Before the lease: who waits here must not keep the rest of the fleet waiting.
            tokio::select! {
                biased;
                permit = Arc::clone(&self.turns).acquire_owned() => permit.ok(),
                () = job.flight.abandoned() => return self.telemetry.loads_cancelled.add(),
            }
        };
        // Apart, so that a load that waits for its turn is small: there can be many of them.
        Box::pin(self.load_in_turn(job, loader, permit)).await;
    }

    async fn load_in_turn(
        self: Arc<Self>,
        mut job: Job<K, V>,
        loader: Loader<K, V>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        if let Some(ask) = &job.ask
            && let Recalled::Fresh(hit) = self.recall(&job.key, ask)
        {
            return job.flight.land(Ok(Answer::Value(hit)));
        }
        let ground = match self.turn(&mut job).await {
            Turn::Answer(answer) => return job.flight.land(Ok(answer)),
            Turn::Ours(ground) => ground,
        };
        let began = self.clock.now();
        let previous = job.previous.as_ref().map(|hit| Arc::clone(hit.value()));
        let (context, said) = LoadContext::new(job.key.clone(), previous);
        let ended = self.run(loader(context), ground.lease.as_ref(), &job.flight, permit).await;
        let cost = self.clock.now().since(began);
        self.telemetry.load_seconds.record(cost);
        let error = match ended {
            Ended::Loaded(given) => {
                let said = std::mem::take(&mut *said.lock());
                let outcome = Outcome { given, said, began, cost };
                return self.land_loaded(job, outcome, ground).await;
            }
            Ended::Failed(error) => {
                self.telemetry.loads_failed.add();
                LoadError::Failed(error.into())
            }
            Ended::Panicked(text) => {
                self.telemetry.loads_panicked.add();
                LoadError::Panicked(text)
            }
            Ended::Abandoned => {
                self.telemetry.loads_cancelled.add();
                LoadError::Abandoned
            }
        };
        self.land_error(job, error, ground).await;
    }

    /// Nobody gets a value.
    async fn land_error(&self, job: Job<K, V>, error: LoadError, ground: Ground) {
        // That nobody waited says nothing of the origin.
        let failed = !matches!(error, LoadError::Abandoned);
        if let Some(hit) = job.previous.as_ref().filter(|_| failed) {
            let rest = self.clock.now().plus(self.settings.on_error_rest);
            hit.entry.head.rest_until(rest);
        }
        job.flight.land(Err(error));
        self.release(&job.wire, ground.lease).await;
    }

    /// Step 3: asks the server for the right to load, and waits while somebody else has it.
    async fn turn(self: &Arc<Self>, job: &mut Job<K, V>) -> Turn<V> {
        let (key, wire, budget) = (&job.key.clone(), &job.wire.clone(), self.settings.l2_budget);
        let mut ends = tokio::time::Instant::now() + budget.saturating_sub(job.spent);
        let keys = EntryKeys::new(&self.tag, wire).ok().filter(|_| job.l2);
        let Some(keys) = keys else { return Turn::Ours(self.own_ground(wire)) };
        let token: EntryId = rand::random();
        let fresh = Epoch(rand::random());
        let mut op = Lease::new(&keys, token, self.settings.lease, fresh, self.codec.schema());
        op.ignore(job.seen);
        // Before the first question: a wake between question and wait must not be missed.
        let waiting = self.wakes.listen(wire);
        let mut pause = PAUSE_MIN;
        loop {
            let (known, fence) = self.floors.here();
            // After the fence was read: what is queued from here on raises it.
            if self.blocked(Target::Key, wire) {
                return Turn::Ours(self.own_ground(wire));
            }
            match timeout_at(ends, self.executor.run(&op)).await {
                Ok(Ok(Leased::Value(meta, stored))) => {
                    if !self.has_seen(Some(meta.at), job.at_least) || went_back(meta.at, known) {
                        return Turn::Ours(self.own_ground(wire));
                    }
                    let promoting = self.promote(key, wire, &stored, meta.at, fence);
                    match timeout_at(ends, promoting).await {
                        Ok(Looked::Fresh(hit)) => return Turn::Answer(Answer::Value(hit)),
                        Ok(Looked::Absent(_)) if job.negative => {
                            return Turn::Answer(Answer::Absent);
                        }
                        Ok(Looked::Stale(hit)) => {
                            // It is what L1 has now, so it is this one that a failure marks.
                            job.previous = Some(hit);
                            op.ignore(Some(stored.stored_at));
                        }
                        _ => op.ignore(Some(stored.stored_at)),
                    }
                }
                Ok(Ok(Leased::Granted(meta))) => {
                    let pass = Pass { stamp: meta.at, fence, stripe: self.stripe(wire) };
                    let lease = Some(Held { token, keys: Box::new(keys) });
                    return Turn::Ours(Ground { pass, lease });
                }
                Ok(Ok(Leased::Guarded)) => {
                    return Turn::Ours(Ground { pass: Pass::NONE, lease: None });
                }
                Ok(Ok(Leased::Held(rest))) => {
                    let jitter = rand::rng().random_range(0.5..1.0);
                    let nap = pause.mul_f64(jitter).min(rest + Duration::from_millis(1));
                    // Either way the answer is to ask again.
                    let _woken = timeout(nap, waiting.woken()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    ends = tokio::time::Instant::now() + budget;
                }
                Ok(Err(_)) | Err(_) => {
                    self.telemetry.l2_errors.add();
                    // It may have been granted all the same.
                    let late = Held { token, keys: Box::new(keys) };
                    let (inner, wire) = (Arc::clone(self), wire.clone());
                    let ground = self.own_ground(&wire);
                    tokio::spawn(async move { inner.release(&wire, Some(late)).await });
                    return Turn::Ours(ground);
                }
            }
        }
    }

    /// The ground of a load that L2 knows nothing of: what was applied so far.
    fn own_ground(&self, wire: &[u8]) -> Ground {
        let (stamp, fence) = self.floors.here();
        Ground { pass: Pass { stamp, fence, stripe: self.stripe(wire) }, lease: None }
    }

    /// Step 4: runs the loader, and renews the lease while it lives.
    async fn run(
        &self,
        loading: impl Future<Output = Result<Loaded<V>, BoxError>>,
        lease: Option<&Held>,
        flight: &Leader<Landed<V>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Ended<V> {
        let loading = LOADING.scope((), AssertUnwindSafe(loading).catch_unwind());
        tokio::pin!(loading);
        let ended = tokio::select! {
            biased;
            ended = &mut loading => ended,
            () = flight.abandoned() => return Ended::Abandoned,
            () = self.until_overdue(lease) => {
                // It may never end. Others get the right to load, and its place among the loads.
                flight.detach();
                drop(permit);
                loading.await
            }
        };
        match ended {
            Ok(Ok(loaded)) => Ended::Loaded(loaded),
            Ok(Err(error)) => Ended::Failed(error),
            Err(panic) => Ended::Panicked(message(&*panic)),
        }
    }

    /// Renews a lease until the loader takes so long that nobody can be waiting for it.
    async fn until_overdue(&self, lease: Option<&Held>) {
        let renewing = async {
            let Some(Held { token, keys }) = lease else { return std::future::pending().await };
            let op = Renew::new(keys, *token, self.settings.lease);
            loop {
                sleep(self.settings.lease / 3).await;
                // No longer than that, so that one lost answer does not cost the lease.
                let pause = self.settings.lease / 3;
                if let Ok(Ok(false)) = timeout(pause, self.executor.run(&op)).await {
                    // Lost to an invalidation or to a pause: the fill will be refused, and there
                    // is nothing left to renew.
                    return std::future::pending::<()>().await;
                }
            }
        };
        match self.settings.ask.hard_timeout {
            Some(hard) => drop(timeout(hard.saturating_mul(OVERDUE), renewing).await),
            None => renewing.await,
        }
    }

    /// Steps 5 and 6: hands what was loaded to all who wait, and then stores it.
    async fn land_loaded(&self, job: Job<K, V>, outcome: Outcome<V>, ground: Ground) {
        let Outcome { given, said, began, cost } = outcome;
        let value = match given {
            Loaded::Value(value) => Some(Arc::new(value)),
            Loaded::Absent => None,
            Loaded::NotModified => match &job.previous {
                Some(hit) => {
                    self.telemetry.loads_not_modified.add();
                    Some(Arc::clone(hit.value()))
                }
                None => return self.land_error(job, LoadError::NothingToKeep, ground).await,
            },
        };
        self.telemetry.loads_ok.add();
        let stored = !said.no_store;
        let (answer, rest) =
            self.take_loaded(&job.key, &job.wire, value, said, ground.pass, (began, cost));
        job.flight.land(Ok(answer));
        let Some(Held { token, keys }) = ground.lease else { return };
        let wire = &job.wire;
        let Some(Unstored { envelope, ttl, tags }) = rest else {
            if stored {
                self.telemetry.fills_failed.add();
            }
            return self.release(wire, Some(Held { token, keys })).await;
        };
        let op = Fill::new(&keys, token, envelope, ttl, Wake::new(&self.tag, wire), tags);
        match timeout(self.settings.lease, self.executor.run(&op)).await {
            Ok(Ok(true)) => self.telemetry.fills_stored.add(),
            Ok(Ok(false)) => self.telemetry.fills_refused.add(),
            Ok(Err(_)) | Err(_) => {
                self.telemetry.fills_failed.add();
                self.release(wire, Some(Held { token, keys })).await;
            }
        }
    }

    /// Step 5: takes what was loaded into L1. Returns the answer for all who wait, and what L2 is to
    /// store; nothing if the loader said so, or if the value has no form.
    pub(crate) fn take_loaded(
        &self,
        key: &K,
        wire: &[u8],
        value: Option<Arc<V>>,
        mut said: Said,
        pass: Pass,
        (began, cost): (MonoTime, Duration),
    ) -> (Answer<V>, Option<Unstored>) {
        let tags = said.take_tags();
        let usual = if value.is_some() { self.settings.ttl } else { self.settings.negative_ttl };
        let ttl = self.jittered(said.ttl.unwrap_or(usual), said.jitter);
        // Nothing is served after its end that says that there is nothing.
        let (shared_ttl, soft_ttl) = match value {
            Some(_) => self.shared_ttl(ttl),
            None => (Ttl::clamped(ttl), None),
        };
        let label = Label { load_cost: cost, soft_ttl, tags: &tags };
        let sealed =
            if said.no_store { None } else { self.try_seal(wire, value.as_deref(), &label) };
        let weight = sealed.as_ref().map(|sealed| sealed.plain_len);
        let (l1_ttl, key_bytes) = (said.l1_ttl, wire.len());
        let keep = Keep { ttl, l1_ttl, cost, weight, key_bytes, tags: &tags };
        let answer = if let Some(value) = value {
            let entry = self.keep_local(key, value, pass, keep);
            let freshness = self.freshness_of_load(&entry.head, began);
            Answer::Value(Hit { entry, tier: Tier::Load, freshness, at: self.clock.now() })
        } else {
            self.telemetry.loads_absent.add();
            if weight.is_some() {
                self.keep_absent(key, pass, keep);
            }
            Answer::Absent
        };
        let unstored =
            |sealed: Sealed| Unstored { envelope: sealed.envelope, ttl: shared_ttl, tags };
        (answer, sealed.map(unstored))
    }

    /// The value's envelope; `None` if it has no form, or its own code for that panics.
    fn try_seal(&self, wire: &[u8], value: Option<&V>, label: &Label<'_>) -> Option<Sealed> {
        let above = self.settings.compress_above;
        let sealing = || -> Result<Sealed, WriteError> {
            let sealed = match value {
                Some(value) => payload::seal(&*self.codec, value, above, label)?,
                None => payload::seal_absent(self.codec.schema(), label)?,
            };
            Ok(self.codec.protect(wire, sealed)?)
        };
        let sealed = std::panic::catch_unwind(AssertUnwindSafe(sealing));
        let why: Arc<str> = match sealed {
            Ok(Ok(sealed)) => return Some(sealed),
            Ok(Err(error)) => error.to_string().into(),
            Err(panic) => message(&*panic),
        };
        tracing::warn!(cache = %self.name, %why, "a loaded value cannot be stored");
        None
    }

    /// A value from the origin reflects what was written before its load began. That is enough if
    /// the load was short; after a long one, it must still count by what the log has said.
    fn freshness_of_load(&self, head: &Head, began: MonoTime) -> Freshness {
        let (now, bound_us) = (self.clock.now(), self.settings.ask.bound_us);
        if now.since(began).as_micros() <= u128::from(bound_us) {
            return Freshness::Verified;
        }
        let admitted = self.floors.admit_apart(&head.pass, &head.tags);
        admitted.map_or(Freshness::Unverified, |verified| self.freshness(verified, now, bound_us))
    }

    /// Gives a lease back. Without an answer it runs out by itself.
    async fn release(&self, wire: &Bytes, lease: Option<Held>) {
        let Some(Held { token, keys }) = lease else { return };
        let op = Release::new(&keys, token, Wake::new(&self.tag, wire));
        if !matches!(timeout(self.settings.lease, self.executor.run(&op)).await, Ok(Ok(_))) {
            self.telemetry.l2_errors.add();
        }
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Arc::from(text.unwrap_or("no message"))
}
