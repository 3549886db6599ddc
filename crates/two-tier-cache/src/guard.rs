//! A guard around an update of the origin: what was before it is in no cache when it ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetwide_core_traits::log::EntryId;
use fleetwide_core_traits::{Executor, ExecutorExt};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::body;
use crate::cache::{Cache, Inner, checked_wire};
use crate::error::WriteError;
use crate::key::CacheKey;
use crate::ops::{EntryKeys, Hold, SetGuard};
use crate::options::WriteOptions;
use crate::recovery::Target;
use crate::settle::Inside;
use crate::token::WriteToken;
use crate::write::too_long;

/// A guard lives this long when its process has died. It outlasts an ordinary pause of a process,
/// and what a database may still commit for a client that is gone.
const LIFE: Duration = Duration::from_secs(10);

/// A living guard is renewed so often in its life, so that a lost answer does not end it.
const RENEWALS: u32 = 4;

impl<K, V, E> Cache<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Guards an update of the origin: to be taken before it, and committed after it.
    ///
    /// An [`invalidate`](Self::invalidate) after the update would do, if only it were sure to
    /// happen. The guard makes sure:
    ///
    /// 1. Before this returns, the key is invalidated everywhere, and what is being loaded for it
    ///    can no longer be stored. While the guard is held, readers are answered by the loader, and
    ///    what it gives is stored neither in the shared tier nor in anybody's L1.
    /// 2. [`commit`](WriteGuard::commit) invalidates the key once more, and lets it be filled again.
    /// 3. A guard that is dropped, also by a panic or because its future was dropped, does the same
    ///    in the background: the update may have happened.
    /// 4. A guard whose process has died ends by itself 10 s later, by the server's clock. Nothing
    ///    from before or during the update is in the cache then, so whoever reads loads what the
    ///    origin has.
    ///
    /// So a reader between the update and the end of `commit` can get the old value, and nothing old
    /// is cached after it. Several guards on one key can be held at once; it is not filled before
    /// the last has ended. A [`put`](Self::put) meanwhile is somebody's word that this is the value:
    /// it is stored, until a `commit` removes it.
    ///
    /// Outside of it, until the L1 ttl is over: what an instance that does not reach the server loads
    /// while the guard of a process that then dies is held, and the L1 of a cache without the
    /// shared tier, where there is nothing to keep a guard in.
    ///
    /// # Errors
    /// [`WriteError`], and then there is no guard. If it [`is_queued`](WriteError::is_queued), an
    /// update that goes ahead nevertheless must be followed by an `invalidate`.
    ///
    /// # Cancel safety
    /// As for [`put`](Self::put); a guard that was begun by a dropped call ends 10 s later.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver.
    ///
    /// # Examples
    /// ```
    /// # use fleetwide_core_traits::Namespace;
    /// # use fleetwide_mem_backend::{Memory, MokaLocal};
    /// # use fleetwide_two_tier_cache::Cache;
    /// # async fn update_database(id: u64) -> Result<(), std::io::Error> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let memory = Memory::new();
    /// # let local = MokaLocal::builder().bytes_max(64 << 20).build();
    /// # let executor = memory.executor().clone();
    /// # let users: Cache<u64, String, _> =
    /// #     Cache::builder(executor, &Namespace::new("shop")?, "users", local).build()?;
    /// let guard = users.write_guard(&7).await?;
    /// update_database(7).await?;
    /// guard.commit().await?;
    /// # Ok(()) }
    /// ```
    pub async fn write_guard(&self, key: &K) -> Result<WriteGuard<K, V, E>, WriteError> {
        let wire = checked_wire(key)?;
        let inner = &self.inner;
        let keys = EntryKeys::new(&inner.tag, &wire)?;
        let token: EntryId = rand::random();
        let append = inner.append(body::invalidate(&wire)).map_err(too_long)?;
        let op = SetGuard::begin(&keys, append, token, LIFE);
        let target = (Target::Key(wire.clone()), Inside::Out(key));
        inner.carry_out(&op, target, None, |meta| meta).await?;
        let renewal = tokio::spawn(renew(inner.executor.clone(), Hold::new(&keys, token, LIFE)));
        Ok(WriteGuard {
            inner: Arc::clone(inner),
            held: Some(Held { key: key.clone(), keys: Box::new(keys), token, wire }),
            runtime: Handle::current(),
            renewal: AbortOnDropHandle::new(renewal),
        })
    }
}

async fn renew<E: Executor>(executor: E, hold: Hold) {
    loop {
        sleep(LIFE / RENEWALS).await;
        // Without an answer the next one may do.
        let _ = timeout(LIFE / RENEWALS, executor.run(&hold)).await;
    }
}

/// An update of the origin under way: see [`Cache::write_guard`].
#[must_use = "it ends when it is dropped"]
pub struct WriteGuard<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    inner: Arc<Inner<K, V, E>>,
    /// `None` once it is committed.
    held: Option<Held<K>>,
    /// It may be dropped outside of any runtime.
    runtime: Handle,
    renewal: AbortOnDropHandle<()>,
}

/// What a guard has on the server.
struct Held<K> {
    key: K,
    keys: Box<EntryKeys>,
    token: EntryId,
    wire: Bytes,
}

impl<K, V, E> WriteGuard<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    /// Says that the update is done: the key is invalidated, and may be filled again.
    ///
    /// After Ok nothing from before the update is cached anywhere, as after
    /// [`Cache::invalidate`].
    ///
    /// # Errors
    /// As for [`Cache::invalidate`]. The guard is over in any case; after an error the key may not
    /// be filled for 10 s more.
    ///
    /// # Cancel safety
    /// As for [`Cache::put`].
    pub async fn commit(self) -> Result<WriteToken, WriteError> {
        self.commit_with(WriteOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As for [`Cache::invalidate_with`].
    ///
    /// # Cancel safety
    /// As for [`Cache::put`].
    pub async fn commit_with(mut self, options: WriteOptions) -> Result<WriteToken, WriteError> {
        let Some(held) = &self.held else { unreachable!("only this and the drop take it") };
        let op = end(&self.inner, held)?;
        let target = Target::Key(held.wire.clone());
        // A renewal that arrives after the end would begin the guard once more, for one life.
        self.renewal.abort();
        let written = self
            .inner
            .carry_out(&op, (target, Inside::Out(&held.key)), options.replicas, |meta| meta)
            .await;
        // Whatever it says, it is settled. A drop of this very call before is the guard's own.
        self.held = None;
        written?.token(options.replicas)
    }
}

fn end<K, V, E>(inner: &Inner<K, V, E>, held: &Held<K>) -> Result<SetGuard, WriteError>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    let append = inner.append(body::invalidate(&held.wire)).map_err(too_long)?;
    Ok(SetGuard::end(&held.keys, append, held.token))
}

impl<K, V, E> Drop for WriteGuard<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let _runtime = self.runtime.enter();
        let target = Target::Key(held.wire.clone());
        // Here at once, and queued: the key is invalidated whatever becomes of the task below.
        self.inner.give_up(&target);
        let inner = Arc::clone(&self.inner);
        self.runtime.spawn(async move {
            // Lets the key be filled again before the guard has run out by itself.
            if let Ok(op) = end(&inner, &held) {
                let _ = inner.carry_out(&op, (target, Inside::Unknown), None, |meta| meta).await;
            }
        });
    }
}

impl<K, V, E> fmt::Debug for WriteGuard<K, V, E>
where
    K: CacheKey,
    V: Send + Sync + 'static,
    E: Executor + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").field("tag", &self.inner.tag).finish_non_exhaustive()
    }
}
