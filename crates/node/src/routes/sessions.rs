//! `/sessions` and `/nodes`: bytes that belong to a session, under keys and short ids.

use axum::Json;
use axum::extract::State as With;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response, sse};
use bytes::Bytes;
use fleetwide::BackendError;
use fleetwide::sessions::{
    Answer, Changed, Changes, Found, Gap, NameError, ReferenceError, Session, SessionChange,
    SessionError, ShortId, Stored,
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::input::{Body, Name, Names, Params};
use crate::problem::Problem;
use crate::routes::cache;
use crate::routes::events::{FOLLOWED_TIMEOUT, gap, not_followed, respond};
use crate::state::State;

const SHORT_ID: HeaderName = HeaderName::from_static("x-short-id");
const TARGET: HeaderName = HeaderName::from_static("x-reference-to");

#[derive(Debug, Deserialize)]
pub(crate) struct PutParams {
    ttl_ms: Option<u64>,
    tags: Option<String>,
    r#ref: Option<String>,
}

/// `PUT /sessions/{session}/nodes/{key}`: stores the body, or with `?ref=` a reference to what has
/// that short id.
pub(crate) async fn put(
    With(state): With<State>,
    Names(session, key): Names,
    Params(params): Params<PutParams>,
    Body(value): Body,
) -> Result<Response, Problem> {
    let session = session_of(&state, &session)?;
    let options = cache::options(params.ttl_ms, params.tags.as_deref())?;
    let Some(target) = params.r#ref else {
        return stored(session.put_with(&key, value, options).await);
    };
    if !value.is_empty() {
        return Err(Problem::bad_request("a reference has no body of its own"));
    }
    let target = short_id(&target)?;
    match session.put_reference_with(&key, &target, options).await {
        Ok(done) => stored(Ok(done)),
        Err(ReferenceError::Store(error)) => stored(Err(error)),
        Err(ReferenceError::Unknown(_)) => Err(Problem::not_found("nothing has this short id")),
        Err(ReferenceError::Directory(error)) => Err(away(&error)),
        Err(error) => Err(Problem::bad_request(error.to_string())),
    }
}

/// 200 with the short id for what is stored everywhere, 202 for what will be gone once Redis is back.
fn stored(outcome: Result<Stored, SessionError>) -> Result<Response, Problem> {
    match outcome {
        Ok(Stored { id, .. }) => {
            let text = id.map(|id| id.to_string());
            let mut response = Json(json!({ "short_id": text })).into_response();
            name(&mut response, SHORT_ID, id);
            Ok(response)
        }
        Err(SessionError::Name(error)) => Err(wrong(error)),
        Err(SessionError::Write(error)) => cache::written::<()>(Err(error)),
        Err(error) => Err(Problem::unavailable(error.to_string())),
    }
}

/// `GET /sessions/{session}/nodes/{key}`.
pub(crate) async fn get(
    With(state): With<State>,
    Names(session, key): Names,
) -> Result<Response, Problem> {
    shown(session_of(&state, &session)?.get(&key).await)
}

