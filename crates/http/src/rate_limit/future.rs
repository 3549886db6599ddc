//! A request on its way through the layer.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use fleetwide_core_traits::Executor;
use fleetwide_limiter::Decision;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::fields::Writer;
use super::layer::{Deciding, Shared};
use super::refusal::{Refusal, Respond};
use super::service::Admitted;

pin_project! {
    /// The answer of a service behind a limit, or the refusal.
    ///
    /// # Cancel safety
    /// Dropped before the decision, the request may have spent its cost; dropped after it, it has.
    ///
    /// # Panics
    /// If polled outside a Tokio runtime with a time driver, or again after it was ready.
    pub struct ResponseFuture<S, E, R, A>
    where
        S: Service<Request<A>>,
    {
        shared: Arc<Shared<E, R>>,
        #[pin]
        state: State<S::Future, S, A>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, S, A> {
        /// The limiter is asked, and the request waits with the service that is ready for it.
        Deciding { deciding: Deciding, waiting: Option<(S, Request<A>)> },
        /// The service answers.
        Serving { #[pin] serving: F, decision: Option<Decision> },
        /// The service is not asked.
        Refused { refusal: Option<Refusal> },
    }
}

impl<S: Service<Request<A>>, E, R, A> ResponseFuture<S, E, R, A> {
    pub(super) fn exempt(shared: Arc<Shared<E, R>>, serving: S::Future) -> Self {
        Self { shared, state: State::Serving { serving, decision: None } }
    }

    pub(super) fn deciding(
        shared: Arc<Shared<E, R>>,
        deciding: Deciding,
        ready: S,
        request: Request<A>,
    ) -> Self {
        Self { shared, state: State::Deciding { deciding, waiting: Some((ready, request)) } }
    }

    pub(super) fn refused(shared: Arc<Shared<E, R>>, refusal: Refusal) -> Self {
        Self { shared, state: State::Refused { refusal: Some(refusal) } }
    }
}

impl<S, E, R, A, B> Future for ResponseFuture<S, E, R, A>
where
    S: Service<Request<A>, Response = Response<B>>,
    E: Executor,
    R: Respond<B>,
{
    type Output = Result<Response<B>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Deciding { deciding, waiting } => {
                    let decided = ready!(deciding.as_mut().poll(context));
                    let (mut service, mut request) = waiting.take().expect(FINISHED);
                    match decided {
                        Ok(decision) => {
                            request.extensions_mut().insert(Admitted(decision));
                            let serving = service.call(request);
                            State::Serving { serving, decision: Some(decision) }
                        }
                        Err(refusal) => State::Refused { refusal: Some(refusal) },
                    }
                }
                StateProj::Serving { serving, decision } => {
                    let mut result = ready!(serving.poll(context));
                    if let Some(decision) = decision {
                        this.shared.served(result.as_mut().ok(), decision);
                    }
                    return Poll::Ready(result);
                }
                StateProj::Refused { refusal } => {
                    let refusal = refusal.take().expect(FINISHED);
                    return Poll::Ready(Ok(this.shared.refused(&refusal)));
                }
            };
            this.state.set(next);
        }
    }
}

/// Futures are not polled after they were ready; it is said on the type.
const FINISHED: &str = "a future is not polled after it was ready";

impl<E: Executor, R> Shared<E, R> {
    /// What is told now: the quota can have been changed since the layer was built.
    fn writer(&self) -> Cow<'_, Writer> {
        self.writer.as_of(self.limiter.quota())
    }

    fn served<B>(&self, response: Option<&mut Response<B>>, decision: &Decision) {
        self.telemetry.served();
        if let Some(response) = response {
            self.tell(response, decision);
        }
    }

    fn refused<B>(&self, refusal: &Refusal) -> Response<B>
    where
        R: Respond<B>,
    {
        self.telemetry.refused(refusal);
        let mut response = self.respond.respond(refusal, &self.name);
        match refusal.decision() {
            Some(decision) => self.tell(&mut response, decision),
            None => self.writer().write_policy(response.headers_mut()),
        }
        response
    }

    fn tell<B>(&self, response: &mut Response<B>, decision: &Decision) {
        // Two parts of one response cannot be borrowed through it at a time.
        let mut extensions = std::mem::take(response.extensions_mut());
        self.writer().write(response.headers_mut(), &mut extensions, decision);
        *response.extensions_mut() = extensions;
    }
}
