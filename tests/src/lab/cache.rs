//! Caches as ElastiCache makes them: named nodes with DNS names, each a real server on a host of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use super::namespace::Namespace;
use super::network::Network;
use super::redis::Redis;
use super::server::Server;
use super::tls;
use super::wait::wait_for;
use crate::fake_aws::shapes;

/// The port by which the nodes of a Redis Cluster know each other.
const CLUSTER_PORT: &str = "6379";

/// What a cache is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Redis, cluster mode disabled: one primary, the first node, and its replicas.
    ReplicationGroup,
    /// Redis, cluster mode enabled: each shard has a primary and one replica.
    Cluster,
    /// The same with in-transit encryption: nodes tell clients of each other by name.
    TlsCluster,
    /// Memcached: nodes that know nothing of each other.
    Memcached,
}

impl Kind {
    /// Where the lab itself speaks to a node: the cache port that AWS gives by default, and another where that one
    /// speaks TLS.
    pub fn port(self) -> u16 {
        match self {
            Self::ReplicationGroup | Self::Cluster => 6379,
            Self::TlsCluster => 6378,
            Self::Memcached => 11211,
        }
    }

    /// Whether it is a Redis Cluster.
    pub fn is_cluster(self) -> bool {
        matches!(self, Self::Cluster | Self::TlsCluster)
    }
}

/// A cache and its nodes, in the order in which AWS numbers them.
#[derive(Debug)]
pub struct Cache {
    /// Its name: `my-cluster`.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A node: what stays when AWS replaces it (number, id, DNS name), and the host that serves it now.
#[derive(Debug)]
pub struct Node {
    /// What cachenat calls it: `my-cluster-001`, `shards-0002-001`, `sessions-0001`.
    pub id: String,
    /// Which shard it is of, from 1; 1 where there are no shards.
    pub shard: u16,
    /// Its number within the shard, from 1.
    pub number: u16,
    /// Its DNS name, without a trailing dot.
    pub dns_name: String,
    /// Its address and port.
    pub at: SocketAddrV4,
    /// The host it runs on.
    pub host: Namespace,
    _server: Server,
}

impl Node {
    /// A connection from the node's own host, which no NAT touches.
    pub fn redis(&self) -> Redis {
        Redis::connect(&self.host, self.at)
            .unwrap_or_else(|error| panic!("{} at {}: {error}", self.id, self.at))
    }

    /// What tells this server from every other and from its own former self.
    pub fn run_id(&self) -> String {
        self.redis().info("run_id").unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }
}

impl Cache {
    /// A cache with no node yet.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, nodes: Vec::new() }
    }

    /// Starts a node of the given shard and number at `address`; a replication group's later nodes replicate
    /// its first.
    pub fn start_node(
        &mut self,
        network: &Network,
        dir: &Path,
        address: Ipv4Addr,
        shard: u16,
        number: u16,
    ) -> &Node {
        let id = self.node_id(shard, number);
        let host = network.private_host(address);
        let at = SocketAddrV4::new(address, self.kind.port());
        let lab = dir;
        let dir = lab.join(format!("{id}-{address}"));
        fs::create_dir(&dir).expect("no two servers of a lab share an address");
        let primary = self.nodes.first().map(|node| node.at);
        let dns_name = self.dns_name(&id, number);
        let clustered = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"];
        let server = match (self.kind, primary) {
            (Kind::Memcached, _) => Server::memcached(&host, at),
            (Kind::Cluster, _) => Server::redis(&host, &dir, at, &clustered),
            (Kind::TlsCluster, _) => {
                let cluster = shapes::Group::sharded(&self.name, 1, 1).configuration();
                let options = tls::options(lab, &dir, &dns_name, &cluster);
                let options = clustered.into_iter().chain(options.iter().map(String::as_str));
                Server::redis(&host, &dir, at, &options.collect::<Vec<_>>())
            }
            (Kind::ReplicationGroup, None) => Server::redis(&host, &dir, at, &[]),
            (Kind::ReplicationGroup, Some(primary)) => {
                let (ip, port) = (primary.ip().to_string(), primary.port().to_string());
                Server::redis(&host, &dir, at, &["--replicaof", &ip, &port])
            }
        };
        let node = Node { id, shard, number, dns_name, at, host, _server: server };
        if self.kind == Kind::ReplicationGroup && primary.is_some() {
            wait_for_replication(&node);
        }
        let place = self.nodes.partition_point(|other| (other.shard, other.number) < (shard, number));
        self.nodes.insert(place, node);
        &self.nodes[place]
    }

    /// Ends a node as AWS does when a host fails: from one moment to the next it says nothing more, not even
    /// that its connections are closed.
    pub fn end_node(&mut self, id: &str) {
        for node in self.nodes.extract_if(.., |node| node.id == id) {
            node.host.ip("link set eth0 down");
        }
    }

    fn node_id(&self, shard: u16, number: u16) -> String {
        let name = &self.name;
        match self.kind {
            Kind::ReplicationGroup => format!("{name}-{number:03}"),
            Kind::Cluster | Kind::TlsCluster => format!("{name}-{shard:04}-{number:03}"),
            Kind::Memcached => format!("{name}-{number:04}"),
        }
    }

