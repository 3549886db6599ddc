//! What proxies wrote about where a request came from, nearest hop first.
//!
//! Everything in here may be written by an attacker, up to the entries that trusted proxies have
//! appended at the end. So it is read from the end, and only as far as somebody trusted vouches
//! for it.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

/// The field that most proxies append to.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// More than any chain of proxies has. What is further away is not looked at.
pub(super) const HOPS_MAX: usize = 32;
/// The longest line of `Forwarded` that is parsed; a longer one counts as broken.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The field in which trusted proxies say where a request came from.
///
/// Only one is looked at. A proxy that appends to one of them passes on the other as the client
/// wrote it, so whoever looked at both would let clients choose.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingField {
    /// `X-Forwarded-For: 203.0.113.7, 10.0.0.1`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=203.0.113.7, for="[2001:db8::1]:4711"` (RFC 7239)
    Forwarded,
}

impl ForwardingField {
    pub(super) fn is_in(self, headers: &HeaderMap) -> bool {
        match self {
            Self::XForwardedFor => headers.contains_key(X_FORWARDED_FOR),
            Self::Forwarded => headers.contains_key(FORWARDED),
        }
    }

    /// Shows the hops to `see`, nearest first, until it has seen enough (`false`). `None` is an
    /// entry that is no address: `unknown`, a name, nonsense.
    pub(super) fn walk(self, headers: &HeaderMap, mut see: impl FnMut(Option<IpAddr>) -> bool) {
        let mut left = HOPS_MAX;
        let mut see = |hop: Option<IpAddr>| {
            left -= 1;
            see(hop) && left > 0
        };
        match self {
            Self::XForwardedFor => {
                for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
                    for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
                        let entry = entry.trim_ascii();
                        // Lists may have empty elements (RFC 9110, 5.6.1); no proxy appends one.
                        if !entry.is_empty() && !see(address(entry)) {
                            return;
                        }
                    }
                }
            }
            Self::Forwarded => {
                for line in headers.get_all(FORWARDED).iter().rev() {
                    let Some(elements) = elements(line.as_bytes()) else {
                        // A quote that a client left open swallows what proxies appended. Nothing
                        // on this line can be told apart, nor what is to the left of it.
                        see(None);
                        return;
                    };
                    if !elements.into_iter().rev().all(&mut see) {
                        return;
                    }
                }
            }
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())),
    };
    address.map(|address| address.to_canonical())
}

/// The `for` of each element of one line of `Forwarded`; `None` if the line breaks the grammar of
/// RFC 7239, section 4.
fn elements(line: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let mut rest = Reader(line);
    let mut elements = Vec::new();
    loop {
        let mut hop = None;
        let mut is_empty = true;
        loop {
            rest.skip_spaces();
            if !rest.is_at(b";,") {
                let name = rest.token()?;
                rest.take(b'=')?;
                let value = rest.value()?;
                if name.eq_ignore_ascii_case(b"for") {
                    // A parameter may occur once in an element.
                    if hop.replace(address(&value)).is_some() {
                        return None;
                    }
                }
                is_empty = false;
                rest.skip_spaces();
            }
            if rest.take(b';').is_none() {
                break;
            }
        }
        if !is_empty {
            elements.push(hop.flatten());
        }
        if rest.0.is_empty() {
            return Some(elements);
        }
        rest.take(b',')?;
    }
}

