//! What can be wrong between this process and a server, in words for an operator.

use std::fmt;
use std::io;
use std::time::Duration;

use fleetwide_core_traits::{Rejection, RejectionKind};
use redis::{ErrorKind, RedisError};

/// Why a connection does not exist or does not serve. Its text is what logs and health say;
/// `docs/troubleshooting.md` lists all of them. No text holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No attempt has ended yet.
    NotTried,
    /// The name has no address.
    Unresolved(String),
    /// Nobody listens there.
    Refused(String),
    /// The network says no.
    Unreachable(String),
    /// No connection came about in time.
    ConnectTimeout(String, Duration),
    /// A connection that stood does not answer.
    Hung(Duration),
    /// The other side closed a connection that stood.
    Closed,
    /// What came was no Redis reply.
    Garbage,
    /// The server rejects the user or the password.
    WrongCredentials,
    /// The server wants a user or a password, and there is none.
    NoCredentials,
    /// The user lacks a right; the text is the server's.
    NoPermission(String),
    /// The server has no such database.
    NoDatabase(u32),
    /// The server reads its data set.
    Loading,
    /// The server is a replica that lost its primary.
    PrimaryLost,
    /// The server speaks only to its own machine.
    ProtectedMode,
    /// The server takes no more connections.
    TooManyClients,
    /// A script runs for so long that the server answers nothing else.
    Busy,
    /// The server is a replica: it answers reads only.
    ReadOnly,
    /// The server's memory limit is reached: it answers reads only.
    OutOfMemory,
    /// The server cannot write to its disk: it answers reads only.
    CannotPersist,
    /// The server has too few replicas: it answers reads only.
    NoReplicas,
    /// Messages from other instances do not arrive.
    NoSubscription(Box<Trouble>),
    /// Some connections stand, others do not.
    Partly(usize, usize, Box<Trouble>),
    /// The handle was shut down.
    ShutDown,
    /// Another error reply; the text is the server's.
    Other(String),
}

impl Trouble {
    /// Sorts an error reply to a command that opens or probes a connection.
    pub(crate) fn from_rejection(rejection: &Rejection) -> Self {
        let text = rejection.message.as_str();
        match rejection.kind {
            RejectionKind::Unauthorized if text.contains("Authentication required") => {
                Self::NoCredentials
            }
            RejectionKind::Unauthorized => Self::WrongCredentials,
            RejectionKind::Loading => Self::Loading,
            RejectionKind::ReadOnly => Self::ReadOnly,
            RejectionKind::OutOfMemory => Self::OutOfMemory,
            RejectionKind::Misconfigured => Self::CannotPersist,
            RejectionKind::Busy => Self::Busy,
            RejectionKind::NoPermission => Self::NoPermission(text.to_owned()),
            RejectionKind::Isolated if text.contains("enough good replicas") => Self::NoReplicas,
            RejectionKind::Isolated => Self::PrimaryLost,
            _ if text.contains("protected mode") => Self::ProtectedMode,
            _ if text.contains("max number of clients") => Self::TooManyClients,
            // `AUTH` with a password that the server was never given.
            _ if text.contains("without any password configured") => Self::WrongCredentials,
            _ => Self::Other(text.to_owned()),
        }
    }

