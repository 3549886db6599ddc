//! `/cache`: bytes under keys, shared by the fleet.

use std::time::Duration;

use axum::Json;
use axum::extract::State as With;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fleetwide::Ttl;
use fleetwide::cache::{CacheTag, Freshness, Hit, PutOptions, Tier, WriteError};
use serde::Deserialize;
use serde_json::json;

use crate::input::{Body, Name, Params};
use crate::problem::Problem;
use crate::state::State;

const TIER: HeaderName = HeaderName::from_static("x-cache-tier");
const FRESHNESS: HeaderName = HeaderName::from_static("x-cache-freshness");

#[derive(Debug, Deserialize)]
pub(crate) struct PutParams {
    ttl_ms: Option<u64>,
    tags: Option<String>,
}

/// `PUT /cache/{key}`: stores the body.
pub(crate) async fn put(
    With(state): With<State>,
    Name(key): Name,
    Params(params): Params<PutParams>,
    Body(value): Body,
) -> Result<Response, Problem> {
    let options = options(params.ttl_ms, params.tags.as_deref())?;
    written(state.cache.put_with(&key, value, options).await)
}

/// What `?ttl_ms=&tags=a,b` says about a value.
pub(crate) fn options(ttl_ms: Option<u64>, tags: Option<&str>) -> Result<PutOptions, Problem> {
    let mut options = PutOptions::default();
    for tag in tags.filter(|tags| !tags.is_empty()).into_iter().flat_map(|tags| tags.split(',')) {
        options = options.tag(parsed(tag)?);
    }
    if let Some(millis) = ttl_ms {
        let ttl = Ttl::new(Duration::from_millis(millis))
            .map_err(|error| Problem::bad_request(format!("ttl_ms: {error}")))?;
        options.ttl = Some(ttl.as_duration());
    }
    Ok(options)
}

pub(crate) fn parsed(tag: &str) -> Result<CacheTag, Problem> {
    CacheTag::new(tag).map_err(|error| Problem::bad_request(error.to_string()))
}

/// `GET /cache/{key}`: the bytes as they were stored.
pub(crate) async fn get(With(state): With<State>, Name(key): Name) -> Result<Response, Problem> {
    let hit = state.cache.get(&key).await.ok_or_else(|| Problem::not_found("no such key"))?;
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((content_type, told(&hit), Bytes::clone(hit.value())).into_response())
}

/// `DELETE /cache/{key}`: on every node, together with what `/load` has loaded for the key.
pub(crate) async fn delete(With(state): With<State>, Name(key): Name) -> Result<Response, Problem> {
    let (stored, loaded) =
        tokio::join!(state.cache.invalidate(&key), state.loaded.invalidate(&key));
    written(stored.and(loaded))
}

/// `DELETE /cache/tags/{tag}`: all keys that were stored with the tag, on every node.
pub(crate) async fn delete_tag(
    With(state): With<State>,
    Name(tag): Name,
) -> Result<Response, Problem> {
    written(state.cache.invalidate_tag(&parsed(&tag)?).await)
}

/// `DELETE /cache`: all keys, on every node, together with all that `/load` has loaded.
pub(crate) async fn clear(With(state): With<State>) -> Result<Response, Problem> {
    let (stored, loaded) = tokio::join!(state.cache.clear(), state.loaded.clear());
    written(stored.and(loaded))
}

/// What a hit says about itself.
pub(crate) fn told<V>(hit: &Hit<V>) -> [(HeaderName, HeaderValue); 3] {
    told_of(hit.tier(), hit.freshness(), hit.age())
}

pub(crate) fn told_of(
    tier: Tier,
    freshness: Freshness,
    age: Duration,
) -> [(HeaderName, HeaderValue); 3] {
    [
        (TIER, HeaderValue::from_static(tier.name())),
        (FRESHNESS, HeaderValue::from_static(freshness.name())),
        (header::AGE, HeaderValue::from(age.as_secs())),
    ]
}

/// 204 for what is done everywhere, 202 for what will be once Redis is back.
pub(crate) fn written<T>(outcome: Result<T, WriteError>) -> Result<Response, Problem> {
    let Err(error) = outcome else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let outcome = match &error {
        WriteError::Queued(_) => "queued",
        WriteError::Unknown(_) => "unknown",
        WriteError::Key(_) | WriteError::Ttl(_) | WriteError::Tag(_) => {
            return Err(Problem::bad_request(error.to_string()));
        }
        _ => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Problem::new(status, "the value cannot be stored", error.to_string()));
        }
    };
    let detail = "Redis was not reached; the key is invalidated on every node once it is back";
    let body = json!({ "outcome": outcome, "detail": detail });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
