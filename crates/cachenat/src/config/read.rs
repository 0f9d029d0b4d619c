//! From the YAML document to [`Config`]: what each key may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery::Source;
use plan::{Addresses, Client, ListenPort, SSH};
use rules::ruleset::TARGETS;
use rules::{ForwardId, IfName, Tunnel};

use super::document::{Document, Fields, Node};
use super::sources;
use super::values::{CLIENTS, ClientLists, client_list, pool};
use crate::span::{DAY, Span};

use super::{Auto, Config, GatewayConfig, OnGone, PublicAddress, SnatConfig};

const KEYS: [&str; 13] = [
    "clients",
    "clients_keep",
    "on_client_gone",
    "gateway",
    "ports",
    "aws",
    "sources",
    "pins",
    "on_move",
    "removal_guard",
    "state_dir",
    "sysctl_dir",
    "lock_file",
];

/// The configuration; where the document is mistaken, a default stands in and the document knows.
pub(super) fn config(document: &Document<'_>, file: &Path, text: &str) -> Config {
    let fields = document.root().fields(&KEYS);
    let gateway = fields.get("gateway").map(|node| gateway(&node)).unwrap_or_default();
    let mut lists = ClientLists::new(clients(&fields));
    let sources = sources::all(&fields, &mut lists);
    let config = Config {
        file: file.to_owned(),
        text: text.to_owned(),
        clients: lists.distinct,
        clients_keep: fields.get("clients_keep").and_then(|node| keep(&node)).unwrap_or(KEEP),
        on_client_gone: fields.get("on_client_gone").and_then(|node| on_gone(&node)).unwrap_or_default(),
        ports: fields.get("ports").and_then(|node| pool(&node)).unwrap_or_default(),
        region: fields.get("aws").and_then(|node| region(&node)),
        sources,
        pins: fields.get("pins").map(|node| pins(&node, &gateway)).unwrap_or_default(),
        gateway,
        on_move: fields.get("on_move").and_then(|node| on_gone(&node)).unwrap_or_default(),
        removal_guard: fields.get("removal_guard").and_then(|node| removal_guard(&node)).unwrap_or(50),
        state_dir: path(&fields, "state_dir", "/var/lib/cachenat"),
        sysctl_dir: path(&fields, "sysctl_dir", "/etc/sysctl.d"),
        lock_file: path(&fields, "lock_file", "/run/cachenat.lock"),
    };
    if let Some(node) = fields.get("pins") {
        pins_in_foreign_pools(&config, &node);
    }
    config
}

fn clients(fields: &Fields<'_>) -> Vec<Client> {
    fields.require("clients", CLIENTS).map(|node| client_list(&node)).unwrap_or_default()
}

/// An address, of IPv4 also where it is written as IPv6.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn gateway(node: &Node<'_>) -> GatewayConfig {
    let fields = node.fields(&[
        "interface",
        "addresses",
        "public_address",
        "snat",
        "max_segment",
        "tunnels",
        "flowtable",
        "forward_others",
    ]);
    let gateway = GatewayConfig {
        interface: auto(&fields, "interface", interfaces),
        addresses: auto(&fields, "addresses", addresses),
        public_address: auto(&fields, "public_address", public_address),
        snat: fields.get("snat").and_then(|node| snat(&node)).unwrap_or_default(),
        max_segment: fields.get("max_segment").and_then(|node| max_segment(&node)),
        tunnels: fields.get("tunnels").map(|node| tunnels(&node)).unwrap_or_default(),
        flowtable: fields.get("flowtable").and_then(|node| truth(&node)).unwrap_or_default(),
        forward_others: fields.get("forward_others").and_then(|node| truth(&node)),
    };
    let ingress = match &gateway.interface {
        Auto::Set(names) => names.as_slice(),
        Auto::Auto => &[],
    };
    if let (Some(node), Some(twin)) =
        (fields.get("tunnels"), gateway.tunnels.iter().find(|tunnel| ingress.contains(&tunnel.interface)))
    {
        let what = format!("{} is also in gateway.interface", twin.interface);
        node.mistake(what, "take it away there: a tunnel's clients reach the listeners too");
    }
    if let Some(node) = fields.get("public_address") {
        public_address_of_each(&gateway, &node);
    }
    gateway
}

