//! From the API's shapes to nodes: pure.
//!
//! Source of the shapes: botocore's service model elasticache/2015-02-02.

use std::{collections::BTreeMap, num::NonZeroU16};

use aws_sdk_elasticache::types::{
    CacheCluster, Endpoint as ApiEndpoint, NetworkType, NodeGroup, ReplicationGroup, ServerlessCache,
};

use super::Listing;
use crate::{
    Engine, Expose, ExposedRole, Network, Node, NodeId, Role, SourceName, inventory::has_failed, text::plain,
};

/// The nodes of one cache, and what about it could not be understood.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
    /// Not empty: nodes may be missing.
    pub(crate) doubts: Vec<Doubt>,
    /// What the API's word is on a cache that has no nodes, and that nobody waits for.
    pub(crate) remarks: Vec<String>,
}

/// Why nodes may be missing.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    /// The only cache whose nodes may be; `None`: any.
    pub(crate) cache: Option<String>,
    /// What is the matter.
    pub(crate) what: String,
}

impl Doubt {
    /// A doubt about one cache.
    pub(crate) fn of(cache: &str, what: String) -> Self {
        Self { cache: Some(plain(cache)), what }
    }

    /// A doubt about all caches.
    pub(crate) fn of_all(what: impl ToString) -> Self {
        Self { cache: None, what: what.to_string() }
    }
}

/// What all nodes of one cache have in common.
struct Common<'a> {
    cluster: &'a str,
    source: &'a SourceName,
    engine: Option<Engine>,
    tls: bool,
    network: Option<Network>,
    /// The configuration endpoint: its port is shown while a node has no endpoint.
    configuration: Option<&'a ApiEndpoint>,
}

/// What differs.
struct One<'a> {
    id: String,
    shard: Option<&'a str>,
    role: Option<Role>,
    status: &'a str,
    endpoint: Option<&'a ApiEndpoint>,
}

impl Nodes {
    fn add(&mut self, common: &Common<'_>, one: One<'_>) {
        let id: NodeId = match one.id.parse() {
            Ok(id) => id,
            Err(error) => {
                let what = format!("{}: {error}", plain(&one.id));
                return self.doubts.push(Doubt::of(common.cluster, what));
            }
        };
        let status = plain(one.status).to_lowercase();
        let (host, port, error) = match endpoint(one.endpoint) {
            Ok((host, port)) => (host, port, None),
            Err(reason) => (String::new(), common.port(), Some(format!("{reason} ({status})"))),
        };
        let node = Node {
            id,
            cluster: plain(common.cluster).into(),
            source: common.source.clone(),
            shard: one.shard.map(|shard| plain(shard).into()),
            role: one.role,
            engine: common.engine.clone(),
            tls: common.tls,
            status: status.into(),
            host,
            port,
            addresses: Vec::new(),
            error,
            resolves: Vec::new(),
            configuration_host: common.configuration_host(),
            network: common.network,
        };
        self.nodes.push(node);
    }

    /// Takes note that a cache names no nodes: for good, or nobody knows for how long.
    fn add_empty(&mut self, cache: &str, status: &str) {
        let what = format!("{} names no nodes ({})", plain(cache), plain(status));
        if has_failed(&status.to_lowercase()) {
            self.remarks.push(what);
        } else {
            self.doubts.push(Doubt::of(cache, what));
        }
    }
}

impl Common<'_> {
    fn port(&self) -> NonZeroU16 {
        let usual = endpoint(self.configuration).ok().map(|(_, port)| port);
        usual.unwrap_or_else(|| self.engine.as_ref().unwrap_or(&Engine::Redis).default_port())
    }

    /// Memcached's is left out: it is for auto discovery, which answers with private addresses.
    fn configuration_host(&self) -> Option<String> {
        let (host, _) = endpoint(self.configuration).ok()?;
        (self.engine != Some(Engine::Memcached)).then_some(host)
    }
}

