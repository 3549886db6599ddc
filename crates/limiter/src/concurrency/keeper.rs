//! Keeps the permits of one process: renews their leases, and gives them back.
//!
//! One task renews all that are live, a batch per key, and ends when none is. Another one gives back
//! what was dropped, and ends when nothing is left to give. Who holds a permit waits for neither.
//!
//! A lease counts as held until a lease after the moment *before* its last renewal was sent, by this
//! process's own clock, less what two clocks may differ in that time: so it is over here before it is
//! over on the server.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetwide_core_traits::{BackendError, Executor, Key, MonoTime, Outage, Told};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::ConcurrencyQuota;
use super::lease::{Lease, Spot};
use super::op::{Release, Renew};
use crate::Unavailable;
use crate::fallback::backend::Backend;
use crate::fallback::share::Instances;
use crate::op::Permits;

/// Some tens of megabytes.
pub(crate) const LIVE_MAX: usize = 65_536;
/// Renewals in a lease, so that a lone one that fails costs nothing.
const BEATS_PER_LEASE: u32 = 3;
/// After a renewal that failed, how much sooner the next one is sent.
const BEATS_IN_TROUBLE: u32 = 4;
/// Steps of one pipeline.
const STEPS_MAX: usize = 64;
/// Tries to give back. What is not given back comes back when its lease ends.
const RELEASE_TRIES: u32 = 2;

pub(crate) struct Keeper<E> {
    pub(crate) backend: Arc<Backend<E>>,
    beat_every: Duration,
    seed: RandomState,
    next_id: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<Key, Vec<Arc<Lease>>>,
    count: usize,
    /// What is to be given back.
    gone: Vec<(Spot, u64)>,
    /// Who wants to know that a permit of a key was given back.
    watching: HashMap<Key, Arc<Notify>>,
    is_beating: bool,
    is_releasing: bool,
}

impl<E: Executor> Keeper<E> {
    /// A keeper of leases that take `lease_min` at least.
    pub(crate) fn new(backend: Arc<Backend<E>>, lease_min: Duration) -> Arc<Self> {
        Arc::new(Self {
            backend,
            beat_every: lease_min / BEATS_PER_LEASE,
            seed: RandomState::new(),
            next_id: AtomicU64::new(0),
            table: Mutex::default(),
        })
    }

