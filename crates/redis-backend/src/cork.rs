//! Fewer, larger writes on a connection that many tasks share.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes are worth a packet of their own.
const ENOUGH: usize = 1024;

/// Lets the other ready tasks run once before bytes go to the socket.
///
/// A shared connection writes as soon as it has nothing more to encode, and that is after a single
/// request when the tasks that will send the next ones have just been woken by the same reply
/// packet. With `TCP_NODELAY` each of these writes is a system call and a packet. One turn of the
/// scheduler, about a microsecond, collects what all ready tasks have to say into one write. A call
/// that is alone waits for nobody.
pub(crate) struct Cork<S> {
    stream: S,
    /// How many calls are under way, on this connection and its like.
    in_flight: Arc<AtomicUsize>,
    /// Whether the others had their turn.
    waited: bool,
}

impl<S> Cork<S> {
    pub(crate) fn new(stream: S, in_flight: Arc<AtomicUsize>) -> Self {
        Self { stream, in_flight, waited: false }
    }

    fn poll_turn(&mut self, context: &Context<'_>, bytes: usize) -> Poll<()> {
        if self.waited || bytes >= ENOUGH || self.in_flight.load(Ordering::Relaxed) < 2 {
            return Poll::Ready(());
        }
        self.waited = true;
        // A task that wakes itself goes to the end of the line.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context, bytes.len()));
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context, slices.iter().map(|slice| slice.len()).sum()));
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waited = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
