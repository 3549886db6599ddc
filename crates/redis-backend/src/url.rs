//! Every accepted form of a server's address, parsed once.

mod authority;
mod parse;

use std::fmt;
use std::path::{Path, PathBuf};

pub use parse::UrlError;

/// Where the data lives and who asks for it, parsed from one text.
///
/// | form | meaning |
/// | --- | --- |
/// | `redis://[user:password@]host[:port][/db][?protocol=resp3]` | one server; `valkey://` too |
/// | `rediss://…`, `valkeys://…` | the same over TLS |
/// | `unix:///path?db=1&user=u&pass=p`, `redis+unix://…` | one server on a unix socket |
/// | `redis+sentinel://[user:password@]h1:26379,h2:26379/master[/db]` | found through Sentinel |
/// | `redis://s1:26379,s2:26379/0?sentinelMasterId=mymaster` | the same, as other clients write it |
/// | `redis+cluster://h1,h2` | a Cluster |
///
/// Sentinel and Cluster take `redis` or `rediss` and `+` or `-`. Sentinels that want credentials of
/// their own take them from `sentinelUsername` and `sentinelPassword`. In a user or password,
/// `/ ? # @ %` and other bytes are percent-encoded.
///
/// Neither [`Debug`](fmt::Debug) nor [`Display`](fmt::Display) nor an error shows any piece of the
/// credentials.
///
/// # Examples
/// ```
/// # use fleetwide_redis_backend::RedisUrl;
/// let url = RedisUrl::parse("redis://orders:s3cret@cache.internal/2")?;
/// assert_eq!(url.to_string(), "redis://***@cache.internal:6379/2");
/// # Ok::<(), fleetwide_redis_backend::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    pub(crate) topology: Topology,
    pub(crate) tls: Tls,
    pub(crate) credentials: Credentials,
    pub(crate) db: u32,
    pub(crate) protocol: Protocol,
}

/// How the servers hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server.
    Single(Address),
    /// A primary that Sentinels watch over.
    Sentinel {
        /// The Sentinels.
        sentinels: Vec<Host>,
        /// The name under which they know the primary.
        master: String,
        /// What the Sentinels themselves want.
        credentials: Credentials,
    },
    /// A Cluster; these are the nodes that are asked first.
    Cluster(Vec<Host>),
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Over TCP.
    Tcp(Host),
    /// Over a unix socket.
    Unix(PathBuf),
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name or an address, the latter without brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// It is not.
    #[default]
    Off,
    /// It is, and the server's certificate is checked.
    On,
    /// It is, with `#insecure`: anybody can be the server.
    Insecure,
}

/// Which wire protocol commands use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, which every server speaks.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// Who asks. `Debug` shows only what is there, never what it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

/// The port of a Redis server unless the text says otherwise.
const PORT_DEFAULT: u16 = 6379;
/// The port of a Sentinel unless the text says otherwise.
const SENTINEL_PORT_DEFAULT: u16 = 26379;

impl RedisUrl {
    /// Parses any of the forms of [`RedisUrl`].
    ///
    /// # Errors
    /// [`UrlError`] says which part is wrong and what it takes. It shows nothing of the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        parse::parse(text)
    }

    /// Puts an address together from the values of `REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`
    /// and `REDIS_DB`. A host that begins with `/` is the path of a unix socket.
    ///
    /// # Errors
    /// [`UrlError`] if the host or the port is none, or the database is beyond 2^31.
    pub fn from_parts(
        host: &str,
        port: u16,
        password: Option<&str>,
        db: u32,
    ) -> Result<Self, UrlError> {
        let address = if host.starts_with('/') {
            Address::Unix(PathBuf::from(host))
        } else {
            Address::Tcp(authority::bare_host(host, port)?)
        };
        Ok(Self {
            topology: Topology::Single(address),
            tls: Tls::Off,
            credentials: Credentials {
                user: None,
                password: password.filter(|text| !text.is_empty()).map(str::to_owned),
            },
            db: parse::checked_db(db)?,
            protocol: Protocol::default(),
        })
    }

    /// How the servers hang together.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whether the connection is encrypted.
    pub fn tls(&self) -> Tls {
        self.tls
    }

    /// The number of the database.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// The wire protocol of commands.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether there is a user or a password.
    pub fn has_credentials(&self) -> bool {
        !self.credentials.is_empty()
    }
}

impl Credentials {
    /// Whether there is neither a user nor a password.
    pub fn is_empty(&self) -> bool {
        self.user.is_none() && self.password.is_none()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.user, &self.password) {
            (None, None) => "none",
            (Some(_), None) => "user",
            (None, Some(_)) => "password",
            (Some(_), Some(_)) => "user and password",
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls == Tls::Off { "" } else { "s" };
        let hidden = if self.credentials.is_empty() { "" } else { "***@" };
        match &self.topology {
            Topology::Single(Address::Tcp(host)) => {
                write!(f, "redis{secure}://{hidden}{host}/{}", self.db)
            }
            Topology::Single(Address::Unix(path)) => write_socket(f, path, hidden, self.db),
            Topology::Sentinel { sentinels, master, .. } => {
                write!(f, "redis{secure}+sentinel://{hidden}{}/{master}/", Hosts(sentinels))?;
                self.db.fmt(f)
            }
            Topology::Cluster(nodes) => {
                write!(f, "redis{secure}+cluster://{hidden}{}", Hosts(nodes))
            }
        }
    }
}

fn write_socket(f: &mut fmt::Formatter<'_>, path: &Path, hidden: &str, db: u32) -> fmt::Result {
    write!(f, "unix://{hidden}{}?db={db}", path.display())
}

struct Hosts<'a>(&'a [Host]);

impl fmt::Display for Hosts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => host.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
