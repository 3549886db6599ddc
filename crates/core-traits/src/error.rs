//! Outages, rejections and replies that make no sense: what can go wrong behind a trait.

use std::time::Duration;

/// Why a backend gave no answer.
///
/// A refusal of a capability (a rate limit reached, a lock held) is never here: that is data. The
/// first question after an error is whether the step may have been carried out all the same:
/// [`may_have_happened`](Self::may_have_happened) answers it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The request never left this process, so nothing has changed.
    #[error("not sent: {0}")]
    NotSent(Outage),
    /// The request may have been carried out, now or later.
    #[error("outcome unknown: {0}")]
    Unknown(Outage),
    /// The server answered with an error, and did not do what was asked.
    #[error("the server refused: {0}")]
    Rejected(Rejection),
    /// The server answered, and the answer makes no sense. The step may have been carried out.
    #[error("the reply makes no sense: {0}")]
    Malformed(#[from] Malformed),
    /// A table of this process is at its limit. Nothing has changed.
    #[error("the table is full: {limit} entries")]
    Full {
        /// The limit that was reached.
        limit: usize,
    },
}

impl BackendError {
    /// Whether the step may have been carried out although there is no answer.
    pub const fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Malformed(_))
    }

    /// Whether the same request can succeed later without anybody changing a setting.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Unknown(_) | Self::Full { .. } => true,
            Self::Rejected(rejection) => rejection.kind.is_passing(),
            Self::Malformed(_) => false,
        }
    }
}

/// What stood between this process and an answer.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No answer came within this time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The connection broke; the text is the client library's.
    #[error("the connection broke: {0}")]
    Disconnected(String),
    /// There is no connection at the moment; the text says why.
    #[error("no connection: {0}")]
    Down(String),
    /// So many requests wait that one more would only make it worse.
    #[error("{0} requests wait already")]
    Saturated(usize),
}

/// An error reply of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
#[non_exhaustive]
pub struct Rejection {
    /// Which of the known reasons.
    pub kind: RejectionKind,
    /// The server's text, cut to a bounded length. It holds no argument of the request.
    pub message: String,
}

impl Rejection {
    /// Bytes of the server's text that are kept.
    const MESSAGE_BYTES_MAX: usize = 256;

    /// Sorts an error reply by its code, the first word, such as `OOM`.
    pub fn new(code: &str, message: &str) -> Self {
        let mut end = message.len().min(Self::MESSAGE_BYTES_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Self { kind: RejectionKind::sort(code, message), message: message[..end].to_owned() }
    }
}

/// The reasons of a server that callers act on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// `OOM`: the server's memory limit is reached.
    OutOfMemory,
    /// `READONLY`: this server is a replica now.
    ReadOnly,
    /// `LOADING`: the server reads its data set.
    Loading,
    /// `MASTERDOWN`, `NOREPLICAS`: it has lost its primary, or its replicas.
    Isolated,
    /// `BUSY`: a script runs too long.
    Busy,
    /// `NOPERM`: the user lacks a right. `docs/redis-acl.md` lists what is needed.
    NoPermission,
    /// `NOAUTH`, `WRONGPASS`: the credentials are wrong or missing.
    Unauthorized,
    /// `WRONGTYPE`: somebody else uses the key.
    WrongType,
    /// `MISCONF`: the server cannot persist and refuses writes.
    Misconfigured,
    /// Anything else.
    Other,
}

impl RejectionKind {
    fn sort(code: &str, message: &str) -> Self {
        // A script that its user may not run in full fails with the code of any other error.
        if message.contains("user executing the script can't run") {
            return Self::NoPermission;
        }
        match code {
            "OOM" => Self::OutOfMemory,
            "READONLY" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "MASTERDOWN" | "NOREPLICAS" => Self::Isolated,
            "BUSY" => Self::Busy,
            "NOPERM" => Self::NoPermission,
            "NOAUTH" | "WRONGPASS" => Self::Unauthorized,
            "WRONGTYPE" => Self::WrongType,
            "MISCONF" => Self::Misconfigured,
            _ => Self::Other,
        }
    }

    const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory
                | Self::ReadOnly
                | Self::Loading
                | Self::Isolated
                | Self::Busy
                | Self::Misconfigured
        )
    }
}

impl std::fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::ReadOnly => "read only",
            Self::Loading => "loading its data",
            Self::Isolated => "cut off from its peers",
            Self::Busy => "busy with a script",
            Self::NoPermission => "no permission",
            Self::Unauthorized => "wrong or missing credentials",
            Self::WrongType => "a key of another type",
            Self::Misconfigured => "cannot persist",
            Self::Other => "error",
        })
    }
}

/// A reply of a form that the op does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, the server sent {found}")]
pub struct Malformed {
    expected: &'static str,
    found: &'static str,
}

impl Malformed {
    /// Both are phrases such as 'an integer'.
    pub const fn new(expected: &'static str, found: &'static str) -> Self {
        Self { expected, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_reached_the_server_may_have_happened() {
        let outage = || Outage::Deadline(Duration::from_millis(20));
        assert!(!BackendError::NotSent(outage()).may_have_happened());
        assert!(BackendError::Unknown(outage()).may_have_happened());
        assert!(!BackendError::Rejected(Rejection::new("OOM", "no")).may_have_happened());
        assert!(BackendError::Malformed(Malformed::new("a", "b")).may_have_happened());
    }

    #[test]
    fn a_missing_right_is_not_worth_a_retry_and_a_full_server_is() {
        assert!(BackendError::Rejected(Rejection::new("OOM", "")).is_retryable());
        assert!(!BackendError::Rejected(Rejection::new("NOPERM", "")).is_retryable());
    }

    #[test]
    fn a_right_that_only_a_script_lacks_is_a_missing_right_too() {
        let text = "The user executing the script can't run this command or subcommand";
        assert_eq!(Rejection::new("ERR", text).kind, RejectionKind::NoPermission);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let rejection = Rejection::new("ERR", &"ü".repeat(400));
        assert_eq!(rejection.message, "ü".repeat(128));
    }
}
