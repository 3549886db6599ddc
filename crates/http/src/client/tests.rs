use std::net::IpAddr;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;

const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn fields(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("x-forwarded-for", line.parse().unwrap());
    }
    headers
}

fn client(proxies: &TrustedProxies, peer: &str, lines: &[&str]) -> String {
    proxies.client(ip(peer), &fields(lines)).to_string()
}

// Red when `walk` goes from the left, and when it takes the first entry that parses.
#[test]
fn client_is_the_rightmost_hop_that_is_no_trusted_proxy() {
    let proxies = TrustedProxies::networks(PROXIES).unwrap();
    let of = |lines: &[&str]| client(&proxies, "10.0.0.1", lines);
    assert_eq!(of(&["203.0.113.7"]), "203.0.113.7");
    assert_eq!(of(&["203.0.113.7, 10.0.0.2, fd00::1"]), "203.0.113.7");
    assert_eq!(of(&["1.1.1.1, 203.0.113.7, 10.0.0.2"]), "203.0.113.7", "the first is invented");
    assert_eq!(of(&["10.9.9.9, 203.0.113.7"]), "203.0.113.7", "a trusted address too");
    assert_eq!(of(&["1.1.1.1", "203.0.113.7, 10.0.0.2"]), "203.0.113.7", "on a line of its own");
    assert_eq!(of(&["203.0.113.7:5555"]), "203.0.113.7");
    assert_eq!(of(&["::ffff:203.0.113.7"]), "203.0.113.7");
}

// Red when the trust in the peer is not asked.
#[test]
fn peer_that_is_not_trusted_is_the_client_whatever_it_says() {
    for proxies in [
        TrustedProxies::nobody(),
        TrustedProxies::networks(PROXIES).unwrap(),
        TrustedProxies::count_within(1, PROXIES).unwrap(),
    ] {
        for said in ["1.1.1.1", "10.0.0.1", "1.1.1.1, 10.0.0.1", "nonsense", ","] {
            assert_eq!(client(&proxies, "198.51.100.9", &[said]), "198.51.100.9", "{proxies:?}");
        }
    }
}

#[test]
fn peer_in_mapped_form_is_known_as_the_proxy_that_it_is() {
    let proxies = TrustedProxies::networks(["::ffff:10.0.0.0/104"]).unwrap();
    for peer in ["::ffff:10.0.0.1", "10.0.0.1"] {
        assert_eq!(client(&proxies, peer, &["203.0.113.7"]), "203.0.113.7");
    }
    assert_eq!(client(&TrustedProxies::nobody(), "::ffff:192.0.2.1", &[]), "192.0.2.1");
}

