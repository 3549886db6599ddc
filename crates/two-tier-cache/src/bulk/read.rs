//! Steps 1 and 2 of a bulk read, and who waits for which flight.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{Executor, ServerTime};
use tokio::time::Instant;

use super::hits::Hits;
use super::load::{Origin, Own};
use super::turn::Turn;
use crate::ask::{Ask, Recalled, is_early};
use crate::builder::OnAbandon;
use crate::cache::{Inner, checked_wire};
use crate::entry::{Answer, Hit};
use crate::error::LoadError;
use crate::flight::{Follower, Role};
use crate::key::CacheKey;
use crate::l2::Looked;
use crate::load::{JOINS_MAX, Landed};
use crate::origin::is_nested;

/// A key of a bulk read that has no answer yet.
pub(super) struct Wanted<K, V> {
    /// Its place in the result.
    at: usize,
    key: K,
    wire: Bytes,
    /// What may be served if the load is slow or fails.
    spare: Option<Hit<V>>,
    /// What L2 has, and is of no use.
    seen: Option<ServerTime>,
    /// Whether L2 can be asked who loads.
    l2: bool,
    /// Whether L2 is still to be looked at.
    look: bool,
}

/// A key that waits for its flight.
type Flying<K, V> = (Wanted<K, V>, Follower<Landed<V>>);

/// A bulk read while it goes on.
pub(super) struct Reading<'a, K, V> {
    pub(super) hits: &'a mut Hits<K, V>,
    pub(super) ask: Ask,
    /// Keys that have an answer, and should be renewed all the same.
    early: Vec<Wanted<K, V>>,
    pub(super) failed: Vec<(K, LoadError)>,
}

