//! The endpoints of one cache, and how they hang together.

use std::collections::BTreeSet;
use std::net::IpAddr;

use discovery::{Engine, Inventory, Node, Role};

use crate::literal::{Comment, comment, distinct};
use crate::template::Places;
use crate::{ClientEndpoint, Protocol};

/// A cache as a client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Cache<'a> {
    pub(crate) name: &'a str,
    /// What its identifiers are made of: its name, which no other cache's name looks like.
    pub(crate) word: String,
    pub(crate) protocol: Protocol,
    pub(crate) tls: bool,
    /// Its endpoints, single nodes before the ports that follow a role.
    endpoints: Vec<&'a ClientEndpoint>,
}

/// What the cache calls a node, and the node.
#[derive(Clone, Debug)]
pub(crate) struct Inside<'a> {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) node: &'a ClientEndpoint,
}

/// The caches, in the order in which their endpoints come.
pub(crate) fn caches(endpoints: &[ClientEndpoint]) -> Vec<Cache<'_>> {
    let mut caches: Vec<Cache<'_>> = Vec::new();
    for endpoint in endpoints {
        let protocol = endpoint.protocol.unwrap_or(Protocol::Redis);
        match caches.iter_mut().find(|cache| cache.name == endpoint.cluster && cache.protocol == protocol) {
            Some(cache) => cache.endpoints.push(endpoint),
            None => caches.push(Cache {
                name: &endpoint.cluster,
                word: String::new(),
                protocol,
                tls: endpoint.tls,
                endpoints: vec![endpoint],
            }),
        }
    }
    let words = distinct(&caches.iter().map(|cache| (cache.name, cache.protocol)).collect::<Vec<_>>());
    for (cache, word) in caches.iter_mut().zip(words) {
        cache.word = word;
        cache.endpoints.sort_by_key(|endpoint| endpoint.follows_a_role());
    }
    caches
}

/// What a node's cache speaks.
///
/// The API tells roles only where cluster mode is disabled, and shards in both modes; a cache that was asked itself
/// tells shards only where it is a cluster. Several nodes of which neither is known are taken for a cluster.
pub(crate) fn protocol(inventory: &Inventory, node: &Node) -> Protocol {
    match (&node.engine, node.port.get()) {
        (Some(Engine::Memcached), _) | (None, 11211) => return Protocol::Memcached,
        _ => {}
    }
    let of_cluster = || {
        let same = |other: &&Node| other.cluster == node.cluster && other.source == node.source;
        inventory.nodes.iter().filter(same)
    };
    let shards = of_cluster().filter_map(|node| node.shard.as_deref()).collect::<BTreeSet<_>>().len();
    let has_roles = of_cluster().any(|node| node.role.is_some());
    let is_cluster = match node.source.as_str().split_once('/') {
        Some(("serverless_cache", _)) => true,
        Some(("in_band", _)) => shards > 0,
        _ => shards > 1 || (!has_roles && (shards == 1 || of_cluster().count() > 1)),
    };
    if is_cluster { Protocol::RedisCluster } else { Protocol::Redis }
}

impl ClientEndpoint {
    /// Whether the node behind the port changes with a role: `my-cluster/primary`, `my-cluster/reader`.
    pub fn follows_a_role(&self) -> bool {
        let suffix = self.id.strip_prefix(self.cluster.as_str());
        self.role == Some(Role::Reader) || matches!(suffix, Some("/primary" | "/reader"))
    }

    /// The node's name, where it has one; what no host name is made of never gets into anybody's code.
    pub(crate) fn name(&self) -> Option<&str> {
        Some(self.host.as_str()).filter(|host| is_name(host))
    }

    /// The name of the cluster's configuration endpoint, which leads to this node and all others.
    pub(crate) fn configuration_name(&self) -> Option<&str> {
        self.configuration_host.as_deref().filter(|host| is_name(host))
    }

    /// The name that the certificate is to carry; `None` without TLS.
    pub fn certificate_name(&self) -> Option<&str> {
        self.name().filter(|_| self.tls)
    }

    /// What a client dials that takes the dialled name for the certificate's: with TLS the node's own name, which
    /// the hosts file leads to the gateway.
    pub(crate) fn dialled(&self) -> &str {
        self.certificate_name().unwrap_or(&self.public_host)
    }

    /// `host:port` to dial, an IPv6 address in brackets.
    pub(crate) fn outside(&self) -> String {
        joined(&self.public_host, self.public_port)
    }

    /// [`ClientEndpoint::dialled`] and the port, as in [`ClientEndpoint::outside`].
    pub(crate) fn dialled_with_port(&self) -> String {
        joined(self.dialled(), self.public_port)
    }

