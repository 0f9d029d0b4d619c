//! From the YAML document to [`Config`]: what each key may hold.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use discovery::Source;
use ipnet::IpNet;
use rules::ForwardId;

use super::document::{Document, Fields, Node};
use super::sources;
use super::{Auto, Config, Gateway, OnMove, Pool, Snat};

const KEYS: [&str; 11] = [
    "clients",
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
    let config = Config {
        file: file.to_owned(),
        text: text.to_owned(),
        clients: clients(&fields),
        gateway: fields.get("gateway").map(|node| gateway(&node)).unwrap_or_default(),
        ports: fields.get("ports").and_then(|node| pool(&node)).unwrap_or_default(),
        region: fields.get("aws").and_then(|node| region(&node)),
        sources: sources::all(&fields),
        pins: fields.get("pins").map(|node| pins(&node)).unwrap_or_default(),
        on_move: fields.get("on_move").and_then(|node| on_move(&node)).unwrap_or_default(),
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

fn clients(fields: &Fields<'_>) -> Vec<IpNet> {
    let what = "a list of addresses or networks, such as [198.51.100.27/32]";
    let Some(node) = fields.require("clients", what) else { return vec![] };
    let items = node.list(what);
    if items.is_empty() && !node.is_mapping() {
        node.mistake("nobody may connect", "name at least one client, such as 198.51.100.27/32");
    }
    items.iter().filter_map(client).collect()
}

fn client(node: &Node<'_>) -> Option<IpNet> {
    let network = node.parsed("an address or network, such as 198.51.100.27 or 198.51.100.0/24", |text| {
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok())
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

fn gateway(node: &Node<'_>) -> Gateway {
    let fields = node.fields(&["interface", "addresses", "public_address", "snat"]);
    let address = "auto or an address, such as 203.0.113.73";
    Gateway {
        interface: auto(&fields, "interface", |node| {
            node.parsed("auto or an interface's name, such as ens5", |text| text.parse().ok())
        }),
        addresses: auto(&fields, "addresses", addresses),
        public_address: auto(&fields, "public_address", |node| {
            node.parsed(address, |text| text.parse().ok())
        }),
        snat: fields.get("snat").and_then(|node| snat(&node)).unwrap_or_default(),
    }
}

fn auto<T>(fields: &Fields<'_>, key: &str, read: impl FnOnce(&Node<'_>) -> Option<T>) -> Auto<T> {
    match fields.get(key) {
        Some(node) if !node.is("auto") => read(&node).map_or(Auto::Auto, Auto::Set),
        _ => Auto::Auto,
    }
}

fn addresses(node: &Node<'_>) -> Option<Vec<IpAddr>> {
    let what = "auto or a list of the gateway's private addresses, such as [10.0.0.55]";
    let mut addresses: Vec<IpAddr> = Vec::new();
    for item in node.one_or_more(what) {
        let Some(address) = item.parsed(what, |text| text.parse::<IpAddr>().ok()) else { continue };
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            item.mistake(format!("{address} can't be reached from outside"), format!("write {what}"));
        } else if addresses.contains(&address) {
            item.mistake(format!("{address} stands here twice"), "take one of them away");
        } else if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            item.mistake(
                "a second address of the same family",
                "name one IPv4 and one IPv6 address at most: each node has a port of its own on it",
            );
        } else {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        node.mistake("the gateway has no address", format!("write {what}"));
    }
    (!addresses.is_empty()).then_some(addresses)
}

fn snat(node: &Node<'_>) -> Option<Snat> {
    node.parsed("auto, masquerade, off or an address of the gateway", |text| match text {
        "auto" => Some(Snat::Auto),
        "masquerade" => Some(Snat::Masquerade),
        "off" | "false" => Some(Snat::Off),
        address => address.parse().map(Snat::Address).ok(),
    })
}

fn region(node: &Node<'_>) -> Option<String> {
    let region = node.fields(&["region"]).get("region")?;
    region.parsed("a region's name, such as us-east-2", |text| {
        let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        (plain && !text.is_empty()).then(|| text.to_owned())
    })
}

/// A pool: `6379-7378`, or a port alone.
pub(super) fn pool(node: &Node<'_>) -> Option<Pool> {
    let pool: Pool =
        node.parsed("a range of ports from 1 to 65535, such as 6379-7378", |text| text.parse().ok())?;
    if pool.contains(SSH) {
        node.mistake(
            format!("the pool {pool} takes port 22, the way into this host (SSH)"),
            "choose a range without 22, such as 6379-7378",
        );
        return None;
    }
    Some(pool)
}

/// A forward on it would lock the operator out, whether or not sshd happens to run now.
const SSH: NonZeroU16 = NonZeroU16::new(22).expect("22 is not 0");

fn pins(node: &Node<'_>) -> BTreeMap<ForwardId, NonZeroU16> {
    let what = "a mapping of node ids to ports, such as {my-cluster-001: 6379}";
    let mut pins: BTreeMap<ForwardId, NonZeroU16> = BTreeMap::new();
    for (key, node) in node.entries(what) {
        let id = match key.parse::<ForwardId>() {
            Ok(id) => id,
            Err(error) => {
                node.mistake(error.to_string(), "write a node's id as 'cachenat discover' shows it");
                continue;
            }
        };
        let Some(port) = node.parsed("a port from 1 to 65535", |text| text.parse::<NonZeroU16>().ok()) else {
            continue;
        };
        if port == SSH {
            node.mistake("port 22 is the way into this host (SSH)", "pin it to another port");
        } else if let Some((twin, _)) = pins.iter().find(|(_, taken)| **taken == port) {
            node.mistake(format!("port {port} is pinned to {twin} as well"), "pin each to a port of its own");
        } else {
            pins.insert(id, port);
        }
    }
    pins
}

/// A pin inside the pool that another source has for its own would take a port from under it.
fn pins_in_foreign_pools(config: &Config, node: &Node<'_>) {
    for (key, node) in node.entries("a mapping") {
        let Some((id, &port)) = config.pins.iter().find(|(id, _)| id.as_str() == key) else { continue };
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

fn on_move(node: &Node<'_>) -> Option<OnMove> {
    node.parsed("cut or drain", |text| match text {
        "cut" => Some(OnMove::Cut),
        "drain" => Some(OnMove::Drain),
        _ => None,
    })
}

/// `50%`; `off` is all of them.
fn removal_guard(node: &Node<'_>) -> Option<u8> {
    node.parsed("a percentage such as 50%, or off", |text| match text {
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