/// `DELETE /sessions/{session}/nodes/{key}`: on every node.
pub(crate) async fn delete(
    With(state): With<State>,
    Names(session, key): Names,
) -> Result<Response, Problem> {
    match session_of(&state, &session)?.remove(&key).await {
        Ok(_) => cache::written(Ok(())),
        Err(error) => stored(Err(error)),
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ResolveParams {
    short: String,
}

/// `GET /sessions/{session}/nodes?short=`: what has the short id, if it is in this session.
pub(crate) async fn resolve_in(
    With(state): With<State>,
    Name(session): Name,
    Params(params): Params<ResolveParams>,
) -> Result<Response, Problem> {
    let session = session_of(&state, &session)?;
    let answer = session.resolve(&short_id(&params.short)?).await;
    shown(answer.map_err(|error| away(&error))?)
}

/// `GET /nodes/{short-id}`: what has the short id, in any session.
pub(crate) async fn resolve(With(state): With<State>, Name(id): Name) -> Result<Response, Problem> {
    let answer = state.sessions.resolve(&short_id(&id)?).await;
    shown(answer.map_err(|error| away(&error))?)
}

/// `DELETE /nodes/tags/{tag}`: all nodes that were stored with the tag, of all sessions.
pub(crate) async fn delete_tag(
    With(state): With<State>,
    Name(tag): Name,
) -> Result<Response, Problem> {
    cache::written(state.sessions.invalidate_tag(&cache::parsed(&tag)?).await)
}

/// `DELETE /sessions/{session}`: ends it, on every node.
pub(crate) async fn end(
    With(state): With<State>,
    Name(session): Name,
) -> Result<Response, Problem> {
    cache::written(session_of(&state, &session)?.end().await)
}

/// `GET /sessions/{session}`: how the session fares on this node.
pub(crate) async fn stats(
    With(state): With<State>,
    Name(session): Name,
) -> Result<Response, Problem> {
    let session = session_of(&state, &session)?;
    let counts = session.stats().ok_or_else(|| {
        Problem::not_found("this node has had nothing to do with the session lately")
    })?;
    let body = json!({
        "session": session.id().as_str(),
        "hits": counts.hits,
        "misses": counts.misses,
        "hit_ratio": counts.hit_ratio(),
        "evictions": counts.evictions,
        "l1_entries": counts.entries,
        "idle_ms": counts.idle.as_millis() as u64,
    });
    Ok(Json(body).into_response())
}

/// `GET /sessions/{session}/events`: server-sent events of what any node does to the session.
pub(crate) async fn listen(
    With(state): With<State>,
    Name(session): Name,
) -> Result<Response, Problem> {
    let session = session_of(&state, &session)?;
    let permit = state.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many event streams"))?;
    // What is done before the log is followed would be missed without a word.
    let followed = timeout(FOLLOWED_TIMEOUT, state.sessions.followed()).await;
    let first = stream::iter(followed.is_err().then(not_followed));
    let changes = stream::unfold(session.changes(), next);
    let events = first
        .chain(changes.map(move |event| {
            // The place is held for as long as the stream lives.
            let _held = &permit;
            event
        }))
        .take_until(state.stopping.clone().cancelled_owned());
    Ok(respond(events))
}

async fn next(mut changes: Changes) -> Option<(sse::Event, Changes)> {
    let change = changes.next().await?;
    Some((told(&change), changes))
}

fn told(change: &SessionChange) -> sse::Event {
    let named = |name, data: Value| sse::Event::default().event(name).data(data.to_string());
    match change {
        SessionChange::Put(entry) => named("put", entry_json(entry)),
        SessionChange::Removed(entry) => named("removed", entry_json(entry)),
        SessionChange::Ended => named("ended", json!({})),
        SessionChange::Cleared => named("cleared", json!({})),
        SessionChange::TagRemoved(tag) => {
            named("tag-removed", json!({ "tag": String::from_utf8_lossy(tag.as_bytes()) }))
        }
        SessionChange::Gap(Gap::Missed { first, last }) => {
            gap(&json!({ "reason": "gap", "first": first, "last": last }))
        }
        SessionChange::Gap(Gap::Lagged(count)) => {
            gap(&json!({ "reason": "lagged", "count": count }))
        }
        SessionChange::Gap(Gap::NotFollowed) => not_followed(),
        // A reset, and whatever a later version may say: any number of changes may be missing.
        _ => gap(&json!({ "reason": "reset" })),
    }
}

fn entry_json(entry: &Changed) -> Value {
    json!({ "key": &*entry.key, "short_id": entry.id.map(|id| id.to_string()) })
}

fn session_of(state: &State, session: &str) -> Result<Session<Bytes>, Problem> {
    state.sessions.session(session).map_err(wrong)
}

fn short_id(text: &str) -> Result<ShortId, Problem> {
    text.parse::<ShortId>().map_err(|error| Problem::bad_request(error.to_string()))
}

fn wrong(error: NameError) -> Problem {
    Problem::bad_request(format!("the name of a session or a node: {error}"))
}

fn away(error: &BackendError) -> Problem {
    Problem::unavailable(format!("nobody could be asked what has the short id: {error}"))
}

fn shown(answer: Answer<Bytes>) -> Result<Response, Problem> {
    match answer {
        Answer::Found(found) => Ok(body(&found)),
        Answer::Dangling(target) => {
            let detail = "the node refers to one that is not there";
            let problem = Problem::not_found(detail).with("reason", "dangling");
            Err(problem.with("reference_to", target.id.to_string()))
        }
        _ => Err(Problem::not_found("no such node").with("reason", "absent")),
    }
}

fn body(found: &Found<Bytes>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    let about = cache::told_of(found.tier(), found.freshness(), found.age());
    let mut response = (content_type, about, Bytes::clone(found.value())).into_response();
    name(&mut response, SHORT_ID, found.id());
    name(&mut response, TARGET, found.target().map(|target| target.id));
    response
}

fn name(response: &mut Response, header: HeaderName, id: Option<ShortId>) {
    // Digits and letters only, which every header takes.
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        response.headers_mut().insert(header, value);
    }
}
