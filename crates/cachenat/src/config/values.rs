//! Values that several keys of the file have.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use plan::SSH;

use super::PortRange;
use super::document::Node;

pub(super) const NETWORK: &str = "an address or network, such as 198.51.100.27 or 198.51.100.0/24";

pub(super) fn network(node: &Node<'_>) -> Option<IpNet> {
    let network = node.parsed(NETWORK, |text| {
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok()).map(unmapped)
    })?;
    if network.addr() != network.network() {
        let (whole, alone) = (network.trunc(), IpNet::from(network.addr()));
        node.mistake(
            format!("{network} has bits behind its prefix"),
            format!("write {whole} for the network or {alone} for the one address"),
        );
        return None;
    }
    Some(network)
}

/// An IPv4 network that is written as IPv6 (`::ffff:198.51.100.27/128`, RFC 4291 section 2.5.5.2): no packet on the wire has
/// such an address.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let length = mapped.prefix_len().checked_sub(96);
    let v4 = mapped.addr().to_ipv4_mapped().zip(length);
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

/// A pool: `6379-7378`, or a port alone.
pub(super) fn pool(node: &Node<'_>) -> Option<PortRange> {
    let pool: PortRange =
        node.scalar("a range of ports from 1 to 65535, such as 6379-7378", |text| text.parse().ok())?;
    if pool.contains(SSH) {
        node.mistake(
            format!("the pool {pool} takes port 22, the way into this host (SSH)"),
            "choose a range without 22, such as 6379-7378",
        );
        return None;
    }
    Some(pool)
}