    /// An id that no other permit of the fleet has, but by a chance of one in 2^64.
    pub(crate) fn fresh_id(&self) -> u64 {
        self.seed.hash_one(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether there is no room for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.table.lock().count >= LIVE_MAX
    }

    /// Holds `lease` from now on. If it is one of a share, only if fewer than `share` permits of its
    /// key are held in this process.
    pub(crate) fn hold(self: &Arc<Self>, lease: Lease, share: Option<u32>) -> Option<Arc<Lease>> {
        let lease = Arc::new(lease);
        let begins = {
            let mut table = self.table.lock();
            let same_key = table.live.entry(lease.spot.key.clone()).or_default();
            let held: u32 = same_key.iter().map(|lease| u32::from(lease.cost)).sum();
            if share.is_some_and(|share| held + u32::from(lease.cost) > share) {
                if same_key.is_empty() {
                    table.live.remove(&lease.spot.key);
                }
                return None;
            }
            same_key.push(Arc::clone(&lease));
            table.count += 1;
            !std::mem::replace(&mut table.is_beating, true)
        };
        if begins {
            self.begin_beating();
        }
        Some(lease)
    }

    /// Lets go of a lease. It is given back in the background if `is_releasing`.
    pub(crate) fn let_go(self: &Arc<Self>, lease: &Lease, is_releasing: bool) {
        lease.let_go();
        {
            let mut table = self.table.lock();
            if let Some(same_key) = table.live.get_mut(&lease.spot.key) {
                let before = same_key.len();
                same_key.retain(|one| one.id != lease.id);
                let (after, is_empty) = (same_key.len(), same_key.is_empty());
                table.count -= before - after;
                if is_empty {
                    table.live.remove(&lease.spot.key);
                }
            }
        }
        if is_releasing {
            self.release_later(lease.spot.clone(), lease.id);
        }
    }

    /// Gives back what `id` may hold, in the background.
    pub(crate) fn release_later(self: &Arc<Self>, spot: Spot, id: u64) {
        let Ok(runtime) = Handle::try_current() else { return };
        {
            let mut table = self.table.lock();
            // As many as there can be live. Beyond it they come back when their leases end.
            if table.gone.len() >= LIVE_MAX {
                return;
            }
            table.gone.push((spot, id));
            if std::mem::replace(&mut table.is_releasing, true) {
                return;
            }
        }
        let duty = self.duty(|table| table.is_releasing = false);
        let keeper = Arc::clone(self);
        runtime.spawn(async move {
            while let Some(gone) = keeper.next_gone() {
                keeper.release_all(gone).await;
            }
            duty.finish();
        });
    }

    /// What is to be given back; with nothing left, the task's duty ends.
    fn next_gone(&self) -> Option<Vec<(Spot, u64)>> {
        let mut table = self.table.lock();
        table.is_releasing = !table.gone.is_empty();
        table.is_releasing.then(|| std::mem::take(&mut table.gone))
    }

    async fn release_all(&self, gone: Vec<(Spot, u64)>) {
        let mut by_key: HashMap<Key, (Spot, Vec<u64>)> = HashMap::new();
        for (spot, id) in gone {
            by_key.entry(spot.key.clone()).or_insert_with(|| (spot, Vec::new())).1.push(id);
        }
        let steps = by_key.into_values().flat_map(|(spot, ids)| {
            let chunks = ids.chunks(Release::LEASES_MAX).map(<[u64]>::to_vec);
            chunks.map(|ids| (spot.clone(), ids)).collect::<Vec<_>>()
        });
        for (spot, ids) in steps {
            for _ in 0..RELEASE_TRIES {
                if self.release(&spot, ids.clone()).await.is_ok() {
                    break;
                }
                sleep(self.backend.probe_every).await;
            }
        }
    }

    /// Gives back what `ids` hold, at most 64 of them.
    pub(crate) async fn release(&self, spot: &Spot, ids: Vec<u64>) -> Result<(), BackendError> {
        let release = Release::new(spot.key.clone(), ids);
        let deadline = self.backend.deadline.max(self.beat_every);
        let executor = &self.backend.executor;
        let done =
            match timeout(deadline, spot.form.run::<Permits, _, _>(&**executor, vec![release]))
                .await
            {
                Ok(mut done) => done.pop().map_or(Ok(()), |done| done.map(drop)),
                Err(_) => Err(BackendError::Unknown(Outage::Deadline(deadline))),
            };
        let watcher = self.table.lock().watching.get(&spot.key).cloned();
        if let Some(watcher) = watcher {
            watcher.notify_one();
        }
        done
    }

    /// Wants to know when a permit of `key` is given back by this process.
    pub(crate) fn watch(&self, key: &Key) -> Watch<'_, E> {
        let freed = Arc::clone(self.table.lock().watching.entry(key.clone()).or_default());
        Watch { keeper: self, key: key.clone(), freed }
    }

    fn begin_beating(self: &Arc<Self>) {
        // Made before the task, so that it also ends if the task is never begun.
        let duty = self.duty(|table| table.is_beating = false);
        let Ok(runtime) = Handle::try_current() else { return };
        let (keeper, beat_every) = (Arc::downgrade(self), self.beat_every);
        runtime.spawn(async move {
            let mut pause = beat_every;
            loop {
                sleep(pause).await;
                // Permits keep the keeper; without any, there is nothing to renew.
                let Some(keeper) = Weak::upgrade(&keeper) else { break };
                let Some(live) = keeper.live() else {
                    duty.finish();
                    break;
                };
                let is_well = keeper.beat(live).await;
                pause = if is_well { beat_every } else { beat_every / BEATS_IN_TROUBLE };
            }
        });
    }

    fn duty(self: &Arc<Self>, end: fn(&mut Table)) -> Duty<E> {
        Duty { keeper: Arc::downgrade(self), end, is_over: false }
    }

    /// All that is to be renewed; with nothing live, the task's duty ends.
    fn live(&self) -> Option<Vec<Vec<Arc<Lease>>>> {
        let now = self.backend.now();
        let mut table = self.table.lock();
        table.is_beating = table.count > 0;
        // What is lost stays lost: its holder was told.
        let of_key = |leases: &Vec<Arc<Lease>>| -> Vec<Arc<Lease>> {
            leases.iter().filter(|lease| !lease.is_lost(now)).cloned().collect()
        };
        table.is_beating.then(|| table.live.values().map(of_key).collect())
    }

