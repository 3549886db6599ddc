//! `/source`: what the pretend origin of `/load` holds.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::State as With;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fleetwide::store::FleetStore;
use fleetwide::{BackendError, Key, KeyError, Namespace, Store, Ttl};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::input::{Body, Name, Params, switch};
use crate::problem::Problem;
use crate::routes::cache;
use crate::state::State;

/// An origin does not forget; a demonstration does, after a day.
const SOURCE_TTL: Duration = Duration::from_secs(24 * 3600);
/// Values that a node remembers for the time when the origin is away.
const REMEMBERED_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
pub(crate) struct SourceParams {
    #[serde(default, deserialize_with = "switch")]
    invalidate: Option<bool>,
}

/// `PUT /source/{key}`: changes the origin, and then says so to every cache.
pub(crate) async fn put(
    With(state): With<State>,
    Name(key): Name,
    Params(params): Params<SourceParams>,
    Body(value): Body,
) -> Result<Response, Problem> {
    let value = String::from_utf8(value.into())
        .map_err(|_| Problem::bad_request("a source value is text in UTF-8"))?;
    // In a task of its own: a client that leaves in between must not leave the origin changed and
    // the caches as they were.
    let changing = tokio::spawn(change(state, key, value, params.invalidate.unwrap_or(true)));
    changing.await.unwrap_or_else(|_| Err(Problem::unavailable("this node is stopping")))
}

async fn change(
    state: State,
    key: String,
    value: String,
    invalidate: bool,
) -> Result<Response, Problem> {
    let set = state.source.write(&key, value).await;
    let may_have_changed = set.as_ref().map_or_else(BackendError::may_have_happened, |()| true);
    let mut answer = Ok(StatusCode::NO_CONTENT.into_response());
    if may_have_changed && invalidate {
        answer = cache::written(state.loaded.invalidate(&key).await);
    }
    match set {
        Ok(()) => answer,
        Err(error) => Err(not_set(&error)),
    }
}

fn not_set(error: &BackendError) -> Problem {
    let outcome = if error.may_have_happened() { "unknown" } else { "not-done" };
    Problem::unavailable(format!("the source value was not set: {error}")).with("outcome", outcome)
}

/// The origin: values in the store of the cache's Redis, so that all nodes load the same.
pub(crate) struct Source {
    store: FleetStore,
    namespace: Namespace,
    remembered: Mutex<HashMap<String, String>>,
}

impl Source {
    pub(crate) fn new(store: FleetStore, namespace: Namespace) -> Self {
        Self { store, namespace, remembered: Mutex::default() }
    }

    /// The value, and whether it is only what this node remembers of it.
    ///
    /// A real origin does not vanish with the cache's Redis. This one lives there, so that it
    /// stands in for itself: an outage must not make the loader fail.
    pub(crate) async fn read(&self, key: &str) -> (Option<String>, bool) {
        match self.read_shared(key).await {
            Ok(value) => {
                if let Some(value) = &value {
                    self.remember(key, value);
                }
                (value, false)
            }
            Err(error) => {
                tracing::debug!(%error, "the source is away; its value is the remembered one");
                (self.remembered.lock().get(key).cloned(), true)
            }
        }
    }

    async fn read_shared(&self, key: &str) -> Result<Option<String>, BackendError> {
        let Ok(key) = self.key(key) else { return Ok(None) };
        let bytes = self.store.get(&key).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn write(&self, key: &str, value: String) -> Result<(), BackendError> {
        // `Name` has let only valid names through, so there is nothing to tell here.
        let Ok(stored) = self.key(key) else { return Ok(()) };
        self.store.set(&stored, Bytes::from(value.clone()), Ttl::clamped(SOURCE_TTL)).await?;
        self.remember(key, &value);
        Ok(())
    }

    fn key(&self, key: &str) -> Result<Key, KeyError> {
        Ok(self.namespace.tag("source", key.as_bytes())?.key())
    }

    fn remember(&self, key: &str, value: &str) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(key) {
            remembered.clear();
        }
        remembered.insert(key.to_owned(), value.to_owned());
    }
}
