//! Who may come in, by which address, and how openly.

use std::net::{IpAddr, Ipv4Addr};

use discovery::{InstanceFacts, Inventory};
use ipnet::IpNet;

use super::Finding;
use crate::config::Auto;

/// RFC 1918, RFC 6598 (shared), RFC 4193, loopback and link-local: what no packet from the internet has as its source.
const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];

fn is_public(range: &IpNet) -> bool {
    !PRIVATE.iter().filter_map(|private| private.parse::<IpNet>().ok()).any(|private| private.contains(range))
}

/// Whether the list lets in more than it should.
pub(crate) fn clients(clients: &[IpNet]) -> Finding {
    match clients.iter().find(|range| range.prefix_len() == 0) {
        Some(everybody) => Finding::warn(
            "clients",
            format!("{everybody} lets everybody connect, and the caches have no other guard"),
            "name your clients' own ranges under 'clients'",
        ),
        None => Finding::ok("clients", "only those of the configuration may connect"),
    }
}

/// Whether a cache is offered in clear text to clients on the internet.
pub(crate) fn encryption(inventory: &Inventory, clients: &[IpNet]) -> Finding {
    let open: Vec<&str> =
        inventory.nodes.iter().filter(|node| !node.tls).map(|node| node.id.as_str()).collect();
    match (clients.iter().find(|range| is_public(range)), open.as_slice()) {
        (Some(client), [first, rest @ ..]) => {
            let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            Finding::warn(
                "encryption",
                format!("{client} reaches {first}{others} in clear text across the internet"),
                "turn in-transit encryption on for the cache, or let clients come through a VPN",
            )
        }
        (None, _) => Finding::ok("encryption", "no client comes from the internet"),
        (_, []) => Finding::ok("encryption", "every cache has in-transit encryption"),
    }
}

/// Whether clients on the internet have an address to dial.
pub(crate) fn public_address(
    configured: &Auto<IpAddr>,
    instance: Option<&InstanceFacts>,
    clients: &[IpNet],
) -> Finding {
    let name = "public address";
    let attached: Option<Vec<Ipv4Addr>> =
        instance.map(|facts| facts.public_ipv4.iter().chain(&facts.public_ipv4s).copied().collect());
    match (configured, attached.as_deref()) {
        (Auto::Set(address), None) => Finding::ok(name, format!("{address}, by the configuration")),
        (Auto::Set(address), Some(attached))
            if attached.iter().any(|other| *address == IpAddr::V4(*other)) =>
        {
            Finding::ok(name, format!("{address} is attached to this instance"))
        }
        (Auto::Set(address), Some(_)) => Finding::warn(
            name,
            format!("{address} is not attached to this instance's primary interface"),
            "associate it, or put gateway.public_address right",
        ),
        (Auto::Auto, Some([address, ..])) => {
            Finding::ok(name, format!("{address} is attached to this instance"))
        }
        (Auto::Auto, _) if !clients.iter().any(is_public) => {
            Finding::ok(name, "none, and no client comes from the internet")
        }
        (Auto::Auto, Some([])) => Finding::fail(
            name,
            "this instance has none, so that nobody on the internet reaches it",
            "associate an Elastic IP",
        ),
        (Auto::Auto, None) => Finding::warn(
            name,
            "not known: there is no instance metadata",
            "set gateway.public_address to what clients dial",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok, Warn};
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn inventory(tls: bool) -> Inventory {
        let json = format!(
            r#"{{"version":1,"nodes":[{{"id":"my-cluster-001","source":"replication_group/my-cluster","port":6379,"tls":{tls}}}],"sources":[]}}"#
        );
        Inventory::from_json(&json).unwrap()
    }

    #[test]
    fn a_range_of_everybody_is_warned_of() {
        assert_eq!(clients(&ranges(&["198.51.100.27/32"])).verdict, Ok);
        assert_eq!(clients(&ranges(&["198.51.100.27/32", "0.0.0.0/0"])).verdict, Warn);
        assert_eq!(clients(&ranges(&["::/0"])).verdict, Warn);
    }

    #[test]
    fn clear_text_is_warned_of_where_it_crosses_the_internet() {
        let verdict = |tls, range: &str| encryption(&inventory(tls), &ranges(&[range])).verdict;
        assert_eq!(verdict(false, "198.51.100.27/32"), Warn);
        assert_eq!(verdict(true, "198.51.100.27/32"), Ok);
        assert_eq!(verdict(false, "192.168.7.0/24"), Ok);
        assert_eq!(verdict(false, "192.0.0.0/8"), Warn, "it is more than the private range in it");
    }

    #[test]
    fn an_instance_without_a_public_address_is_found() {
        let elastic: Ipv4Addr = "203.0.113.73".parse().unwrap();
        let with = InstanceFacts { public_ipv4: Some(elastic), ..InstanceFacts::default() };
        let without = InstanceFacts::default();
        let (outside, inside) = (ranges(&["198.51.100.27/32"]), ranges(&["10.0.0.0/8"]));
        let verdict = |configured: &Auto<IpAddr>, facts, clients: &[IpNet]| {
            public_address(configured, facts, clients).verdict
        };
        assert_eq!(verdict(&Auto::Auto, Some(&with), &outside), Ok);
        assert_eq!(verdict(&Auto::Auto, Some(&without), &outside), Fail);
        assert_eq!(verdict(&Auto::Auto, Some(&without), &inside), Ok);
        assert_eq!(verdict(&Auto::Auto, None, &outside), Warn);
        assert_eq!(verdict(&Auto::Set(elastic.into()), None, &outside), Ok);
        assert_eq!(verdict(&Auto::Set(elastic.into()), Some(&with), &outside), Ok);
        assert_eq!(verdict(&Auto::Set(elastic.into()), Some(&without), &outside), Warn);
    }
}
