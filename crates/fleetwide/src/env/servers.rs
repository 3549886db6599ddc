//! Which Redis does what: a URL for each role, one for all, or none.

use super::{EnvError, Vars};

#[cfg(feature = "redis")]
pub use fleetwide_redis_backend::RedisUrl;

/// Far more databases than any server is configured with.
const DB_MAX: u64 = 65_535;

/// Stands for a URL in a build without the feature `redis`, where there is none.
#[cfg(not(feature = "redis"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl(());

/// The Redis of each role; `None` means in memory.
///
/// Roles with equal URLs share one client. Separate ones keep a role's load and its outages to
/// itself.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Servers {
    /// Keeps the shared tier and the log of the caches.
    pub cache: Option<RedisUrl>,
    /// Keeps the log of the events.
    pub events: Option<RedisUrl>,
    /// Decides the rate limits.
    pub limiter: Option<RedisUrl>,
    /// Is to keep the circuit breakers.
    pub breaker: Option<RedisUrl>,
    /// Are to keep the locks; several are a quorum.
    pub locks: Vec<RedisUrl>,
}

impl Servers {
    /// All roles on one Redis.
    pub fn all(url: &RedisUrl) -> Self {
        Self {
            cache: Some(url.clone()),
            events: Some(url.clone()),
            limiter: Some(url.clone()),
            breaker: Some(url.clone()),
            locks: vec![url.clone()],
        }
    }

    pub(super) fn from_vars(vars: &Vars) -> Result<Self, EnvError> {
        let shared = shared(vars)?;
        let role = |name| Ok(url_in(vars, name)?.or_else(|| shared.clone()));
        let locks = locks(vars)?;
        Ok(Self {
            cache: role("FLEETWIDE_CACHE_URL")?,
            events: role("FLEETWIDE_EVENTS_URL")?,
            limiter: role("FLEETWIDE_LIMITER_URL")?,
            breaker: role("FLEETWIDE_BREAKER_URL")?,
            locks: if locks.is_empty() { shared.iter().cloned().collect() } else { locks },
        })
    }
}

/// `REDIS_URL`, or else what `REDIS_HOST` and its companions say.
fn shared(vars: &Vars) -> Result<Option<RedisUrl>, EnvError> {
    match url_in(vars, "REDIS_URL")? {
        Some(url) => Ok(Some(url)),
        None => parts(vars),
    }
}

fn parts(vars: &Vars) -> Result<Option<RedisUrl>, EnvError> {
    const HOST: &str = "REDIS_HOST";
    let Some(host) = vars.text(HOST)? else {
        return match companion_without_host(vars)? {
            Some(name) => Err(EnvError::new(HOST, format!("a host name: {name} is set"))),
            None => Ok(None),
        };
    };
    let port = vars.number("REDIS_PORT", 1..=65_535, 6379)? as u16;
    let db = vars.number("REDIS_DB", 0..=DB_MAX, 0)? as u32;
    let password = vars.text("REDIS_PASSWORD")?;
    from_parts(HOST, &host, port, password.as_deref(), db).map(Some)
}

/// A setting that only makes sense beside `REDIS_HOST`: without it the service would start in
/// memory although somebody meant it to be shared.
fn companion_without_host(vars: &Vars) -> Result<Option<&'static str>, EnvError> {
    for name in ["REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"] {
        // Kubernetes sets REDIS_PORT to such a URL wherever there is a Service called `redis`.
        if vars.text(name)?.is_some_and(|value| !value.starts_with("tcp://")) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn locks(vars: &Vars) -> Result<Vec<RedisUrl>, EnvError> {
    const NAME: &str = "FLEETWIDE_LOCK_URLS";
    let text = vars.text(NAME)?.unwrap_or_default();
    let urls = several(&text).into_iter().map(|url| parse(NAME, &url));
    let urls = urls.collect::<Result<Vec<_>, _>>()?;
    if urls.iter().enumerate().any(|(at, url)| urls[..at].contains(url)) {
        return Err(EnvError::new(NAME, "different URLs: one server has one vote"));
    }
    Ok(urls)
}

/// Splits at the commas between URLs, and not at those between the hosts of one URL.
fn several(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',') {
        match urls.last_mut() {
            _ if part.trim().is_empty() => {}
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part.trim_end());
            }
            _ => urls.push(part.trim().to_owned()),
        }
    }
    urls
}

fn url_in(vars: &Vars, name: &'static str) -> Result<Option<RedisUrl>, EnvError> {
    vars.text(name)?.map(|text| parse(name, &text)).transpose()
}

#[cfg(feature = "redis")]
fn parse(name: &'static str, text: &str) -> Result<RedisUrl, EnvError> {
    RedisUrl::parse(text)
        .map_err(|error| EnvError::new(name, format!("a Redis URL, and this is none: {error}")))
}

