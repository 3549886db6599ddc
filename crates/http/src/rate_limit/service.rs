//! The service: one limit before one inner service.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use fleetwide_core_traits::Executor;
use fleetwide_limiter::Decision;
use http::{Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use super::layer::{Shared, Way};
use super::refusal::Respond;

/// A service behind a limit; made by [`RateLimitLayer`](super::RateLimitLayer).
///
/// It is ready when the inner service is: a refusal needs no place in it, but only a request shows
/// whether it is one. The place that was found is the one that the admitted request takes, and a
/// refused request gives it back.
pub struct RateLimit<S, E, R> {
    inner: S,
    shared: Arc<Shared<E, R>>,
}

/// In the extensions of an admitted request: what the limiter said. Where several layers admitted it,
/// the innermost one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted(pub Decision);

impl<S, E, R> RateLimit<S, E, R> {
    pub(super) fn new(inner: S, shared: Arc<Shared<E, R>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, E, R, A, B> Service<Request<A>> for RateLimit<S, E, R>
where
    S: Service<Request<A>, Response = Response<B>> + Clone,
    E: Executor,
    R: Respond<B>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S, E, R, A>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The clone is not ready; this one is.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let (head, body) = request.into_parts();
        let way = self.shared.way(&head);
        let request = Request::from_parts(head, body);
        let shared = Arc::clone(&self.shared);
        match way {
            Way::Exempt => ResponseFuture::exempt(shared, ready.call(request)),
            Way::Ask(deciding) => ResponseFuture::deciding(shared, deciding, ready, request),
            Way::Refuse(refusal) => ResponseFuture::refused(shared, refusal),
        }
    }
}

impl<S: Clone, E, R> Clone for RateLimit<S, E, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, E, R> fmt::Debug for RateLimit<S, E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("limiter", &self.shared.limiter)
            .finish_non_exhaustive()
    }
}
