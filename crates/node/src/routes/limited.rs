//! `/limited`: behind the rate limiter.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, State as With};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fleetwide::limiter::Decision;
use serde::Deserialize;
use serde_json::json;

use crate::input::{Params, check_length};
use crate::problem::{Problem, whole_seconds};
use crate::state::State;

/// The name of the one policy, in headers and keys.
pub(crate) const POLICY: &str = "default";
/// Who does not say which tenant it is.
const ANONYMOUS: &str = "anonymous";
const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
/// What the draft of the `RateLimit` fields registers for a used-up quota.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// How much of an IPv6 address counts: a household has a whole /64 to choose from.
const IPV6_PREFIX_BITS: u32 = 64;

#[derive(Debug, Deserialize)]
pub(crate) struct LimitedParams {
    cost: Option<u64>,
}

/// `GET /limited`: 200 while the caller's quota lasts, 429 then.
pub(crate) async fn get(
    With(state): With<State>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Params(params): Params<LimitedParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cost = params.cost.unwrap_or(1);
    let most = u64::from(state.limiter.quota().cost_max());
    if !(1..=most).contains(&cost) {
        return Err(Problem::bad_request(format!("cost must be from 1 to {most}")));
    }
    let caller = caller(&headers, peer.ip())?;
    let decision = state.limiter.check_cost(&caller, cost).await;
    let decision = decision.map_err(|error| Problem::bad_request(error.to_string()))?;
    let mut response = match decision.retry_after() {
        None => Json(json!({ "allowed": true, "remaining": decision.remaining() })).into_response(),
        Some(after) => refused(after).into_response(),
    };
    tell(response.headers_mut(), &decision, state.window);
    Ok(response)
}

fn refused(after: Duration) -> Problem {
    let detail = "the quota of this caller is used up";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota exceeded", detail)
        .kind(QUOTA_EXCEEDED)
        .with("violated-policies", vec![POLICY])
        .retry_after(after)
}

/// Tenant and address of the caller. The address stands first and has no bar in it, so that no
/// tenant's name can be taken for another caller.
///
/// It is the peer's: behind a proxy that is the proxy's own, and `X-Tenant-Id` tells callers
/// apart. `X-Forwarded-For` is not looked at, because any caller can write it.
fn caller(headers: &HeaderMap, address: IpAddr) -> Result<String, Problem> {
    let tenant = match headers.get(TENANT).map(HeaderValue::to_str) {
        None | Some(Ok("")) => ANONYMOUS,
        Some(Ok(tenant)) => tenant,
        Some(Err(_)) => return Err(Problem::bad_request("X-Tenant-Id must be visible ASCII")),
    };
    check_length("X-Tenant-Id", tenant)?;
    Ok(format!("{}|{tenant}", counted(address)))
}

/// The part of an address that callers cannot choose at will.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - IPV6_PREFIX_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Writes the fields in both forms: the old one that clients know, and the IETF's newest.
fn tell(headers: &mut HeaderMap, decision: &Decision, (quota, window): (u32, Duration)) {
    let remaining = decision.remaining();
    let reset = seconds_up(decision.reset_after());
    // A caller that waits for `t` must not come before `Retry-After`.
    let back = decision.retry_after().map_or(reset, whole_seconds);
    let seconds = whole_seconds(window);
    for (name, value) in [
        ("x-ratelimit-limit", quota.to_string()),
        ("x-ratelimit-remaining", remaining.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
        ("ratelimit-policy", format!("\"{POLICY}\";q={quota};w={seconds}")),
        ("ratelimit", format!("\"{POLICY}\";r={remaining};t={back}")),
        ("x-ratelimit-source", decision.source().name().to_owned()),
    ] {
        // Digits and fixed words only, which every header takes.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn key(tenant: Option<&str>, address: &str) -> String {
        let mut headers = HeaderMap::new();
        if let Some(tenant) = tenant {
            headers.insert(TENANT, tenant.parse().unwrap());
        }
        caller(&headers, address.parse().unwrap()).unwrap()
    }

    #[test]
    fn callers_are_told_apart_by_tenant_and_address() {
        assert_eq!(key(None, "10.0.0.1"), "10.0.0.1|anonymous");
        assert_eq!(key(Some(""), "10.0.0.1"), "10.0.0.1|anonymous");
        assert_eq!(key(Some("a|b"), "10.0.0.1"), "10.0.0.1|a|b");
        assert_eq!(key(Some("a"), "::ffff:10.0.0.1"), "10.0.0.1|a");
    }

    #[test]
    fn addresses_of_one_household_are_one_caller() {
        assert_eq!(key(None, "2001:db8:1:2::3"), key(None, "2001:db8:1:2:aaaa::4"));
        assert_ne!(key(None, "2001:db8:1:2::3"), key(None, "2001:db8:1:3::3"));
    }

    #[test]
    fn a_tenant_that_is_too_long_or_no_text_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(TENANT, "x".repeat(513).parse().unwrap());
        assert!(caller(&headers, [10, 0, 0, 1].into()).is_err());
        headers.insert(TENANT, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(caller(&headers, [10, 0, 0, 1].into()).is_err());
    }
}
