//! `/events`: published on one node, heard on all.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State as With;
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fleetwide::events::{Event, Message, Pattern, PublishError};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::input::{Body, Name, Params};
use crate::problem::Problem;
use crate::state::State;

/// Event streams at a time: each holds a queue of events for a slow reader.
pub(crate) const STREAMS_MAX: usize = 1024;
/// How often a quiet stream shows that it is alive, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Asks proxies that would collect an answer to pass it on as it comes.
const UNBUFFERED: (&str, &str) = ("x-accel-buffering", "no");
/// How long a stream waits for the log to be followed before it says that it is not.
pub(crate) const FOLLOWED_TIMEOUT: Duration = Duration::from_secs(1);

/// `POST /events/{topic}`: 204 once the log has the event, 202 while it waits for Redis.
pub(crate) async fn publish(
    With(state): With<State>,
    Name(topic): Name,
    Body(payload): Body,
) -> Result<Response, Problem> {
    let receipt = state.events.publish(&topic, payload).await.map_err(|error| refused(&error))?;
    if receipt.stamp.is_some() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let detail = "Redis was not reached; the event was delivered here, and to the others once it \
                  is back";
    let body = json!({ "outcome": "queued", "detail": detail });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

fn refused(error: &PublishError) -> Problem {
    match error {
        PublishError::Topic(error) => Problem::bad_request(error.to_string()),
        PublishError::TooLarge { .. } => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Problem::new(status, "the event is too large", error.to_string())
        }
        _ => {
            let outcome = if error.may_have_happened() { "unknown" } else { "not-done" };
            Problem::unavailable(error.to_string()).with("outcome", outcome)
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListenParams {
    topic: Option<String>,
}

/// `GET /events?topic=`: server-sent events of the topics that a pattern such as `registry:*`
/// selects, from now on.
///
/// An event's body is its data. A body that this form cannot carry unchanged (not UTF-8, or with a
/// carriage return) comes as `event: bytes`, in hexadecimal digits. `event: gap` says that events
/// may be missing, and why.
pub(crate) async fn listen(
    With(state): With<State>,
    Params(params): Params<ListenParams>,
) -> Result<Response, Problem> {
    let topic = params.topic.unwrap_or_default();
    let pattern = Pattern::new(&topic)
        .map_err(|error| Problem::bad_request(format!("the parameter `topic`: {error}")))?;
    let permit = state.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many event streams"))?;
    let subscription = state.events.subscribe(pattern);
    // What is published before the log is followed would be missed without a word.
    let followed = timeout(FOLLOWED_TIMEOUT, state.events.log().begun()).await;
    let first = stream::iter((!matches!(followed, Ok(Ok(_)))).then(not_followed));
    let events = first
        .chain(subscription.map(move |event| {
            // The place is held for as long as the stream lives.
            let _held = &permit;
            shown(event)
        }))
        .take_until(state.stopping.clone().cancelled_owned());
    Ok(respond(events))
}

pub(crate) fn respond(events: impl Stream<Item = sse::Event> + Send + 'static) -> Response {
    let stream = Sse::new(events.map(Ok::<_, Infallible>));
    let stream = stream.keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([UNBUFFERED], stream).into_response()
}

fn shown(event: Event) -> sse::Event {
    match event {
        Event::Message(message) => said(&message),
        Event::Gap { first, last } => {
            gap(&json!({ "reason": "gap", "first": first, "last": last }))
        }
        Event::Lagged(count) => gap(&json!({ "reason": "lagged", "count": count })),
        // A reset, and whatever a later version may say: any number of events may be missing.
        _ => gap(&json!({ "reason": "reset" })),
    }
}

pub(crate) fn not_followed() -> sse::Event {
    gap(&json!({ "reason": "not-followed" }))
}

pub(crate) fn gap(why: &Value) -> sse::Event {
    sse::Event::default().event("gap").data(why.to_string())
}

fn said(Message { topic, payload, stamp, .. }: &Message) -> sse::Event {
    let event = match text(payload) {
        Some(text) => sse::Event::default().data(text),
        None => sse::Event::default().event("bytes").data(hexadecimal(payload)),
    };
    // A topic has no control character, so it cannot break out of its line.
    match stamp {
        Some(stamp) => event.id(format!("{}-{} {topic}", stamp.epoch, stamp.seq)),
        None => event.id(format!("local {topic}")),
    }
}

/// The payload as text, if this form can carry it unchanged.
fn text(payload: &Bytes) -> Option<&str> {
    std::str::from_utf8(payload).ok().filter(|text| !text.contains('\r'))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        for half in [byte >> 4, byte & 15] {
            digits.extend(char::from_digit(half.into(), 16));
        }
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_stays_as_it_is_goes_as_text() {
        assert_eq!(text(&Bytes::from_static(b"a\nb")), Some("a\nb"));
        assert_eq!(text(&Bytes::from_static(b"a\r\nb")), None);
        assert_eq!(text(&Bytes::from_static(b"\xff")), None);
        assert_eq!(hexadecimal(b"\xff\x0a"), "ff0a");
    }
}
