//! Why a request does not get through, and who says so.

use std::time::Duration;

use fleetwide_limiter::Decision;
use http::{Response, StatusCode};

use super::cost::CostError;
use super::fields::{QuotaUnit, retry_after};
use super::key::KeyError;

/// Why a request does not get through to the service. Nothing is spent for it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The caller has spent its quota, or what this instance may admit of it while the backend is
    /// away: 429.
    Exceeded(Decision),
    /// The backend is away, and the limiter was told to refuse then
    /// ([`Unavailable::Deny`](fleetwide_limiter::Unavailable::Deny)): 503, because the caller may have
    /// spent nothing, and can do nothing about it but wait.
    Reduced(Decision),
    /// The cost is above the whole quota, so no wait would help: not 429, which asks to come again.
    /// 413 if the quota counts bytes of content, because then the content is what is too large; else
    /// 400.
    Oversize {
        /// What the request would cost.
        cost: u64,
        /// The most that one request can spend.
        max: u32,
        /// What the quota counts.
        unit: QuotaUnit,
    },
    /// The request has nothing to be counted by, or something malformed: 400. If it is the server
    /// that does not know who is connected: 500.
    Key(KeyError),
    /// The cost of the request cannot be told: 400.
    Cost(CostError),
}

impl Refusal {
    /// The status that says so.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Exceeded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Reduced(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Oversize { unit: QuotaUnit::ContentBytes, .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Key(KeyError::NoPeer) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Oversize { .. } | Self::Key(_) | Self::Cost(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The limiter's decision, if it made one.
    pub const fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Exceeded(decision) | Self::Reduced(decision) => Some(decision),
            Self::Oversize { .. } | Self::Key(_) | Self::Cost(_) => None,
        }
    }

    /// When to come again, in whole seconds: after them the same request is allowed, if nobody else
    /// spends meanwhile. `None` if no wait helps.
    pub fn retry_after(&self) -> Option<Duration> {
        let after = self.decision()?.retry_after()?;
        Some(Duration::from_secs(retry_after(after)))
    }
}

/// Answers in place of the service. The layer adds its fields to the answer, and `Retry-After` if the
/// answer has none.
///
/// [`Problems`](super::Problems) is the one that a layer has by itself. A closure is one too:
///
/// ```
/// use fleetwide_http::rate_limit::{Refusal, Respond};
///
/// let briefly = |refusal: &Refusal, _policy: &str| {
///     let mut response = http::Response::new(String::from("not now"));
///     *response.status_mut() = refusal.status();
///     response
/// };
/// # fn takes<R: Respond<String>>(_: R) {}
/// # takes(briefly);
/// ```
pub trait Respond<B>: Send + Sync {
    /// The answer to a request that `policy` refuses.
    fn respond(&self, refusal: &Refusal, policy: &str) -> Response<B>;
}

impl<B, F> Respond<B> for F
where
    F: Fn(&Refusal, &str) -> Response<B> + Send + Sync,
{
    fn respond(&self, refusal: &Refusal, policy: &str) -> Response<B> {
        self(refusal, policy)
    }
}
