//! Connections: how many, how long a request may take to arrive, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::problem::too_many_connections;

/// Connections beyond those that are told so at a time; further ones are only closed.
const REFUSALS_MAX: usize = 64;
/// How long a refused connection may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a request's head may take, counted from the end of the last one: it also ends
/// connections that nobody uses.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that a request's head may have.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long requests that are running may take to finish, once the node stops. Less than the
/// 30 s after which Kubernetes kills.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to leave the listener alone that could not accept: mostly files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `stopping`, then lets them finish, within bounds.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections_max: usize,
    stopping: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let drain = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&connections).try_acquire_owned() {
                Ok(permit) => {
                    tokio::spawn(talk(stream, peer, router.clone(), drain.watcher(), permit));
                }
                Err(_) => refuse(stream, &refusals),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, drain.shutdown()).await.is_err() {
        tracing::warn!("requests still ran {DRAIN_TIMEOUT:?} after the stop and were cut off");
    }
}

async fn talk(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    drain: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    let open = metrics::gauge!("fleetwide_node_connections");
    open.increment(1);
    // Answers are small; waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer(router.clone(), peer, request)),
        );
    if let Err(error) = drain.watch(connection).await {
        // Clients leave in the middle all the time.
        tracing::debug!(%error, "a connection broke off");
    }
    open.decrement(1);
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}

/// Says why before closing, for as many as can be told at a time.
fn refuse(mut stream: TcpStream, refusals: &Arc<Semaphore>) {
    metrics::counter!("fleetwide_node_connections_refused_total").increment(1);
    let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
    tokio::spawn(timeout(REFUSAL_TIMEOUT, async move {
        let _permit = permit;
        stream.write_all(&too_many_connections()).await?;
        stream.shutdown().await?;
        // Closing while a request lies unread would reset the connection, answer and all.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, std::io::Error>(())
    }));
}
