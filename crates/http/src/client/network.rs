//! Networks of proxies, parsed once.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::ProxyError;

/// The bits before the IPv4 address in an IPv4-mapped one.
const MAPPED_BITS: u8 = 96;

/// Some networks: those whose addresses are believed.
#[derive(Clone, Debug)]
pub(super) struct Networks(Vec<IpNet>);

impl Networks {
    pub(super) fn parse<T: AsRef<str>>(
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Self, ProxyError> {
        let networks: Result<Vec<_>, _> =
            texts.into_iter().map(|text| network(text.as_ref().trim())).collect();
        let networks = networks?;
        if networks.is_empty() {
            return Err(ProxyError::NoNetwork);
        }
        // Two halves are as good as the whole.
        let everyone = |network: &IpNet| network.prefix_len() == 0;
        if IpNet::aggregate(&networks).iter().any(everyone) {
            return Err(ProxyError::Everyone);
        }
        Ok(Self(networks))
    }

    /// Whether a canonical address is in one of them.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// `10.0.0.0/8`, or an address alone.
fn network(text: &str) -> Result<IpNet, ProxyError> {
    let wrong = || ProxyError::Network(text.to_owned());
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| wrong())?,
    };
    if network.trunc() != network {
        return Err(ProxyError::HostBits {
            given: network.to_string(),
            meant: network.trunc().to_string(),
        });
    }
    canonical(network).ok_or_else(wrong)
}

/// IPv4 in IPv4's own form, because peers are compared in that form.
fn canonical(network: IpNet) -> Option<IpNet> {
    match (network.addr().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(v4), bits) if network.addr().is_ipv6() => {
            Ipv4Net::new(v4, bits.checked_sub(MAPPED_BITS)?).ok().map(IpNet::V4)
        }
        _ => Some(network),
    }
}
