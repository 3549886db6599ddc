//! What the service is configured with: the fleet's settings and its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fleetwide::env::{EnvError, Settings, Vars};
use fleetwide::http::client::{ProxyError, TrustedProxies};

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
/// | `RATE_LIMIT_TRUSTED_PROXIES` | the networks of the proxies whose `X-Forwarded-For` is believed, as `10.0.0.0/8,fd00::/8` | none: it is not looked at |
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
    /// Which proxies are believed when they say for whom they speak. Default: nobody.
    pub trusted_proxies: TrustedProxies,
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
            trusted_proxies: trusted_proxies(vars)?,
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
            trusted_proxies: TrustedProxies::nobody(),
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

fn trusted_proxies(vars: &Vars) -> Result<TrustedProxies, EnvError> {
    const NAME: &str = "RATE_LIMIT_TRUSTED_PROXIES";
    let Some(text) = vars.text(NAME)? else { return Ok(TrustedProxies::nobody()) };
    let entries: Vec<_> = text.split(',').collect();
    // One by one first, to say which of them it is: errors of variables do not repeat what was given.
    let wrong = entries.iter().zip(1..).find_map(|(entry, number)| {
        let error = TrustedProxies::networks([entry]).err()?;
        Some(match error {
            ProxyError::HostBits { .. } => {
                format!("entry {number} has bits beyond its prefix")
            }
            ProxyError::Everyone => format!("entry {number} is everyone"),
            _ => format!("entry {number} is neither a network nor an address"),
        })
    });
    let wrong = match wrong {
        Some(wrong) => wrong,
        None => match TrustedProxies::networks(&entries) {
            Ok(proxies) => return Ok(proxies),
            Err(_) => "together they are everyone".to_owned(),
        },
    };
    let takes = format!("the networks of proxies, such as `10.0.0.0/8,fd00::/8`: {wrong}");
    Err(EnvError::new(NAME, takes))
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
    use axum::http::{HeaderMap, HeaderValue};

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
    fn proxies_are_believed_that_are_named_and_no_others() {
        let client = |vars: &[(&str, &str)], peer: &str| {
            let config = Config::from_vars(&Vars::fixed(vars.iter().copied())).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static("1.2.3.4, 203.0.113.7"));
            config.trusted_proxies.client(peer.parse().unwrap(), &headers).to_string()
        };
        let named = [("RATE_LIMIT_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1,fd00::/8")];
        for peer in ["10.1.2.3", "127.0.0.1", "fd00::1", "::ffff:10.1.2.3"] {
            assert_eq!(client(&named, peer), "203.0.113.7", "{peer}");
        }
        assert_eq!(client(&named, "127.0.0.2"), "127.0.0.2");
        assert_eq!(client(&[("RATE_LIMIT_TRUSTED_PROXIES", "")], "10.1.2.3"), "10.1.2.3");
    }

    #[test]
    fn wrong_settings_are_named_with_what_they_take() {
        refused("PORT", "65536", "PORT takes a whole number from 0 to 65535");
        refused("BIND", "localhost", "BIND takes an IP address, such as `127.0.0.1` or `::`");
        refused("LOG_FORMAT", "xml", "LOG_FORMAT takes one of `text`, `json`");
        let networks = |wrong: &str| {
            let takes = "takes the networks of proxies, such as `10.0.0.0/8,fd00::/8`";
            format!("RATE_LIMIT_TRUSTED_PROXIES {takes}: {wrong}")
        };
        for (value, wrong) in [
            ("hunter2", "entry 1 is neither a network nor an address"),
            ("10.0.0.0/8,", "entry 2 is neither a network nor an address"),
            ("10.0.0.0/33", "entry 1 is neither a network nor an address"),
            ("fd00::/8, 10.0.0.1/8", "entry 2 has bits beyond its prefix"),
            ("0.0.0.0/0", "entry 1 is everyone"),
            ("::/1,8000::/1", "together they are everyone"),
        ] {
            refused("RATE_LIMIT_TRUSTED_PROXIES", value, &networks(wrong));
        }
        for url in ["ftp://host", "http://", "http:///path", "http://a b", "host"] {
            refused("UPSTREAM_URL", url, "UPSTREAM_URL takes an `http://` URL");
        }
    }
}
