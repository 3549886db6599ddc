//! Many keys at once.

mod error;
mod hits;
mod item;
mod load;
mod read;
mod sight;
mod trips;
mod turn;
mod write;

use std::fmt;
use std::time::Duration;

use fleetwide_core_traits::Executor;

use crate::ask::Ask;
use crate::builder::BETA_MAX;
use crate::cache::Cache;
use crate::entry::Hit;
use crate::key::CacheKey;
use crate::token::WriteToken;

pub use error::{BulkError, BulkWriteError};
pub use hits::{Hits, IntoHits};
pub use item::BulkItem;
pub(crate) use load::{Origin, origin};
use read::Reading;
pub(crate) use write::in_steps;

/// Several keys of a cache, about to be read. Made by [`Cache::get_many`].
#[must_use = "nothing is read until `get` or `load`"]
pub struct Many<'a, K, V, E> {
    cache: &'a Cache<K, V, E>,
    keys: &'a [K],
    ask: Ask,
}

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Reads several keys: [`get`](Many::get) for what is there, [`load`](Many::load) to have the
    /// rest loaded by one call.
    ///
    /// A key that comes twice counts once. The memory that a call takes grows with its keys.
    ///
    /// # Examples
    /// ```
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_mem_backend::{Memory, MokaLocal};
    /// # use fleetwide_two_tier_cache::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let memory = Memory::new();
    /// # let local = MokaLocal::builder().bytes_max(64 << 20).build();
    /// # let executor = memory.executor().clone();
    /// # let users: Cache<u64, String, _> =
    /// #     Cache::builder(executor, &Namespace::new("shop")?, "users", local).build()?;
    /// // One call for all that nobody has, such as a `select .. where id in (..)`.
    /// let load = |missing: Vec<u64>| async move {
    ///     Ok::<_, std::io::Error>(missing.into_iter().map(|id| (id, format!("user {id}"))))
    /// };
    /// let found = users.get_many(&[7, 8, 9]).load(load).await?;
    /// assert_eq!(**found.get(&8).expect("it was loaded"), "user 8");
    /// # Ok(()) }
    /// ```
    pub fn get_many<'a>(&'a self, keys: &'a [K]) -> Many<'a, K, V, E> {
        Many { cache: self, keys, ask: self.inner.settings.ask }
    }
}

impl<K, V, E> Many<'_, K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Does not look into this process. What is found or loaded is still put there.
    pub fn skip_l1(mut self) -> Self {
        self.ask.l1 = false;
        self
    }

    /// Neither asks the shared tier nor tells it anything: loads are not coalesced with those of
    /// other instances.
    pub fn skip_l2(mut self) -> Self {
        self.ask.l2 = false;
        self
    }

    /// Takes what is not verified for a miss: see [`strict`](crate::CacheBuilder::strict).
    pub fn strict(mut self) -> Self {
        self.ask.verified = true;
        self
    }

    /// Takes hits only if they reflect the write that returned `token`, on whichever instance that
    /// was: see [`Read::at_least`](crate::Read::at_least).
    pub fn at_least(mut self, token: &WriteToken) -> Self {
        self.ask.at_least = Some(token.stamp());
        self
    }

    /// As [`CacheBuilder::early_refresh`](crate::CacheBuilder::early_refresh), 0 to 100; what is not
    /// is taken for the nearest that is, and what is no number for 0, which renews nothing early.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        // What is no number stays none, and is above no bound.
        self.ask.early = Some(beta.clamp(0.0, BETA_MAX));
        self
    }

    /// Takes what this process has only for so long after it was put there; then the shared tier is
    /// asked again. It is not kept longer for the sake of this read.
    pub fn l1_ttl(mut self, l1_ttl: Duration) -> Self {
        self.ask.l1_ttl = l1_ttl;
        self
    }

    /// What is cached, from this process or from the shared tier.
    ///
    /// One round trip for all keys that this process does not have, two if some of their values
    /// carry tags. Trouble with the server, and a key that is empty or too long, is a miss, and
    /// trouble adds at most the budget for L2. Reads of the shared tier are not coalesced with
    /// those of other callers.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get(self) -> Hits<K, V> {
        let inner = &self.cache.inner;
        let (mut hits, ask) = (Hits::new(self.keys), self.ask());
        let missing = hits.find(|key| self.hit(key));
        if !missing.is_empty() {
            Box::pin(inner.find_many(Reading::new(&mut hits, ask), missing)).await;
        }
        hits
    }

    /// What is cached, and what `loader` gives for the rest.
    ///
    /// The shared tier is asked once for all keys that this process does not have, then once for
    /// the right to load what it has not either. Then `loader` is called with all keys for which
    /// that right was given, and returns what it has for them: pairs of a key and a value, or a
    /// [`BulkItem`] that says how the value is to be kept. A key that it does not return is absent
    /// from the result, and one that it was not asked for is ignored.
    ///
    /// No key is loaded twice at the same time: one that another caller or another instance loads,
    /// alone or in bulk, is waited for. What comes of a load of this process is the answer for all
    /// who wait for it: if it fails, the key has failed here with the same error, and if it has no
    /// value, the key is absent. A load of another instance that ends without a value gives its key
    /// back, and `loader` is called again for such keys: hence `Fn`. It runs in a task of its own,
    /// and fills both tiers with all values that were not written meanwhile.
    ///
    /// # Errors
    /// [`BulkError`], which has what was found all the same, if a loader fails or panics, or if a
    /// key is empty or too long. Trouble with the server is no error: the loader answers.
    ///
    /// # Cancel safety
    /// Cancel safe: what has begun goes on for the others, and fills the cache.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    pub async fn load<L, F, I, T, R>(self, loader: L) -> Result<Hits<K, V>, BulkError<K, V>>
    where
        L: Fn(Vec<K>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<I, R>> + Send + 'static,
        I: IntoIterator<Item = (K, T)>,
        T: Into<BulkItem<V>>,
        R: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        self.load_from(origin(loader)).await
    }

    pub(crate) async fn load_from(
        self,
        origin: Origin<K, V>,
    ) -> Result<Hits<K, V>, BulkError<K, V>> {
        let inner = &self.cache.inner;
        let (mut hits, ask) = (Hits::new(self.keys), self.ask());
        let missing = hits.find(|key| self.hit(key));
        if missing.is_empty() {
            return Ok(hits);
        }
        let reading = Reading::new(&mut hits, ask);
        let failed = Box::pin(inner.load_many(reading, missing, origin)).await;
        if failed.is_empty() { Ok(hits) } else { Err(BulkError::new(hits, failed)) }
    }

    /// Step 1, the short way.
    fn hit(&self, key: &K) -> Option<Hit<V>> {
        let inner = &self.cache.inner;
        if self.ask == inner.settings.ask { inner.hit(key) } else { None }
    }

    /// What is asked for. A cache without L2 never asks there.
    fn ask(&self) -> Ask {
        Ask { l2: self.ask.l2 && self.cache.inner.settings.l2, ..self.ask }
    }
}

impl<K, V, E> fmt::Debug for Many<'_, K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}
