//! A client's end of an encrypted tunnel, as wg-quick(8) takes it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::ClientEndpoint;
use crate::template::Places;

/// The file for a client of these endpoints, whose gateway has those private addresses.
///
/// Nodes are replaced within their subnets, so their subnets are routed: of AWS's least sizes for one, /24 and /64, or the
/// VPC's range where that is narrower.
pub fn wireguard(endpoints: &[ClientEndpoint], gateway: &[IpAddr], vpc: &[IpNet]) -> String {
    let nodes = endpoints.iter().flat_map(|endpoint| &endpoint.private_addresses);
    let subnets = nodes.filter_map(|&address| {
        let length = if address.is_ipv4() { 24 } else { 64 };
        let within = vpc.iter().filter(|range| range.contains(&address)).map(IpNet::prefix_len).max();
        Some(IpNet::new(address, within.unwrap_or_default().max(length)).ok()?.trunc())
    });
    let mut routed: Vec<IpNet> = gateway.iter().copied().map(IpNet::from).chain(subnets).collect();
    routed.sort();
    routed.dedup();
    let routed: Vec<String> = IpNet::aggregate(&routed).iter().map(ToString::to_string).collect();
    let endpoint = endpoints.first().map(|endpoint| match endpoint.public_host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => endpoint.public_host.clone(),
    });
    Places::new()
        .text("endpoint", endpoint.unwrap_or_default())
        .text("routed", routed.join(", "))
        .fill(include_str!("templates/wireguard.conf"))
}
