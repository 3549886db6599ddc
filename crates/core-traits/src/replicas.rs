//! Waiting until copies of the state have a step.

use std::time::Duration;

/// How many replicas are to have a step, and how long they are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// How many.
    pub count: u32,
    /// How long at most, after the step itself was carried out.
    pub within: Duration,
}

/// What a step answers, and how many replicas are known to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicated<R> {
    /// The reply of the step, which was carried out however many replicas have it.
    pub reply: R,
    /// Replicas that have acknowledged everything up to the step. More may have it.
    pub acknowledged: usize,
}
