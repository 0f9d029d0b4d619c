//! Rulesets for the tests of the applier.

// Each test file uses only some of these.
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use rules::ruleset::{AddrPort, Element, Family, Key, ListIndex, Ruleset, Set, SetKind};
use rules::{AccessList, AddressRange, Forward, Gateway, Snat, Tunnel, render};

/// `10.0.0.55:6379`, `[2001:db8::55]:6379`
pub(crate) fn at(text: &str) -> AddrPort {
    text.parse().unwrap()
}

/// A forward from a listener to its targets.
pub(crate) fn forward(id: &str, listen: &str, targets: &[&str]) -> Forward {
    let targets = targets.iter().map(|target| at(target)).collect();
    Forward { id: id.parse().unwrap(), listen: at(listen), targets }
}

/// The gateway of the example: eth0, 10.0.0.55.
pub(crate) fn gateway(families: &[Family], snat: Snat) -> Gateway {
    Gateway {
        ingress: vec!["eth0".parse().unwrap()],
        families: families.to_vec(),
        snat,
        tunnels: vec![],
        max_segment: None,
    }
}

/// SNAT to the gateway's own addresses.
pub(crate) fn to_gateway() -> Snat {
    Snat::fixed("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap(), "2001:db8::55".parse().unwrap()])
}

/// SNAT to several of its addresses.
pub(crate) fn to_several() -> Snat {
    let addresses = ["10.0.0.55", "10.0.0.56", "2001:db8::55", "2001:db8::56", "2001:db8::57"];
    Snat::fixed("eth0".parse().unwrap(), addresses.map(|address| address.parse().unwrap()).to_vec())
}

/// The example: three nodes on ports 6379 to 6381.
pub(crate) fn example() -> Ruleset {
    let forwards = [
        forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("my-cluster-002", "10.0.0.55:6380", &["10.0.1.231:6379"]),
        forward("my-cluster-003", "10.0.0.55:6381", &["10.0.1.232:6379"]),
    ];
    render(
        &[AccessList::new(&["198.51.100.27/32".parse().unwrap()], &forwards)],
        &gateway(&[Family::Ipv4], to_gateway()),
    )
}

/// What nft adds to a table with `forward` rules so that `10.0.0.55:6390` and `[2001:db8::55]:6390` lead to nodes 1 and 2 as
/// cachenat made it before a listener's targets had a map each.
pub(crate) const FORMER: &str = r#"
    add map inet cachenat spread4 { typeof ip daddr . tcp dport . numgen random mod 60 : ip daddr . tcp dport; flags interval; counter; }
    add element inet cachenat spread4 { 10.0.0.55 . 6390 . 0-29 comment "c/reader" : 10.0.1.1 . 6379 }
    add element inet cachenat spread4 { 10.0.0.55 . 6390 . 30-59 comment "c/reader" : 10.0.1.2 . 6379 }
    add element inet cachenat backends4 { 10.0.1.1 . 6379, 10.0.1.2 . 6379 }
    add element inet cachenat listeners4 { 10.0.0.55 . 6390 }
    add rule inet cachenat prerouting iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport . numgen random mod 60 map @spread4
    add map inet cachenat spread6 { typeof ip6 daddr . tcp dport . numgen random mod 60 : ip6 daddr . tcp dport; flags interval; counter; }
    add element inet cachenat spread6 { 2001:db8::55 . 6390 . 0-29 comment "c/reader" : 2001:db8:1::1 . 6379 }
    add element inet cachenat spread6 { 2001:db8::55 . 6390 . 30-59 comment "c/reader" : 2001:db8:1::2 . 6379 }
    add element inet cachenat backends6 { 2001:db8:1::1 . 6379, 2001:db8:1::2 . 6379 }
    add element inet cachenat listeners6 { 2001:db8::55 . 6390 }
    add rule inet cachenat prerouting iifname "eth0" ip6 saddr @clients6 dnat ip6 to ip6 daddr . tcp dport . numgen random mod 60 map @spread6
"#;

/// This number of nodes, each on its own port.
pub(crate) fn nodes(count: u16) -> Ruleset {
    let forwards: Vec<Forward> = (0..count)
        .map(|at| {
            let port = NonZeroU16::new(at + 1024).unwrap();
            let listen = AddrPort { address: "10.0.0.55".parse().unwrap(), port };
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a01_0000 + u32::from(at)));
            let target = AddrPort { address, port: NonZeroU16::new(6379).unwrap() };
            Forward { id: format!("node-{at:05}").parse().unwrap(), listen, targets: vec![target] }
        })
        .collect();
    render(
        &[AccessList::new(&["198.51.100.27/32".parse().unwrap()], &forwards)],
        &gateway(&[Family::Ipv4], to_gateway()),
    )
}

