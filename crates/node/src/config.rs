//! What the service is configured with: the fleet's settings and its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fleetwide::env::{EnvError, Settings, Vars};

/// Where a node listens that was told nothing.
const PORT_DEFAULT: u64 = 3000;

/// Each costs some 20 KiB, so a full house stays below 100 MiB.
const CONNECTIONS_MAX_DEFAULT: usize = 4096;
/// How long a decision of the limiter waits for Redis, unless `RATE_LIMIT_DEADLINE_MS` is set.
///
/// Longer than the library's default: a decision that waits on a busy machine is worth more here
/// than one that is quick and only local.
const LIMITER_DEADLINE: Duration = Duration::from_secs(1);

/// All settings of a node.
///
/// | variable | what it takes | default |
/// | --- | --- | --- |
/// | `PORT` | a TCP port; 0 picks a free one | 3000 |
/// | `BIND` | the IP address to listen on | `127.0.0.1` |
/// | `UPSTREAM_URL` | the `http://` address of an upstream | none |
/// | `LOG_FORMAT` | `text` or `json` | `text` |
/// | `RUST_LOG` | which events are logged, as `info,fleetwide=debug` | `info` |
///
/// The rest is the fleet's: see [`fleetwide::env`]. Only `RATE_LIMIT_DEADLINE_MS` has another
/// default here, 1000.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How the log on stderr looks.
    pub log_format: LogFormat,
    /// How many connections there may be at a time; further ones are answered with 503. Default:
    /// 4096.
    pub connections_max: usize,
    /// What the fleet is configured with.
    pub fleet: Settings,
}

/// How the log on stderr looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object for each line.
    Json,
}

impl Config {
    /// Parses the variables of this process.
    ///
    /// # Errors
    /// [`EnvError`] for the first variable with a value that it does not take.
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_vars(&Vars::process())
    }

    /// Parses `vars`.
    ///
    /// # Errors
    /// [`EnvError`] for the first variable with a value that it does not take.
    pub fn from_vars(vars: &Vars) -> Result<Self, EnvError> {
        let port = vars.number("PORT", 0..=65_535, PORT_DEFAULT)? as u16;
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        check_upstream(vars)?;
        let mut fleet = Settings::from_vars(vars)?;
        if vars.text("RATE_LIMIT_DEADLINE_MS")?.is_none() {
            fleet.limiter.deadline = LIMITER_DEADLINE;
        }
        Ok(Self {
            listen: SocketAddr::new(bind(vars)?, port),
            log_format: vars.choice("LOG_FORMAT", &formats, LogFormat::default())?,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            fleet,
        })
    }
}

impl Default for Config {
    /// In memory, on a free port of the loopback interface.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            log_format: LogFormat::default(),
            connections_max: CONNECTIONS_MAX_DEFAULT,
            fleet: Settings::default(),
        }
    }
}

fn bind(vars: &Vars) -> Result<IpAddr, EnvError> {
    const NAME: &str = "BIND";
    let takes = "an IP address, such as `127.0.0.1` or `::`";
    match vars.text(NAME)? {
        None => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(text) => text.parse().map_err(|_| EnvError::new(NAME, takes)),
    }
}

/// The upstream is not called by any route yet, but a wrong address is told at once.
fn check_upstream(vars: &Vars) -> Result<(), EnvError> {
    const NAME: &str = "UPSTREAM_URL";
    let Some(text) = vars.text(NAME)? else { return Ok(()) };
    let host = text.strip_prefix("http://").and_then(|rest| rest.split(['/', '?', '#']).next());
    let parses = text.parse::<axum::http::Uri>().is_ok();
    if parses && host.is_some_and(|host| !host.is_empty()) {
        Ok(())
    } else {
        Err(EnvError::new(NAME, "an `http://` URL"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(name: &str, value: &str, expected: &str) {
        let error = Config::from_vars(&Vars::fixed([(name, value)])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn nothing_set_is_the_loopback_interface_and_port_3000() {
        let config = Config::from_vars(&Vars::fixed([("PORT", ""), ("BIND", "")])).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
    }

    #[test]
    fn wrong_settings_are_named_with_what_they_take() {
        refused("PORT", "65536", "PORT takes a whole number from 0 to 65535");
        refused("BIND", "localhost", "BIND takes an IP address, such as `127.0.0.1` or `::`");
        refused("LOG_FORMAT", "xml", "LOG_FORMAT takes one of `text`, `json`");
        for url in ["ftp://host", "http://", "http:///path", "http://a b", "host"] {
            refused("UPSTREAM_URL", url, "UPSTREAM_URL takes an `http://` URL");
        }
    }
}
