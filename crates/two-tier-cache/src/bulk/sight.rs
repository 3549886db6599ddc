//! Step 2 for many keys: one round trip for their values, one more for the tags of all of them.

use std::collections::HashMap;

use bytes::Bytes;
use fleetwide_core_traits::log::{Epoch, Stamp, StoredValue};
use fleetwide_core_traits::{Executor, ExecutorExt};
use tokio::time::{Instant, timeout_at};

use super::trips::{KEYS_PER_STEP, KEYS_PER_TRIP};
use crate::cache::Inner;
use crate::floors::Pass;
use crate::key::CacheKey;
use crate::l2::{Looked, went_back};
use crate::ops::{FoundMany, LookupMany, Versions};
use crate::payload::Opened;
use crate::recovery::Target;

/// A value of L2 that may be taken into L1.
pub(super) struct Candidate<'a, K> {
    pub(super) key: &'a K,
    pub(super) wire: &'a Bytes,
    pub(super) stored: StoredValue,
    /// Where the log was when it was read.
    pub(super) at: Stamp,
}

/// When tags were last bumped, in which history. A tag that is not here could not be asked for.
type Bumps = HashMap<Bytes, (Option<Epoch>, u64)>;

impl<K, V, E> Inner<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Looks for many keys in L2. The list has one answer per key.
    pub(super) async fn look_many(
        &self,
        sought: &[(&K, &Bytes)],
        at_least: Option<Stamp>,
        ends: Instant,
    ) -> Vec<Looked<V>> {
        let mut looked = Vec::with_capacity(sought.len());
        for trip in sought.chunks(KEYS_PER_TRIP) {
            // A request that is given up at once would only be work for the server.
            let answers = if Instant::now() < ends {
                timeout_at(ends, self.read_l2_many(trip, at_least)).await.ok()
            } else {
                None
            };
            looked.extend(answers.unwrap_or_else(|| unavailable(trip.len())));
        }
        if looked.iter().any(|looked| matches!(looked, Looked::Unavailable)) {
            self.telemetry.l2_errors.add();
        }
        looked
    }

    async fn read_l2_many(&self, trip: &[(&K, &Bytes)], at_least: Option<Stamp>) -> Vec<Looked<V>> {
        // Before the request is sent: what is fenced off meanwhile must not come back with it, and
        // the answer must show all that is known here by now.
        let (known, fence) = self.floors.here();
        let mut looked = unavailable(trip.len());
        // After the fence: a write that is queued from here on raises it. What the server has for a
        // key that waits to be invalidated is old.
        let is_open = |at: &usize| !self.blocked(Target::Key, trip[*at].1);
        let open: Vec<usize> = (0..trip.len()).filter(is_open).collect();
        let reader = self.reader();
        let lookup = |step: &[usize]| {
            let names = step.iter().map(|at| &trip[*at].1[..]);
            LookupMany::new(&self.tag, &self.meta_key, names, reader)
        };
        let Ok(ops) = open.chunks(KEYS_PER_STEP).map(lookup).collect::<Result<Vec<_>, _>>() else {
            return looked;
        };
        let (mut places, mut candidates) = (Vec::new(), Vec::new());
        for (step, reply) in open.chunks(KEYS_PER_STEP).zip(self.executor.run_many(&ops).await) {
            let FoundMany { meta, values } = match reply {
                // A server that has not seen what the reader must see has lost it, or never had it.
                Ok(found) if !self.has_seen(found.meta.map(|meta| meta.at), at_least) => continue,
                Ok(FoundMany { meta: Some(meta), .. }) if went_back(meta.at, known) => continue,
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(cache = %self.name, %error, "reading L2 failed");
                    continue;
                }
            };
            for (at, value) in step.iter().zip(values) {
                looked[*at] = Looked::Miss;
                if value.own.is_none() && value.other {
                    self.telemetry.other_schema.add();
                }
                if let (Some(stored), Some(meta)) = (value.own, meta) {
                    let (key, wire) = trip[*at];
                    places.push(*at);
                    candidates.push(Candidate { key, wire, stored, at: meta.at });
                }
            }
        }
        for (at, found) in places.into_iter().zip(self.promote_many(candidates, fence).await) {
            looked[at] = found;
        }
        looked
    }

    /// Takes what L2 has into L1.
    pub(super) async fn promote_many(
        &self,
        candidates: Vec<Candidate<'_, K>>,
        fence: u64,
    ) -> Vec<Looked<V>> {
        let opened: Vec<Option<Opened<V>>> =
            candidates.iter().map(|one| self.open(one.wire, &one.stored)).collect();
        let bumps = self.bumps_of(&opened).await;
        let promote = |(candidate, opened): (Candidate<'_, K>, Option<Opened<V>>)| {
            let Candidate { key, wire, stored, at } = candidate;
            let unbumped = |tag: &Bytes| {
                bumps.get(tag).is_some_and(|(epoch, seq)| {
                    *epoch == Some(stored.stamp.epoch) && *seq <= stored.stamp.seq
                })
            };
            match opened.filter(|opened| opened.tags.iter().all(unbumped)) {
                Some(opened) => {
                    let pass = Pass { stamp: at, fence, stripe: self.stripe(wire) };
                    self.take_in((key, wire), &stored, opened, pass)
                }
                None => Looked::Unusable(stored.stored_at),
            }
        };
        candidates.into_iter().zip(opened).map(promote).collect()
    }

    /// When the tags of all these values were last bumped, read after the values: so it shows every
    /// bump that their own read could have missed.
    async fn bumps_of(&self, opened: &[Option<Opened<V>>]) -> Bumps {
        let mut tags: Vec<Bytes> =
            opened.iter().flatten().flat_map(|opened| &opened.tags).cloned().collect();
        tags.sort_unstable();
        tags.dedup();
        tags.retain(|tag| !self.blocked(Target::Tag, tag));
        let steps = tags.chunks(KEYS_PER_STEP);
        let ops: Vec<_> = steps.clone().map(|step| Versions::new(&self.tags_key, step)).collect();
        let mut bumps = Bumps::new();
        if ops.is_empty() {
            return bumps;
        }
        for (step, reply) in steps.zip(self.executor.run_many(&ops).await) {
            let Ok(bumped) = reply else { continue };
            let seqs = bumped.seqs.into_iter().map(|seq| (bumped.epoch, seq));
            bumps.extend(step.iter().cloned().zip(seqs));
        }
        bumps
    }
}

fn unavailable<V>(count: usize) -> Vec<Looked<V>> {
    std::iter::repeat_with(|| Looked::Unavailable).take(count).collect()
}
