//! From a text to a [`RedisUrl`], in the order in which the parts stand.

use std::path::PathBuf;

use super::authority::{self, decoded, some_text};
use super::{
    Address, Credentials, PORT_DEFAULT, Protocol, RedisUrl, SENTINEL_PORT_DEFAULT, Tls, Topology,
};

/// Which part of an address is wrong.
///
/// The messages show nothing of the text: where a password was not encoded, any part of the text
/// may be a piece of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Nothing, or white space inside.
    #[error("the address is empty or has white space in it")]
    Blank,
    /// The scheme is unknown or missing.
    #[error(
        "the scheme must be redis://, rediss://, valkey://, valkeys://, unix://, redis+unix://, \
         redis+sentinel:// or redis+cluster://"
    )]
    Scheme,
    /// The user or the password is not encoded as it must be.
    #[error(
        "the user or the password is wrong: percent-encode '/', '?', '#', '@' and '%' in them \
         ('/' is %2F), as UTF-8"
    )]
    Credentials,
    /// A host is no host.
    #[error("a host is missing or is no host name or address; IPv6 addresses stand in brackets")]
    Host,
    /// A port is no port.
    #[error("a port must be a number from 1 to 65535")]
    Port,
    /// More than one host, where only one makes sense.
    #[error(
        "several hosts need redis+sentinel:// or ?sentinelMasterId= with the primary's name, or \
         redis+cluster://"
    )]
    SeveralHosts,
    /// The database is no number.
    #[error("the database must be a number below 2147483648, as in redis://host/0")]
    Database,
    /// A Cluster has only database 0.
    #[error("a Cluster has database 0 only")]
    ClusterDatabase,
    /// The path of a unix socket is missing.
    #[error("a unix socket needs an absolute path, as in unix:///run/redis.sock")]
    SocketPath,
    /// The name of the primary is missing.
    #[error("Sentinel needs the primary's name, as in redis+sentinel://host:26379/mymaster")]
    Master,
    /// The protocol is unknown.
    #[error("the parameter protocol takes resp2 or resp3")]
    Protocol,
    /// A parameter is unknown or not encoded as it must be.
    #[error(
        "the query takes protocol, db, user, pass, sentinelMasterId, sentinelUsername and \
         sentinelPassword, each once and percent-encoded"
    )]
    Query,
    /// A fragment makes no sense here.
    #[error("after '#' only rediss:// takes something: insecure")]
    Fragment,
}

/// The parts of a text, not yet understood.
struct Parts<'a> {
    authority: &'a str,
    path: &'a str,
    fragment: Option<&'a str>,
    query: Query,
}

#[derive(Default)]
struct Query {
    protocol: Option<String>,
    db: Option<String>,
    user: Option<String>,
    password: Option<String>,
    master: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    Unix,
    Sentinel,
    Cluster,
}

pub(super) fn parse(text: &str) -> Result<RedisUrl, UrlError> {
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(UrlError::Blank);
    }
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    let (form, tls) = form(&scheme.to_ascii_lowercase()).ok_or(UrlError::Scheme)?;
    let parts = Parts::split(rest)?;
    match form {
        Form::Unix => unix(&parts),
        // The master's name makes a Sentinel URL of a plain one, also with a single host: taken for
        // a plain server, it would write to a Sentinel.
        Form::Plain if parts.query.master.is_some() => sentinel(parts, tls),
        Form::Plain => plain(&parts, tls),
        Form::Sentinel => sentinel(parts, tls),
        Form::Cluster => cluster(&parts, tls),
    }
}

fn form(scheme: &str) -> Option<(Form, Tls)> {
    let (base, form) = match scheme {
        "unix" => return Some((Form::Unix, Tls::Off)),
        other => match other.split_once(['+', '-']) {
            None => (other, Form::Plain),
            Some((base, "unix")) => (base, Form::Unix),
            Some((base, "sentinel")) => (base, Form::Sentinel),
            Some((base, "cluster")) => (base, Form::Cluster),
            Some(_) => return None,
        },
    };
    match base {
        "redis" | "valkey" => Some((form, Tls::Off)),
        "rediss" | "valkeys" if form != Form::Unix => Some((form, Tls::On)),
        _ => None,
    }
}

fn plain(parts: &Parts<'_>, tls: Tls) -> Result<RedisUrl, UrlError> {
    let (credentials, hosts) = parts.credentials()?;
    let mut hosts = authority::hosts(hosts, PORT_DEFAULT)?;
    let host = hosts.pop().ok_or(UrlError::Host)?;
    if !hosts.is_empty() {
        return Err(UrlError::SeveralHosts);
    }
    let db = parts.db(parts.path)?;
    parts.url(Topology::Single(Address::Tcp(host)), parts.secured(tls)?, credentials, db)
}

fn unix(parts: &Parts<'_>) -> Result<RedisUrl, UrlError> {
    let (credentials, host) = parts.credentials()?;
    let path = decoded(parts.path).ok_or(UrlError::SocketPath)?;
    if !host.is_empty() || path.len() < 2 || parts.fragment.is_some() {
        return Err(UrlError::SocketPath);
    }
    let db = parts.db("")?;
    parts.url(Topology::Single(Address::Unix(PathBuf::from(path))), Tls::Off, credentials, db)
}