fn interfaces(node: &Node<'_>) -> Option<Vec<IfName>> {
    let what = "auto, an interface's name such as ens5, or a list of names";
    let mut names: Vec<IfName> = Vec::new();
    for item in node.one_or_more(what) {
        match item.parsed(what, |text| text.parse().ok()) {
            Some(name) if names.contains(&name) => {
                item.mistake(format!("{name} is listed twice"), "take one of them away");
            }
            name => names.extend(name),
        }
    }
    (!names.is_empty()).then_some(names)
}

/// The least and the most bytes of a segment: what every IPv4 host takes (RFC 9293 section 3.7.1), and what a path of 9,001
/// bytes, a VPC's, carries.
const SEGMENTS: RangeInclusive<u16> = 536..=8961;

/// `off`, or a number of bytes.
fn max_segment(node: &Node<'_>) -> Option<u16> {
    node.scalar("off, or a number of bytes from 536 to 8961, such as 1360", |text| match text {
        "off" | "false" => Some(None),
        text => text.parse().ok().filter(|size| SEGMENTS.contains(size)).map(Some),
    })?
}

fn tunnels(node: &Node<'_>) -> Vec<Tunnel> {
    let mut tunnels: Vec<Tunnel> = Vec::new();
    for item in node.list("a list, such as [{interface: wg0}]") {
        let fields = item.fields(&["interface", "confine"]);
        let what = "an interface's name, such as wg0";
        let interface =
            fields.require("interface", what).and_then(|node| node.parsed(what, |text| text.parse().ok()));
        let confine = fields.get("confine").and_then(|node| truth(&node)).unwrap_or(true);
        match interface {
            Some(interface) if tunnels.iter().any(|tunnel| tunnel.interface == interface) => {
                item.mistake(format!("{interface} is listed twice"), "take one of them away");
            }
            Some(interface) => tunnels.push(Tunnel { interface, confine }),
            None => {}
        }
    }
    tunnels
}

fn truth(node: &Node<'_>) -> Option<bool> {
    node.scalar("true or false", |text| text.parse().ok())
}

fn auto<T>(fields: &Fields<'_>, key: &str, read: impl FnOnce(&Node<'_>) -> Option<T>) -> Auto<T> {
    match fields.get(key) {
        Some(node) if !node.is("auto") => read(&node).map_or(Auto::Auto, Auto::Set),
        _ => Auto::Auto,
    }
}

fn addresses(node: &Node<'_>) -> Option<Addresses> {
    let what = "auto or a list of the gateway's private addresses, such as [10.0.0.55]";
    let mut addresses: Vec<IpAddr> = Vec::new();
    for item in node.one_or_more(what) {
        let Some(address) = item.parsed(what, address) else { continue };
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            item.mistake(format!("{address} can't be reached from outside"), format!("write {what}"));
        } else if addresses.contains(&address) {
            item.mistake(format!("{address} stands here twice"), "take one of them away");
        } else {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        node.mistake("the gateway has no address", format!("write {what}"));
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv4());
    if !v4.is_empty() && !v6.is_empty() && v4.len() != v6.len() {
        node.mistake(
            format!("{} IPv4 and {} IPv6 addresses", v4.len(), v6.len()),
            "name as many of each, as a node gets one of both, or leave one family out",
        );
    }
    (!addresses.is_empty()).then(|| Addresses::new(addresses))
}

/// `203.0.113.73`, or for each of several gateway addresses its own: `{10.0.0.55: 203.0.113.73, ...}`.
fn public_address(node: &Node<'_>) -> Option<PublicAddress> {
    if !node.is_mapping() {
        let what = "auto or an address, such as 203.0.113.73; with several gateway.addresses, one for each: \
                    {10.0.0.55: 203.0.113.73, 10.0.0.56: 203.0.113.74}";
        return node.parsed(what, address).map(PublicAddress::Only);
    }
    let mut each = BTreeMap::new();
    for (key, node) in node.entries("a mapping") {
        let public = node.parsed("the address that clients dial, such as 203.0.113.73", address);
        match (address(&key), public) {
            (Some(private), Some(public)) => drop(each.insert(private, public)),
            (None, _) => node.mistake(format!("{key:?} is no address"), "write one of gateway.addresses"),
            (_, None) => {}
        }
    }
    Some(PublicAddress::Each(each))
}