    /// Sorts what the operating system says about a connection to `place`.
    pub(crate) fn from_io(error: &io::Error, place: &str) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                Self::Refused(place.to_owned())
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Unreachable(format!("{place}: {error}")),
        }
    }

    /// Sorts what the client library says about a connection.
    pub(crate) fn from_library(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Parse => Self::Garbage,
            ErrorKind::AuthenticationFailed => Self::WrongCredentials,
            ErrorKind::Io => Self::Closed,
            _ => match error.code() {
                Some(code) => {
                    let text = error.detail().unwrap_or_default();
                    Self::from_rejection(&Rejection::new(code, text))
                }
                None => Self::Other(error.to_string()),
            },
        }
    }

    /// The same for all troubles with the same cause, whatever their numbers and texts.
    pub(crate) fn class(&self) -> std::mem::Discriminant<Self> {
        std::mem::discriminant(self)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried => f.write_str("no connection yet"),
            Self::Unresolved(name) => write!(f, "no address is known for {name}"),
            Self::Refused(place) => write!(f, "connection refused by {place}"),
            Self::Unreachable(what) => write!(f, "cannot connect to {what}"),
            Self::ConnectTimeout(place, after) => {
                write!(f, "timed out: no connection to {place} within {after:?}")
            }
            Self::Hung(after) => write!(f, "timed out: no answer to PING within {after:?}"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Garbage => f.write_str("what answers there does not speak Redis"),
            Self::WrongCredentials => f.write_str("wrong user or password"),
            Self::NoCredentials => f.write_str("the server wants a password, and none is given"),
            Self::NoPermission(text) => write!(f, "the user lacks a right: {text}"),
            Self::NoDatabase(db) => write!(f, "the server has no database {db}"),
            Self::Loading => f.write_str("the server is loading its data"),
            Self::PrimaryLost => f.write_str("the server is a replica that lost its primary"),
            Self::ProtectedMode => f.write_str("the server is in protected mode"),
            Self::TooManyClients => f.write_str("the server has too many clients"),
            Self::Busy => f.write_str("the server is busy with a script"),
            Self::ReadOnly => f.write_str("the server is a read-only replica"),
            Self::OutOfMemory => f.write_str("the server is out of memory and refuses writes"),
            Self::CannotPersist => f.write_str("the server cannot persist and refuses writes"),
            Self::NoReplicas => f.write_str("the server has too few replicas and refuses writes"),
            Self::NoSubscription(why) => write!(f, "no subscription to messages: {why}"),
            Self::Partly(up, all, why) => write!(f, "{up} of {all} connections stand: {why}"),
            Self::ShutDown => f.write_str("the handle was shut down"),
            Self::Other(text) => write!(f, "the server refuses: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

    #[test]
    fn page_on_troubleshooting_has_the_words_of_each_trouble() {
        let half = Duration::from_millis(500);
        let place = || "cache:6379".to_owned();
        let right = "this user has no permissions to run the 'set' command".to_owned();
        let troubles = [
            Trouble::NotTried,
            Trouble::Unresolved("cache".to_owned()),
            Trouble::Refused(place()),
            Trouble::Unreachable("cache:6379: ".to_owned()),
            Trouble::ConnectTimeout(place(), Duration::from_secs(1)),
            Trouble::Hung(half),
            Trouble::Closed,
            Trouble::Garbage,
            Trouble::WrongCredentials,
            Trouble::NoCredentials,
            Trouble::NoPermission(right),
            Trouble::NoDatabase(99),
            Trouble::Loading,
            Trouble::PrimaryLost,
            Trouble::ProtectedMode,
            Trouble::TooManyClients,
            Trouble::Busy,
            Trouble::ReadOnly,
            Trouble::OutOfMemory,
            Trouble::CannotPersist,
            Trouble::NoReplicas,
            Trouble::NoSubscription(Box::new(Trouble::Other(String::new()))),
            Trouble::Partly(1, 2, Box::new(Trouble::Closed)),
            Trouble::ShutDown,
            Trouble::Other(String::new()),
        ];
        for trouble in troubles {
            let text = trouble.to_string();
            // What stands behind the last ': ' differs from case to case.
            let fixed = match &trouble {
                Trouble::NoSubscription(_) | Trouble::Partly(..) | Trouble::Other(_) => {
                    text.split(':').next().unwrap_or(&text)
                }
                _ => text.trim_end(),
            };
            assert!(PAGE.contains(fixed), "the page does not explain {fixed:?}");
        }
    }

    #[test]
    fn page_on_troubleshooting_has_the_words_of_errors_and_of_the_log() {
        use crate::{BuildError, Feature, UrlError};

        for error in [
            UrlError::Scheme,
            UrlError::Credentials,
            UrlError::Host,
            UrlError::Port,
            UrlError::SeveralHosts,
            UrlError::Database,
            UrlError::Master,
        ] {
            let text: String = error.to_string().chars().take(32).collect();
            assert!(PAGE.contains(&text), "the page does not explain {text:?}");
        }
        let tls = BuildError::NotSupportedYet(Feature::Tls).to_string();
        assert!(PAGE.contains(&tls), "the page does not explain {tls:?}");
        for words in ["redis is down", "redis\n  is up", "requests wait already"] {
            assert!(PAGE.contains(words), "the page does not have {words:?}");
        }
    }
}