    /// Memcached's nodes share their cluster's name and differ in the third label; every Redis node is a
    /// cluster of its own.
    fn dns_name(&self, id: &str, number: u16) -> String {
        match self.kind {
            Kind::ReplicationGroup | Kind::Cluster => shapes::standalone_host(id),
            Kind::TlsCluster => {
                let group = shapes::Group::sharded(&self.name, 1, 1);
                shapes::Group { tls: true, ..group }.host(id)
            }
            Kind::Memcached => shapes::memcached_host(&self.name, number.into()),
        }
    }

    /// Makes a Redis Cluster of the nodes that run: each shard's first node its primary, the slots dealt out
    /// evenly. redis-cli's `--cluster create` does the same but chooses the replicas itself and takes longer.
    pub fn form_cluster(&self) {
        let (primaries, replicas): (Vec<_>, Vec<_>) = self.nodes.iter().partition(|node| node.number == 1);
        for (index, node) in primaries.iter().enumerate() {
            let slots = |index: usize| index * 16384 / primaries.len();
            let slots: Vec<String> = (slots(index)..slots(index + 1)).map(|slot| slot.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            call(node, &words.collect::<Vec<_>>());
            call(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let Some((first, others)) = self.nodes.split_first() else { return };
        for node in others {
            call(first, &["CLUSTER", "MEET", &node.at.ip().to_string(), CLUSTER_PORT]);
        }
        let count = format!("cluster_known_nodes:{}", self.nodes.len());
        self.wait_for_each("to know all others", |node| call(node, &["CLUSTER", "INFO"]).contains(&count));
        for replica in &replicas {
            let primary = primaries.iter().find(|primary| primary.shard == replica.shard);
            let primary = primary.expect("each shard has a first node");
            follow(replica, primary);
        }
        self.wait_for_each("to tell of all nodes", |node| self.is_told_whole_by(node));
        self.wait_for_each("to be ok", |node| call(node, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    }

    /// Lets a shard's other node take over from `id`, as AWS does when `id` is to go or has failed.
    pub(super) fn hand_over(&self, id: &str) {
        let mate = self.mate(id);
        call(mate, &["CLUSTER", "FAILOVER"]);
        let mate_id = call(mate, &["CLUSTER", "MYID"]);
        let leads = |node: &Node| {
            let nodes = call(node, &["CLUSTER", "NODES"]);
            nodes.lines().any(|line| line.starts_with(&mate_id) && line.contains("master"))
        };
        self.wait_for_each("to know of the failover", leads);
    }

    /// Lets the new host of `id` join its cluster as the replica of its shard's other node, and everybody forget the
    /// host that it was before, whose Redis node id was `former`.
    pub(super) fn join(&self, id: &str, former: &str) {
        let mate = self.mate(id);
        let node = self.nodes.iter().find(|node| node.id == id).expect("it was just started");
        for other in self.nodes.iter().filter(|other| other.id != id) {
            call(other, &["CLUSTER", "FORGET", former]);
        }
        call(node, &["CLUSTER", "MEET", &mate.at.ip().to_string(), CLUSTER_PORT]);
        let count = format!("cluster_known_nodes:{}", self.nodes.len());
        self.wait_for_each("to know all others", |node| call(node, &["CLUSTER", "INFO"]).contains(&count));
        follow(node, mate);
        self.wait_for_each("to tell of all nodes", |node| self.is_told_whole_by(node));
    }

    /// The other node of the shard.
    fn mate(&self, id: &str) -> &Node {
        let shard = self.nodes.iter().find(|node| node.id == id).map(|node| node.shard);
        let mate = self.nodes.iter().find(|node| Some(node.shard) == shard && node.id != id);
        mate.unwrap_or_else(|| panic!("{id} has no other node in its shard"))
    }

    /// A node leaves a replica out of what it tells clients until it has heard the replica's offset.
    fn is_told_whole_by(&self, node: &Node) -> bool {
        let slots = call(node, &["CLUSTER", "SLOTS"]);
        self.nodes.iter().all(|other| slots.lines().any(|line| line == other.at.ip().to_string()))
    }

    fn wait_for_each(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        for node in &self.nodes {
            wait_for(&format!("{} {what}", node.id), || holds(node).then_some(()));
        }
    }
}

/// Makes a node of a Redis Cluster the replica of another. A node that has only just been met is counted as known
/// before its id is.
fn follow(replica: &Node, primary: &Node) {
    let id = call(primary, &["CLUSTER", "MYID"]);
    let taken = || replica.redis().call(&["CLUSTER", "REPLICATE", &id]).ok();
    wait_for(&format!("{} to know {}", replica.id, primary.id), taken);
    wait_for_replication(replica);
}

fn wait_for_replication(replica: &Node) {
    let up = || (replica.redis().info("master_link_status").ok()? == "up").then_some(());
    wait_for(&format!("{} to follow its primary", replica.id), up);
}

fn call(node: &Node, words: &[&str]) -> String {
    node.redis().call(words).unwrap_or_else(|error| panic!("{}: {words:?}: {error}", node.id))
}