/// Everything that a ruleset can hold: both families, spreads, networks, ranges to both ends of the address space.
pub(crate) fn everything(snat: Snat) -> Ruleset {
    let forwards = [
        forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("my-cluster-002", "10.0.0.55:6380", &["10.0.1.231:6379"]),
        forward(
            "my-cluster/reader",
            "10.0.0.55:6390",
            &["10.0.1.231:6379", "10.0.1.232:6379", "10.0.1.233:6379"],
        ),
        forward("my-cluster/one-slot", "10.0.0.56:1", &["10.0.1.231:65535"]),
        forward("six-001", "[2001:db8::55]:6379", &["[2001:db8:1::230]:6379"]),
        forward("six/reader", "[2001:db8::55]:6390", &["[2001:db8:1::230]:6379", "[2001:db8:1::231]:6379"]),
    ];
    let clients =
        ["198.51.100.27/32", "203.0.113.0/25", "0.0.0.0/8", "255.255.255.0/24", "2001:db8::/32", "ffff::/16"];
    let clients = clients.map(|client| client.parse().unwrap());
    let mut gateway = gateway(&[Family::Ipv4, Family::Ipv6], snat);
    gateway.ingress.push("eth2".parse().unwrap());
    gateway.tunnels =
        ["wg0", "wg1"].map(|name| Tunnel { interface: name.parse().unwrap(), confine: name == "wg0" }).into();
    gateway.max_segment = Some(1360);
    let (first, second) = forwards.split_at(4);
    let lists = [AccessList::new(&clients, first), AccessList::new(&clients[..1], second)];
    let mut ruleset = render(&lists, &gateway);
    // A range that is no network, beside one that it touches.
    for text in ["192.0.2.10-192.0.2.20", "192.0.2.21-192.0.2.21", "192.0.2.22-192.0.2.100"] {
        client(&mut ruleset, text, Some("office"));
    }
    ruleset
}

/// Adds a range to the IPv4 clients.
pub(crate) fn client(ruleset: &mut Ruleset, range: &str, comment: Option<&str>) {
    let range: AddressRange = range.parse().unwrap();
    let set = Set::new(SetKind::Clients(ListIndex::FIRST), Family::of(range.first()));
    let element = Element { data: None, comment: comment.map(Into::into) };
    ruleset.sets.entry(set).or_default().insert(Key::Addresses(range), element);
}

/// Points the listener to another target, as after a node replacement.
pub(crate) fn redirect(ruleset: &mut Ruleset, listen: &str, target: &str) {
    let set = |kind| Set::new(kind, Family::Ipv4);
    let element = ruleset
        .sets
        .get_mut(&set(SetKind::Forward(ListIndex::FIRST)))
        .unwrap()
        .get_mut(&Key::AddrPort(at(listen)))
        .unwrap();
    let old = element.data.replace(at(target)).unwrap();
    let backends = ruleset.sets.get_mut(&set(SetKind::Backends)).unwrap();
    backends.remove(&Key::AddrPort(old));
    backends.insert(Key::AddrPort(at(target)), Element::default());
}
