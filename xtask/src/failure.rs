//! Why a command stopped: one line for a person, nothing to match on.

use std::fmt;

/// The result of a step; a [`Failure`] ends the command with exit code 1.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// One line that says what went wrong and, where it helps, what to do.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For `map_err`: `cannot WHAT: cause`.
    pub(crate) fn cannot<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |cause| Self(format!("cannot {what}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
