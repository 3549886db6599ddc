//! `tower-rate-limit-redis`: GCRA in Redis, as a tower layer. What it limits does nothing here.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use redis_of_tower_rate_limit::Client;
use tower::util::ServiceFn;
use tower::{Layer as _, Service as _, service_fn};
use tower_rate_limit_redis::{KeyResolver, RateLimitLayer};

const KEY: &str = "x-key";

type Nothing = fn(Request<()>) -> Ready<Result<Response<()>, Infallible>>;
type Layer = RateLimitLayer<ByHeader>;

/// A limit of so much in a burst, one of which comes back each interval.
#[derive(Clone)]
pub struct Limited {
    layer: Layer,
}

#[derive(Clone)]
struct ByHeader;

impl KeyResolver for ByHeader {
    type Key = Vec<u8>;
    type ErrorBody = ();

    fn key<T>(&self, request: &Request<T>) -> Result<Vec<u8>, Response<()>> {
        Ok(request.headers().get(KEY).map(|key| key.as_bytes().to_vec()).unwrap_or_default())
    }
}

impl Limited {
    /// Connects.
    ///
    /// # Panics
    /// If that fails.
    pub async fn connect(url: &str, burst: u16, interval: Duration) -> Self {
        let client = Client::open(url).expect("a plain address");
        let connection = client.get_multiplexed_async_connection().await.expect("the server runs");
        let layer = RateLimitLayer::builder()
            .conn(connection)
            .key_resolver(ByHeader)
            .capacity(burst)
            .emission_interval(interval)
            .build();
        Self { layer }
    }

    /// Whether one more is allowed.
    ///
    /// # Panics
    /// If the server gives no answer.
    pub async fn allows(&self, key: &str) -> bool {
        let nothing: Nothing = |_| ready(Ok(Response::new(())));
        let service: ServiceFn<Nothing> = service_fn(nothing);
        let request = Request::builder().header(KEY, key).body(()).expect("a plain name");
        let Ok(response) = self.layer.layer(service).call(request).await;
        match response.status() {
            StatusCode::OK => true,
            StatusCode::TOO_MANY_REQUESTS => false,
            other => panic!("the server gives no answer: {other}"),
        }
    }
}
