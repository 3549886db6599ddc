//! `/load`: a value read through the cache, from a pretend origin.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State as With;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fleetwide::cache::LoadError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use crate::input::{Name, Params, switch};
use crate::problem::Problem;
use crate::routes::cache;
use crate::routes::source::Source;
use crate::state::State;

/// A loader that waits longer is taken for a mistake; it stays below the time a request has.
const DELAY_MS_MAX: u64 = 10_000;
/// Keys whose loads are counted.
const COUNTED_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(crate) struct LoadParams {
    #[serde(default)]
    delay_ms: u64,
    #[serde(default, deserialize_with = "switch")]
    fail: Option<bool>,
}

/// What the origin said, as it is cached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Loaded {
    value: Option<String>,
    /// Whether the value is what this node remembered, because the origin was away.
    remembered: bool,
}

/// `GET /load/{key}`: one load for a crowd, wherever in the fleet it stands.
pub(crate) async fn get(
    With(state): With<State>,
    Name(key): Name,
    Params(params): Params<LoadParams>,
) -> Result<Response, Problem> {
    if params.delay_ms > DELAY_MS_MAX {
        let detail = format!("delay_ms may be {DELAY_MS_MAX} at most");
        return Err(Problem::bad_request(detail));
    }
    let fail = params.fail.unwrap_or_default();
    let delay = Duration::from_millis(params.delay_ms);
    let loader = {
        let (state, key) = (state.clone(), key.clone());
        move |_| async move { run(&state.loads, &state.source, &key, delay, fail).await }
    };
    let hit = state.loaded.get_or_load(&key, loader).await.map_err(|error| failed(&error))?;
    let body = json!({
        "key": key,
        "value": hit.value().value,
        "tier": hit.tier().name(),
        "loads": state.loads.of(&key),
        "source": if hit.value().remembered { "remembered" } else { "shared" },
    });
    Ok((cache::told(&hit), Json(body)).into_response())
}

async fn run(
    loads: &Loads,
    source: &Source,
    key: &str,
    delay: Duration,
    fail: bool,
) -> Result<Loaded, Told> {
    loads.count(key);
    sleep(delay).await;
    if fail {
        return Err(Told);
    }
    let (value, remembered) = source.read(key).await;
    Ok(Loaded { value, remembered })
}

/// Why the loader failed: it was told to.
#[derive(Debug, thiserror::Error)]
#[error("it was told to fail")]
struct Told;

fn failed(error: &LoadError) -> Problem {
    match error {
        LoadError::Key(error) => Problem::bad_request(error.to_string()),
        other => Problem::new(StatusCode::BAD_GATEWAY, "the loader failed", other.to_string()),
    }
}

/// How often the loader ran in this process, by key.
#[derive(Debug, Default)]
pub(crate) struct Loads(Mutex<HashMap<String, u64>>);

impl Loads {
    fn count(&self, key: &str) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(key) {
            *count += 1;
            return;
        }
        if counts.len() >= COUNTED_MAX {
            // Any key may start over; the table is there to be looked at in a demonstration.
            if let Some(other) = counts.keys().next().cloned() {
                counts.remove(&other);
            }
        }
        counts.insert(key.to_owned(), 1);
    }

    fn of(&self, key: &str) -> u64 {
        self.0.lock().get(key).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_counted_by_key_in_a_table_that_does_not_grow() {
        let loads = Loads::default();
        for number in 0..COUNTED_MAX + 10 {
            loads.count(&number.to_string());
        }
        loads.count("twice");
        loads.count("twice");
        assert_eq!(loads.of("twice"), 2);
        assert_eq!(loads.of("never"), 0);
        assert_eq!(loads.0.lock().len(), COUNTED_MAX);
    }
}
