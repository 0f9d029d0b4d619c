//! Who may come in, by which address, and how openly.

use std::net::IpAddr;

use discovery::{InstanceFacts, Inventory};
use ipnet::IpNet;
use rules::IfName;

use crate::Finding;

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

/// The ranges, joined where they touch, that are no list of clients but a good part of everybody: a sixteenth of a family's
/// public addresses or more. Two halves of the internet are the internet.
pub fn everybody(clients: &[IpNet]) -> Vec<IpNet> {
    let most = |range: &IpNet| match range {
        IpNet::V4(_) => 4,
        // The public ones are 2000::/3 (RFC 4291).
        IpNet::V6(_) => 7,
    };
    let wide = |range: &IpNet| range.prefix_len() <= most(range) && is_public(range);
    IpNet::aggregate(&clients.to_vec()).into_iter().filter(wide).collect()
}

/// Whether the list lets in more than it should.
pub fn clients(clients: &[IpNet]) -> Finding {
    match everybody(clients).first() {
        Some(everybody) => Finding::warn(
            "clients",
            format!("{everybody} allows any source address, and nothing else protects the caches"),
            "name your clients' own ranges under 'clients'",
        ),
        None => Finding::ok("clients", "only those of the configuration may connect"),
    }
}

/// Whether a cache is offered in clear text to clients on the internet.
pub fn encryption(inventory: &Inventory, clients: &[IpNet]) -> Finding {
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

/// The largest MTU that fits into a path of 1,500 bytes, around WireGuard's 80 bytes over IPv6.
const TUNNEL_MTU: u32 = 1420;

/// Whether a tunnel is there, confined, and narrow enough for the paths of the internet.
///
/// `kind` is what made the interface; `None`: there is none of that name.
pub fn tunnel(interface: &IfName, confine: bool, kind: Option<Option<&str>>, mtu: Option<u32>) -> Finding {
    let name = format!("tunnel {interface}");
    let Some(kind) = kind else {
        return Finding::fail(name, "this host has no such interface", "bring it up: wg-quick, or networkd");
    };
    if !confine {
        return Finding::warn(
            name,
            "confine is false: its peers reach every host and port that this host can",
            "write confine: true under gateway.tunnels, unless other rules confine it",
        );
    }
    match mtu.filter(|&mtu| mtu > TUNNEL_MTU) {
        Some(mtu) => Finding::warn(
            name,
            format!("its MTU is {mtu}: packets of a full segment don't fit into a path of 1500 bytes"),
            format!("set MTU = {TUNNEL_MTU} in the tunnel's [Interface] section"),
        ),
        None => Finding::ok(
            name,
            format!("{}; nothing but the caches is reached by it", kind.unwrap_or("a network card")),
        ),
    }
}

/// Whether clients on the internet have an address to dial, for each of the gateway's; `configured` are those that
/// `gateway.public_address` names.
pub fn public_address(
    configured: &[IpAddr],
    gateway: &[IpAddr],
    instance: Option<&InstanceFacts>,
    clients: &[IpNet],
) -> Finding {
    let name = "public address";
    let attached: Option<Vec<IpAddr>> = instance
        .map(|facts| facts.public_ipv4.iter().chain(&facts.public_ipv4s).copied().map(IpAddr::V4).collect());
    match (configured, instance) {
        ([_, ..], instance) => {
            let is_attached = |address: &&IpAddr| attached.iter().flatten().any(|other| other == *address);
            match configured.iter().find(|address| !is_attached(address)) {
                None => Finding::ok(name, format!("{} attached to this instance", are(configured))),
                Some(_) if instance.is_none() => {
                    Finding::ok(name, format!("{}, by the configuration", list(configured)))
                }
                Some(address) => Finding::warn(
                    name,
                    format!("{address} is not attached to this instance's primary interface"),
                    "associate it, or put gateway.public_address right",
                ),
            }
        }
        ([], _) if !clients.iter().any(is_public) => {
            Finding::ok(name, "none is needed: no client comes from the internet")
        }
        ([], None) => Finding::warn(
            name,
            "not known: there is no instance metadata",
            "set gateway.public_address to what clients dial",
        ),
        ([], Some(facts)) => {
            let public = |address: &IpAddr| match address {
                IpAddr::V4(private) => facts.public_address_of(*private).map(IpAddr::V4),
                IpAddr::V6(own) => Some(IpAddr::V6(*own)),
            };
            match gateway.iter().find(|address| public(address).is_none()) {
                Some(lacking) => Finding::fail(
                    name,
                    format!("{lacking} has none, so that nobody on the internet reaches it"),
                    format!("associate an Elastic IP with {lacking}"),
                ),
                None => {
                    let found: Vec<IpAddr> = gateway.iter().filter_map(public).collect();
                    Finding::ok(name, format!("{} attached to this instance", are(&found)))
                }
            }
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<String>>().join(", ")
}

fn are(addresses: &[IpAddr]) -> String {
    format!("{} {}", list(addresses), if addresses.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::Level::{Fail, Ok, Warn};

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
        for wide in [&["0.0.0.0/1", "128.0.0.0/1"][..], &["64.0.0.0/3", "10.0.0.1/32"], &["2000::/3"]] {
            assert_eq!(clients(&ranges(wide)).verdict, Warn, "{wide:?}");
        }
        assert_eq!(everybody(&ranges(&["0.0.0.0/1", "128.0.0.0/1"])), ranges(&["0.0.0.0/0"]));
        for narrow in [&["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"][..], &["fc00::/7", "2001:db8::/32"]] {
            assert_eq!(clients(&ranges(narrow)).verdict, Ok, "{narrow:?}");
        }
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
        let (private, elastic) = ("10.0.0.55".parse().unwrap(), "203.0.113.73".parse().unwrap());
        let with = InstanceFacts {
            local_ipv4: Some(private),
            public_ipv4: Some(elastic),
            ..InstanceFacts::default()
        };
        let without = InstanceFacts::default();
        let (outside, inside) = (ranges(&["198.51.100.27/32"]), ranges(&["10.0.0.0/8"]));
        let configured = [elastic.into()];
        let verdict = |configured: &[IpAddr], facts, clients: &[IpNet]| {
            public_address(configured, &[private.into()], facts, clients).verdict
        };
        assert_eq!(verdict(&[], Some(&with), &outside), Ok);
        assert_eq!(verdict(&[], Some(&without), &outside), Fail);
        assert_eq!(verdict(&[], Some(&without), &inside), Ok);
        assert_eq!(verdict(&[], None, &outside), Warn);
        assert_eq!(verdict(&configured, None, &outside), Ok);
        assert_eq!(verdict(&configured, Some(&with), &outside), Ok);
        assert_eq!(verdict(&configured, Some(&without), &outside), Warn);
    }

    #[test]
    fn each_of_several_gateway_addresses_needs_a_public_one() {
        let private: [Ipv4Addr; 2] = ["10.0.0.55".parse().unwrap(), "10.0.0.56".parse().unwrap()];
        let public: [Ipv4Addr; 2] = ["203.0.113.73".parse().unwrap(), "203.0.113.74".parse().unwrap()];
        let clients = ranges(&["198.51.100.27/32"]);
        let found = |associated: usize| {
            let facts = InstanceFacts {
                public_ipv4s: public.into_iter().take(associated).collect(),
                associations: private.into_iter().zip(public).take(associated).collect(),
                ..InstanceFacts::default()
            };
            let both = private.map(IpAddr::V4);
            let each = public.map(IpAddr::V4);
            [&[][..], &each].map(|configured| public_address(configured, &both, Some(&facts), &clients))
        };
        for finding in found(2) {
            assert_eq!(finding.verdict, Ok);
            assert_eq!(finding.what, "203.0.113.73, 203.0.113.74 are attached to this instance");
        }
        let [auto, each] = found(1);
        assert_eq!(auto.remedy.unwrap(), "associate an Elastic IP with 10.0.0.56");
        assert!(each.what.starts_with("203.0.113.74 is not attached"), "{}", each.what);
    }
}
