//! Which place has which short id, kept where all instances see it.

use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::{
    AtomicOp, BackendError, Executor, ExecutorExt, KeyError, Namespace, Outage, Ttl,
};
use tokio::time::timeout;

use crate::id::ShortId;
use crate::ops::{self, Allot, IdOf, PlaceOf};
use crate::place::Place;

/// A step of the directory waits this long for its answer, as writes of the cache do.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Ids that are asked for in one round trip: some 100 KiB of commands.
const BATCH: usize = 256;

/// The directory of one session cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Directory<E> {
    executor: E,
    namespace: Namespace,
    name: String,
    grace: Duration,
}

/// Why a place has no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The directory was not reached, or said something else.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Other entries have all ids that this one could have, which takes somebody who made them so.
    #[error("other entries have all short ids that this one could have")]
    Taken,
}

impl<E: Executor> Directory<E> {
    pub(crate) fn new(executor: E, namespace: Namespace, name: &str, grace: Duration) -> Self {
        executor.prepare(&ops::scripts());
        Self { executor, namespace, name: name.to_owned(), grace }
    }

    /// How long the id of an entry with this ttl has to live yet when the entry is stored.
    pub(crate) fn needed(&self, ttl: Ttl) -> Duration {
        ttl.as_duration().saturating_add(self.grace)
    }

    /// How long it is made to live: half the grace more than needed, so that the rewrites of that
    /// time need not lengthen it again.
    pub(crate) fn life(&self, ttl: Ttl) -> Ttl {
        Ttl::clamped(self.needed(ttl).saturating_add(self.grace / 2))
    }

    /// The id of `place`, which is given one if it has none.
    pub(crate) async fn allot(&self, place: &Place, ttl: Ttl) -> Result<ShortId, IdError> {
        self.ask(&self.allotment(place, ttl)?).await?.ok_or(IdError::Taken)
    }

    /// The ids of `places`, in their order, in one round trip for each 256.
    pub(crate) async fn allot_many(
        &self,
        places: &[Place],
        ttl: Ttl,
    ) -> Vec<Result<ShortId, IdError>> {
        let mut ids = Vec::with_capacity(places.len());
        for batch in places.chunks(BATCH) {
            let ops: Result<Vec<_>, IdError> =
                batch.iter().map(|place| self.allotment(place, ttl)).collect();
            match ops {
                Ok(ops) => ids.extend(self.ask_many(&ops).await),
                Err(error) => ids.extend(batch.iter().map(|_| Err(error.clone()))),
            }
        }
        ids
    }

    async fn ask_many(&self, ops: &[Allot]) -> Vec<Result<ShortId, IdError>> {
        match timeout(TIMEOUT, self.executor.run_many(ops)).await {
            Ok(replies) => replies.into_iter().map(|reply| reply?.ok_or(IdError::Taken)).collect(),
            Err(_) => ops.iter().map(|_| Err(late().into())).collect(),
        }
    }

    fn allotment(&self, place: &Place, ttl: Ttl) -> Result<Allot, IdError> {
        let candidates = ShortId::candidates(place);
        let wire = Bytes::from(place.to_wire());
        let shard =
            ops::shard(&self.namespace, &self.name, candidates[0].shard()).map_err(unnamed)?;
        Ok(Allot::new(&shard, wire, candidates, self.life(ttl)).map_err(unnamed)?)
    }

    /// The id of `place`, if it has one.
    pub(crate) async fn id_of(&self, place: &Place) -> Result<Option<ShortId>, BackendError> {
        let [.., longest] = ShortId::candidates(place);
        let shard = ops::shard(&self.namespace, &self.name, longest.shard()).map_err(unnamed)?;
        let id = self.ask(&IdOf::new(&shard, &longest).map_err(unnamed)?).await?;
        Ok(id.filter(|id| id.fits(place)))
    }

    /// The place of `id`, if it is one's.
    pub(crate) async fn place_of(&self, id: &ShortId) -> Result<Option<Place>, BackendError> {
        let shard = ops::shard(&self.namespace, &self.name, id.shard()).map_err(unnamed)?;
        let wire = self.ask(&PlaceOf::new(&shard, id).map_err(unnamed)?).await?;
        // What somebody else has written there is no place of this id.
        Ok(wire.and_then(|wire| Place::read(&wire)).filter(|place| id.fits(place)))
    }

    async fn ask<O: AtomicOp>(&self, op: &O) -> Result<O::Reply, BackendError> {
        timeout(TIMEOUT, self.executor.run(op)).await.unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> BackendError {
    BackendError::Unknown(Outage::Deadline(TIMEOUT))
}

/// Ids are short, and the name was tried when the cache was built.
fn unnamed(error: KeyError) -> BackendError {
    BackendError::NotSent(Outage::Down(error.to_string()))
}
