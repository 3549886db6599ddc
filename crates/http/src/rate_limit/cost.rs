//! What a request costs.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;

/// A cost that is not known yet.
pub(super) type Pending = Pin<Box<dyn Future<Output = Result<u64, CostError>> + Send>>;

/// Finds something in the head of a request.
type Find<T> = dyn Fn(&Parts) -> T + Send + Sync;

/// What a request costs: always the same, known at once, or known after a while.
#[derive(Clone)]
pub(super) enum Cost {
    Fixed(u64),
    Known(Arc<Find<Result<u64, CostError>>>),
    Pending(Arc<Find<Pending>>),
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(cost) => f.debug_tuple("Fixed").field(cost).finish(),
            Self::Known(_) => f.write_str("Known"),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// What a function of the cost answers: a number, or a number or a [`CostError`].
pub trait IntoCost {
    /// The cost, or why the request has none.
    ///
    /// # Errors
    /// [`CostError`] if the request is wrong.
    fn into_cost(self) -> Result<u64, CostError>;
}

impl IntoCost for u64 {
    fn into_cost(self) -> Result<u64, CostError> {
        Ok(self)
    }
}

impl IntoCost for Result<u64, CostError> {
    fn into_cost(self) -> Result<u64, CostError> {
        self
    }
}

/// Why a request has no cost. It is answered with 400, and its text is shown to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CostError(String);

impl CostError {
    /// With this text, which says what is wrong with the request.
    pub fn new(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}