    /// Where a client begins whose map also holds for its first address: with TLS the name that the certificate
    /// carries, else the gateway.
    pub(crate) fn seed(&self) -> (&str, u16) {
        match self.certificate_name() {
            Some(name) => (name, self.port),
            None => (&self.public_host, self.public_port),
        }
    }

    /// `redis://203.0.113.73:6379`, `rediss://` with TLS.
    pub(crate) fn uri(&self) -> String {
        let scheme = match (self.protocol, self.tls) {
            (Some(Protocol::Memcached), _) => "memcached",
            (_, true) => "rediss",
            (_, false) => "redis",
        };
        format!("{scheme}://{}", self.dialled_with_port())
    }

    /// `my-cluster-001, primary`, for a comment.
    pub(crate) fn label(&self) -> Comment {
        Comment::of_node(&self.id, self.role)
    }
}

impl<'a> Cache<'a> {
    /// All of its endpoints.
    pub(crate) fn all(&self) -> &[&'a ClientEndpoint] {
        &self.endpoints
    }

    /// Where a client begins: the single nodes, or what there is instead.
    pub(crate) fn nodes(&self) -> Vec<&'a ClientEndpoint> {
        let is_reader = |endpoint: &&&ClientEndpoint| endpoint.role == Some(Role::Reader);
        let nodes: Vec<_> =
            self.endpoints.iter().filter(|endpoint| !endpoint.follows_a_role()).copied().collect();
        match nodes.is_empty() {
            false => nodes,
            true => self.endpoints.iter().filter(|endpoint| !is_reader(endpoint)).copied().collect(),
        }
    }

    /// Where writes go: the port that follows the primary, else the node that is the primary now, else the first.
    pub(crate) fn primary(&self) -> Option<&'a ClientEndpoint> {
        let primaries = || self.endpoints.iter().filter(|endpoint| endpoint.role == Some(Role::Primary));
        let following = primaries().find(|endpoint| endpoint.follows_a_role());
        following.or(primaries().next()).or(self.endpoints.first()).copied()
    }

    /// Where reads may go as well: the nodes that are replicas now, else the port that spreads over them.
    pub(crate) fn replicas(&self) -> Vec<&'a ClientEndpoint> {
        let with = |role| self.endpoints.iter().filter(move |endpoint| endpoint.role == Some(role)).copied();
        let replicas: Vec<_> = with(Role::Replica).collect();
        if replicas.is_empty() { with(Role::Reader).collect() } else { replicas }
    }

    /// Every address and name that the cache may send a client to. A role's port stands for a name of its own, and
    /// for an address only where no node does.
    pub(crate) fn inside(&self) -> Vec<Inside<'a>> {
        let mut seen = BTreeSet::new();
        let mut inside = Vec::new();
        for &node in &self.endpoints {
            let addresses = match node.role {
                Some(Role::Reader) => &[][..],
                _ => &node.private_addresses,
            };
            let hosts = addresses.iter().map(ToString::to_string).chain(node.name().map(str::to_owned));
            for host in hosts {
                if seen.insert((host.clone(), node.port)) {
                    inside.push(Inside { host, port: node.port, node });
                }
            }
        }
        inside
    }

    /// Whether its ports are outside what they are inside, as where each node has an address of its own.
    pub(crate) fn keeps_its_ports(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.public_port == endpoint.port)
    }

    /// Whether nodes send clients on to each other.
    pub(crate) fn is_cluster(&self) -> bool {
        self.protocol == Protocol::RedisCluster
    }

    /// Whether it is a primary with replicas, not a cluster.
    pub(crate) fn is_single(&self) -> bool {
        !self.is_cluster()
    }

    /// A sentence on the hosts file with TLS, otherwise empty.
    pub(crate) fn hosts_note(&self) -> &'static str {
        match self.tls {
            true => {
                "TLS: certificates carry the nodes' names, so those have to lead to the gateway on this machine: \
                 'cachenat endpoints --format hosts' gives the lines for /etc/hosts."
            }
            false => "",
        }
    }

    /// The places of a template that shows all nodes of a cluster, or else a primary and its replicas.
    pub(crate) fn places(&self, node: impl Fn(&'a ClientEndpoint) -> Places) -> Places {
        Places::new()
            .text("name", comment(self.name))
            .flag("cluster", self.is_cluster())
            .each("nodes", self.nodes(), &node)
            .each("primary", self.primary(), &node)
            .each("replicas", self.replicas(), &node)
    }
}

fn is_name(host: &str) -> bool {
    let is_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !host.is_empty() && host.chars().all(is_label) && host.parse::<IpAddr>().is_err()
}

/// `host:port`, an IPv6 address in brackets.
pub fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