fn sentinel(mut parts: Parts<'_>, tls: Tls) -> Result<RedisUrl, UrlError> {
    let (credentials, hosts) = parts.credentials()?;
    let sentinels = authority::hosts(hosts, SENTINEL_PORT_DEFAULT)?;
    let mut path = parts.path;
    // The name is looked for where clients write it: query, fragment, first segment of the path.
    let master = if let Some(name) = parts.query.master.take() {
        name
    } else if let Some(name) = parts.fragment.take() {
        decoded(name).ok_or(UrlError::Master)?
    } else {
        let segments = path.trim_start_matches('/');
        let (name, db) = segments.split_once('/').unwrap_or((segments, ""));
        path = db;
        decoded(name).ok_or(UrlError::Master)?
    };
    if master.is_empty() {
        return Err(UrlError::Master);
    }
    let own = Credentials {
        user: parts.query.sentinel_user.take(),
        password: parts.query.sentinel_password.take(),
    };
    let db = parts.db(path)?;
    let topology = Topology::Sentinel { sentinels, master, credentials: own };
    parts.url(topology, parts.secured(tls)?, credentials, db)
}

fn cluster(parts: &Parts<'_>, tls: Tls) -> Result<RedisUrl, UrlError> {
    let (credentials, hosts) = parts.credentials()?;
    let nodes = authority::hosts(hosts, PORT_DEFAULT)?;
    if parts.db(parts.path)? != 0 {
        return Err(UrlError::ClusterDatabase);
    }
    parts.url(Topology::Cluster(nodes), parts.secured(tls)?, credentials, 0)
}

pub(super) fn checked_db(db: u32) -> Result<u32, UrlError> {
    if i32::try_from(db).is_ok() { Ok(db) } else { Err(UrlError::Database) }
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Result<Self, UrlError> {
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path_at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        // An '@' behind the authority is the sign of a password that was not encoded. Refused
        // whatever else it could mean: the pieces of a password would be taken for names, which
        // are shown.
        let stray = |part: &str| part.contains('@');
        if stray(path) || stray(query) || fragment.is_some_and(stray) {
            return Err(UrlError::Credentials);
        }
        Ok(Self { authority, path, fragment, query: Query::parse(query)? })
    }

    /// Who asks: the authority, or else the query, as unix sockets have it.
    fn credentials(&self) -> Result<(Credentials, &'a str), UrlError> {
        let (mut credentials, hosts) = authority::split(self.authority)?;
        for (place, value) in [
            (&mut credentials.user, &self.query.user),
            (&mut credentials.password, &self.query.password),
        ] {
            match (&place, value) {
                (Some(_), Some(_)) => return Err(UrlError::Query),
                (None, Some(value)) => *place = some_text(value.clone()),
                (_, None) => {}
            }
        }
        Ok((credentials, hosts))
    }

    fn db(&self, path: &str) -> Result<u32, UrlError> {
        let path = path.trim_start_matches('/');
        let digits = match (&self.query.db, path) {
            (None, "") => return Ok(0),
            (None, path) => path,
            (Some(db), "") => db.as_str(),
            (Some(_), _) => return Err(UrlError::Database),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UrlError::Database);
        }
        checked_db(digits.parse().map_err(|_| UrlError::Database)?)
    }

    fn secured(&self, tls: Tls) -> Result<Tls, UrlError> {
        match (self.fragment, tls) {
            (None, tls) => Ok(tls),
            (Some("insecure"), Tls::On) => Ok(Tls::Insecure),
            (Some(_), _) => Err(UrlError::Fragment),
        }
    }

    fn url(
        &self,
        topology: Topology,
        tls: Tls,
        credentials: Credentials,
        db: u32,
    ) -> Result<RedisUrl, UrlError> {
        let protocol = match self.query.protocol.as_deref() {
            None | Some("resp2" | "2") => Protocol::Resp2,
            Some("resp3" | "3") => Protocol::Resp3,
            Some(_) => return Err(UrlError::Protocol),
        };
        let sentinel_only = [&self.query.sentinel_user, &self.query.sentinel_password];
        if sentinel_only.iter().any(|value| value.is_some()) {
            return Err(UrlError::Query);
        }
        Ok(RedisUrl { topology, tls, credentials, db, protocol })
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(UrlError::Query)?;
            let place = query.place(name).ok_or(UrlError::Query)?;
            let value = decoded(value).ok_or(UrlError::Query)?;
            if place.replace(value).is_some() {
                return Err(UrlError::Query);
            }
        }
        Ok(query)
    }

    /// The names that clients in use give these parameters.
    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name.to_ascii_lowercase().as_str() {
            "protocol" => &mut self.protocol,
            "db" => &mut self.db,
            "user" | "username" => &mut self.user,
            "pass" | "password" => &mut self.password,
            "sentinelmasterid" | "sentinelservicename" | "master" => &mut self.master,
            "sentinelusername" => &mut self.sentinel_user,
            "sentinelpassword" => &mut self.sentinel_password,
            _ => return None,
        })
    }
}
