//! What operators see: one log line, one metric and one call of the hook per rung entered or left, and
//! how a candidate does.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetwide_core_traits::Namespace;
use fleetwide_limiter::{Limiter, Quota, Shadow, Source, Unavailable};
use fleetwide_redis_backend::{Redis, RedisUrl};
use fleetwide_testkit::eventually;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};

const SOON: Duration = Duration::from_secs(20);

/// Keeps the metrics by their names and labels, as `name{label=value,..}`.
#[derive(Default)]
struct Metrics {
    numbers: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Metrics {
    fn slot(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.numbers.lock().entry(name).or_default())
    }

    /// A counter's number; for a gauge the bits of one.
    fn get(&self, name: &str) -> u64 {
        self.numbers.lock()[name].load(Ordering::Relaxed)
    }
}

struct CountOnly(Arc<AtomicU64>);

impl HistogramFn for CountOnly {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(CountOnly(self.slot(key))))
    }
}

/// Keeps the levels of the limiter's log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Level>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("fleetwide_limiter")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0.lock().push(*event.metadata().level());
    }
}

// Red when each failed probe is told.
#[tokio::test]
async fn each_move_is_told_once_however_many_calls_there_are() {
    let (metrics, lines) = (Metrics::default(), Lines::default());
    let _guard = tracing::subscriber::set_default(lines.clone());
    let server = support::server().await;
    let redis = Redis::builder(RedisUrl::parse(&server.url()).unwrap()).build().unwrap();
    redis.ready(SOON).await.unwrap();
    let hooked = Arc::new(AtomicU64::new(0));
    let hook = Arc::clone(&hooked);
    let quota = Quota::gcra(1, Duration::from_secs(3600), 100).unwrap();
    let namespace = Namespace::new("shop").unwrap();
    let options = Limiter::builder(redis.executor(), &namespace, "api", quota)
        .on_unavailable(Unavailable::Deny)
        .deadline(SOON)
        .probe_every(Duration::from_millis(20))
        .on_rung_change(move |_| _ = hook.fetch_add(1, Ordering::Relaxed));
    let limiter = metrics::with_local_recorder(&metrics, || options.build()).unwrap();
    let away = || f64::from_bits(metrics.get("fleetwide_limiter_away{policy=api}"));

    server.kill();
    let is_away = async || {
        let _ = limiter.check("a").await.unwrap();
        away() > 0.5
    };
    eventually(SOON, "the rung", is_away).await;
    for _ in 0..50 {
        assert_eq!(limiter.check("a").await.unwrap().source(), Source::Closed);
    }
    assert_eq!(
        (lines.0.lock().as_slice(), hooked.load(Ordering::Relaxed)),
        (&[Level::WARN][..], 1)
    );

    server.restart().await.unwrap();
    let is_back = async || {
        let _ = limiter.check("a").await.unwrap();
        away() < 0.5
    };
    eventually(SOON, "the fleet", is_back).await;
    let told = lines.0.lock().clone();
    assert_eq!((told, hooked.load(Ordering::Relaxed)), (vec![Level::WARN, Level::INFO], 2));

    let decisions = |outcome, source| {
        let labels = format!("policy=api,outcome={outcome},source={source}");
        metrics.get(&format!("fleetwide_limiter_decisions_total{{{labels}}}"))
    };
    assert!(decisions("allow", "shared") >= 1 && decisions("deny", "closed") >= 50);
    assert_eq!(metrics.get("fleetwide_limiter_rung_entered_total{policy=api,rung=deny}"), 1);
    assert!(metrics.get("fleetwide_limiter_failures_total{policy=api}") >= 1);
    assert!(metrics.get("fleetwide_limiter_backend_seconds{policy=api}") >= 1);
}

// Seen red: when each divergence is told.
#[tokio::test]
async fn candidate_is_counted_by_call_and_told_of_once() {
    let (metrics, lines) = (Metrics::default(), Lines::default());
    let _guard = tracing::subscriber::set_default(lines.clone());
    let hour = Duration::from_secs(3600);
    let [ten, five] = [10, 5].map(|max| Quota::sliding_window(max, hour).unwrap());
    let namespace = Namespace::new("shop").unwrap();
    let memory = fleetwide_mem_backend::Memory::new();
    let options = Limiter::builder(memory.executor().clone(), &namespace, "api", ten)
        .on_unavailable(Unavailable::Deny)
        .shadow(Shadow::new(five).share_of_keys(1.0));
    let limiter = metrics::with_local_recorder(&metrics, || options.build()).unwrap();
    for _ in 0..12 {
        let _ = limiter.check("a").await.unwrap();
    }
    let _ = limiter.check_at_most("a", 1).await.unwrap();
    let judged = |real, candidate| {
        let labels = format!("policy=api,real={real},candidate={candidate}");
        metrics.get(&format!("fleetwide_limiter_shadow_judged_total{{{labels}}}"))
    };
    assert_eq!((judged("allow", "allow"), judged("allow", "deny")), (5, 5));
    assert_eq!((judged("deny", "deny"), judged("deny", "allow")), (2, 0));
    assert_eq!(metrics.get("fleetwide_limiter_shadow_unjudged_total{policy=api}"), 1);
    assert_eq!(metrics.get("fleetwide_limiter_shadow_failures_total{policy=api}"), 0);
    assert_eq!(lines.0.lock().as_slice(), &[Level::INFO]);
}
