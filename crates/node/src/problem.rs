//! Errors as RFC 9457 problem documents.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What went wrong, as the caller sees it. It never holds a secret or a server's address.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    /// Not a map yet: errors are passed up by value, and most have none.
    members: Vec<(String, Value)>,
}

/// What a caller does best while Redis is away: it comes back within seconds, or not soon.
const OUTAGE_RETRY: Duration = Duration::from_secs(1);

impl Problem {
    pub(crate) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, title, detail, retry_after: None, members: Vec::new() }
    }

    /// 400: the request itself is wrong, and stays wrong.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the request is wrong", detail)
    }

    /// 404.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// 503: something that this node needs is away.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable for now", detail);
        problem.retry_after(OUTAGE_RETRY)
    }

    /// Says when to try again.
    pub(crate) fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Adds a member of the problem's own.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.push((name.to_owned(), value.into()));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::from_iter(self.members);
        // The status says it all; the layer before `/limited` has kinds of its own.
        body.insert("type".to_owned(), json!("about:blank"));
        body.insert("title".to_owned(), json!(self.title));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        body.insert("detail".to_owned(), json!(self.detail));
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let text = Value::Object(body).to_string();
        let mut response = (self.status, content_type, text).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        response
    }
}

/// Whole seconds, rounded up and never 0: a client that came back early would be refused again.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.max(1)
}

/// An answer for a refused connection: it is written before any request has been read.
pub(crate) fn too_many_connections() -> Vec<u8> {
    let body = r#"{"type":"about:blank","title":"unavailable for now","status":503,"detail":"too many connections"}"#;
    let length = HeaderValue::from(body.len());
    let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n\
                Retry-After: 1\r\nConnection: close\r\nContent-Length: ";
    [head.as_bytes(), length.as_bytes(), b"\r\n\r\n", body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_told_shorter_than_it_is() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
    }
}
