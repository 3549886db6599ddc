//! A choice between two backends at run time, without a box.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::{
    BackendError, Bus, Channel, Epoch, Epochs, ErasedOp, Executor, Key, Replicas, Script, Signal,
    Store, Ttl,
};

/// One of two backends. It is itself an [`Executor`], [`Store`] or [`Bus`] if both are.
#[derive(Clone, Debug)]
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

impl<A: Executor, B: Executor> Executor for Either<A, B> {
    async fn execute(&self, op: &mut dyn ErasedOp) -> Result<(), BackendError> {
        match self {
            Self::Left(left) => left.execute(op).await,
            Self::Right(right) => right.execute(op).await,
        }
    }

    async fn execute_many(&self, ops: &mut [&mut dyn ErasedOp]) -> Vec<Result<(), BackendError>> {
        match self {
            Self::Left(left) => left.execute_many(ops).await,
            Self::Right(right) => right.execute_many(ops).await,
        }
    }

    async fn execute_replicated(
        &self,
        op: &mut dyn ErasedOp,
        replicas: Replicas,
    ) -> Result<usize, BackendError> {
        match self {
            Self::Left(left) => left.execute_replicated(op, replicas).await,
            Self::Right(right) => right.execute_replicated(op, replicas).await,
        }
    }

    fn prepare(&self, scripts: &[&'static Script]) {
        match self {
            Self::Left(left) => left.prepare(scripts),
            Self::Right(right) => right.prepare(scripts),
        }
    }

    fn epoch(&self) -> Epoch {
        match self {
            Self::Left(left) => left.epoch(),
            Self::Right(right) => right.epoch(),
        }
    }

    fn epochs(&self) -> Epochs {
        match self {
            Self::Left(left) => left.epochs(),
            Self::Right(right) => right.epochs(),
        }
    }
}

impl<A: Store, B: Store> Store for Either<A, B> {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        match self {
            Self::Left(left) => left.get(key).await,
            Self::Right(right) => right.get(key).await,
        }
    }

    async fn set(&self, key: &Key, value: Bytes, ttl: Ttl) -> Result<(), BackendError> {
        match self {
            Self::Left(left) => left.set(key, value, ttl).await,
            Self::Right(right) => right.set(key, value, ttl).await,
        }
    }

    async fn remove(&self, key: &Key) -> Result<bool, BackendError> {
        match self {
            Self::Left(left) => left.remove(key).await,
            Self::Right(right) => right.remove(key).await,
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BackendError> {
        match self {
            Self::Left(left) => left.get_many(keys).await,
            Self::Right(right) => right.get_many(keys).await,
        }
    }
}

impl<A: Bus, B: Bus> Bus for Either<A, B> {
    type Subscription = EitherStream<A::Subscription, B::Subscription>;

    async fn publish(&self, channel: &Channel, payload: Bytes) -> Result<(), BackendError> {
        match self {
            Self::Left(left) => left.publish(channel, payload).await,
            Self::Right(right) => right.publish(channel, payload).await,
        }
    }

    fn subscribe(&self, channel: &Channel) -> Self::Subscription {
        match self {
            Self::Left(left) => EitherStream::Left(left.subscribe(channel)),
            Self::Right(right) => EitherStream::Right(right.subscribe(channel)),
        }
    }
}

/// The subscription of an [`Either`].
#[derive(Debug)]
pub enum EitherStream<A, B> {
    /// The first backend's.
    Left(A),
    /// The second backend's.
    Right(B),
}

impl<A, B> Stream for EitherStream<A, B>
where
    A: Stream<Item = Signal> + Unpin,
    B: Stream<Item = Signal> + Unpin,
{
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        match self.get_mut() {
            Self::Left(left) => Pin::new(left).poll_next(cx),
            Self::Right(right) => Pin::new(right).poll_next(cx),
        }
    }
}
