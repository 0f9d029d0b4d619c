//! Values that several keys of the file have.

use std::collections::BTreeSet;
use std::net::{AddrParseError, IpAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use plan::{Client, SSH};

use super::PortRange;
use super::document::Node;

pub(super) const NETWORK: &str = "an address or network, such as 198.51.100.27 or 198.51.100.0/24";

pub(super) fn network(node: &Node<'_>) -> Option<IpNet> {
    let network = node.parsed(NETWORK, |text| text.parse().map(|ClientNetwork(network)| network).ok())?;
    match host_bits(network) {
        None => Some(network),
        Some((what, remedy)) => {
            node.mistake(what, remedy);
            None
        }
    }
}

/// A network or an address, of IPv4 also where it is written as IPv6.
pub(crate) struct ClientNetwork(pub(crate) IpNet);

impl FromStr for ClientNetwork {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from))?;
        Ok(Self(unmapped(network)))
    }
}

/// What is wrong with a network whose address has bits behind its prefix, and the remedy.
pub(crate) fn host_bits(network: IpNet) -> Option<(String, String)> {
    let (whole, alone) = (network.trunc(), IpNet::from(network.addr()));
    (network.addr() != network.network()).then(|| {
        (
            format!("{network} has bits behind its prefix"),
            format!("write {whole} for the network or {alone} for the one address"),
        )
    })
}

/// An IPv4 network that is written as IPv6 (`::ffff:198.51.100.27/128`, RFC 4291 section 2.5.5.2): no packet on the wire has
/// such an address.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let length = mapped.prefix_len().checked_sub(96);
    let v4 = mapped.addr().to_ipv4_mapped().zip(length);
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

pub(super) const CLIENTS: &str = "a list of addresses or networks, such as [198.51.100.27/32]";

/// The distinct lists of clients, in the order in which they are found.
pub(super) struct ClientLists {
    pub(super) distinct: Vec<Vec<Client>>,
}

impl ClientLists {
    /// With the list for everything that has none of its own.
    pub(super) fn new(default: Vec<Client>) -> Self {
        Self { distinct: vec![default] }
    }

    /// The number of the list that has these clients.
    pub(super) fn index(&mut self, clients: Vec<Client>) -> usize {
        let parts = |list: &[Client]| -> (Vec<IpNet>, BTreeSet<Client>) {
            let network =
                |client: &Client| if let Client::Network(network) = client { Some(*network) } else { None };
            let networks: Vec<IpNet> = list.iter().filter_map(network).collect();
            let others = list.iter().filter(|client| network(client).is_none()).cloned();
            (IpNet::aggregate(&networks), others.collect())
        };
        let same = |other: &Vec<Client>| parts(other) == parts(&clients);
        self.distinct.iter().position(same).unwrap_or_else(|| {
            self.distinct.push(clients);
            self.distinct.len() - 1
        })
    }
}

/// A list of clients; at least one.
pub(super) fn client_list(node: &Node<'_>) -> Vec<Client> {
    let items = node.list(CLIENTS);
    if items.is_empty() && !node.is_mapping() {
        node.mistake("nobody may connect", "name at least one client, such as 198.51.100.27/32");
    }
    items.iter().filter_map(client).collect()
}

/// A network, `{dns: NAME}` or `{file: PATH}`.
fn client(node: &Node<'_>) -> Option<Client> {
    if !node.is_mapping() {
        return network(node).map(Client::Network);
    }
    let fields = node.fields(&["dns", "file"]);
    match (fields.get("dns"), fields.get("file")) {
        (Some(name), None) => {
            name.parsed("a domain name, such as home.example.net", domain_name).map(Client::Name)
        }
        (None, Some(file)) => {
            let path = file.parsed("an absolute path, such as /etc/cachenat/clients.txt", |text| {
                text.starts_with('/').then(|| PathBuf::from(text))
            });
            path.map(Client::File)
        }
        _ => {
            node.mistake("a client is one thing", "write a network, {dns: NAME} or {file: PATH}");
            None
        }
    }
}

/// An absolute domain name, with or without its dot at the end: letters, digits, hyphens and underscores in labels of up to
/// 63, 253 in all (RFC 1035 section 2.3.4). A name of one label is none: it would be looked for in this host's own domain.
fn domain_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        plain && !label.is_empty() && label.len() <= 63
    };
    let is_address = name.parse::<IpAddr>().is_ok();
    (name.len() <= 253 && name.contains('.') && !is_address && name.split('.').all(is_label))
        .then(|| name.to_ascii_lowercase())
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
