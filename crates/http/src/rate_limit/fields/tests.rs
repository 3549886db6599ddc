use std::sync::Arc;

use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{Limiter, Unavailable};
use fleetwide_mem_backend::{MemExecutor, Memory};
use fleetwide_testkit::SimClock;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn gcra(max: u64, period_s: u64, burst: u64) -> Quota {
    Quota::gcra(max, Duration::from_secs(period_s), burst).unwrap()
}

fn window(max: u64, window_s: u64) -> Quota {
    Quota::sliding_window(max, Duration::from_secs(window_s)).unwrap()
}

/// A limiter on a clock that stands still.
fn limiter(quota: Quota) -> (Limiter<MemExecutor>, Arc<SimClock>) {
    let clock = Arc::new(SimClock::new());
    let memory = Memory::builder().clock(clock.clone()).build();
    let namespace = Namespace::new("test").unwrap();
    let limiter = Limiter::builder(memory.executor().clone(), &namespace, "api", quota)
        .on_unavailable(Unavailable::Deny)
        .clock(clock.clone())
        .build()
        .unwrap();
    (limiter, clock)
}

/// The decision on a call that costs `cost`, after `spent` cells went `ago` seconds before.
async fn decision(quota: Quota, spent: u64, ago: u64, cost: u64) -> Decision {
    let (limiter, clock) = limiter(quota);
    let _ = limiter.check_cost("k", spent).await.unwrap();
    clock.advance(Duration::from_secs(ago));
    limiter.check_cost("k", cost).await.unwrap()
}

/// The fields on one answer after the other, as `name: value` in the order of their names.
fn told(writers: &[(Writer, Decision)]) -> String {
    let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
    for (writer, decision) in writers {
        writer.write(&mut headers, &mut extensions, decision);
    }
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.join("\n")
}

fn writer(form: impl Into<Option<IetfForm>>, name: &str, quota: Quota) -> Writer {
    let fields = Fields::none().ietf(form);
    Writer::new(fields, name, quota, QuotaUnit::Requests)
}

// Drafts 08 to 11: sections 3.2 and 4.2, appendix B.1.3 (`r=60` of 100 in 60 s) and B.1.4.
#[tokio::test]
async fn current_form_is_that_of_the_drafts_examples() {
    // A pace of 60 in 36 s would be the policy's, and the last of 40 comes back after 24 s.
    let basic = gcra(100, 60, 100);
    let some = decision(basic, 39, 0, 1).await;
    assert_eq!(
        told(&[(writer(IetfForm::Current, "basic", basic), some)]),
        "ratelimit-policy: \"basic\";q=100;w=60\nratelimit: \"basic\";r=60;t=36"
    );
    // One cell in 5 s, and none is left.
    let slow = gcra(1, 5, 10);
    let refused = decision(slow, 10, 0, 1).await;
    assert_eq!(
        told(&[(writer(IetfForm::Current, "default", slow), refused)]),
        "ratelimit-policy: \"default\";q=10;w=50\nratelimit: \"default\";r=0;t=5\nretry-after: 5"
    );
}

// Draft 07, sections 3.5 and B.2.1; draft 06, section 3.
#[tokio::test]
async fn older_forms_are_those_of_their_drafts() {
    let quota = gcra(100, 100, 100);
    let half = decision(quota, 49, 0, 1).await;
    assert_eq!(
        told(&[(writer(IetfForm::Draft07, "default", quota), half)]),
        "ratelimit-policy: 100;w=100\nratelimit: limit=100, remaining=50, reset=50"
    );
    assert_eq!(
        told(&[(writer(IetfForm::Draft06, "default", quota), half)]),
        "ratelimit-limit: 100\nratelimit-policy: 100;w=100\nratelimit-remaining: 50\n\
         ratelimit-reset: 50"
    );
}

#[tokio::test]
async fn legacy_form_and_source_are_there_where_asked_for() {
    let quota = gcra(100, 100, 100);
    let half = decision(quota, 49, 0, 1).await;
    let with = |fields| Writer::new(fields, "default", quota, QuotaUnit::Requests);
    assert_eq!(
        told(&[(with(Fields::none().legacy(true).source(true)), half)]),
        "x-ratelimit-limit: 100\nx-ratelimit-remaining: 50\nx-ratelimit-reset: 50\n\
         x-ratelimit-source: shared"
    );
    assert_eq!(told(&[(with(Fields::none()), half)]), "");
    let all = told(&[(with(Fields::default()), half)]);
    assert_eq!(all.lines().count(), 5, "{all}");
}

