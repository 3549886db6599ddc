//! What a server says before it was asked anything.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use fleetwide_core_traits::Rejection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A server that has too many clients, or that is in protected mode, says so unasked and closes.
/// The client library drops what belongs to no request, so the reason has to be heard here.
#[derive(Clone, Default)]
pub(crate) struct FirstWords(Arc<OnceLock<Option<Rejection>>>);

impl FirstWords {
    /// The error with which the server began, if it began with one.
    pub(crate) fn refusal(&self) -> Option<&Rejection> {
        self.0.get()?.as_ref()
    }

    fn hear(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.0.get().is_some() {
            return;
        }
        let line =
            bytes.strip_prefix(b"-").and_then(|rest| rest.split(|byte| *byte == b'\r').next());
        let refusal = line.and_then(|line| std::str::from_utf8(line).ok()).map(|line| {
            let (code, text) = line.split_once(' ').unwrap_or((line, ""));
            Rejection::new(code, text)
        });
        // Heard by one connection only, so nobody was faster.
        let _ = self.0.set(refusal);
    }
}

/// A stream whose first words are kept.
pub(crate) struct Overheard<S> {
    stream: S,
    words: FirstWords,
    heard: bool,
}

impl<S> Overheard<S> {
    pub(crate) fn new(stream: S, words: FirstWords) -> Self {
        Self { stream, words, heard: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.heard && read.is_ready() {
            self.heard = true;
            self.words.hear(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
