//! Steps 3 to 6 of a read: one loader in the fleet, and what becomes of its value.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::{EntryId, Epoch};
use fleetwide_core_traits::{Executor, ExecutorExt, MonoTime};
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use rand::Rng;
use tokio::time::{sleep, timeout, timeout_at};

use crate::cache::{Inner, Keep, Looked, checked_wire};
use crate::context::{LoadContext, Said};
use crate::entry::{Entry, Freshness, Hit, Tier};
use crate::error::LoadError;
use crate::flight::{Leader, Role};
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::ops::{EntryKeys, Fill, Lease, Leased, Release, Renew, Wake};
use crate::payload::{self, Sealed};
use crate::recovery::Target;

/// First and longest pause between two looks at somebody else's load. Usually a message comes
/// first; the looks are for the case that it is lost.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

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
    value: V,
    said: Said,
    began: MonoTime,
    /// How long it took.
    cost: Duration,
}

/// The answer to the question who loads.
enum Turn<V> {
    /// Nobody: there is a value now.
    Value(Hit<V>),
    /// We do.
    Ours(Ground),
}

type Loaded<V> = Result<Hit<V>, LoadError>;

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// A read with a loader, after L1 has missed.
    pub(crate) async fn find_or_load<L, F, R>(self: Arc<Self>, key: &K, loader: L) -> Loaded<V>
    where
        L: FnOnce(LoadContext<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, R>> + Send + 'static,
        R: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let wire = checked_wire(key)?;
        let asked = self.clock.now();
        let looked =
            if self.settings.l2 { self.look(key, &wire).await } else { Looked::Unavailable };
        if let Looked::Hit(hit) = looked {
            return Ok(hit);
        }
        let follower = match self.loads.join(&wire) {
            Role::Follower(follower) => follower,
            Role::Leader(flight) => {
                // The flight before this one may have landed since we looked.
                if let Some(hit) = self.hit(key) {
                    flight.land(Ok(hit.clone()));
                    return Ok(hit);
                }
                let follower = flight.follow();
                let spent = self.clock.now().since(asked);
                let work = Arc::clone(&self).load(key.clone(), wire, looked, spent, loader, flight);
                tokio::spawn(work);
                follower
            }
        };
        self.telemetry.misses.add();
        follower.wait().await.unwrap_or(Err(LoadError::Abandoned))
    }

    /// The load itself, in a task of its own: no caller's leaving stops it.
    async fn load<L, F, R>(
        self: Arc<Self>,
        key: K,
        wire: Bytes,
        looked: Looked<V>,
        spent: Duration,
        loader: L,
        flight: Leader<Loaded<V>>,
    ) where
        L: FnOnce(LoadContext<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, R>> + Send + 'static,
        R: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let ground = match self.turn(&key, &wire, &looked, spent).await {
            Turn::Value(hit) => return flight.land(Ok(hit)),
            Turn::Ours(ground) => ground,
        };
        let began = self.clock.now();
        let (context, said) = LoadContext::new(key.clone());
        let loading = AssertUnwindSafe(async { loader(context).await }).catch_unwind();
        let result = self.with_renewal(ground.lease.as_ref(), loading).await;
        let cost = self.clock.now().since(began);
        self.telemetry.load_seconds.record(cost);
        match result {
            Ok(Ok(value)) => {
                let said = std::mem::take(&mut *said.lock());
                self.land_value(&key, &wire, Outcome { value, said, began, cost }, ground, flight)
                    .await;
            }
            Ok(Err(error)) => {
                self.telemetry.loads_failed.add();
                flight.land(Err(LoadError::Failed(error.into().into())));
                self.release(&wire, ground.lease).await;
            }
            Err(panic) => {
                self.telemetry.loads_panicked.add();
                flight.land(Err(LoadError::Panicked(message(&*panic))));
                self.release(&wire, ground.lease).await;
            }
        }
    }

    /// Step 3: asks the server for the right to load, and waits while somebody else has it.
    async fn turn(
        self: &Arc<Self>,
        key: &K,
        wire: &Bytes,
        looked: &Looked<V>,
        spent: Duration,
    ) -> Turn<V> {
        let budget = self.settings.l2_budget;
        let mut ends = tokio::time::Instant::now() + budget.saturating_sub(spent);
        let keys = EntryKeys::new(&self.tag, wire);
        let (Ok(keys), Looked::Miss | Looked::Unusable) = (keys, looked) else {
            return Turn::Ours(self.own_ground(wire));
        };
        let token: EntryId = rand::random();
        let fresh = Epoch(rand::random());
        let mut op = Lease::new(&keys, token, self.settings.lease, fresh);
        if matches!(looked, Looked::Unusable) {
            op.ignore_value();
        }
        // Before the first question: a wake between question and wait must not be missed.
        let waiting = self.wakes.listen(wire);
        let mut pause = PAUSE_MIN;
        loop {
            let fence = self.floors.fence();
            // After the fence was read: what is queued from here on raises it.
            if self.blocked(Target::Key, wire) {
                return Turn::Ours(self.own_ground(wire));
            }
            match timeout_at(ends, self.executor.run(&op)).await {
                Ok(Ok(Leased::Value(meta, stored))) => {
                    let promoting = self.promote(key, wire, &stored, meta.at, fence);
                    if let Ok(Some(hit)) = timeout_at(ends, promoting).await {
                        return Turn::Value(hit);
                    }
                    op.ignore_value();
                }
                Ok(Ok(Leased::Granted(meta))) => {
                    let pass = Pass { stamp: meta.at, fence, stripe: self.stripe(wire) };
                    return Turn::Ours(Ground {
                        pass,
                        lease: Some(Held { token, keys: Box::new(keys) }),
                    });
                }
                Ok(Ok(Leased::Held(rest))) => {
                    let jitter = rand::rng().random_range(0.5..1.0);
                    let nap = pause.mul_f64(jitter).min(rest + Duration::from_millis(1));
                    // Either way the answer is to ask again.
                    let _woken = timeout(nap, waiting.woken()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    op.take_value();
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
    async fn with_renewal<T>(&self, lease: Option<&Held>, loading: impl Future<Output = T>) -> T {
        let Some(Held { token, keys }) = lease else { return loading.await };
        let renewing = async {
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
        match select(Box::pin(loading), Box::pin(renewing)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), loading)) => loading.await,
        }
    }

    /// Steps 5 and 6: hands the value to all who wait, and then stores it.
    async fn land_value(
        &self,
        key: &K,
        wire: &Bytes,
        outcome: Outcome<V>,
        ground: Ground,
        flight: Leader<Loaded<V>>,
    ) {
        self.telemetry.loads_ok.add();
        let Outcome { value, mut said, began, cost } = outcome;
        let (value, tags) = (Arc::new(value), said.take_tags());
        let sealed = self.try_seal(&value, cost, &tags);
        let weight = sealed.as_ref().map(|sealed| sealed.plain_len);
        let ttl = said.ttl.unwrap_or(self.settings.ttl);
        let keep = Keep { ttl, weight: weight.filter(|_| !said.no_store), tags: &tags };
        let entry = self.keep_local(key, value, ground.pass, keep);
        let freshness = self.freshness_of_load(&entry, began);
        flight.land(Ok(Hit { entry, tier: Tier::Load, freshness, age: Duration::ZERO }));
        let Some(Held { token, keys }) = ground.lease else { return };
        if said.no_store {
            return self.release(wire, Some(Held { token, keys })).await;
        }
        let Some(sealed) = sealed else {
            self.telemetry.fills_failed.add();
            return self.release(wire, Some(Held { token, keys })).await;
        };
        let wake = Wake::new(&self.tag, wire);
        let op = Fill::new(&keys, token, sealed.envelope, ttl, wake, tags);
        match timeout(self.settings.lease, self.executor.run(&op)).await {
            Ok(Ok(true)) => self.telemetry.fills_stored.add(),
            Ok(Ok(false)) => self.telemetry.fills_refused.add(),
            Ok(Err(_)) | Err(_) => {
                self.telemetry.fills_failed.add();
                self.release(wire, Some(Held { token, keys })).await;
            }
        }
    }

    /// The value's envelope; `None` if it has no form, or its own code for that panics.
    fn try_seal(&self, value: &V, cost: Duration, tags: &[Bytes]) -> Option<Sealed> {
        let above = self.settings.compress_above;
        let sealing = || payload::seal(&*self.codec, value, above, cost, tags);
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
    fn freshness_of_load(&self, entry: &Entry<V>, began: MonoTime) -> Freshness {
        let now = self.clock.now();
        if now.since(began) <= self.settings.staleness_bound {
            return Freshness::Verified;
        }
        let admitted = self.floors.admit(&entry.pass, &entry.tags);
        admitted.map_or(Freshness::Unverified, |verified| self.freshness(verified, now))
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
fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Arc::from(text.unwrap_or("no message"))
}
