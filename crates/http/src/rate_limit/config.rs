//! How a layer is put together.

use std::fmt;
use std::sync::Arc;

use fleetwide_core_traits::Executor;
use fleetwide_limiter::Limiter;
use http::request::Parts;

use super::cost::{Cost, IntoCost};
use super::fields::{Fields, QuotaUnit, Writer};
use super::key::KeyExtractor;
use super::layer::{RateLimitLayer, Shared};
use super::problem::Problems;
use super::telemetry::Telemetry;

/// Names are shown with each answer.
const NAME_BYTES_MAX: usize = 128;

/// Options of a [`RateLimitLayer`]. Setters never fail: only [`build`](Self::build) sees them.
///
/// | option | default |
/// | --- | --- |
/// | [`cost`](Self::cost), [`cost_async`](Self::cost_async), [`fixed_cost`](Self::fixed_cost) | 1 |
/// | [`exempt`](Self::exempt) | no request |
/// | [`fields`](Self::fields) | the IETF's current form and `X-RateLimit-*` |
/// | [`named`](Self::named) | the limiter's name |
/// | [`unit`](Self::unit) | requests |
/// | [`respond_with`](Self::respond_with) | [`Problems`] |
#[must_use = "a builder does nothing until `build`"]
pub struct RateLimitBuilder<E, R = Problems> {
    limiter: Limiter<E>,
    key: Arc<dyn KeyExtractor>,
    cost: Cost,
    exempt: Option<Exempt>,
    fields: Fields,
    name: Option<String>,
    unit: QuotaUnit,
    respond: R,
}

/// Which requests go on without being counted.
pub(super) type Exempt = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

impl<E: Executor> RateLimitBuilder<E> {
    pub(super) fn new(limiter: Limiter<E>, key: impl KeyExtractor + 'static) -> Self {
        Self {
            limiter,
            key: Arc::new(key),
            cost: Cost::Fixed(1),
            exempt: None,
            fields: Fields::default(),
            name: None,
            unit: QuotaUnit::default(),
            respond: Problems::new(),
        }
    }
}

impl<E: Executor, R> RateLimitBuilder<E, R> {
    /// Sets what each request costs. Default: 1. A cost of 0 spends nothing and is always allowed.
    pub fn fixed_cost(self, cost: u64) -> Self {
        Self { cost: Cost::Fixed(cost), ..self }
    }

    /// Sets what a request costs, by its head: a `u64`, or a `Result<u64, CostError>` where the request
    /// may be wrong.
    pub fn cost<C: IntoCost>(self, cost: impl Fn(&Parts) -> C + Send + Sync + 'static) -> Self {
        let known = move |request: &Parts| cost(request).into_cost();
        Self { cost: Cost::Known(Arc::new(known)), ..self }
    }

    /// Sets what a request costs, by its head, if that takes a while. The future takes along what it
    /// needs of the head. It has no deadline but yours, and the request waits for it.
    pub fn cost_async<F>(self, cost: impl Fn(&Parts) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output: IntoCost> + Send + 'static,
    {
        let pending = move |request: &Parts| {
            let cost = cost(request);
            Box::pin(async move { cost.await.into_cost() }) as _
        };
        Self { cost: Cost::Pending(Arc::new(pending)), ..self }
    }

    /// Sets which requests go on without being counted, such as probes and preflights. Their answers
    /// have no fields. Default: none.
    pub fn exempt(self, is_exempt: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self { exempt: Some(Arc::new(is_exempt)), ..self }
    }

    /// Sets which fields answers have.
    pub fn fields(self, fields: Fields) -> Self {
        Self { fields, ..self }
    }

    /// Sets what clients are told that the policy is called: 1 to 128 characters of printable ASCII.
    /// Default: the limiter's name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Sets what the quota counts. Default: requests.
    pub fn unit(self, unit: QuotaUnit) -> Self {
        Self { unit, ..self }
    }

    /// Sets who answers in place of the service. Default: [`Problems`].
    pub fn respond_with<N>(self, respond: N) -> RateLimitBuilder<E, N> {
        let Self { limiter, key, cost, exempt, fields, name, unit, respond: _ } = self;
        RateLimitBuilder { limiter, key, cost, exempt, fields, name, unit, respond }
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// [`ConfigError`] if clients cannot be told the policy's name.
    pub fn build(self) -> Result<RateLimitLayer<E, R>, ConfigError> {
        let name = self.name.unwrap_or_else(|| self.limiter.name().as_str().to_owned());
        let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain || name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ConfigError::Name);
        }
        Ok(RateLimitLayer::new(Shared {
            writer: Writer::new(self.fields, &name, self.limiter.quota(), self.unit),
            telemetry: Telemetry::new(self.limiter.name()),
            limiter: self.limiter,
            key: self.key,
            cost: self.cost,
            exempt: self.exempt,
            name,
            unit: self.unit,
            respond: self.respond,
        }))
    }
}

impl<E, R> fmt::Debug for RateLimitBuilder<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitBuilder")
            .field("limiter", &self.limiter)
            .field("cost", &self.cost)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// Why options make no [`RateLimitLayer`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The name that clients are told is none.
    #[error("a policy's name takes 1 to 128 characters of printable ASCII")]
    Name,
}
