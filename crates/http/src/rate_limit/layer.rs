//! The layer: what all services behind one limit share.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use fleetwide_core_traits::Executor;
use fleetwide_limiter::{CheckError, Decision, Limiter, Source};
use http::request::Parts;
use tower_layer::Layer;

use super::config::{Exempt, RateLimitBuilder};
use super::cost::Cost;
use super::fields::{QuotaUnit, Writer};
use super::key::{KeyError, KeyExtractor, RequestKey};
use super::problem::Problems;
use super::refusal::Refusal;
use super::service::RateLimit;
use super::telemetry::Telemetry;

/// Puts a [`Limiter`] before a service. Cheap to clone; clones, and all services that they wrap, spend
/// from one limit.
///
/// # Examples
/// ```
/// use fleetwide_http::client::TrustedProxies;
/// use fleetwide_http::rate_limit::{ClientAddress, KeyExtractor, RateLimitLayer, TenantHeader};
/// use http::Method;
///
/// # fn build<E: fleetwide_core_traits::Executor>(limiter: fleetwide_limiter::Limiter<E>)
/// # -> Result<(), fleetwide_http::rate_limit::ConfigError> {
/// let by = TenantHeader::new()
///     .or_tenant("anonymous")
///     .and(ClientAddress::new(TrustedProxies::nobody()));
/// let layer = RateLimitLayer::builder(limiter, by)
///     .cost(|request| if request.method == Method::GET { 1 } else { 5 })
///     .exempt(|request| request.uri.path() == "/live")
///     .build()?;
/// # let _ = layer; Ok(()) }
/// ```
pub struct RateLimitLayer<E, R = Problems> {
    shared: Arc<Shared<E, R>>,
}

pub(super) struct Shared<E, R> {
    pub(super) limiter: Limiter<E>,
    pub(super) key: Arc<dyn KeyExtractor>,
    pub(super) cost: Cost,
    pub(super) exempt: Option<Exempt>,
    pub(super) writer: Writer,
    /// The policy's name as clients are told it.
    pub(super) name: String,
    pub(super) unit: QuotaUnit,
    pub(super) respond: R,
    pub(super) telemetry: Telemetry,
}

/// A decision on its way. It is boxed because the limiter's futures have no names; nothing else of a
/// request is.
pub(super) type Deciding = Pin<Box<dyn Future<Output = Result<Decision, Refusal>> + Send>>;

/// What becomes of a request.
pub(super) enum Way {
    /// It is not counted.
    Exempt,
    /// It is counted, and the limiter is asked.
    Ask(Deciding),
    /// It cannot be counted.
    Refuse(Refusal),
}

impl<E: Executor> RateLimitLayer<E> {
    /// Options of a layer that asks `limiter`, and counts requests by `key`.
    pub fn builder(limiter: Limiter<E>, key: impl KeyExtractor + 'static) -> RateLimitBuilder<E> {
        RateLimitBuilder::new(limiter, key)
    }
}

impl<E, R> RateLimitLayer<E, R> {
    pub(super) fn new(shared: Shared<E, R>) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

impl<E: Executor, R> Shared<E, R> {
    /// Decides as much as the head of a request says.
    pub(super) fn way(&self, request: &Parts) -> Way {
        if self.exempt.as_ref().is_some_and(|is_exempt| is_exempt(request)) {
            self.telemetry.exempt();
            return Way::Exempt;
        }
        match self.ask(request) {
            Ok(deciding) => Way::Ask(deciding),
            Err(refusal) => Way::Refuse(refusal),
        }
    }

    fn ask(&self, request: &Parts) -> Result<Deciding, Refusal> {
        let mut key = RequestKey::default();
        self.key.extract(request, &mut key).map_err(Refusal::Key)?;
        if key.as_bytes().is_empty() {
            // An extractor of somebody else's that pushed nothing.
            return Err(Refusal::Key(KeyError::Missing("what requests are counted by".into())));
        }
        let (limiter, unit) = (self.limiter.clone(), self.unit);
        Ok(match &self.cost {
            Cost::Fixed(cost) => Box::pin(decide(limiter, key, *cost, unit)),
            Cost::Known(cost) => {
                let cost = cost(request).map_err(Refusal::Cost)?;
                Box::pin(decide(limiter, key, cost, unit))
            }
            Cost::Pending(cost) => {
                let cost = cost(request);
                Box::pin(async move {
                    let cost = cost.await.map_err(Refusal::Cost)?;
                    decide(limiter, key, cost, unit).await
                })
            }
        })
    }
}

async fn decide<E: Executor>(
    limiter: Limiter<E>,
    key: RequestKey,
    cost: u64,
    unit: QuotaUnit,
) -> Result<Decision, Refusal> {
    match limiter.check_cost(key.as_bytes(), cost).await {
        Ok(decision) if decision.is_allowed() => Ok(decision),
        Ok(decision) if decision.source() == Source::Closed => Err(Refusal::Reduced(decision)),
        Ok(decision) => Err(Refusal::Exceeded(decision)),
        Err(CheckError::Oversize { cost, max }) => Err(Refusal::Oversize { cost, max, unit }),
        // Keys have bounds below the limiter's, so this is a limiter that knows another mistake.
        Err(_) => Err(Refusal::Key(KeyError::Invalid {
            what: "what requests are counted by".into(),
            takes: "another value",
        })),
    }
}

impl<S, E, R> Layer<S> for RateLimitLayer<E, R> {
    type Service = RateLimit<S, E, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, Arc::clone(&self.shared))
    }
}

impl<E, R> Clone for RateLimitLayer<E, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<E, R> fmt::Debug for RateLimitLayer<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.shared.limiter)
            .field("cost", &self.shared.cost)
            .field("writer", &self.shared.writer)
            .finish_non_exhaustive()
    }
}