// Draft 11, section 3.2: its example with a quota unit.
#[test]
fn unit_is_named_where_it_is_not_the_default() {
    let policy = |form, unit| {
        let writer = Writer::new(Fields::none().ietf(form), "peruser", window(65_535, 10), unit);
        writer.policy.unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(
        policy(IetfForm::Current, QuotaUnit::ContentBytes),
        r#""peruser";q=65535;qu="content-bytes";w=10"#
    );
    assert_eq!(policy(IetfForm::Current, QuotaUnit::Requests), r#""peruser";q=65535;w=10"#);
    assert_eq!(policy(IetfForm::Draft07, QuotaUnit::ContentBytes), "65535;w=10");
}

// Red when `quoted` does not escape: the value would be another list.
#[test]
fn name_is_a_string_of_structured_fields() {
    assert_eq!(quoted("burst"), r#""burst""#);
    assert_eq!(quoted(r#"a "b" \ c;q=9"#), r#""a \"b\" \\ c;q=9""#);
}

#[tokio::test]
async fn window_is_told_as_it_was_asked_for_and_never_as_none() {
    let told = |quota| {
        let writer = writer(IetfForm::Current, "p", quota);
        writer.policy.unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(told(window(100, 60)), r#""p";q=100;w=60"#);
    // One cell comes back every 8,571,429 µs, seven in 60.000003 s. Red without the correction.
    assert_eq!(told(gcra(7, 60, 7)), r#""p";q=7;w=60"#);
    assert_eq!(told(gcra(600, 60, 5)), r#""p";q=5;w=1"#);
    let quick = Quota::sliding_window(5, Duration::from_millis(100)).unwrap();
    assert_eq!(told(quick), r#""p";q=5;w=1"#);
    let odd = Quota::sliding_window(5, Duration::from_millis(1001)).unwrap();
    assert_eq!(told(odd), r#""p";q=5;w=2"#);
    // Seen red: without an arm for each of them.
    let minute = 60 * SECOND;
    assert_eq!(told(Quota::token_bucket(7, minute, 7).unwrap()), r#""p";q=7;w=60"#);
    assert_eq!(told(Quota::token_bucket(600, minute, 5).unwrap()), r#""p";q=5;w=1"#);
    assert_eq!(told(Quota::fixed_window(100, minute).unwrap()), r#""p";q=100;w=60"#);
    assert_eq!(told(Quota::sliding_log(100, minute).unwrap()), r#""p";q=100;w=60"#);
}

// Draft 11, section 8.5: `r=10000;t=10` must not stand beside `q=10000;w=1000`. Red without the pace.
#[tokio::test]
async fn fields_promise_no_higher_rate_than_the_policy_has() {
    let quota = gcra(10_000, 1000, 10_000);
    let first = decision(quota, 0, 0, 1).await;
    assert_eq!(first.reset_after(), Duration::from_millis(100));
    let told = told(&[(writer(IetfForm::Current, "somepolicy", quota), first)]);
    assert!(told.contains(r#""somepolicy";r=9999;t=1000"#), "{told}");
}

#[tokio::test]
async fn several_policies_are_a_list_and_the_tightest_has_the_fields_with_room_for_one() {
    let (minute, hour) = (gcra(50, 60, 50), gcra(1000, 3600, 1000));
    let tight = decision(hour, 990, 0, 1).await;
    let wide = decision(minute, 10, 0, 1).await;
    for order in [[0, 1], [1, 0]] {
        let fields = Fields::default();
        let of = |at: usize| match at {
            0 => (Writer::new(fields, "permin", minute, QuotaUnit::Requests), wide),
            _ => (Writer::new(fields, "perhr", hour, QuotaUnit::Requests), tight),
        };
        let told = told(&order.map(of));
        // Appended one after the other; the order of sorted lines is the same in both cases.
        assert!(told.contains("ratelimit-policy: \"perhr\";q=1000;w=3600\n"), "{told}");
        assert!(told.contains("ratelimit-policy: \"permin\";q=50;w=60\n"), "{told}");
        assert!(told.contains("ratelimit: \"perhr\";r=9;") && told.contains("\"permin\";r=39;"));
        assert!(told.contains("x-ratelimit-limit: 1000\nx-ratelimit-remaining: 9\n"), "{told}");
    }
}

#[test]
fn wait_is_never_told_shorter_than_it_is() {
    assert_eq!(retry_after(Duration::from_micros(1)), 1);
    assert_eq!(retry_after(Duration::from_micros(1_000_001)), 2);
    assert_eq!(retry_after(2 * SECOND), 2);
    assert_eq!(retry_after(Duration::ZERO), 1);
}
