//! The routes of a node, and what stands before each of them.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tokio::time::timeout;

use crate::problem::Problem;
use crate::routes::{
    cache, events, health, limited, load, metrics as metrics_page, sessions, source,
};
use crate::state::State;

/// How long a request may take until its answer begins. It is a last resort: what waits for Redis
/// has a deadline of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole service.
pub(crate) fn router(state: State) -> Router {
    Router::new()
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/health/redis", get(health::redis))
        .route("/metrics", get(metrics_page::render))
        .route("/cache", delete(cache::clear))
        .route("/cache/{key}", put(cache::put).get(cache::get).delete(cache::delete))
        .route("/cache/tags/{tag}", delete(cache::delete_tag))
        .route("/load/{key}", get(load::get))
        .route("/source/{key}", put(source::put))
        // Inside: a path or a method that is no route's spends nothing.
        .route("/limited", get(limited::get).route_layer(state.limited.clone()))
        .route("/events", get(events::listen))
        .route("/events/{topic}", post(events::publish))
        .route("/sessions/{session}", get(sessions::stats).delete(sessions::end))
        .route("/sessions/{session}/events", get(sessions::listen))
        .route("/sessions/{session}/nodes", get(sessions::resolve_in))
        .route(
            "/sessions/{session}/nodes/{key}",
            put(sessions::put).get(sessions::get).delete(sessions::delete),
        )
        .route("/nodes/{short_id}", get(sessions::resolve))
        .route("/nodes/tags/{tag}", delete(sessions::delete_tag))
        // An empty name matches none of the routes above. `DELETE /cache/` from a program whose
        // key happens to be empty must not be taken for `DELETE /cache`.
        .route("/cache/", put(empty_name).get(empty_name).delete(empty_name))
        .route("/cache/tags/", delete(empty_name))
        .route("/load/", get(empty_name))
        .route("/source/", put(empty_name))
        .route("/events/", post(empty_name))
        .route("/sessions/", get(empty_name).delete(empty_name))
        .route("/sessions/{session}/nodes/", put(empty_name).get(empty_name).delete(empty_name))
        .route("/nodes/", get(empty_name))
        .route("/nodes/tags/", delete(empty_name))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn(measured))
        .with_state(state)
}

async fn empty_name() -> Problem {
    Problem::bad_request("the name in the path is empty")
}

async fn unknown_path() -> Problem {
    Problem::not_found("there is no such route")
}

async fn wrong_method(method: Method) -> Problem {
    let detail = format!("this route does not take {method}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong method", detail)
}

async fn in_time(request: Request, next: Next) -> Response {
    match timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(format!("no answer within {REQUEST_TIMEOUT:?}"))
            .with("outcome", "unknown")
            .into_response(),
    }
}

/// Counts and times requests by route: never by path, which would give every key a series.
async fn measured(request: Request, next: Next) -> Response {
    let route = match request.extensions().get::<MatchedPath>() {
        Some(route) => route.as_str().to_owned(),
        None => "none".to_owned(),
    };
    let method = known(request.method());
    let began = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    tracing::debug!(%route, method, %status, took = ?began.elapsed(), "answered");
    let labels = [("route", route), ("method", method.to_owned()), ("status", status)];
    metrics::counter!("fleetwide_node_requests_total", &labels).increment(1);
    metrics::histogram!("fleetwide_node_request_seconds", &labels[..2]).record(began.elapsed());
    response
}

/// Methods are free text on the wire, and a label's values must not be.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
