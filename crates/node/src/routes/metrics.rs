//! `/metrics`: Prometheus text.

use axum::extract::State as With;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::state::State;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`.
pub(crate) async fn render(With(state): With<State>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], state.recorder.render()).into_response()
}
