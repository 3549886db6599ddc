//! Where a request came from, when proxies stand before the service.

mod hops;
mod network;

use std::net::IpAddr;

use http::HeaderMap;

pub use hops::ForwardingField;
use network::Networks;

/// More proxies than this before one service are a mistake in the setting.
const COUNT_MAX: u8 = 16;

/// Which peers are believed when they say for whom they speak.
///
/// A proxy appends the address that it got a request from. Everything before what the trusted
/// proxies appended may be the client's invention, so the client is the *rightmost* hop that is not
/// a trusted proxy: never the first entry, which is the one that a client writes.
///
/// | made by | the client is |
/// | --- | --- |
/// | [`nobody`](Self::nobody) | the peer; the fields are not looked at. The default |
/// | [`networks`](Self::networks) | the rightmost hop outside these networks; of a peer outside them the peer |
/// | [`count`](Self::count) | the n-th hop from the right, the peer not counted |
/// | [`count_within`](Self::count_within) | the same, and only if the peer is in these networks |
///
/// If a hop that a trusted proxy vouches for is no address (`unknown`, a name, nonsense), the client
/// counts as that proxy: what callers can break puts them together, and never into a place of their
/// choice.
///
/// # Examples
/// ```
/// use fleetwide_http::client::TrustedProxies;
///
/// let proxies = TrustedProxies::networks(["10.0.0.0/8", "fd00::/8"])?;
/// let mut headers = http::HeaderMap::new();
/// // The client wrote the first entry; the proxy at 10.0.0.2 appended the second.
/// headers.insert("x-forwarded-for", "1.2.3.4, 203.0.113.7".parse()?);
/// assert_eq!(proxies.client("10.0.0.2".parse()?, &headers).to_string(), "203.0.113.7");
/// // Somebody else says the same, and is not believed.
/// assert_eq!(proxies.client("198.51.100.9".parse()?, &headers).to_string(), "198.51.100.9");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a setting does nothing by itself"]
pub struct TrustedProxies {
    trust: Trust,
    field: ForwardingField,
}

#[derive(Clone, Debug)]
enum Trust {
    Nobody,
    Networks(Networks),
    Count { count: u8, within: Option<Networks> },
}

impl TrustedProxies {
    /// Believes nobody: a client is who is connected.
    pub const fn nobody() -> Self {
        Self { trust: Trust::Nobody, field: ForwardingField::XForwardedFor }
    }

    /// Believes peers in these networks, such as `10.0.0.0/8`, `fd00::/8` or `192.0.2.1`.
    ///
    /// # Errors
    /// [`ProxyError`] if there is none, one of them cannot be read or has host bits, or they are
    /// everyone.
    pub fn networks<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, ProxyError> {
        Ok(Self { trust: Trust::Networks(Networks::parse(networks)?), ..Self::nobody() })
    }

    /// Believes that exactly so many proxies stand before the service, wherever they are.
    ///
    /// It is only right where nobody can reach the service, or the inner ones of several proxies, in
    /// another way: who can, writes the entry that is then taken for the client. Where the addresses
    /// of the proxies are known, take [`networks`](Self::networks).
    ///
    /// # Errors
    /// [`ProxyError::Count`] if it is 0 or above 16.
    pub fn count(proxies: u8) -> Result<Self, ProxyError> {
        match proxies {
            1..=COUNT_MAX => {
                Ok(Self { trust: Trust::Count { count: proxies, within: None }, ..Self::nobody() })
            }
            _ => Err(ProxyError::Count(proxies)),
        }
    }

    /// As [`count`](Self::count), if the peer is in one of these networks; else the client is the
    /// peer.
    ///
    /// # Errors
    /// As [`count`](Self::count) and [`networks`](Self::networks).
    pub fn count_within<T: AsRef<str>>(
        proxies: u8,
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, ProxyError> {
        let Self { field, .. } = Self::count(proxies)?;
        let within = Some(Networks::parse(networks)?);
        Ok(Self { trust: Trust::Count { count: proxies, within }, field })
    }

    /// Sets the field that the proxies append to. Default: `X-Forwarded-For`.
    pub fn field(self, field: ForwardingField) -> Self {
        Self { field, ..self }
    }

    /// The client of a request that came from `peer`. IPv4-mapped addresses come out as IPv4.
    ///
    /// At most 32 hops are looked at, nearest first.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        match &self.trust {
            Trust::Networks(trusted) if trusted.contains(client) => {
                self.field.walk(headers, |hop| match hop {
                    None => false,
                    Some(hop) => {
                        client = hop;
                        trusted.contains(hop)
                    }
                });
            }
            Trust::Count { count, within }
                if within.as_ref().is_none_or(|within| within.contains(client)) =>
            {
                let mut left = *count;
                self.field.walk(headers, |hop| {
                    client = hop.unwrap_or(client);
                    left -= 1;
                    left > 0
                });
            }
            Trust::Nobody | Trust::Networks(_) | Trust::Count { .. } => {}
        }
        client
    }

    /// Whether a field that would be needed is there and is not looked at: a proxy that nobody told
    /// us of, most likely, and then all of its clients count as one.
    pub(crate) fn overlooks(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let is_near = match peer.to_canonical() {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
        };
        matches!(self.trust, Trust::Nobody) && is_near && self.field.is_in(headers)
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::nobody()
    }
}

/// Why settings make no [`TrustedProxies`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// To believe nobody, say so.
    #[error("name at least one network of proxies, or trust nobody")]
    NoNetwork,
    /// The text is neither an address nor a network.
    #[error("{0:?} is no address and no network such as `10.0.0.0/8`")]
    Network(String),
    /// The address is one in the network, so that it is not clear which of both is meant.
    #[error("{given} has bits beyond its prefix; {meant} is the network")]
    HostBits {
        /// What was given.
        given: String,
        /// The network that it lies in.
        meant: String,
    },
    /// If all are believed, each client chooses its own address.
    #[error("these networks are everyone, and then each client chooses its own address")]
    Everyone,
    /// A number of proxies that no service has before it.
    #[error("the number of proxies must be from 1 to 16, this is {0}")]
    Count(u8),
    /// A prefix that would make one caller of strangers, or of which one host has many.
    #[error("an IPv6 prefix must have 32 to 128 bits, this has {0}")]
    Ipv6Prefix(u8),
}

#[cfg(test)]
mod tests;
