//! Which history of the data an answer is from.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

/// Numbers the histories of the data behind one executor, in the order in which it met them.
///
/// Within one history nothing that was acknowledged is lost. A server that restarts, a replica that
/// is promoted, and another server behind the same address each begin another one, which may lack
/// what was acknowledged before. Two numbers say nothing about each other on two executors.
///
/// A number is used for one history at most. One history may get several: then what was learned in
/// it is taken for older than it is, which must do no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The history with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A reply, and the history that it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<R> {
    /// The reply of the step.
    pub reply: R,
    /// The history of the server that carried the step out: never a later one than that.
    pub epoch: Epoch,
}

/// The histories that an executor meets from now on, each as it is met; from
/// [`Executor::epochs`](crate::Executor::epochs). It ends when there will be no more.
///
/// Of several that come at once, the last one may be all that is seen.
pub struct Epochs(Option<Pin<Box<dyn Stream<Item = Epoch> + Send>>>);

impl Epochs {
    /// No other history ever comes.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether none ever comes.
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Those that `stream` says.
    pub fn new(stream: impl Stream<Item = Epoch> + Send + 'static) -> Self {
        Self(Some(Box::pin(stream)))
    }
}

impl Stream for Epochs {
    type Item = Epoch;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Epoch>> {
        match &mut self.0 {
            Some(stream) => stream.as_mut().poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

impl std::fmt::Debug for Epochs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epochs").field("is_over", &self.0.is_none()).finish_non_exhaustive()
    }
}