impl<'a, K, V> Reading<'a, K, V> {
    pub(super) const fn new(hits: &'a mut Hits<K, V>, ask: Ask) -> Self {
        Self { hits, ask, early: Vec::new(), failed: Vec::new() }
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// A read without a loader, of the keys that the short way has not answered.
    pub(super) async fn find_many(&self, mut reading: Reading<'_, K, V>, missing: Vec<(usize, K)>) {
        let mut wanted = self.recall_many(&mut reading, missing, true);
        self.look_at_wanted(&mut reading, &mut wanted).await;
        let ask = reading.ask;
        for Wanted { at, spare, .. } in wanted {
            let stale = spare.filter(|_| ask.stale);
            if let Some(hit) = stale.and_then(|hit| self.spare(&hit, &ask, ask.grace())) {
                self.telemetry.stale_on_demand.add();
                reading.hits.set(at, hit);
            } else {
                self.telemetry.misses.add();
            }
        }
    }

    /// A read with a loader. Returns what failed.
    ///
    /// All keys are joined before anything is waited for. Those that we lead go to a task that
    /// waits for no flight at all, only for the server, for the loader and, after its own loads have
    /// begun, for other instances. So two bulks with the same keys in another order cannot wait for
    /// each other.
    pub(super) async fn load_many(
        self: &Arc<Self>,
        mut reading: Reading<'_, K, V>,
        missing: Vec<(usize, K)>,
        origin: Origin<K, V>,
    ) -> Vec<(K, LoadError)> {
        let began = Instant::now();
        let mut wanted = self.recall_many(&mut reading, missing, false);
        self.look_at_wanted(&mut reading, &mut wanted).await;
        let (spent, nested) = (began.elapsed(), is_nested());
        let mut turn = Turn { origin, ask: reading.ask, spent, nested };
        self.renew_early(&mut reading, &turn);
        let (began, ask) = (Instant::now(), reading.ask);
        for joins in 0.. {
            let flying = self.take_off(std::mem::take(&mut wanted), joins, &turn);
            turn.spent = Duration::ZERO;
            for (one, follower) in flying {
                let landed = self.wait(follower, one.spare.as_ref(), &ask, began).await;
                if joins < JOINS_MAX && !self.suits(&landed, &ask) {
                    // It began before the write that this read has to see.
                    self.loads.detach(&one.wire);
                    wanted.push(one);
                    continue;
                }
                match landed {
                    Ok(Answer::Value(hit)) => reading.hits.set(one.at, hit),
                    Ok(Answer::Absent) => {}
                    Err(error) => reading.failed.push((one.key, error)),
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        reading.failed
    }

    /// Step 1 for many. Returns those that L1 does not answer.
    fn recall_many(
        &self,
        reading: &mut Reading<'_, K, V>,
        missing: Vec<(usize, K)>,
        without_loader: bool,
    ) -> Vec<Wanted<K, V>> {
        let l2 = reading.ask.l2;
        let mut wanted = Vec::with_capacity(missing.len());
        for (at, key) in missing {
            let wire = match checked_wire(&key) {
                Ok(wire) => wire,
                Err(error) => {
                    reading.failed.push((key, error.into()));
                    continue;
                }
            };
            let mut one = Wanted { at, key, wire, spare: None, seen: None, l2, look: l2 };
            match self.recall(&one.key, &reading.ask) {
                Recalled::Fresh(hit) => {
                    self.telemetry.hit_in_l1(hit.freshness);
                    reading.hits.set(at, hit);
                    continue;
                }
                Recalled::Early(hit) => {
                    self.telemetry.hit_in_l1(hit.freshness);
                    reading.found_early(one, hit);
                    continue;
                }
                Recalled::Absent => {
                    self.telemetry.hits_absent.add();
                    continue;
                }
                Recalled::Lapsed(hit) => one.spare = Some(hit),
                Recalled::Expired(hit) => {
                    // Its time is over in L2 too, unless somebody has renewed it: who asks for the
                    // lease will learn of that.
                    one.look &= without_loader;
                    one.seen = hit.entry.head.stored_at;
                    one.spare = Some(hit);
                }
                Recalled::Nothing => {}
            }
            wanted.push(one);
        }
        wanted
    }

    /// Step 2 for many. Leaves those in `wanted` that L2 does not answer.
    async fn look_at_wanted(
        &self,
        reading: &mut Reading<'_, K, V>,
        wanted: &mut Vec<Wanted<K, V>>,
    ) {
        let ends = Instant::now() + self.settings.l2_budget;
        let sought: Vec<(&K, &Bytes)> =
            wanted.iter().filter(|one| one.look).map(|one| (&one.key, &one.wire)).collect();
        if sought.is_empty() {
            return;
        }
        let mut looked = self.look_many(&sought, reading.ask.at_least, ends).await.into_iter();
        let mut open = Vec::new();
        for mut one in wanted.drain(..) {
            let looked = if one.look { looked.next() } else { None };
            match looked {
                Some(Looked::Fresh(hit)) if is_early(&hit, &reading.ask) => {
                    reading.found_early(one, hit);
                    continue;
                }
                Some(Looked::Fresh(hit)) => {
                    reading.hits.set(one.at, hit);
                    continue;
                }
                Some(Looked::Absent(_)) => continue,
                Some(Looked::Stale(hit)) => {
                    one.seen = hit.entry.head.stored_at;
                    one.spare = Some(hit);
                }
                Some(Looked::Unusable(at)) => one.seen = Some(at),
                Some(Looked::Unavailable) => one.l2 = false,
                Some(Looked::Miss) | None => {}
            }
            open.push(one);
        }
        *wanted = open;
    }

    /// Renews in the background what has an answer, but not for much longer.
    fn renew_early(self: &Arc<Self>, reading: &mut Reading<'_, K, V>, turn: &Turn<K, V>) {
        let mut owns = Vec::new();
        for one in std::mem::take(&mut reading.early) {
            // Nobody waits for it, so only if there is room.
            if let Role::Leader(flight) = self.loads.join(&one.wire)
                && flight.has_place()
            {
                self.telemetry.refreshes_early.add();
                flight.let_finish();
                owns.push(one.own(flight));
            }
        }
        if !owns.is_empty() {
            tokio::spawn(Arc::clone(self).lead(owns, turn.clone()));
        }
    }

    /// Joins all flights, and begins those that nobody has begun.
    fn take_off(
        self: &Arc<Self>,
        wanted: Vec<Wanted<K, V>>,
        joins: usize,
        turn: &Turn<K, V>,
    ) -> Vec<Flying<K, V>> {
        let mut owns = Vec::new();
        let mut flying = Vec::with_capacity(wanted.len());
        for one in wanted {
            self.telemetry.misses.add();
            let role = if joins < JOINS_MAX {
                self.loads.join(&one.wire)
            } else {
                Role::Leader(self.loads.alone(&one.wire))
            };
            let follower = match role {
                Role::Follower(follower) => follower,
                Role::Leader(flight) => {
                    let follower = flight.follow();
                    if self.settings.on_abandon == OnAbandon::Finish {
                        flight.let_finish();
                    }
                    owns.push(one.own(flight));
                    follower
                }
            };
            flying.push((one, follower));
        }
        if !owns.is_empty() {
            tokio::spawn(Arc::clone(self).lead(owns, turn.clone()));
        }
        flying
    }
}

impl<K: CacheKey, V> Wanted<K, V> {
    fn own(&self, flight: crate::flight::Leader<Landed<V>>) -> Own<K, V> {
        let (key, wire, previous) = (self.key.clone(), self.wire.clone(), self.spare.clone());
        Own { key, wire, flight, seen: self.seen, previous, l2: self.l2 }
    }
}

impl<K: CacheKey, V> Reading<'_, K, V> {
    fn found_early(&mut self, mut one: Wanted<K, V>, hit: Hit<V>) {
        self.hits.set(one.at, hit.clone());
        one.seen = hit.entry.head.stored_at;
        one.spare = Some(hit);
        self.early.push(one);
    }
}
