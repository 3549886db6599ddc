//! Refusals as problem documents (RFC 9457).

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::refusal::{Refusal, Respond};

/// Registered by the draft of the `RateLimit` fields, sections 5.1 and 5.2.
const EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
/// The status says it all.
const BLANK: &str = "about:blank";

/// Answers refusals with problem documents, for every body that is made from [`Bytes`].
///
/// A spent quota is a `quota-exceeded`, a limiter that refuses because its backend is away a
/// `temporary-reduced-capacity`; both name the policy in `violated-policies`. The others have the type
/// `about:blank`, with what is wrong in `detail`. No document has anything of the request in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    reduced_as_exceeded: bool,
}

impl Problems {
    /// With 503 while nobody can decide.
    pub const fn new() -> Self {
        Self { reduced_as_exceeded: false }
    }

    /// Answers with 429 and `quota-exceeded` also when nobody can decide, for clients that know no
    /// other refusal.
    #[must_use]
    pub const fn reduced_as_exceeded(self) -> Self {
        Self { reduced_as_exceeded: true }
    }
}

/// The document.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated: Option<[&'a str; 1]>,
}

impl<B: From<Bytes>> Respond<B> for Problems {
    fn respond(&self, refusal: &Refusal, policy: &str) -> Response<B> {
        let status = match refusal {
            Refusal::Reduced(_) if self.reduced_as_exceeded => StatusCode::TOO_MANY_REQUESTS,
            refusal => refusal.status(),
        };
        let (r#type, title, detail) = match refusal {
            Refusal::Reduced(_) if !self.reduced_as_exceeded => (
                REDUCED,
                "Temporary Reduced Capacity",
                "who may go on cannot be decided at the moment".to_owned(),
            ),
            Refusal::Exceeded(_) | Refusal::Reduced(_) => {
                (EXCEEDED, "Quota Exceeded", "the quota of this caller is used up".to_owned())
            }
            Refusal::Oversize { cost, max, .. } => {
                let detail = format!("a cost of {cost} can never be admitted: the quota is {max}");
                (BLANK, "the request is too large", detail)
            }
            Refusal::Key(error) if status.is_server_error() => {
                // What is wrong with the server is for its log.
                tracing::error!(%error, policy, "rate limit: a request cannot be counted");
                (BLANK, "the request cannot be counted", String::new())
            }
            Refusal::Key(error) => (BLANK, "the request is wrong", error.to_string()),
            Refusal::Cost(error) => (BLANK, "the request is wrong", error.to_string()),
        };
        let violated = refusal.decision().map(|_| [policy]);
        let problem = Problem { r#type, title, status: status.as_u16(), detail, violated };
        // Texts and a number, which serialize.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(B::from(Bytes::from(body)));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
