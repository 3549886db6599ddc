//! By the address of a client, as far as somebody trusted vouches for it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::request::Parts;

use super::{KeyError, KeyExtractor, RequestKey};
use crate::client::{ProxyError, TrustedProxies};

/// Who is connected, in the extensions of a request.
///
/// With the feature `axum`, axum's `ConnectInfo<SocketAddr>` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub IpAddr);

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        Self(address.ip())
    }
}

/// Counts by the client's address, found behind [`TrustedProxies`].
///
/// An IPv4 address counts whole, also in its IPv4-mapped form. Of an IPv6 address its first 64 bits
/// count, because one household or one host has all addresses that begin with them.
#[derive(Clone)]
#[must_use = "an extractor does nothing by itself"]
pub struct ClientAddress {
    proxies: TrustedProxies,
    prefix: Ipv6Prefix,
    peer: FindPeer,
    /// Whether it was said already that a proxy is not trusted.
    has_warned: Arc<AtomicBool>,
}

/// Finds who is connected.
type FindPeer = Arc<dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync>;

impl ClientAddress {
    /// By the address that these proxies vouch for.
    pub fn new(proxies: TrustedProxies) -> Self {
        Self {
            proxies,
            prefix: Ipv6Prefix::default(),
            peer: Arc::new(peer),
            has_warned: Arc::default(),
        }
    }

    /// Sets how much of an IPv6 address counts. Default: 64 bits.
    pub fn ipv6_prefix(self, prefix: Ipv6Prefix) -> Self {
        Self { prefix, ..self }
    }

    /// Sets where the peer's address is found. Default: [`PeerAddr`] in the request's extensions, with
    /// the feature `axum` also `ConnectInfo<SocketAddr>`. A service on a unix socket can say
    /// `127.0.0.1`, and trust it.
    pub fn peer(self, find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self { peer: Arc::new(find), ..self }
    }

    /// The address that `request` counts for.
    ///
    /// # Errors
    /// [`KeyError::NoPeer`] if nobody says who is connected.
    pub fn counted(&self, request: &Parts) -> Result<IpAddr, KeyError> {
        let peer = (self.peer)(request).ok_or(KeyError::NoPeer)?;
        if self.proxies.overlooks(peer, &request.headers)
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a peer nearby sends a forwarding field and no proxy is trusted: if it is a proxy, \
                 all of its clients count as one"
            );
        }
        Ok(self.prefix.of(self.proxies.client(peer, &request.headers)))
    }
}

impl KeyExtractor for ClientAddress {
    fn extract(&self, request: &Parts, key: &mut RequestKey) -> Result<(), KeyError> {
        key.push("ip", self.counted(request)?.to_string().as_bytes())
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAddress")
            .field("proxies", &self.proxies)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn peer(request: &Parts) -> Option<IpAddr> {
    if let Some(PeerAddr(peer)) = request.extensions.get() {
        return Some(*peer);
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(peer)) =
        request.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(peer.ip());
    }
    None
}

/// How much of an IPv6 address counts: 32 to 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Prefix(u8);

impl Ipv6Prefix {
    /// So many bits. Providers give customers 48 to 64; of a longer prefix one customer has many, and
    /// a quota for each.
    ///
    /// # Errors
    /// [`ProxyError::Ipv6Prefix`] below 32 bits, which whole providers share, and above 128.
    pub const fn new(bits: u8) -> Result<Self, ProxyError> {
        match bits {
            32..=128 => Ok(Self(bits)),
            _ => Err(ProxyError::Ipv6Prefix(bits)),
        }
    }

    fn of(self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V6(v6) => {
                let mask = u128::MAX << (128 - u32::from(self.0));
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

impl Default for Ipv6Prefix {
    /// 64 bits.
    fn default() -> Self {
        Self(64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{head, key};
    use super::*;

    fn of(by: &ClientAddress, peer: &str) -> String {
        let mut request = head(&[]);
        request.extensions.insert(PeerAddr(peer.parse().unwrap()));
        key(by, &request)
    }

    #[test]
    fn addresses_of_one_household_are_one_caller() {
        let by = ClientAddress::new(TrustedProxies::nobody());
        assert_eq!(of(&by, "2001:db8:1:2::3"), "ip=2001:db8:1:2::");
        assert_eq!(of(&by, "2001:db8:1:2:aaaa::4"), "ip=2001:db8:1:2::");
        assert_eq!(of(&by, "2001:db8:1:3::3"), "ip=2001:db8:1:3::");
        let wider = by.clone().ipv6_prefix(Ipv6Prefix::new(56).unwrap());
        assert_eq!(of(&wider, "2001:db8:1:ff::3"), "ip=2001:db8:1::");
        let whole = by.ipv6_prefix(Ipv6Prefix::new(128).unwrap());
        assert_eq!(of(&whole, "2001:db8:1:ff::3"), "ip=2001:db8:1:ff::3");
    }

    #[test]
    fn mapped_address_counts_as_the_ipv4_address_that_it_is() {
        let by = ClientAddress::new(TrustedProxies::nobody());
        assert_eq!(of(&by, "::ffff:192.0.2.1"), "ip=192.0.2.1");
        assert_eq!(of(&by, "192.0.2.1"), "ip=192.0.2.1");
    }

    #[test]
    fn prefix_that_would_join_strangers_is_refused() {
        for bits in [0, 31, 129, 255] {
            assert_eq!(Ipv6Prefix::new(bits), Err(ProxyError::Ipv6Prefix(bits)));
        }
    }

    #[test]
    fn peer_that_nobody_names_is_the_servers_mistake() {
        let by = ClientAddress::new(TrustedProxies::nobody());
        assert_eq!(by.counted(&head(&[])), Err(KeyError::NoPeer));
        let by = by.peer(|_| Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(key(&by, &head(&[])), "ip=127.0.0.1");
    }

    #[test]
    #[cfg(feature = "axum")]
    fn axum_says_who_is_connected() {
        let mut request = head(&[]);
        let peer: SocketAddr = "192.0.2.1:4711".parse().unwrap();
        request.extensions.insert(axum::extract::ConnectInfo(peer));
        assert_eq!(key(&ClientAddress::new(TrustedProxies::nobody()), &request), "ip=192.0.2.1");
    }
}
