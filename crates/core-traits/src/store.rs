//! A plain store of bytes.

use std::future::Future;

use bytes::Bytes;

use crate::{BackendError, Key, Ttl};

/// Bytes by key, each with a ttl. The least that any backend can give.
///
/// A success of [`set`](Self::set) does not promise that a later [`get`](Self::get) finds the
/// value: stores evict when they are full, and a server may lose its last writes when it fails.
pub trait Store: Send + Sync + 'static {
    /// The value of `key`, if it is there and has not expired.
    ///
    /// # Errors
    /// [`BackendError`] on an outage. Reading changes nothing, so it can always be retried.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Bytes>, BackendError>> + Send;

    /// Stores `value` under `key` for `ttl`, in the place of what was there.
    ///
    /// # Errors
    /// [`BackendError`] on an outage; it says whether the value may have been stored.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out.
    fn set(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Ttl,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Removes `key`. Returns whether it was there.
    ///
    /// # Errors
    /// [`BackendError`] on an outage; it says whether the key may have been removed.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out.
    fn remove(&self, key: &Key) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// The values of `keys` in their order. The keys may lie in any slots; the answer is no
    /// snapshot.
    ///
    /// # Errors
    /// [`BackendError`] on an outage, for all of them.
    fn get_many(
        &self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, BackendError>> + Send;
}
