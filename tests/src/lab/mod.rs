//! A realistic ElastiCache behind a NAT instance, on one machine and without a network.
//!
//! ```text
//!  client   198.51.100.27 ─┐
//!  stranger 198.51.100.28 ─┤            203.0.113.73 ⇄ 10.0.0.55
//!                       internet ── igw ───────────── vpc ─┬─ public  10.0.0.0/24 ── nat 10.0.0.55
//!                                                          └─ private 10.0.1.0/24 ── nodes 10.0.1.230 …
//! ```
//!
//! Each host is a network namespace; redis-server and memcached are real; the ElastiCache API and the VPC's DNS are fakes
//! on the NAT instance's loopback. Dropping a lab removes everything that it created, so each test builds its own, and
//! tests run in parallel.

mod account;
pub mod cache;
pub mod daemon;
pub mod firewalls;
pub mod machine;
pub mod namespace;
pub mod network;
pub mod product;
pub mod redis;
pub mod server;
pub mod shell;
pub mod tls;
pub mod wait;
pub mod wireguard;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hickory_resolver::proto::op::ResponseCode;
use tempfile::TempDir;

use crate::fake_aws::FakeAws;
use crate::fake_dns::{Answer, FakeDns};
pub use cache::{Cache, Kind, Node};
pub use network::{CLIENT, GATEWAY, Network, PUBLIC, STRANGER};

/// A network, the caches in it, and the fake API and DNS that describe them.
pub struct Lab {
    caches: Vec<Cache>,
    /// None: it was stopped.
    api: Option<FakeAws>,
    /// None: it was stopped.
    dns: Option<FakeDns>,
    /// The hosts and wires.
    pub network: Network,
    /// The last byte of the next node's address.
    next_host: u8,
    dir: TempDir,
}

