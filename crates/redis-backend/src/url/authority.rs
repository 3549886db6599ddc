//! Users, passwords and hosts: the part of an address between `//` and the next `/`.

use std::net::Ipv6Addr;

use super::parse::UrlError;
use super::{Credentials, Host};

/// Divides `user:password@hosts`. The last `@` counts, so an `@` in a password does no harm.
pub(super) fn split(authority: &str) -> Result<(Credentials, &str), UrlError> {
    let Some((secret, hosts)) = authority.rsplit_once('@') else {
        return Ok((Credentials::default(), authority));
    };
    let (user, password) = match secret.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (secret, None),
    };
    let credentials = Credentials {
        user: some_text(decoded(user).ok_or(UrlError::Credentials)?),
        password: match password {
            Some(text) => some_text(decoded(text).ok_or(UrlError::Credentials)?),
            None => None,
        },
    };
    Ok((credentials, hosts))
}

pub(super) fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Undoes percent-encoding. `None` if a `%` has no two hex digits, or if the bytes are no UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = hex(rest.next()?)?;
            let low = hex(rest.next()?)?;
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Parses `host:port,host:port`. Text with several hosts is no URL to the usual parsers.
pub(super) fn hosts(text: &str, port_default: u16) -> Result<Vec<Host>, UrlError> {
    text.split(',').map(|host| host_and_port(host, port_default)).collect()
}

fn host_and_port(text: &str, port_default: u16) -> Result<Host, UrlError> {
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (name, after) = rest.split_once(']').ok_or(UrlError::Host)?;
        checked_v6(name)?;
        match after {
            "" => (name, None),
            after => (name, Some(after.strip_prefix(':').ok_or(UrlError::Port)?)),
        }
    } else {
        match text.split_once(':') {
            Some((name, port)) => (checked_name(name)?, Some(port)),
            None => (checked_name(text)?, None),
        }
    };
    let port = match port {
        None => port_default,
        Some(digits) => checked_port(digits)?,
    };
    Ok(Host { name: name.to_owned(), port })
}

/// A host that stands alone, so an IPv6 address needs no brackets.
pub(super) fn bare_host(text: &str, port: u16) -> Result<Host, UrlError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.contains(':') {
        checked_v6(bare)?;
    } else {
        checked_name(bare)?;
    }
    if port == 0 {
        return Err(UrlError::Port);
    }
    Ok(Host { name: bare.to_owned(), port })
}

fn checked_v6(name: &str) -> Result<(), UrlError> {
    // A zone, as in `fe80::1%eth0`, is for the resolver.
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    address.parse::<Ipv6Addr>().map(drop).map_err(|_| UrlError::Host)
}

fn checked_name(name: &str) -> Result<&str, UrlError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let bounded = !name.is_empty() && name.len() <= 253;
    if bounded && name.bytes().all(plain) { Ok(name) } else { Err(UrlError::Host) }
}

fn checked_port(digits: &str) -> Result<u16, UrlError> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if plain && port != 0 => Ok(port),
        _ => Err(UrlError::Port),
    }
}
