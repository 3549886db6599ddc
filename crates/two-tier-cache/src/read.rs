//! A read with demands of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetwide_core_traits::Executor;

use crate::ask::Ask;
use crate::builder::{BETA_MAX, WAIT_MAX};
use crate::cache::Cache;
use crate::context::{LoadContext, Loaded};
use crate::entry::Hit;
use crate::error::LoadError;
use crate::key::CacheKey;
use crate::load;
use crate::token::WriteToken;

/// One read of one key, made by [`Cache::at`]. What is not set is as the cache has it.
///
/// # Examples
/// ```
/// # use fleetwide_core_traits::Namespace;
/// # use fleetwide_mem_backend::{Memory, MokaLocal};
/// # use fleetwide_two_tier_cache::Cache;
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (memory, shop) = (Memory::new(), Namespace::new("shop")?);
/// # let local = MokaLocal::builder().build();
/// # let users: Cache<u64, String, _> =
/// #     Cache::builder(memory.executor().clone(), &shop, "users", local).build()?;
/// // On one instance:
/// let token = users.put(&7, "Ada".to_owned()).await?;
/// // On any other, which was shown the token:
/// let hit = users.at(&7).at_least(&token).get().await;
/// assert_eq!(hit.as_deref().map(String::as_str), Some("Ada"));
/// # Ok(()) }
/// ```
#[must_use = "a read does nothing until `get` or one of the loading verbs"]
pub struct Read<'a, K, V, E> {
    cache: &'a Cache<K, V, E>,
    key: &'a K,
    ask: Ask,
}

impl<'a, K, V, E> Read<'a, K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    pub(crate) fn new(cache: &'a Cache<K, V, E>, key: &'a K) -> Self {
        Self { cache, key, ask: cache.inner.settings.ask }
    }

    /// Does not look into this process. What is found or loaded is still put there.
    pub fn skip_l1(mut self) -> Self {
        self.ask.l1 = false;
        self
    }

    /// Neither asks the shared tier nor tells it anything: a load is not coalesced with those of
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

    /// Takes a hit only if it reflects every invalidation that returned Ok more than `bound` ago.
    /// Zero always asks the shared tier.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        let bound_us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        // Nothing is verified as of this very moment but by asking.
        self.ask.l1 &= bound_us > 0 || self.cache.inner.settings.alone;
        self.ask.bound_us = self.ask.bound_us.min(bound_us);
        self.ask.verified = true;
        self
    }

    /// Takes a hit only if it reflects the write that returned `token`, on whichever instance that
    /// was.
    ///
    /// If the shared tier has lost that write, or began a new history, the value is loaded once
    /// for this read alone.
    pub fn at_least(mut self, token: &WriteToken) -> Self {
        self.ask.at_least = Some(token.stamp());
        self
    }

    /// As [`CacheBuilder::soft_timeout`](crate::CacheBuilder::soft_timeout).
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.ask.soft_timeout = Some(timeout.min(WAIT_MAX));
        self
    }

    /// As [`CacheBuilder::hard_timeout`](crate::CacheBuilder::hard_timeout).
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.ask.hard_timeout = Some(timeout.min(WAIT_MAX));
        self
    }

    /// As [`CacheBuilder::stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate), but
    /// no tier keeps a value longer for its sake.
    pub fn stale_while_revalidate(mut self, extra: Duration) -> Self {
        self.ask.revalidate = extra;
        self
    }

    /// As [`CacheBuilder::stale_if_error`](crate::CacheBuilder::stale_if_error), but no tier keeps
    /// a value longer for its sake.
    pub fn stale_if_error(mut self, extra: Duration) -> Self {
        self.ask.on_error = extra;
        self
    }

    /// Lets [`get`](Self::get) answer with a value whose time is over, while
    /// [`stale_while_revalidate`](Self::stale_while_revalidate) or
    /// [`stale_if_error`](Self::stale_if_error) lasts.
    pub fn allow_stale(mut self) -> Self {
        self.ask.stale = true;
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

    /// The cached value, as [`Cache::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get(self) -> Option<Hit<V>> {
        Box::pin(self.cache.inner.find(self.key, self.ask())).await
    }

    /// The value, loaded if no tier has it: as [`Cache::get_or_load`].
    ///
    /// # Errors
    /// As for [`Cache::get_or_load`].
    ///
    /// # Cancel safety
    /// As for [`Cache::get_or_load`].
    ///
    /// # Panics
    /// As for [`Cache::get_or_load`].
    pub async fn get_or_load<L, F, R>(self, loader: L) -> Result<Hit<V>, LoadError>
    where
        L: FnOnce(K) -> F + Send + 'static,
        F: Future<Output = Result<V, R>> + Send + 'static,
        R: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.get_or_load_with(|context| loader(context.into_key())).await
    }

    /// The same with a loader that says how its value is to be kept: as
    /// [`Cache::get_or_load_with`].
    ///
    /// # Errors
    /// As for [`Cache::get_or_load`].
    ///
    /// # Cancel safety
    /// As for [`Cache::get_or_load`].
    ///
    /// # Panics
    /// As for [`Cache::get_or_load`].
    pub async fn get_or_load_with<L, F, T, R>(self, loader: L) -> Result<Hit<V>, LoadError>
    where
        L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>>,
        R: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let inner = Arc::clone(&self.cache.inner);
        load::value(Box::pin(inner.find_or_load(self.key, self.ask(), false, loader)).await)
    }

    /// The value, or `None` if the origin has none: as [`Cache::try_get_or_load`].
    ///
    /// # Errors
    /// As for [`Cache::get_or_load`].
    ///
    /// # Cancel safety
    /// As for [`Cache::get_or_load`].
    ///
    /// # Panics
    /// As for [`Cache::get_or_load`].
    pub async fn try_get_or_load<L, F, T, R>(self, loader: L) -> Result<Option<Hit<V>>, LoadError>
    where
        L: FnOnce(LoadContext<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<T, R>> + Send + 'static,
        T: Into<Loaded<V>>,
        R: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let inner = Arc::clone(&self.cache.inner);
        load::option(Box::pin(inner.find_or_load(self.key, self.ask(), true, loader)).await)
    }

    /// What is asked for. A cache without L2 never asks there.
    fn ask(&self) -> Ask {
        Ask { l2: self.ask.l2 && self.cache.inner.settings.l2, ..self.ask }
    }
}

impl<K, V, E> fmt::Debug for Read<'_, K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("ask", &self.ask).finish_non_exhaustive()
    }
}