impl Lab {
    /// A VPC with a NAT instance and no cache yet.
    ///
    /// # Panics
    ///
    /// Without the privilege to create network namespaces, or without the programs that `scripts/setup` installs.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("cachenat-lab-").tempdir();
        let dir = dir.expect("the temporary directory is writable");
        let network = Network::new();
        let api = Some(network.nat.enter(|| FakeAws::start(SocketAddr::V4(product::API))));
        let dns = Some(network.nat.enter(|| FakeDns::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)))));
        let lab = Self { caches: Vec::new(), api, dns, network, next_host: 230, dir };
        fs::write(lab.resolv_conf(), "nameserver 127.0.0.1\n").expect("the lab's directory is writable");
        lab
    }

    /// The lab's directory, which is deleted with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a replication group, cluster mode disabled: `name-001` is the primary, the others its replicas.
    pub fn add_replication_group(&mut self, name: &str, nodes: u16) {
        self.add_cache(Cache::new(name, Kind::ReplicationGroup), 1, nodes);
    }

    /// Adds a replication group, cluster mode enabled: `shards` shards of a primary and a replica each.
    pub fn add_cluster(&mut self, name: &str, shards: u16) {
        self.add_cache(Cache::new(name, Kind::Cluster), shards, 2);
    }

    /// Adds a Redis Cluster with in-transit encryption; clients must trust [`tls::authority`].
    pub fn add_tls_cluster(&mut self, name: &str, shards: u16) {
        tls::make_authority(self.dir.path());
        self.add_cache(Cache::new(name, Kind::TlsCluster), shards, 2);
    }

    /// Adds a Memcached cluster.
    pub fn add_memcached(&mut self, name: &str, nodes: u16) {
        self.add_cache(Cache::new(name, Kind::Memcached), 1, nodes);
    }

    fn add_cache(&mut self, mut cache: Cache, shards: u16, nodes_each: u16) {
        for (shard, number) in
            (1..=shards).flat_map(|shard| (1..=nodes_each).map(move |number| (shard, number)))
        {
            let address = self.next_address();
            cache.start_node(&self.network, self.dir.path(), address, shard, number);
        }
        if cache.kind.is_cluster() {
            cache.form_cluster();
        }
        self.caches.push(cache);
        self.write_config(&self.plain_config());
        self.publish();
    }

    /// Adds a node to a replication group or a Memcached cluster, under the number after the highest, and
    /// returns its id.
    pub fn add_node(&mut self, cache: &str) -> String {
        let place = self.caches.iter().position(|other| other.name == cache);
        let place = place.unwrap_or_else(|| panic!("the lab has no cache {cache}"));
        let number = self.caches[place].nodes.iter().map(|node| node.number).max().unwrap_or(0) + 1;
        self.start_node(place, number)
    }

    /// Removes a node: its host falls silent, and the API and DNS no longer list it.
    pub fn remove_node(&mut self, id: &str) {
        let place = self.cache_of(id);
        self.answer_for(id, Answer::Code(ResponseCode::NXDomain));
        self.caches[place].end_node(id);
        self.publish();
    }

    /// Replaces a node as AWS does: another host with a new address, the same id and DNS name.
    pub fn replace_node(&mut self, id: &str) {
        let (place, number) = (self.cache_of(id), self.node(id).number);
        let cache = &mut self.caches[place];
        let is_primary = cache.kind == Kind::ReplicationGroup && cache.nodes[0].id == id;
        assert!(!is_primary, "a primary would have to fail over first");
        cache.end_node(id);
        self.start_node(place, number);
    }

    /// Lets the other node of a Redis Cluster's shard take over from `id`, which becomes its replica.
    pub fn hand_over(&self, id: &str) {
        self.caches[self.cache_of(id)].hand_over(id);
    }

    /// Replaces a node of a Redis Cluster: the other node of its shard takes over, and a host with a new address
    /// joins as that one's replica, under the same id and DNS name.
    pub fn replace_cluster_node(&mut self, id: &str) {
        let (place, address) = (self.cache_of(id), self.next_address());
        let cache = &mut self.caches[place];
        cache.hand_over(id);
        let node = cache.nodes.iter().find(|node| node.id == id).expect("its cache was found by it");
        let (shard, number) = (node.shard, node.number);
        let former = node.redis().call(&["CLUSTER", "MYID"]).expect("it has only handed over");
        cache.end_node(id);
        cache.start_node(&self.network, self.dir.path(), address, shard, number);
        cache.join(id, &former);
        self.publish();
    }

    fn start_node(&mut self, place: usize, number: u16) -> String {
        let address = self.next_address();
        let cache = &mut self.caches[place];
        assert!(!cache.kind.is_cluster(), "a node of a Redis Cluster would have to join it");
        let id = cache.start_node(&self.network, self.dir.path(), address, 1, number).id.clone();
        self.publish();
        id
    }

    /// A node by its id.
    ///
    /// # Panics
    ///
    /// If the lab has no such node.
    pub fn node(&self, id: &str) -> &Node {
        self.nodes().find(|node| node.id == id).unwrap_or_else(|| panic!("the lab has no node {id}"))
    }

    /// All nodes, in the order in which their caches were added.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.caches.iter().flat_map(|cache| &cache.nodes)
    }

    /// The index of the cache that a node belongs to.
    fn cache_of(&self, id: &str) -> usize {
        let has = |cache: &Cache| cache.nodes.iter().any(|node| node.id == id);
        self.caches.iter().position(has).unwrap_or_else(|| panic!("the lab has no node {id}"))
    }

    fn next_address(&mut self) -> Ipv4Addr {
        let address = Ipv4Addr::new(10, 0, 1, self.next_host);
        // After many replacements, addresses wrap to the subnet's lower half.
        self.next_host = if self.next_host == 254 { 2 } else { self.next_host + 1 };
        address
    }

    /// Updates the API and DNS to the current caches.
    fn publish(&self) {
        if let Some(api) = &self.api {
            api.set(account::describe(&self.caches));
        }
        if let Some(dns) = &self.dns {
            account::name(&self.caches, dns);
        }
    }

    /// Points the primary's name of a replication group at this node, and the reader's at all others, as a failover does.
    ///
    /// # Panics
    ///
    /// If DNS was stopped, or the lab has no such node.
    pub fn fail_over_to(&self, id: &str) {
        let dns = self.dns.as_ref().expect("DNS was not stopped");
        account::name_roles(&self.caches[self.cache_of(id)], dns, id);
    }

    /// The API, to change its answers.
    ///
    /// # Panics
    ///
    /// If it was stopped.
    pub fn api(&self) -> &FakeAws {
        self.api.as_ref().expect("the API was not stopped")
    }

    /// Stops the API: nothing listens on its port.
    pub fn stop_api(&mut self) {
        self.api = None;
    }

    /// Restarts what was stopped, with the current caches.
    pub fn start_api(&mut self) {
        self.api = Some(self.network.nat.enter(|| FakeAws::start(SocketAddr::V4(product::API))));
        self.publish();
    }

    /// Stops DNS: nothing listens on its port.
    pub fn stop_dns(&mut self) {
        self.dns = None;
    }

    /// DNS, to inspect its queries.
    ///
    /// # Panics
    ///
    /// If it was stopped.
    pub fn dns(&self) -> &FakeDns {
        self.dns.as_ref().expect("DNS was not stopped")
    }

    /// Changes the answer for a node's name until nodes change again.
    ///
    /// # Panics
    ///
    /// If DNS was stopped, or the lab has no such node.
    pub fn answer_for(&self, id: &str, answer: Answer) {
        self.dns.as_ref().expect("DNS was not stopped").set(&self.node(id).dns_name, answer);
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}