/// Several addresses need a public one each; IPv6 addresses are public ones themselves.
fn public_address_of_each(gateway: &GatewayConfig, node: &Node<'_>) {
    let addresses = match &gateway.addresses {
        Auto::Set(addresses) => addresses,
        Auto::Auto => &Addresses::default(),
    };
    match &gateway.public_address {
        Auto::Set(PublicAddress::Only(address)) if addresses.are_several() => node.mistake(
            format!("{address} can't lead to several gateway.addresses"),
            "write one for each, such as {10.0.0.55: 203.0.113.73, 10.0.0.56: 203.0.113.74}",
        ),
        Auto::Set(PublicAddress::Each(each)) => {
            for private in each.keys().filter(|private| !addresses.contains(private)) {
                let what = format!("{private} is not among gateway.addresses");
                node.mistake(what, "add it there, or take it away here");
            }
            let lacks = |address: &&IpAddr| address.is_ipv4() && !each.contains_key(address);
            if let Some(lacking) = addresses.iter().find(lacks) {
                let remedy = format!("add {lacking}: and the Elastic IP that is associated with it");
                node.mistake(format!("{lacking} has none"), remedy);
            }
        }
        Auto::Auto | Auto::Set(PublicAddress::Only(_)) => {}
    }
}

fn snat(node: &Node<'_>) -> Option<SnatConfig> {
    if node.is_list() {
        return snat_addresses(node).map(SnatConfig::Addresses);
    }
    if node.is_mapping() {
        let mut by_interface = BTreeMap::new();
        for (key, node) in node.entries("a mapping") {
            match (key.parse::<IfName>(), snat_addresses(&node)) {
                (Ok(interface), Some(addresses)) => drop(by_interface.insert(interface, addresses)),
                (Err(error), _) => node.mistake(error.to_string(), "write an interface's name, such as eth1"),
                (_, None) => {}
            }
        }
        return (!by_interface.is_empty()).then_some(SnatConfig::ByInterface(by_interface));
    }
    let what = "auto, masquerade, off, an address of the gateway or several, or addresses by interface: \
                {eth0: 10.0.0.55, eth1: 10.0.1.55}";
    node.scalar(what, |text| match text {
        "auto" => Some(SnatConfig::Auto),
        "masquerade" => Some(SnatConfig::Masquerade),
        "off" | "false" => Some(SnatConfig::Off),
        text => address(text).map(|address| SnatConfig::Addresses(vec![address])),
    })
}

/// The addresses that connections are shared among; at least one.
fn snat_addresses(node: &Node<'_>) -> Option<Vec<IpAddr>> {
    let what = "an address of the gateway, such as 10.0.0.55";
    let addresses: Vec<IpAddr> =
        node.one_or_more(what).iter().filter_map(|node| node.scalar(what, address)).collect();
    if addresses.iter().collect::<BTreeSet<_>>().len() < addresses.len() {
        node.mistake("an address is listed twice", "write each once");
    }
    if addresses.len() > usize::from(TARGETS) {
        node.mistake(format!("{} addresses", addresses.len()), format!("write {TARGETS} at most"));
    }
    (!addresses.is_empty()).then_some(addresses)
}

fn region(node: &Node<'_>) -> Option<String> {
    let region = node.fields(&["region"]).get("region")?;
    region.parsed("a region's name, such as us-east-2", |text| {
        let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        (plain && !text.is_empty()).then(|| text.to_owned())
    })
}

