//! What a service behind the layer may rely on: who is counted, what is told, what stays untouched.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{an_hour, app, by, by_tenant, limiter};
use fleetwide_http::client::TrustedProxies;
use fleetwide_http::rate_limit::{
    Admitted, ClientAddress, ConfigError, CostError, Fields, IetfForm, KeyError, KeyExtractor,
    QuotaUnit, RateLimitLayer, Refusal, RequestKey, TenantHeader,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};

#[tokio::test]
async fn quota_is_spent_and_told_on_both_kinds_of_answers() {
    let app = app(&by_tenant(an_hour(2)).build().unwrap());
    let first = app.as_tenant("acme").await;
    assert_eq!((first.status, &*first.body), (200, &b"Some(1)"[..]));
    assert_eq!(first.header("ratelimit-policy"), r#""api";q=2;w=3600"#);
    assert!(first.header("ratelimit").starts_with(r#""api";r=1;t=36"#), "{first:?}");
    assert_eq!(first.header("x-ratelimit-limit"), "2");
    assert_eq!(first.header("x-ratelimit-remaining"), "1");
    assert_eq!(first.header("retry-after"), "");
    assert_eq!(app.as_tenant("acme").await.status, 200);
    let refused = app.as_tenant("acme").await;
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["title"], "Quota Exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["api"]));
    let wait = refused.header("retry-after");
    assert_eq!(refused.header("ratelimit"), format!(r#""api";r=0;t={wait}"#));
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(app.as_tenant("other").await.status, 200, "another tenant has its own quota");
}

// Red when the policy is told as it was when the layer was built.
#[tokio::test]
async fn quota_that_is_changed_is_told_from_then_on() {
    let (limiter, _clock) = limiter("api", an_hour(2));
    let key = TenantHeader::new();
    let app = app(&RateLimitLayer::builder(limiter.clone(), key).build().unwrap());
    let before = app.as_tenant("acme").await;
    assert_eq!(before.header("ratelimit-policy"), r#""api";q=2;w=3600"#);
    limiter.set_quota(an_hour(5)).unwrap();
    let after = app.as_tenant("acme").await;
    assert_eq!(after.header("ratelimit-policy"), r#""api";q=5;w=3600"#);
    assert_eq!(after.header("x-ratelimit-limit"), "5");
    assert_eq!(after.header("x-ratelimit-remaining"), "3");
}

#[tokio::test]
async fn exempt_request_spends_nothing_and_has_no_fields() {
    let layer = by_tenant(an_hour(1)).exempt(|request| request.method == Method::OPTIONS);
    let app = app(&layer.build().unwrap());
    for _ in 0..3 {
        let reply = app.send(Request::options("/")).await;
        assert_eq!((reply.status, reply.headers.len()), (200, 0), "{reply:?}");
        assert_eq!(&*reply.body, b"None");
    }
    assert_eq!(app.get("/").await.status, 200);
    assert_eq!(app.get("/").await.status, 429);
}

#[tokio::test]
async fn cost_is_what_the_function_says_at_once_or_later() {
    let cost_of = |request: &Parts| -> Result<u64, CostError> {
        let path = request.uri.path().trim_start_matches('/').to_owned();
        path.parse().map_err(|_| CostError::new("the path must be a number"))
    };
    let known = by_tenant(an_hour(10)).cost(cost_of);
    let later = by_tenant(an_hour(10)).cost_async(move |request| {
        let cost = cost_of(request);
        async move {
            tokio::task::yield_now().await;
            cost
        }
    });
    let fixed = app(&by_tenant(an_hour(10)).fixed_cost(5).build().unwrap());
    assert_eq!(&*fixed.get("/").await.body, b"Some(5)");
    for builder in [known, later] {
        let app = app(&builder.build().unwrap());
        assert_eq!(&*app.get("/7").await.body, b"Some(3)");
        assert_eq!(app.get("/4").await.status, 429);
        assert_eq!(&*app.get("/3").await.body, b"Some(0)");
        assert_eq!(app.get("/0").await.status, 200, "what costs nothing is never refused");
        let wrong = app.get("/seven").await;
        assert_eq!(wrong.problem(400)["detail"], "the path must be a number");
        assert_eq!(wrong.header("ratelimit"), "", "nothing was decided");
        assert_eq!(wrong.header("ratelimit-policy"), r#""api";q=10;w=3600"#);
    }
}

#[tokio::test]
async fn cost_that_no_wait_can_pay_is_not_answered_with_a_wait() {
    for (unit, status) in [(QuotaUnit::Requests, 400), (QuotaUnit::ContentBytes, 413)] {
        let app = app(&by_tenant(an_hour(10)).fixed_cost(11).unit(unit).build().unwrap());
        let reply = app.get("/").await;
        let problem = reply.problem(status);
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["detail"].as_str().unwrap().contains("never"), "{problem}");
        assert_eq!((reply.header("retry-after"), reply.header("ratelimit")), Default::default());
        assert!(reply.header("ratelimit-policy").starts_with(r#""api";q=10;"#));
    }
}

#[tokio::test]
async fn request_without_a_key_is_refused_and_reaches_no_service() {
    let layer = by(TenantHeader::new(), an_hour(1)).build().unwrap();
    let app = app(&layer);
    let missing = app.get("/").await;
    assert_eq!(missing.problem(400)["detail"], "x-tenant-id is missing");
    let app = common::app(
        &by(|_: &Parts, _: &mut RequestKey| Ok::<_, KeyError>(()), an_hour(1)).build().unwrap(),
    );
    app.get("/").await.problem(400);
    let address = ClientAddress::new(TrustedProxies::nobody());
    let app = common::app(&by(address, an_hour(1)).build().unwrap());
    let unknown = app.get("/").await;
    assert_eq!(unknown.problem(500)["detail"], "", "the server's setup is not the client's matter");
}

// Red when the extractor takes the first entry of X-Forwarded-For, as it does in peers of ours.
#[tokio::test]
async fn spoofed_forwarding_fields_neither_evade_a_limit_nor_spend_that_of_others() {
    let proxies = TrustedProxies::networks(["10.0.0.0/8"]).unwrap();
    let app = app(&by(ClientAddress::new(proxies), an_hour(1)).build().unwrap());
    // By way of the proxy, which appends who it was.
    assert_eq!(app.from("10.0.0.1", "203.0.113.7").await.status, 200);
    for spoofed in ["1.1.1.1", "10.0.0.9", "unknown", "203.0.113.8", "", "\"", "::1", ",,,"] {
        let forwarded = format!("{spoofed}, 203.0.113.7");
        assert_eq!(app.from("10.0.0.1", &forwarded).await.status, 429, "{spoofed}");
    }
    // Past the proxy.
    assert_eq!(app.from("198.51.100.9", "203.0.113.8").await.status, 200);
    assert_eq!(app.from("198.51.100.9", "203.0.113.9").await.status, 429);
    assert_eq!(app.from("10.0.0.1", "203.0.113.8").await.status, 200, "nobody spent this quota");
}

#[tokio::test]
async fn fields_are_those_that_were_asked_for() {
    let draft = Fields::none().ietf(IetfForm::Draft07).source(true);
    let app = app(&by_tenant(an_hour(2)).fields(draft).build().unwrap());
    let reply = app.get("/").await;
    assert_eq!(reply.header("ratelimit-policy"), "2;w=3600");
    assert!(reply.header("ratelimit").starts_with("limit=2, remaining=1, reset=36"), "{reply:?}");
    assert_eq!(reply.header("x-ratelimit-source"), "shared");
    assert_eq!(reply.header("x-ratelimit-limit"), "");
}

#[tokio::test]
async fn name_for_clients_is_a_string_that_fields_and_documents_take() {
    let app = app(&by_tenant(an_hour(1)).named(r#"per "hour" \o/"#).build().unwrap());
    let reply = app.get("/").await;
    assert_eq!(reply.header("ratelimit-policy"), r#""per \"hour\" \\o/";q=1;w=3600"#);
    let problem = app.get("/").await.problem(429);
    assert_eq!(problem["violated-policies"], serde_json::json!([r#"per "hour" \o/"#]));
    for name in ["", "caf\u{e9}", "a\nb", &"x".repeat(129)] {
        let built = by_tenant(an_hour(1)).named(name).build();
        assert_eq!(built.unwrap_err(), ConfigError::Name, "{name:?}");
    }
}

#[tokio::test]
async fn answer_of_ones_own_has_the_fields_too() {
    let respond = |refusal: &Refusal, policy: &str| {
        let wait = refusal.retry_after().map(|wait| wait.as_secs());
        let mut response = Response::new(Full::from(format!("{policy} {}", wait.is_some())));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response.headers_mut().insert("retry-after", "9999".parse().unwrap());
        response
    };
    let app = app(&by_tenant(an_hour(1)).respond_with(respond).build().unwrap());
    assert_eq!(app.get("/").await.status, 200);
    let refused = app.get("/").await;
    assert_eq!((refused.status, &*refused.body), (418, &b"api true"[..]));
    assert_eq!(refused.header("retry-after"), "9999", "it may ask for more");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
}

#[tokio::test]
async fn two_layers_are_told_as_two_policies() {
    let wide = by_tenant(an_hour(100)).named("wide").build().unwrap();
    let tight = by_tenant(an_hour(2)).named("tight").build().unwrap();
    for (outer, inner) in [(&wide, &tight), (&tight, &wide)] {
        let service = outer.layer(inner.layer(tower::service_fn(common::serve)));
        let Ok(response) = service.oneshot(Request::new(Full::default())).await;
        let list = |name: &str| {
            let values = response.headers().get_all(name).iter();
            let mut values: Vec<_> =
                values.map(|value| value.to_str().unwrap().to_owned()).collect();
            values.sort();
            values.join(", ")
        };
        assert_eq!(list("ratelimit-policy"), r#""tight";q=2;w=3600, "wide";q=100;w=3600"#);
        assert!(
            list("ratelimit").contains(r#""tight";r="#)
                && list("ratelimit").contains(r#""wide";r="#)
        );
        assert_eq!(list("x-ratelimit-limit"), "2", "the one that is closest to its end");
    }
}

/// Says that it was called without having been ready, and counts the places that are taken.
struct Strict {
    place: Option<Place>,
    taken: Arc<AtomicUsize>,
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { place: None, taken: Arc::clone(&self.taken) }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.place.is_none() {
            self.taken.fetch_add(1, Ordering::SeqCst);
            self.place = Some(Place(Arc::clone(&self.taken)));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let Some(place) = self.place.take() else {
            return std::future::ready(Err("called without having been ready"));
        };
        drop(place);
        if request.uri().path() == "/broken" {
            return std::future::ready(Err("broken"));
        }
        std::future::ready(Ok(Response::default()))
    }
}

// Red when `call` calls the clone instead of the service that was ready.
#[tokio::test]
async fn service_that_was_ready_is_the_one_that_is_called() {
    let taken = Arc::new(AtomicUsize::new(0));
    let layer =
        by_tenant(an_hour(2)).exempt(|request| request.uri.path() == "/live").build().unwrap();
    let mut service = layer.layer(Strict { place: None, taken: Arc::clone(&taken) });
    for (path, status) in [("/", 200), ("/live", 200), ("/", 200), ("/", 429), ("/live", 200)] {
        let request = Request::get(path).body(()).unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(taken.load(Ordering::SeqCst), 0, "a refused request gives its place back");
    }
}

/// Is ready after having been asked twice.
#[derive(Clone)]
struct Slow(u8);

impl Service<Request<()>> for Slow {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self.0 {
            0 => Poll::Ready(Ok(())),
            9 => Poll::Ready(Err("never ready")),
            _ => {
                self.0 -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn layer_is_ready_when_its_service_is() {
    let layer = by_tenant(an_hour(9)).build().unwrap();
    let mut slow = layer.layer(Slow(2));
    assert!(std::pin::pin!(slow.ready()).as_mut().poll(&mut noop()).is_pending());
    assert!(slow.ready().await.is_ok());
    assert_eq!(layer.layer(Slow(9)).ready().await.err(), Some("never ready"));
}

fn noop() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

#[tokio::test]
async fn error_of_the_service_is_passed_on() {
    let layer = by_tenant(an_hour(9)).build().unwrap();
    let service = layer.layer(Strict { place: None, taken: Arc::default() });
    let request = Request::get("/broken").body(()).unwrap();
    assert_eq!(service.oneshot(request).await.unwrap_err(), "broken");
}

/// A body that is neither `Send` nor made of bytes, and that nobody may look into.
#[derive(Debug, PartialEq)]
struct Own(std::rc::Rc<u8>);

#[tokio::test]
async fn body_of_any_type_arrives_as_it_was_sent_and_so_does_the_head() {
    let layer =
        by_tenant(an_hour(1)).respond_with(|_: &Refusal, _: &str| Response::new(Own(0.into())));
    let layer = layer.build().unwrap();
    let echo = tower::service_fn(async |request: Request<Own>| {
        let (head, body) = request.into_parts();
        assert_eq!((head.method, head.version), (Method::PATCH, http::Version::HTTP_2));
        assert_eq!(head.uri, "/a?b=c");
        assert_eq!(head.headers["x-own"], "1");
        assert_eq!(head.extensions.get::<u8>(), Some(&7));
        assert!(head.extensions.get::<Admitted>().is_some());
        Ok::<_, &'static str>(Response::new(body))
    });
    let mut service = layer.layer(echo);
    let request = |body: u8| {
        let request = Request::patch("/a?b=c").version(http::Version::HTTP_2).header("x-own", "1");
        request.extension(7u8).body(Own(body.into())).unwrap()
    };
    let response = service.ready().await.unwrap().call(request(5)).await.unwrap();
    assert_eq!(response.body(), &Own(5.into()));
    let refused = service.ready().await.unwrap().call(request(5)).await.unwrap();
    assert_eq!(refused.body(), &Own(0.into()));
}

#[tokio::test]
async fn clones_and_all_services_of_a_layer_spend_from_one_limit() {
    let layer = by_tenant(an_hour(4)).build().unwrap();
    let (first, second) = (app(&layer), app(&layer.clone()));
    for app in [&first, &second, &first.clone(), &second.clone()] {
        assert_eq!(app.get("/").await.status, 200);
    }
    assert_eq!(first.get("/").await.status, 429);
    assert_eq!(second.get("/").await.status, 429);
}

#[tokio::test]
async fn keys_of_several_parts_have_a_quota_for_each_pair() {
    let by_both = TenantHeader::new()
        .or_tenant("anonymous")
        .and(ClientAddress::new(TrustedProxies::nobody()));
    let app = app(&by(by_both, an_hour(1)).build().unwrap());
    let ask = async |tenant: &str, peer: [u8; 4]| {
        let peer = fleetwide_http::rate_limit::PeerAddr(peer.into());
        app.send(Request::get("/").header("x-tenant-id", tenant).extension(peer)).await.status
    };
    assert_eq!(ask("a", [192, 0, 2, 1]).await, 200);
    assert_eq!(ask("a", [192, 0, 2, 2]).await, 200);
    assert_eq!(ask("b", [192, 0, 2, 1]).await, 200);
    assert_eq!(ask("a", [192, 0, 2, 1]).await, 429);
}
