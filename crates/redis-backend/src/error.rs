//! What can be wrong before the first connection.

use std::fmt;

/// Why a [`RedisBuilder`](crate::RedisBuilder) built nothing. An unreachable server is never among
/// the reasons: the handle joins it when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is understood, but this version cannot reach it.
    #[error("{0} is not supported yet")]
    NotSupportedYet(Feature),
    /// A setting that makes no sense.
    #[error("{name} must be {takes}")]
    Setting {
        /// The setter.
        name: &'static str,
        /// What it takes.
        takes: &'static str,
    },
}

/// What an address can ask for and this version cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// A primary found through Sentinel.
    Sentinel,
    /// A Cluster.
    Cluster,
    /// An encrypted connection.
    Tls,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sentinel => "a primary behind Sentinel",
            Self::Cluster => "a Redis Cluster",
            Self::Tls => "TLS (rediss://)",
        })
    }
}