    /// Renews all of them. Whether every step had an answer.
    async fn beat(self: &Arc<Self>, live: Vec<Vec<Arc<Lease>>>) -> bool {
        let batches: Vec<Vec<Arc<Lease>>> = live
            .iter()
            .flat_map(|same_key| same_key.chunks(Renew::LEASES_MAX).map(<[Arc<Lease>]>::to_vec))
            .collect();
        let mut is_well = true;
        for batches in batches.chunks(STEPS_MAX) {
            is_well &= self.renew(batches).await;
        }
        is_well
    }

    async fn renew(self: &Arc<Self>, batches: &[Vec<Arc<Lease>>]) -> bool {
        // All keys of one keeper are of one form, and a batch is never empty.
        let Some(form) = batches.first().and_then(|batch| batch.first()).map(|one| one.spot.form)
        else {
            return true;
        };
        let renew = |batch: &Vec<Arc<Lease>>| {
            let Spot { key, quota, .. } = batch[0].spot.clone();
            let leases = batch.iter().map(|lease| (lease.id, lease.cost)).collect();
            Renew::new(quota, key, leases)
        };
        let steps: Vec<Renew> = batches.iter().map(renew).collect();
        let asked_at = self.backend.now();
        let flight = form.run::<Permits, _, _>(&*self.backend.executor, steps);
        let Ok(answers) = timeout(self.beat_every, flight).await else {
            return false;
        };
        let mut is_well = true;
        for (batch, answer) in batches.iter().zip(answers) {
            let Ok(Told { reply: held, .. }) = answer else {
                is_well = false;
                continue;
            };
            for (lease, is_held) in batch.iter().zip(held) {
                if !is_held {
                    lease.lose();
                } else if lease.is_gone() {
                    // It was let go meanwhile, and its lease may have been taken anew.
                    self.release_later(lease.spot.clone(), lease.id);
                } else {
                    lease.renewed(asked_at);
                }
            }
        }
        is_well
    }
}

/// What a task does for all permits. If the task ends with its runtime, another one may begin.
struct Duty<E> {
    keeper: Weak<Keeper<E>>,
    end: fn(&mut Table),
    is_over: bool,
}

impl<E> Duty<E> {
    /// Nothing is left to do, and the table knows already.
    fn finish(mut self) {
        self.is_over = true;
    }
}

impl<E> Drop for Duty<E> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(keeper) = self.keeper.upgrade()
        {
            (self.end)(&mut keeper.table.lock());
        }
    }
}

/// Somebody who waits for a permit of a key. One at a time watches a key.
pub(crate) struct Watch<'a, E> {
    keeper: &'a Keeper<E>,
    key: Key,
    freed: Arc<Notify>,
}

impl<E> Watch<'_, E> {
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl<E> Drop for Watch<'_, E> {
    fn drop(&mut self) {
        self.keeper.table.lock().watching.remove(&self.key);
    }
}

/// Until when a lease counts as held whose request was sent at `asked_at`.
pub(crate) fn held_until(quota: ConcurrencyQuota, asked_at: MonoTime) -> MonoTime {
    // Clocks that differ by more than 2,000 parts in a million are broken.
    asked_at.plus(quota.lease().saturating_sub(quota.lease() / 500))
}

/// How many permits of a key this process may hold by itself while the backend gives no answer;
/// `None`: any number. What is held stays held when there come to be more `instances`.
pub(crate) fn share_of(
    quota: ConcurrencyQuota,
    unavailable: Unavailable,
    instances: Option<&Instances>,
) -> Option<u32> {
    match (unavailable, instances) {
        (Unavailable::Allow, _) => None,
        (_, Some(instances)) => Some((quota.max() / instances.assumed()).max(1)),
        (_, None) => Some(0),
    }
}

/// A question on its way. Dropped without an answer, what it may hold is given back.
pub(crate) struct Pending<'a, E: Executor> {
    keeper: &'a Arc<Keeper<E>>,
    spots: Vec<Spot>,
    id: u64,
}

impl<'a, E: Executor> Pending<'a, E> {
    pub(crate) fn new(keeper: &'a Arc<Keeper<E>>, spots: Vec<Spot>, id: u64) -> Self {
        Self { keeper, spots, id }
    }

    /// There is an answer, or none that would say what it holds.
    pub(crate) fn settle(mut self, may_hold: bool) {
        if !may_hold {
            self.spots.clear();
        }
    }
}

impl<E: Executor> Drop for Pending<'_, E> {
    fn drop(&mut self) {
        for spot in self.spots.drain(..) {
            self.keeper.release_later(spot, self.id);
        }
    }
}
