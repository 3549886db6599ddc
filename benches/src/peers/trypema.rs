//! `trypema`: sliding windows in Redis, or in the process and told to Redis now and then.

use std::sync::Arc;

use redis::Client;
use trypema::redis::RedisKey;
use trypema::{RateLimit, RateLimitDecision, RateLimiter};

/// A limit of so much in a minute.
#[derive(Clone)]
pub struct Limited {
    limiter: Arc<RateLimiter>,
    rate: RateLimit,
    is_hybrid: bool,
}

impl Limited {
    /// Connects. Each call is decided by Redis, or, as a hybrid, here and synchronized by its default
    /// interval.
    ///
    /// # Panics
    /// If that fails.
    pub async fn connect(url: &str, max: f64, is_hybrid: bool) -> Self {
        let client = Client::open(url).expect("a plain address");
        let manager = client.get_connection_manager().await.expect("the server runs");
        let options = RateLimiter::builder(manager).window_size_seconds(60);
        let limiter = options.build().expect("the options fit together");
        let rate = RateLimit::new(max / 60.0).expect("more than none");
        Self { limiter, rate, is_hybrid }
    }

    /// Whether one more is allowed; `None` if the server refuses its script.
    ///
    /// # Panics
    /// If `key` is no key.
    pub async fn allows(&self, key: &str) -> Option<bool> {
        let key = RedisKey::try_from(key.to_owned()).expect("a plain name");
        let decision = if self.is_hybrid {
            self.limiter.hybrid().absolute().inc(&key, &self.rate, 1).await
        } else {
            self.limiter.redis().absolute().inc(&key, &self.rate, 1).await
        };
        Some(matches!(decision.ok()?, RateLimitDecision::Allowed))
    }
}