/// What is left of a line.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Whether the next byte is one of these, or there is none.
    fn is_at(&self, bytes: &[u8]) -> bool {
        self.0.first().is_none_or(|byte| bytes.contains(byte))
    }

    fn skip_spaces(&mut self) {
        let spaces = self.0.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.0 = &self.0[spaces..];
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// A token or a quoted string, without its quotes.
    fn value(&mut self) -> Option<Vec<u8>> {
        if self.take(b'"').is_none() {
            return self.token().map(<[u8]>::to_vec);
        }
        let mut value = Vec::new();
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(value),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    value.push(*escaped);
                }
                byte => value.push(*byte),
            }
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hops(field: ForwardingField, lines: &[&str]) -> Vec<String> {
        let name = match field {
            ForwardingField::XForwardedFor => X_FORWARDED_FOR,
            ForwardingField::Forwarded => FORWARDED,
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, line.parse().unwrap());
        }
        let mut seen = Vec::new();
        field.walk(&headers, |hop| {
            seen.push(hop.map_or("?".to_owned(), |address| address.to_string()));
            true
        });
        seen
    }

    #[test]
    fn entries_are_read_from_the_end_of_the_last_line_in_every_form_of_an_address() {
        let lines = ["9.9.9.9 , 8.8.8.8:80", "[2001:db8::1]:443,[2001:db8::2], 2001:db8::3"];
        assert_eq!(
            hops(ForwardingField::XForwardedFor, &lines),
            ["2001:db8::3", "2001:db8::2", "2001:db8::1", "8.8.8.8", "9.9.9.9"]
        );
    }

    #[test]
    fn mapped_addresses_are_those_that_they_stand_for() {
        let lines = ["::ffff:192.0.2.1, [::ffff:c000:202]:80"];
        assert_eq!(hops(ForwardingField::XForwardedFor, &lines), ["192.0.2.2", "192.0.2.1"]);
    }

    #[test]
    fn what_is_no_address_is_an_unknown_hop_and_never_left_out() {
        let lines = ["1.1.1.1, unknown, 1.2.3, 1.2.3.4.5, 0x7f.1, 010.0.0.1, fe80::1%eth0, [::1"];
        let seen = hops(ForwardingField::XForwardedFor, &lines);
        assert_eq!(seen, ["?", "?", "?", "?", "?", "?", "?", "1.1.1.1"]);
        assert_eq!(hops(ForwardingField::XForwardedFor, &[",, 1.1.1.1 ,,"]), ["1.1.1.1"]);
    }

    #[test]
    fn forwarded_is_read_as_its_standard_writes_it() {
        // The examples of RFC 7239, sections 4 and 7.1.
        let of = |line: &str| hops(ForwardingField::Forwarded, &[line]);
        assert_eq!(of(r#"for="_gazonk""#), ["?"]);
        assert_eq!(of(r#"For="[2001:db8:cafe::17]:4711""#), ["2001:db8:cafe::17"]);
        assert_eq!(of("for=192.0.2.60;proto=http;by=203.0.113.43"), ["192.0.2.60"]);
        assert_eq!(of("for=192.0.2.43, for=198.51.100.17"), ["198.51.100.17", "192.0.2.43"]);
        assert_eq!(of(r#"for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown"#).len(), 3);
        // A comma in quotes parts nothing, and an element without `for` is a hop too.
        assert_eq!(of(r#"for=1.1.1.1;x="a,\"b", proto=http"#), ["?", "1.1.1.1"]);
    }

    #[test]
    fn quote_that_is_left_open_hides_no_hop_of_a_later_line() {
        let lines = [r#"for="6.6.6.6"#, "for=192.0.2.1"];
        assert_eq!(hops(ForwardingField::Forwarded, &lines), ["192.0.2.1", "?"]);
    }

    #[test]
    fn line_that_breaks_the_grammar_is_one_unknown_hop() {
        for line in [
            r#"for="6.6.6.6, for=192.0.2.1"#,
            r#"for="6.6.6.6, for="192.0.2.1:80""#,
            "for=6.6.6.6 for=192.0.2.1",
            "for=6.6.6.6;for=192.0.2.1",
            "for",
            "for=",
            "=1.1.1.1",
            r#"for="\"#,
            &format!("for=1.1.1.1{}", ", for=1.1.1.1".repeat(1000)),
        ] {
            assert_eq!(hops(ForwardingField::Forwarded, &[line]), ["?"], "{line}");
        }
    }

    #[test]
    fn no_more_hops_are_looked_at_than_any_chain_has() {
        let line = "1.1.1.1,".repeat(10_000);
        assert_eq!(hops(ForwardingField::XForwardedFor, &[&line]).len(), HOPS_MAX);
    }
}
