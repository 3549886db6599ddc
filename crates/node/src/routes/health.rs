//! `/live`, `/ready` and `/health/redis`.

use axum::Json;
use axum::extract::State as With;
use axum::response::{IntoResponse, Response};
use fleetwide::cache::Stats;
use fleetwide::health::{Info, RoleHealth};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::state::State;

/// `GET /live`: whoever answers, lives.
pub(crate) async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

/// `GET /ready`: whether requests should come here.
pub(crate) async fn ready(With(state): With<State>) -> Response {
    let mode = state.fleet.mode().name();
    let reason = if state.stopping.is_cancelled() {
        Some("this node is stopping".to_owned())
    } else {
        state.fleet.health().unreachable()
    };
    match reason {
        None => Json(json!({ "ready": true, "mode": mode })).into_response(),
        Some(reason) => Problem::unavailable(reason.clone())
            .with("ready", false)
            .with("mode", mode)
            .with("reason", reason)
            .into_response(),
    }
}

/// `GET /health/redis`: how each Redis is doing, and what the caches make of it.
pub(crate) async fn redis(With(state): With<State>) -> Response {
    let health = state.fleet.health();
    let infos = state.fleet.infos().await;
    let mut roles = serde_json::Map::new();
    for (role, info) in health.roles().zip(&infos) {
        roles.insert(role.name.to_owned(), shown(role, info.as_ref()));
    }
    let info = infos.iter().flatten().next();
    let overall = health.overall();
    let body = json!({
        "enabled": health.roles().any(|role| role.enabled),
        "state": overall.name(),
        "reason": overall.reason(),
        "info": fields(info),
        "cache": counts(&[state.cache.stats(), state.loaded.stats(), state.sessions.cache_stats()]),
        "roles": roles,
    });
    Json(body).into_response()
}

fn shown(role: &RoleHealth, info: Option<&Info>) -> Value {
    json!({
        "enabled": role.enabled,
        "state": role.health.name(),
        "reason": role.health.reason(),
        "info": fields(info),
    })
}

/// `null` for what no server said.
fn fields(info: Option<&Info>) -> Value {
    json!({
        "total_commands_processed": info.map(|info| info.total_commands_processed),
        "instantaneous_ops_per_sec": info.map(|info| info.instantaneous_ops_per_sec),
        "used_memory_human": info.map(|info| &info.used_memory_human),
        "connected_clients": info.map(|info| info.connected_clients),
    })
}

/// What all caches of this node count together.
fn counts(caches: &[Stats]) -> Value {
    let sum = |of: fn(&Stats) -> u64| caches.iter().map(of).sum::<u64>();
    json!({
        "hits": sum(|stats| stats.hits_l1 + stats.hits_l2),
        "misses": sum(|stats| stats.misses),
        "hits_l1": sum(|stats| stats.hits_l1),
        "hits_l2": sum(|stats| stats.hits_l2),
        "loads": sum(|stats| stats.loads),
        "load_errors": sum(|stats| stats.load_errors),
        "writes": sum(|stats| stats.writes),
        "writes_queued": sum(|stats| stats.writes_queued),
        "fills_stored": sum(|stats| stats.fills_stored),
        "fills_refused": sum(|stats| stats.fills_refused),
        "l2_errors": sum(|stats| stats.l2_errors),
        "undecodable": sum(|stats| stats.undecodable),
        "invalidations_applied": sum(|stats| stats.invalidations_applied),
        "resets": sum(|stats| stats.resets),
        "l1_entries": sum(|stats| stats.l1_entries),
        "l1_bytes": sum(|stats| stats.l1_bytes),
        "flight_bytes": sum(|stats| stats.flight_bytes),
        "queue_bytes": sum(|stats| stats.queue_bytes),
        "queued": sum(|stats| stats.queued),
    })
}
