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
/// The longest that it remembers: so all of them take 16 MiB, whatever clients send.
const REMEMBERED_BYTES_MAX: usize = 16 * 1024;

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
    remembered: Mutex<Remembered>,
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
                    self.remembered.lock().put(key, value);
                }
                (value, false)
            }
            Err(error) => {
                tracing::debug!(%error, "the source is away; its value is the remembered one");
                (self.remembered.lock().0.get(key).cloned(), true)
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
        self.remembered.lock().put(key, &value);
        Ok(())
    }

    fn key(&self, key: &str) -> Result<Key, KeyError> {
        Ok(self.namespace.tag("source", key.as_bytes())?.key())
    }
}

/// What a node knows of the origin without asking it.
#[derive(Default)]
struct Remembered(HashMap<String, String>);

impl Remembered {
    fn put(&mut self, key: &str, value: &str) {
        if value.len() > REMEMBERED_BYTES_MAX {
            // What was there before is not the value any more.
            self.0.remove(key);
            return;
        }
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(key) {
            self.0.clear();
        }
        self.0.insert(key.to_owned(), value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was bounded by its number alone once: a thousand values of a megabyte each. Red without the
    /// longest, and without the removal.
    #[test]
    fn what_is_remembered_is_bounded_in_bytes_and_never_older_than_the_last_value() {
        let (mut remembered, longest) = (Remembered::default(), "v".repeat(REMEMBERED_BYTES_MAX));
        for number in 0..3 * REMEMBERED_MAX {
            remembered.put(&format!("k{number}"), &longest);
            remembered.put(&format!("l{number}"), &format!("{longest}v"));
        }
        let bytes: usize = remembered.0.values().map(String::len).sum();
        assert!((1..=16 << 20).contains(&bytes), "{bytes} bytes");
        remembered.put("k", "short");
        remembered.put("k", &format!("{longest}v"));
        assert_eq!(remembered.0.get("k"), None);
    }
}