fn pins(node: &Node<'_>, gateway: &GatewayConfig) -> BTreeMap<ForwardId, ListenPort> {
    let what = "a mapping of node ids to ports, such as {my-cluster-001: 6379}";
    let (addresses, port): (Vec<IpAddr>, _) = match gateway.several_addresses() {
        Some(addresses) => (
            addresses.leased().collect(),
            "a port from 1 to 65535, or an address and port such as 10.0.0.56:6379",
        ),
        None => (vec![], "a port from 1 to 65535"),
    };
    let mut pins: BTreeMap<ForwardId, ListenPort> = BTreeMap::new();
    for (key, node) in node.entries(what) {
        let id = match key.parse::<ForwardId>() {
            Ok(id) => id,
            Err(error) => {
                node.mistake(error.to_string(), "write a node's id as 'cachenat discover' shows it");
                continue;
            }
        };
        let Some(mut pin) = node.scalar(port, |text| text.parse::<ListenPort>().ok()) else { continue };
        if let Some(address) = pin.address.filter(|address| !addresses.contains(address)) {
            node.mistake(
                format!("{address} is not one of several gateway.addresses that leases go by"),
                format!("write one that is, or {} alone", pin.port),
            );
            continue;
        }
        pin.address = pin.address.or(addresses.first().copied());
        if pin.port == SSH {
            node.mistake("port 22 is the way into this host (SSH)", "pin it to another port");
        } else if let Some((twin, _)) = pins.iter().find(|(_, taken)| **taken == pin) {
            node.mistake(format!("port {pin} is also pinned to {twin}"), "pin each to a port of its own");
        } else {
            pins.insert(id, pin);
        }
    }
    pins
}

/// A pin inside the pool that another source has for its own would take a port from under it.
fn pins_in_foreign_pools(config: &Config, node: &Node<'_>) {
    let first = config.gateway.several_addresses().and_then(|addresses| addresses.leased().next());
    for (key, node) in node.entries("a mapping") {
        let Some((id, pin)) = config.pins.iter().find(|(id, _)| id.as_str() == key) else { continue };
        // Of several addresses pools are on the first.
        if pin.address.is_some() && pin.address != first {
            continue;
        }
        let port = pin.port;
        let owner = config.sources.iter().position(|configured| may_name(&configured.source, id));
        let mut pools =
            config.sources.iter().enumerate().filter_map(|(at, s)| Some((at, s, s.ports.as_ref()?)));
        let foreign =
            pools.find(|(at, _, pool)| owner.is_some_and(|owner| owner != *at) && pool.contains(port));
        let own = owner.and_then(|owner| config.sources.get(owner)?.ports.as_ref());
        if let (Some((at, other, pool)), false) = (foreign, own.is_some_and(|own| own.contains(port))) {
            node.mistake(
                format!("port {port} lies in the pool {pool} of sources[{at}] ({})", other.source.name()),
                format!("pin {id} to a port outside {pool}, or move that pool"),
            );
        }
    }
}

/// Whether nodes of the source have ids like this one, as far as its name tells.
fn may_name(source: &Source, id: &ForwardId) -> bool {
    let begins = |cluster: &str| {
        let rest = id.as_str().strip_prefix(cluster);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
    };
    match source {
        Source::ReplicationGroup { id, .. } | Source::CacheCluster { id } => begins(id),
        Source::ServerlessCache { name } | Source::InBand { name, .. } => begins(name),
        Source::Static { nodes, .. } => nodes.iter().any(|node| node.id.as_str() == id.as_str()),
        Source::Tags { .. } => false,
    }
}

/// How long a client's last good addresses stay unless the file says otherwise.
const KEEP: Duration = Duration::from_secs(DAY);

fn keep(node: &Node<'_>) -> Option<Duration> {
    let span = node.scalar("a time from 0s to 720h, such as 24h", |text| text.parse().ok())?;
    Some(Span::<0, { 30 * DAY }>::get(span))
}

fn on_gone(node: &Node<'_>) -> Option<OnGone> {
    node.parsed("cut or drain", |text| match text {
        "cut" => Some(OnGone::Cut),
        "drain" => Some(OnGone::Drain),
        _ => None,
    })
}

/// `50%`; `off` is all of them.
fn removal_guard(node: &Node<'_>) -> Option<u8> {
    node.scalar("a percentage such as 50%, or off", |text| match text {
        "off" | "false" => Some(100),
        text => text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100),
    })
}

fn path(fields: &Fields<'_>, key: &str, default: &str) -> PathBuf {
    let set = fields.get(key).and_then(|node| {
        node.parsed("an absolute path", |text| text.starts_with('/').then(|| PathBuf::from(text)))
    });
    set.unwrap_or_else(|| PathBuf::from(default))
}