/// The nodes of a replication group, with its primary and reader where they are wanted.
pub(crate) fn of_group(
    group: &ReplicationGroup,
    clusters: &Listing<CacheCluster>,
    expose: &Expose,
    source: &SourceName,
) -> Nodes {
    let id = group.replication_group_id().unwrap_or_default();
    let members = members(group, clusters);
    let any_cluster = members.values().find_map(|member| member.cluster);
    let common = Common {
        cluster: id,
        source,
        engine: group.engine().or(any_cluster.and_then(|cluster| cluster.engine())).map(Engine::from),
        tls: group.transit_encryption_enabled().unwrap_or(false),
        network: group.network_type().and_then(network),
        configuration: group.configuration_endpoint(),
    };
    let group_status = group.status().unwrap_or("unknown");

    let mut found = Nodes::default();
    if members.is_empty() {
        found.add_empty(id, group_status);
    }
    for (name, member) in &members {
        let one = One {
            id: (*name).to_owned(),
            shard: member.shard,
            role: member.role,
            status: member.status(group_status),
            endpoint: member.endpoint(),
        };
        found.add(&common, one);
        if member.cluster.is_none() && clusters.error.is_none() && member.endpoint().is_none() {
            let what = format!("{} is named by the group, but not by DescribeCacheClusters", plain(name));
            found.doubts.push(Doubt::of(id, what));
        }
    }
    let roles = role_endpoints(group, &common, group_status, &found.nodes, expose);
    if !expose.has(ExposedRole::Nodes) {
        found.nodes.clear();
    }
    found.nodes.extend(roles.nodes);
    found.doubts.extend(roles.doubts);
    found
}

/// `id/primary` and `id/reader`, as far as they are wanted.
fn role_endpoints(
    group: &ReplicationGroup,
    common: &Common<'_>,
    status: &str,
    members: &[Node],
    expose: &Expose,
) -> Nodes {
    let mut found = Nodes::default();
    let has_shards = group.cluster_enabled().unwrap_or(false);
    let first_shard = group.node_groups().first();
    let wanted = [(ExposedRole::Primary, Role::Primary), (ExposedRole::Reader, Role::Reader)];
    for (_, role) in wanted.into_iter().filter(|(endpoint, _)| expose.has(*endpoint)) {
        let endpoint = first_shard.and_then(|shard| match role {
            Role::Primary => shard.primary_endpoint(),
            Role::Replica | Role::Reader => shard.reader_endpoint(),
        });
        if has_shards && endpoint.is_none() {
            // With shards there is no one primary; `all` then means what there is.
            if !expose.has(ExposedRole::Nodes) {
                let reason =
                    "has cluster mode enabled, so it has no primary and reader of its own: expose its nodes";
                let what = format!("{} {reason}", plain(common.cluster));
                found.doubts.push(Doubt::of(common.cluster, what));
            }
            continue;
        }
        let id = format!("{}/{role}", common.cluster);
        found.add(common, One { id, shard: None, role: Some(role), status, endpoint });
    }
    for reader in found.nodes.iter_mut().filter(|node| node.role == Some(Role::Reader)) {
        reader.resolves = reader_names(members);
        if !reader.resolves.is_empty() {
            reader.error = None;
        }
    }
    found
}

/// The replicas' own names: the reader's name gives one address at a time, and another each time.
///
/// Without replicas the reader endpoint leads to the primary, so ours does too.
fn reader_names(members: &[Node]) -> Vec<String> {
    let of = |role| {
        let nodes = members.iter().filter(move |node| node.role == Some(role) && !node.host.is_empty());
        nodes.map(|node| node.host.clone()).collect::<Vec<_>>()
    };
    let replicas = of(Role::Replica);
    if replicas.is_empty() { of(Role::Primary) } else { replicas }
}

/// A node of a group: what the group says of it, and what the cluster listing says.
#[derive(Default)]
struct Member<'a> {
    shard: Option<&'a str>,
    role: Option<Role>,
    read_endpoint: Option<&'a ApiEndpoint>,
    cluster: Option<&'a CacheCluster>,
}

/// Everything that either side names, by cluster id.
fn members<'a>(
    group: &'a ReplicationGroup,
    clusters: &'a Listing<CacheCluster>,
) -> BTreeMap<&'a str, Member<'a>> {
    let mut members: BTreeMap<&str, Member<'_>> = BTreeMap::new();
    for shard in group.node_groups() {
        for member in shard.node_group_members() {
            let Some(id) = member.cache_cluster_id() else { continue };
            let entry = members.entry(id).or_default();
            entry.shard = shard.node_group_id();
            entry.role = member.current_role().and_then(role);
            entry.read_endpoint = member.read_endpoint();
        }
    }
    for id in group.member_clusters() {
        members.entry(id).or_default();
    }
    let of_group = |cluster: &&CacheCluster| cluster.replication_group_id() == group.replication_group_id();
    for cluster in clusters.items.values().filter(of_group) {
        members.entry(cluster.cache_cluster_id().unwrap_or_default()).or_default();
    }
    for (id, member) in &mut members {
        member.cluster = clusters.items.get(*id);
    }
    // A shard that is left without its list of members is still told by its only shard.
    if let [NodeGroup { node_group_id: Some(only), .. }] = group.node_groups() {
        members.values_mut().for_each(|member| member.shard = member.shard.or(Some(only)));
    }
    members
}

