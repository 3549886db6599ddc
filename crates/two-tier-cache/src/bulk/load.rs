//! Steps 4 to 6 for many keys: one loader call, and what becomes of its values.

use std::collections::HashMap;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use fleetwide_core_traits::log::{EntryId, Meta};
use fleetwide_core_traits::{Executor, ExecutorExt, MonoTime, ServerTime};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::item::BulkItem;
use super::trips::{BYTES_PER_TRIP, KEYS_PER_STEP, KEYS_PER_TRIP, grouped};
use crate::cache::Inner;
use crate::context::Said;
use crate::entry::Hit;
use crate::error::LoadError;
use crate::flight::Leader;
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::load::Landed;
use crate::ops::{EntryKeys, Fill, Renew, Wake};
use crate::origin::{LOADING, OVERDUE, Unstored, message};

type Given<K, V> = Result<Vec<(K, BulkItem<V>)>, Arc<dyn Error + Send + Sync>>;

/// A bulk loader, whatever its types are.
pub(crate) type Origin<K, V> = Arc<dyn Fn(Vec<K>) -> BoxFuture<'static, Given<K, V>> + Send + Sync>;

pub(crate) fn origin<K, V, L, F, I, T, R>(loader: L) -> Origin<K, V>
where
    L: Fn(Vec<K>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<I, R>> + Send + 'static,
    I: IntoIterator<Item = (K, T)>,
    T: Into<BulkItem<V>>,
    R: Into<Box<dyn Error + Send + Sync>>,
{
    Arc::new(move |keys| {
        let given = loader(keys);
        Box::pin(async move {
            let given = given.await.map_err(|error| Arc::from(error.into()))?;
            Ok(given.into_iter().map(|(key, item)| (key, item.into())).collect())
        })
    })
}

/// A key of a bulk read whose flight it leads.
pub(super) struct Own<K, V> {
    pub(super) key: K,
    pub(super) wire: Bytes,
    pub(super) flight: Leader<Landed<V>>,
    /// What L2 has, and is of no use.
    pub(super) seen: Option<ServerTime>,
    /// What is to be renewed.
    pub(super) previous: Option<Hit<V>>,
    /// Whether L2 is asked who loads.
    pub(super) l2: bool,
}

/// On what ground a key is loaded.
pub(super) struct Ground {
    /// What the loaded value will claim.
    pass: Pass,
    /// The lease, if L2 gave one.
    lease: Option<Held>,
}

impl Ground {
    /// Of a load while somebody updates the origin: nobody may keep what it gives.
    pub(super) const UNKEPT: Self = Self { pass: Pass::NONE, lease: None };
}

/// A lease that was granted to us, or that may have been.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) token: EntryId,
    pub(super) keys: EntryKeys,
    pub(super) wake: Wake,
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// The ground of a load that L2 knows nothing of: what was applied so far.
    pub(super) fn ground_of(&self, own: &Own<K, V>) -> Ground {
        let (stamp, fence) = self.floors.here();
        Ground { pass: Pass { stamp, fence, stripe: self.stripe(&own.wire) }, lease: None }
    }

    /// The ground of a load to which L2 gave the right.
    pub(super) fn granted(&self, own: &Own<K, V>, held: Held, meta: Meta, fence: u64) -> Ground {
        let pass = Pass { stamp: meta.at, fence, stripe: self.stripe(&own.wire) };
        Ground { pass, lease: Some(held) }
    }

    /// Calls the loader once for all these keys, and lands and fills what it gives.
    pub(super) async fn load_batch(
        self: Arc<Self>,
        batch: Vec<(Own<K, V>, Ground)>,
        origin: Origin<K, V>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let began = self.clock.now();
        let keys = batch.iter().map(|(own, _)| own.key.clone()).collect();
        // A loader can panic while it makes its future, too.
        let loading = AssertUnwindSafe(async { origin(keys).await }).catch_unwind();
        let loading = LOADING.scope((), loading);
        let ended = self.run_batch(loading, &batch, permit).await;
        self.telemetry.load_seconds.record(self.clock.now().since(began));
        let error = match ended {
            Some(Ok(Ok(given))) => return self.land_given(batch, given, began).await,
            Some(Ok(Err(error))) => {
                self.telemetry.loads_failed.add();
                LoadError::Failed(error)
            }
            Some(Err(panic)) => {
                self.telemetry.loads_panicked.add();
                LoadError::Panicked(message(&*panic))
            }
            None => {
                self.telemetry.loads_cancelled.add();
                LoadError::Abandoned
            }
        };
        let rest = self.clock.now().plus(self.settings.on_error_rest);
        let mut leases = Vec::new();
        for (own, ground) in batch {
            // That nobody waited says nothing of the origin.
            let failed = !matches!(error, LoadError::Abandoned);
            if let Some(hit) = own.previous.as_ref().filter(|_| failed) {
                hit.entry.head.rest_until(rest);
            }
            own.flight.land(Err(error.clone()));
            leases.extend(ground.lease);
        }
        self.release_many(leases).await;
    }

    /// Returns when nobody waits for any of these any more, if that is to end them all.
    pub(super) async fn all_abandoned(&self, owns: &[Own<K, V>]) {
        self.abandoned_all(owns.iter()).await;
    }

    async fn abandoned_all<'a>(&self, owns: impl Iterator<Item = &'a Own<K, V>>) {
        for own in owns {
            own.flight.abandoned().await;
        }
    }

    /// Runs the loader, and renews the leases while it lives. `None` if nobody waits any more.
    async fn run_batch<T>(
        &self,
        loading: impl Future<Output = T>,
        batch: &[(Own<K, V>, Ground)],
        permit: Option<OwnedSemaphorePermit>,
    ) -> Option<T> {
        tokio::pin!(loading);
        tokio::select! {
            biased;
            ended = &mut loading => Some(ended),
            () = self.abandoned_all(batch.iter().map(|(own, _)| own)) => None,
            () = self.until_batch_overdue(batch) => {
                // It may never end. Others get the right to load, and its place among the loads.
                for (own, _) in batch {
                    own.flight.detach();
                }
                drop(permit);
                Some(loading.await)
            }
        }
    }

    /// Renews leases until the loader takes so long that nobody can be waiting for it.
    async fn until_batch_overdue(&self, batch: &[(Own<K, V>, Ground)]) {
        let length = self.settings.lease;
        let leases = batch.iter().filter_map(|(_, ground)| ground.lease.as_ref());
        let renewals = leases.map(|held| Renew::new(&held.keys, held.token, length)).collect();
        match self.settings.ask.hard_timeout {
            Some(hard) => drop(timeout(hard.saturating_mul(OVERDUE), self.renew(renewals)).await),
            None => self.renew(renewals).await,
        }
    }

    async fn renew(&self, mut renewals: Vec<Renew>) {
        let pause = self.settings.lease / 3;
        while !renewals.is_empty() {
            sleep(pause).await;
            let mut still = Vec::with_capacity(renewals.len());
            for trip in renewals.chunks(KEYS_PER_TRIP) {
                // No longer than that, so that one lost answer does not cost the leases.
                match timeout(pause, self.executor.run_many(trip)).await {
                    // What was lost to an invalidation or to a pause cannot be filled, and there is
                    // nothing left of it to renew.
                    Ok(answers) => still.extend(answers.iter().map(|held| *held != Ok(false))),
                    Err(_) => still.resize(still.len() + trip.len(), true),
                }
            }
            let mut still = still.into_iter();
            renewals.retain(|_| still.next().unwrap_or(true));
        }
        std::future::pending::<()>().await;
    }

    /// Steps 5 and 6: hands what was loaded to all who wait, and then stores it.
    async fn land_given(
        &self,
        batch: Vec<(Own<K, V>, Ground)>,
        given: Vec<(K, BulkItem<V>)>,
        began: MonoTime,
    ) {
        self.telemetry.loads_ok.add();
        let cost = self.clock.now().since(began);
        let mut given: HashMap<K, BulkItem<V>> = given.into_iter().collect();
        let (mut fills, mut unused) = (Vec::new(), Vec::new());
        for (count, (own, ground)) in batch.into_iter().enumerate() {
            if count % KEYS_PER_STEP == KEYS_PER_STEP - 1 {
                // Encoding thousands of values in one go would keep other tasks waiting.
                tokio::task::yield_now().await;
            }
            let (value, said) = match given.remove(&own.key) {
                Some(item) => (Some(item.value), item.said),
                None => (None, Said::default()),
            };
            let to_store = !said.no_store;
            let Ground { pass, lease } = ground;
            let (answer, rest) =
                self.take_loaded(&own.key, &own.wire, value, said, pass, (began, cost));
            own.flight.land(Ok(answer));
            match (lease, rest) {
                (Some(held), Some(rest)) => fills.push((held, rest)),
                (Some(held), None) => {
                    if to_store {
                        self.telemetry.fills_failed.add();
                    }
                    unused.push(held);
                }
                (None, _) => {}
            }
        }
        self.fill_many(fills, &mut unused).await;
        self.release_many(unused).await;
    }

    /// Stores values in as few trips as their size allows. The leases of those that failed are
    /// added to `unused`.
    async fn fill_many(&self, fills: Vec<(Held, Unstored)>, unused: &mut Vec<Held>) {
        let bytes = |(_, rest): &(Held, Unstored)| rest.envelope.len();
        for trip in grouped(fills, KEYS_PER_TRIP, BYTES_PER_TRIP, bytes) {
            let fill = |(held, rest): (Held, Unstored)| {
                let Unstored { envelope, ttl, tags } = rest;
                let op = Fill::new(&held.keys, held.token, envelope, ttl, held.wake.clone(), tags);
                (op, held)
            };
            let (ops, leases): (Vec<Fill>, Vec<Held>) = trip.into_iter().map(fill).unzip();
            let answers = timeout(self.settings.lease, self.executor.run_many(&ops)).await;
            let mut answers = answers.unwrap_or_default().into_iter();
            for held in leases {
                match answers.next() {
                    Some(Ok(true)) => self.telemetry.fills_stored.add(),
                    Some(Ok(false)) => self.telemetry.fills_refused.add(),
                    Some(Err(_)) | None => {
                        self.telemetry.fills_failed.add();
                        unused.push(held);
                    }
                }
            }
        }
    }
}
