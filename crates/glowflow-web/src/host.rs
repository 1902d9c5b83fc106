//! Host names: comparison, and the names and addresses of this computer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use axum::http::uri::Authority;

use crate::AccessError;

/// A host and optionally its port, in canonical form for comparison: in lower case, without brackets and
/// without the final dot of a fully qualified name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Host {
    pub name: String,
    pub port: Option<u16>,
}

impl From<&Authority> for Host {
    fn from(authority: &Authority) -> Self {
        let name = authority.host().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        Self { name: name.trim_matches(['[', ']']).to_owned(), port: authority.port_u16() }
    }
}

impl FromStr for Host {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let refused = || AccessError::Host(text.to_owned());
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { name: address.to_string(), port: None });
        }
        let authority: Authority = text.parse().map_err(|_| refused())?;
        let host = Self::from(&authority);
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let address = host.name.parse::<Ipv6Addr>().is_ok();
        // An invalid port would otherwise count as no port.
        let whole = authority.as_str().len() == authority.host().len() || host.port.is_some();
        if host.name.is_empty() || !whole || !address && !host.name.chars().all(fits) {
            return Err(refused());
        }
        Ok(host)
    }
}

/// The names of this computer on the network.
pub(crate) fn own_names() -> Vec<String> {
    let full = gethostname::gethostname().to_string_lossy().to_ascii_lowercase();
    let short = full.split('.').next().unwrap_or_default().to_owned();
    if short.is_empty() {
        return vec![];
    }
    vec![format!("{short}.local"), short, full]
}

/// Addresses of a server that listens on `bound`, the best for other computers first. The unspecified address
/// is replaced by the computer's own addresses.
pub(crate) fn reachable(bound: SocketAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, bound.port());
    if !bound.ip().is_unspecified() {
        return vec![at(bound.ip().to_canonical())];
    }
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<IpAddr> = found.iter().map(if_addrs::Interface::ip).collect();
    found.retain(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        // Link-local addresses require the name of the link, which browsers do not accept.
        IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local(),
    });
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    found.push(Ipv4Addr::LOCALHOST.into());
    found.into_iter().map(at).collect()
}
