//! `/limited`: behind the rate limiter.

use axum::http::request::Parts;
use axum::{Extension, Json};
use fleetwide::http::client::TrustedProxies;
use fleetwide::http::rate_limit::{
    Admitted, ClientAddress, ConfigError, CostError, Fields, KeyExtractor, Problems,
    RateLimitLayer, TenantHeader,
};
use fleetwide::limiter::Limiter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::input::Params;

/// The name of the one policy, in headers and keys.
pub(crate) const POLICY: &str = "default";
/// Who does not say which tenant it is.
const ANONYMOUS: &str = "anonymous";

/// What stands before the route: it counts by tenant and client, and answers who is refused.
pub(crate) fn layer(
    limiter: Limiter,
    proxies: TrustedProxies,
) -> Result<RateLimitLayer, ConfigError> {
    let by = TenantHeader::new().or_tenant(ANONYMOUS).and(ClientAddress::new(proxies));
    RateLimitLayer::builder(limiter, by)
        .cost(cost)
        // Callers and tests of this service may know which rung answers.
        .fields(Fields::default().source(true))
        // This route has one refusal: 429, also while nobody can decide.
        .respond_with(Problems::new().reduced_as_exceeded())
        .build()
}

/// `GET /limited`, for whom the layer lets through.
pub(crate) async fn get(Extension(Admitted(decision)): Extension<Admitted>) -> Json<Value> {
    Json(json!({ "allowed": true, "remaining": decision.remaining() }))
}

#[derive(Debug, Deserialize)]
struct LimitedParams {
    cost: Option<u64>,
}

/// `?cost=`, else 1. What is above the whole quota is the layer's to refuse.
fn cost(request: &Parts) -> Result<u64, CostError> {
    let Params(params) = Params::<LimitedParams>::of(&request.uri).map_err(CostError::new)?;
    match params.cost {
        None => Ok(1),
        // The limiter would allow it to anybody, and it would show for free what is left.
        Some(0) => Err(CostError::new("cost must be at least 1")),
        Some(cost) => Ok(cost),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn of(uri: &str) -> Result<u64, String> {
        let request = Request::get(uri).body(()).expect("a request");
        cost(&request.into_parts().0).map_err(|error| error.to_string())
    }

    #[test]
    fn cost_is_a_whole_number_from_one() {
        assert_eq!(of("/limited"), Ok(1));
        assert_eq!(of("/limited?cost=7&other=x"), Ok(7));
        assert_eq!(of("/limited?cost=18446744073709551615"), Ok(u64::MAX));
        assert_eq!(of("/limited?cost=0"), Err("cost must be at least 1".to_owned()));
        for wrong in ["", "-1", "1.5", "a", "18446744073709551616", "1&cost=2", "%FF"] {
            assert!(of(&format!("/limited?cost={wrong}")).is_err(), "{wrong}");
        }
    }
}