#[test]
fn hop_that_is_no_address_counts_as_the_proxy_that_wrote_it() {
    let proxies = TrustedProxies::networks(PROXIES).unwrap();
    assert_eq!(client(&proxies, "10.0.0.1", &["1.1.1.1, unknown"]), "10.0.0.1");
    assert_eq!(client(&proxies, "10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"]), "10.0.0.2");
    assert_eq!(client(&proxies, "10.0.0.1", &[""]), "10.0.0.1");
    assert_eq!(client(&proxies, "10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn caller_from_within_the_trusted_networks_is_its_own_client() {
    let proxies = TrustedProxies::networks(PROXIES).unwrap();
    assert_eq!(client(&proxies, "10.0.0.1", &["10.7.7.7, 10.0.0.2"]), "10.7.7.7");
}

#[test]
fn count_takes_the_entry_that_the_outermost_proxy_wrote() {
    let two = TrustedProxies::count(2).unwrap();
    assert_eq!(client(&two, "192.0.2.1", &["6.6.6.6, 203.0.113.7, 192.0.2.2"]), "203.0.113.7");
    assert_eq!(client(&two, "192.0.2.1", &["203.0.113.7"]), "203.0.113.7", "by the inner alone");
    assert_eq!(client(&two, "192.0.2.1", &[]), "192.0.2.1");
    assert_eq!(client(&two, "192.0.2.1", &["6.6.6.6, unknown, 192.0.2.2"]), "192.0.2.2");
    assert_eq!(client(&two, "192.0.2.1", &["203.0.113.7, unknown"]), "203.0.113.7");
}

#[test]
fn only_the_field_that_the_proxies_append_to_is_looked_at() {
    let proxies = TrustedProxies::networks(PROXIES).unwrap();
    let mut headers = fields(&["203.0.113.7"]);
    headers.append("forwarded", "for=6.6.6.6".parse().unwrap());
    headers.append("x-real-ip", "6.6.6.6".parse().unwrap());
    assert_eq!(proxies.client(ip("10.0.0.1"), &headers), ip("203.0.113.7"));
    let proxies = proxies.field(ForwardingField::Forwarded);
    assert_eq!(proxies.client(ip("10.0.0.1"), &headers), ip("6.6.6.6"));
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_the_reason() {
    let networks = |texts: &[&str]| TrustedProxies::networks(texts).unwrap_err();
    assert_eq!(networks(&[]), ProxyError::NoNetwork);
    assert_eq!(networks(&["10.0.0.0/33"]), ProxyError::Network("10.0.0.0/33".to_owned()));
    assert_eq!(networks(&["proxy.local"]), ProxyError::Network("proxy.local".to_owned()));
    assert_eq!(networks(&[""]), ProxyError::Network(String::new()));
    let (given, meant) = ("10.1.2.3/8".to_owned(), "10.0.0.0/8".to_owned());
    assert_eq!(networks(&["10.1.2.3/8"]), ProxyError::HostBits { given, meant });
    assert_eq!(networks(&["0.0.0.0/0"]), ProxyError::Everyone);
    assert_eq!(networks(&["10.0.0.0/8", "::/0"]), ProxyError::Everyone);
    assert_eq!(networks(&["0.0.0.0/1", "128.0.0.0/1"]), ProxyError::Everyone);
    assert_eq!(networks(&["::ffff:0:0/96"]), ProxyError::Everyone);
    assert_eq!(TrustedProxies::count(0).unwrap_err(), ProxyError::Count(0));
    assert_eq!(TrustedProxies::count(17).unwrap_err(), ProxyError::Count(17));
    assert!(TrustedProxies::networks([" 10.0.0.1 ", "2001:db8::/32"]).is_ok());
}

#[test]
fn proxy_that_nobody_was_told_of_is_noticed() {
    let nobody = TrustedProxies::nobody();
    assert!(nobody.overlooks(ip("10.0.0.1"), &fields(&["203.0.113.7"])));
    assert!(!nobody.overlooks(ip("10.0.0.1"), &fields(&[])));
    assert!(!nobody.overlooks(ip("203.0.113.7"), &fields(&["1.1.1.1"])), "a client's own idea");
    let told = TrustedProxies::networks(PROXIES).unwrap();
    assert!(!told.overlooks(ip("10.0.0.1"), &fields(&["203.0.113.7"])));
}

/// Bytes that a field's value may have.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(b"10.0.0.1".to_vec()),
        Just(b"203.0.113.7".to_vec()),
        Just(b"for=".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\\".to_vec()),
        Just(b",".to_vec()),
        Just(b";".to_vec()),
        Just(b"[fd00::1]:1".to_vec()),
        Just(b" unknown".to_vec()),
        prop::collection::vec(prop_oneof![32u8..127, 128u8..=255], 0..6),
    ];
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    // Whatever a client sends, what the trusted proxy appended decides: in a list and on a line of
    // its own, in both fields.
    #[test]
    fn nothing_that_a_client_writes_moves_it_to_another_place(
        lines in prop::collection::vec(line(), 0..4), on_own_line: bool,
    ) {
        let own = ip("203.0.113.7");
        for (name, field, appended) in [
            ("x-forwarded-for", ForwardingField::XForwardedFor, &b"203.0.113.7"[..]),
            ("forwarded", ForwardingField::Forwarded, b"for=203.0.113.7"),
        ] {
            let mut lines = lines.clone();
            match lines.last_mut() {
                Some(last) if !on_own_line => last.extend([b", ", appended].concat()),
                _ => lines.push(appended.to_vec()),
            }
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(name, http::HeaderValue::from_bytes(&line).unwrap());
            }
            let proxies = TrustedProxies::networks(PROXIES).unwrap().field(field);
            let client = proxies.client(ip("10.0.0.1"), &headers);
            // A line that a client broke is the proxy's own place, which no client can choose
            // for another: it is not looked at as an address at all.
            let broken = field == ForwardingField::Forwarded && client == ip("10.0.0.1");
            prop_assert!(client == own || broken, "{client}: {headers:?}");
            prop_assert_eq!(proxies.client(own, &headers), own);
            prop_assert_eq!(TrustedProxies::nobody().client(own, &headers), own);
            // Must not panic; what it says is right only where nobody gets past the proxies.
            TrustedProxies::count(3).unwrap().field(field).client(own, &headers);
        }
    }
}
