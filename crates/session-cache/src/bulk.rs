//! Many entries of a session at once.

use std::collections::HashMap;
use std::sync::Arc;

use fleetwide_core_traits::{BackendError, Executor, Outage, Ttl};
use fleetwide_two_tier_cache::{
    BulkItem, CacheTag, Hits, PutOptions, TagError, WriteError, WriteToken,
};
use futures_util::{Stream, StreamExt, stream};

use crate::cache::{Stored, tagged};
use crate::error::SessionError;
use crate::found::Answer;
use crate::place::{NameError, Place};
use crate::record::{Body, Record};
use crate::roster::Known;
use crate::session::Session;

/// References that are followed at a time: enough to fill the connection, too few to keep others
/// waiting.
const CONCURRENT: usize = 32;
/// Entries that `warm` holds at a time.
const BATCH: usize = 1024;

/// What came of [`Session::warm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// Entries that were stored.
    pub stored: u64,
    /// Entries that were not, or not for certain.
    pub failed: u64,
}

impl<V, E> Session<V, E>
where
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// What the entries under `keys` hold, in their order: one round trip for those that this process
    /// does not have, and more for references.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get_many(&self, keys: &[impl AsRef<str> + Sync]) -> Vec<Answer<V>> {
        let places: Vec<_> = keys.iter().map(|key| self.place(key.as_ref()).ok()).collect();
        let asked: Vec<Place> = places.iter().flatten().cloned().collect();
        let hits = self.inner.cache.get_many(&asked).get().await;
        let hits = &hits;
        let answers = places.into_iter().map(|place| async move {
            match place {
                Some(place) => self.shown(&place, hits).await,
                None => Answer::Absent,
            }
        });
        stream::iter(answers).buffered(CONCURRENT).collect().await
    }

    async fn shown(&self, place: &Place, hits: &Hits<Place, Record<V>>) -> Answer<V> {
        let answer = match hits.get(place) {
            Some(hit) => self.inner.follow(place, hit.clone()).await,
            None => Answer::Absent,
        };
        self.inner.count(&self.id, &answer);
        answer
    }

    /// Writes many entries, with `options` for each, and answers in their order: a round trip for
    /// each 256 short ids, and one for each 4,096 values or 4 MiB.
    ///
    /// One that fails does not stop the others. Of two under one key the last counts. Those who watch
    /// the session are told of each.
    ///
    /// With [`PutOptions::replicas`] each is stored by itself, one after the other, and waits for the
    /// replicas on its own: for entry upon entry the round trips of a single
    /// [`put_with`](Self::put_with).
    ///
    /// # Errors
    /// One [`SessionError`] per entry that failed.
    ///
    /// # Cancel safety
    /// *Not* cancel safe: some may be carried out.
    pub async fn put_many<T>(
        &self,
        entries: Vec<(String, T)>,
        options: &PutOptions,
    ) -> Vec<Result<Stored, SessionError>>
    where
        T: Into<Arc<V>>,
    {
        if options.replicas.is_some() {
            return self.put_each(entries, options).await;
        }
        let checked = self.inner.ttl_of(options);
        let checked = checked.and_then(|ttl| Ok((ttl, tagged(&self.id, options.clone())?)));
        let (ttl, options) = match checked {
            Ok(checked) => checked,
            Err(error) => return entries.iter().map(|_| Err(error.clone())).collect(),
        };
        let places: Vec<_> = entries.iter().map(|(key, _)| self.place(key)).collect();
        let ids = self.ids(&places, ttl).await;
        let (mut items, mut failed) = (Vec::with_capacity(ids.len()), HashMap::new());
        for ((_, value), place) in entries.into_iter().zip(&places) {
            let Ok(place) = place else { continue };
            let id = ids.get(place).map(|known| known.id);
            match item(Record { id, body: Body::Value(value.into()) }, ttl, &options.tags) {
                Ok(item) => items.push((place.clone(), item)),
                Err(error) => drop(failed.insert(place.clone(), error.into())),
            }
        }
        let token = self.write(items, &mut failed).await;
        for (place, known) in &ids {
            self.inner.roster.learn(place, *known);
        }
        let outcome = |place: Result<Place, NameError>| {
            let place = place?;
            match (failed.get(&place), token) {
                (None, Some(token)) => {
                    Ok(Stored { id: ids.get(&place).map(|known| known.id), token })
                }
                (Some(error), _) => Err(WriteError::clone(error).into()),
                (None, None) => Err(unsaid().into()),
            }
        };
        places.into_iter().map(outcome).collect()
    }

    /// The slow way, for what a step with many entries cannot do. In turn, so that of two under one
    /// key the last counts here too.
    async fn put_each<T>(
        &self,
        entries: Vec<(String, T)>,
        options: &PutOptions,
    ) -> Vec<Result<Stored, SessionError>>
    where
        T: Into<Arc<V>>,
    {
        let mut outcomes = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let outcome = match self.place(&key) {
                Ok(place) => {
                    let body = Body::Value(value.into());
                    self.inner.store(&place, body, options.clone()).await
                }
                Err(error) => Err(error.into()),
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    /// The ids of places, as far as the server gives them.
    async fn ids(&self, places: &[Result<Place, NameError>], ttl: Ttl) -> HashMap<Place, Known> {
        let (inner, asked) = (&self.inner, self.inner.clock.now());
        let named: Vec<Place> = places.iter().flatten().cloned().collect();
        let ids = inner.directory.allot_many(&named, ttl).await;
        let known = |(place, id)| inner.told(&place, id, ttl, asked).map(|known| (place, known));
        named.into_iter().zip(ids).filter_map(known).collect()
    }

    /// Writes, and adds those that failed. The token covers the others.
    async fn write(
        &self,
        items: Vec<(Place, BulkItem<Record<V>>)>,
        failed: &mut HashMap<Place, WriteError>,
    ) -> Option<WriteToken> {
        match self.inner.cache.put_many(items).await {
            Ok(token) => Some(token),
            Err(error) => {
                failed.extend(error.failed);
                error.token
            }
        }
    }

    /// Fills the session with what `entries` brings, a batch at a time, so that it can be as long as
    /// it likes.
    ///
    /// # Cancel safety
    /// *Not* cancel safe: some may be carried out.
    pub async fn warm<T>(&self, entries: impl Stream<Item = (String, T)>) -> Warmed
    where
        T: Into<Arc<V>>,
    {
        let mut warmed = Warmed::default();
        let mut batches = std::pin::pin!(entries.ready_chunks(BATCH));
        while let Some(batch) = batches.next().await {
            for outcome in self.put_many(batch, &PutOptions::default()).await {
                match outcome {
                    Ok(_) => warmed.stored += 1,
                    Err(_) => warmed.failed += 1,
                }
            }
        }
        warmed
    }
}

fn item<V>(
    record: Record<V>,
    ttl: Ttl,
    tags: &[CacheTag],
) -> Result<BulkItem<Record<V>>, TagError> {
    tags.iter().try_fold(BulkItem::new(record).ttl(ttl), |item, tag| item.tag(tag.clone()))
}

/// A write that failed as a whole names every key, so nobody should meet this.
fn unsaid() -> WriteError {
    WriteError::Unknown(BackendError::Unknown(Outage::Down("no word about this key".to_owned())))
}