impl<'a> Member<'a> {
    fn endpoint(&self) -> Option<&'a ApiEndpoint> {
        let of_node = || self.cluster?.cache_nodes().first()?.endpoint();
        self.read_endpoint.or_else(of_node)
    }

    /// The most telling of the three words: what is being done to the cluster, the node's state, the group's.
    fn status(&self, group: &'a str) -> &'a str {
        let cluster = self.cluster.and_then(|cluster| cluster.cache_cluster_status());
        let node = self.cluster.and_then(|cluster| cluster.cache_nodes().first()?.cache_node_status());
        match (group, cluster, node) {
            ("deleting", ..) => group,
            (_, Some(cluster), _) if cluster != "available" => cluster,
            (_, cluster, node) => node.or(cluster).unwrap_or(group),
        }
    }
}

/// The nodes of a Memcached cluster, or the one node of a standalone Redis or Valkey.
pub(crate) fn of_cluster(cluster: &CacheCluster, source: &SourceName) -> Nodes {
    let id = cluster.cache_cluster_id().unwrap_or_default();
    let engine: Option<Engine> = cluster.engine().map(Engine::from);
    let common = Common {
        cluster: id,
        source,
        engine: engine.clone(),
        tls: cluster.transit_encryption_enabled().unwrap_or(false),
        network: cluster.network_type().and_then(network),
        configuration: cluster.configuration_endpoint(),
    };
    let cluster_status = cluster.cache_cluster_status().unwrap_or("unknown");

    let mut found = Nodes::default();
    for node in cluster.cache_nodes() {
        let node_id = node.cache_node_id().unwrap_or("0001");
        let status = match cluster_status {
            "available" => node.cache_node_status().unwrap_or(cluster_status),
            telling => telling,
        };
        // A Redis cluster of the API has one node, which goes by the cluster's name.
        let id = if engine == Some(Engine::Memcached) { format!("{id}-{node_id}") } else { id.to_owned() };
        found.add(&common, One { id, shard: None, role: None, status, endpoint: node.endpoint() });
    }
    if found.nodes.is_empty() {
        found.add_empty(id, cluster_status);
    }
    found
}

/// A serverless cache's endpoint, and its reader's.
pub(crate) fn of_serverless(cache: &ServerlessCache, source: &SourceName) -> Nodes {
    let name = cache.serverless_cache_name().unwrap_or_default();
    let common = Common {
        cluster: name,
        source,
        engine: cache.engine().map(Engine::from),
        // Serverless caches speak nothing else.
        tls: true,
        network: cache.network_type().and_then(network),
        configuration: None,
    };
    let status = cache.status().unwrap_or("unknown");
    let mut found = Nodes::default();
    let one = One { id: name.to_owned(), shard: None, role: None, status, endpoint: cache.endpoint() };
    found.add(&common, one);
    if let reader @ Some(_) = cache.reader_endpoint() {
        let id = format!("{name}/reader");
        found.add(&common, One { id, shard: None, role: Some(Role::Reader), status, endpoint: reader });
    }
    found
}

/// The endpoint's name and port, or why it is none.
fn endpoint(endpoint: Option<&ApiEndpoint>) -> Result<(String, NonZeroU16), String> {
    let endpoint = endpoint.ok_or("no endpoint yet")?;
    let host = endpoint.address().unwrap_or_default().trim_end_matches('.');
    let port = endpoint.port().and_then(|port| u16::try_from(port).ok()).and_then(NonZeroU16::new);
    match (host, port) {
        ("", _) => Err("no endpoint yet".to_owned()),
        (_, None) => Err(format!("the endpoint {} has no port", plain(host))),
        (host, _) if !host.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(format!("the endpoint {:?} is no name", plain(host)))
        }
        (host, Some(port)) => Ok((host.to_owned(), port)),
    }
}

fn role(word: &str) -> Option<Role> {
    match word {
        "primary" => Some(Role::Primary),
        "replica" => Some(Role::Replica),
        _ => None,
    }
}

fn network(network: &NetworkType) -> Option<Network> {
    match network {
        NetworkType::Ipv4 => Some(Network::Ipv4),
        NetworkType::Ipv6 => Some(Network::Ipv6),
        NetworkType::DualStack => Some(Network::DualStack),
        _ => None,
    }
}