#[cfg(feature = "redis")]
fn from_parts(
    name: &'static str,
    host: &str,
    port: u16,
    password: Option<&str>,
    db: u32,
) -> Result<RedisUrl, EnvError> {
    RedisUrl::from_parts(host, port, password, db)
        .map_err(|error| EnvError::new(name, format!("a host name or an address: {error}")))
}

#[cfg(not(feature = "redis"))]
fn parse(name: &'static str, _: &str) -> Result<RedisUrl, EnvError> {
    Err(EnvError::new(name, NO_REDIS))
}

#[cfg(not(feature = "redis"))]
fn from_parts(
    name: &'static str,
    _: &str,
    _: u16,
    _: Option<&str>,
    _: u32,
) -> Result<RedisUrl, EnvError> {
    Err(EnvError::new(name, NO_REDIS))
}

#[cfg(not(feature = "redis"))]
const NO_REDIS: &str = "no value in a build without the feature `redis`";

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    fn servers(vars: &[(&str, &str)]) -> Result<Servers, EnvError> {
        Servers::from_vars(&Vars::fixed(vars.iter().copied()))
    }

    fn url(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap()
    }

    #[track_caller]
    fn refused(vars: &[(&str, &str)], expected: &str) {
        let error = servers(vars).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn nothing_set_means_in_memory() {
        let servers = servers(&[("REDIS_URL", "")]).unwrap();
        assert_eq!(servers.cache, None);
        assert!(servers.locks.is_empty());
    }

    #[test]
    fn a_role_of_its_own_goes_before_the_url_and_the_url_before_the_parts() {
        let servers = servers(&[
            ("FLEETWIDE_CACHE_URL", "redis://cache"),
            ("REDIS_URL", "redis://all"),
            ("REDIS_HOST", "part"),
        ])
        .unwrap();
        assert_eq!(servers.cache, Some(url("redis://cache")));
        assert_eq!(servers.events, Some(url("redis://all")));
        assert_eq!(servers.locks, [url("redis://all")]);
    }

    #[test]
    fn parts_make_the_url_they_would_be() {
        let parts = [
            ("REDIS_HOST", "::1"),
            ("REDIS_PORT", "7000"),
            ("REDIS_PASSWORD", "a@b:c/%"),
            ("REDIS_DB", "3"),
        ];
        let expected = url("redis://:a%40b%3Ac%2F%25@[::1]:7000/3");
        assert_eq!(servers(&parts).unwrap().limiter, Some(expected));
        let host = servers(&[("REDIS_HOST", "redis")]).unwrap();
        assert_eq!(host.limiter, Some(url("redis://redis:6379/0")));
    }

    #[test]
    fn a_part_without_a_host_is_not_taken_for_in_memory() {
        refused(&[("REDIS_PASSWORD", "hunter2")], "REDIS_HOST takes a host name: REDIS_PASSWORD");
        refused(&[("REDIS_HOST", "h:6379/0?"), ("REDIS_PASSWORD", "hunter2")], "REDIS_HOST takes");
        refused(&[("REDIS_HOST", "h"), ("REDIS_PORT", "0")], "REDIS_PORT takes a whole number");
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_called_redis_does_not_stop_a_start_in_memory() {
        assert_eq!(servers(&[("REDIS_PORT", "tcp://10.0.0.1:6379")]).unwrap().cache, None);
    }

    #[test]
    fn a_quorum_is_split_between_urls_and_not_inside_one() {
        let sentinel = "redis://s1:26379,s2:26379?sentinelMasterId=a";
        let text = format!("{sentinel}, redis://b ,redis://c,");
        let servers = servers(&[("FLEETWIDE_LOCK_URLS", &text)]).unwrap();
        assert_eq!(servers.locks.len(), 3);
        assert_eq!(servers.locks[1], url("redis://b"));
        let twice = "redis://:hunter2@a,redis://:hunter2@a";
        refused(&[("FLEETWIDE_LOCK_URLS", twice)], "FLEETWIDE_LOCK_URLS takes different URLs");
    }

    #[test]
    fn a_wrong_url_of_any_role_is_named_without_its_password() {
        for name in [
            "REDIS_URL",
            "FLEETWIDE_CACHE_URL",
            "FLEETWIDE_EVENTS_URL",
            "FLEETWIDE_LIMITER_URL",
            "FLEETWIDE_BREAKER_URL",
            "FLEETWIDE_LOCK_URLS",
        ] {
            for wrong in ["http://:hunter2@h", "redis://u:hunter2@h:port", "hunter2"] {
                refused(&[(name, wrong)], &format!("{name} takes a Redis URL"));
            }
        }
    }
}
