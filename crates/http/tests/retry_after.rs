//! A client that keeps what it was told is served.

mod common;

use std::time::Duration;

use common::{app, limiter};
use fleetwide_http::rate_limit::{RateLimitLayer, TenantHeader};
use fleetwide_limiter::Quota;
use proptest::prelude::*;

/// Quotas of all algorithms, whose times are rarely whole seconds.
fn quota() -> impl Strategy<Value = Quota> {
    let period = (1u64..600_000).prop_map(Duration::from_millis);
    (1u64..40, period, 1u64..40, 0u8..5).prop_filter_map(
        "no quota",
        |(max, period, burst, algorithm)| {
            match algorithm {
                0 => Quota::sliding_window(max, period),
                1 => Quota::gcra(max, period, burst),
                2 => Quota::token_bucket(max, period, burst),
                3 => Quota::fixed_window(max, period),
                _ => Quota::sliding_log(max, period),
            }
            .ok()
        },
    )
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.unwrap().block_on(future)
}

proptest! {
    // Red when `Retry-After` is rounded down or to the nearest second.
    #[test]
    fn who_waits_as_told_is_not_refused(quota in quota(), start in 0u64..2_000_000, cost in 1u64..5) {
        run(async {
            let cost = cost.min(quota.cost_max().into());
            let (limiter, clock) = limiter("api", quota);
            clock.advance(Duration::from_micros(start));
            let layer = RateLimitLayer::builder(limiter, TenantHeader::new().or_tenant("a"));
            let app = app(&layer.fixed_cost(cost).build().unwrap());
            for _ in 0..50 {
                let reply = app.get("/").await;
                if reply.status == 200 {
                    clock.advance(Duration::from_micros(777));
                    continue;
                }
                let wait: u64 = reply.header("retry-after").parse().unwrap();
                let ratelimit = reply.header("ratelimit");
                prop_assert!(ratelimit.ends_with(&format!(";t={wait}")), "{ratelimit}");
                clock.advance(Duration::from_secs(wait));
                let again = app.get("/").await;
                prop_assert_eq!(again.status, 200, "after {} s of {:?}", wait, quota);
            }
            Ok(())
        })?;
    }

    // What is told never promises more than the policy: `r` in `t` is at most `q` in `w`, a whole
    // second more or less. Red without the pace, under GCRA.
    #[test]
    fn what_is_told_is_no_higher_rate_than_the_policy(quota in quota(), spent in 0usize..40) {
        run(async {
            let (limiter, _clock) = limiter("api", quota);
            let layer = RateLimitLayer::builder(limiter, TenantHeader::new().or_tenant("a"));
            let app = app(&layer.build().unwrap());
            for _ in 0..spent {
                app.get("/").await;
            }
            let reply = app.get("/").await;
            let number = |field: &str, parameter: &str| -> u64 {
                let value = reply.header(field);
                let (_, rest) = value.split_once(&format!(";{parameter}=")).unwrap();
                rest.split(';').next().unwrap().parse().unwrap()
            };
            let (r, t) = (number("ratelimit", "r"), number("ratelimit", "t"));
            let (q, w) = (number("ratelimit-policy", "q"), number("ratelimit-policy", "w"));
            prop_assert!(r <= q && w >= 1);
            prop_assert!(r * w <= t * q, "r={r};t={t} of q={q};w={w}");
            Ok(())
        })?;
    }
}
