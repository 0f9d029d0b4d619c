//! What clients need to reach the nodes from outside: as data, and in the words of each client library.
//!
//! A Redis Cluster tells its clients where its nodes are by private addresses, or by names where it has TLS; a
//! client outside has to be told which port of the gateway each of them is. Everything here is pure.

#![forbid(unsafe_code)]

mod c;
mod cache;
mod dotnet;
mod go;
mod java;
mod javascript;
mod lines;
mod literal;
mod names;
mod php;
mod python;
mod rust;
mod table;
mod template;
mod wireguard;

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::ValueEnum;
use discovery::{Inventory, Node, Role};
use plan::{Addresses, Leases, ListenPort};
use rules::{Family, ForwardId};
use serde::{Deserialize, Serialize};

pub use cache::joined;
use cache::{Cache, caches, protocol};
pub use names::keep_own;
pub use table::columns;
pub use wireguard::wireguard;

/// A way to print the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs, and for 'cachenat probe'
    Json,
    /// REDIS_URL=... lines, for a .env file
    Env,
    /// One URI a line
    Uri,
    /// Lines for /etc/hosts
    Hosts,
    /// redis-cli, a command a node
    RedisCli,
    /// Python: redis 4.5.5 or later
    RedisPy,
    /// Python: valkey
    ValkeyPy,
    /// Python: valkey-glide 2.5 or later
    #[value(alias = "valkey-glide")]
    ValkeyGlidePython,
    /// Node: ioredis
    Ioredis,
    /// Node: redis 4 or later
    NodeRedis,
    /// Node: @valkey/valkey-glide 2.5 or later
    ValkeyGlideNode,
    /// Java: Jedis 4 or later
    Jedis,
    /// Java: Lettuce 5.1 or later
    Lettuce,
    /// Java: Redisson
    Redisson,
    /// Go: go-redis 9
    GoRedis,
    /// Rust: redis 1.5 or later
    RedisRs,
    /// Rust: fred 10
    Fred,
    /// .NET: StackExchange.Redis 2.6 or later
    Stackexchange,
    /// PHP: phpredis, which cannot follow a Redis Cluster through NAT
    Phpredis,
    /// PHP: Predis 1.1 or 2
    Predis,
    /// C: hiredis, which knows no cluster but can follow a MOVED by the map
    Hiredis,
    /// Python: pymemcache
    Pymemcache,
    /// C, and what builds on it: libmemcached
    Libmemcached,
    /// A client's end of a WireGuard tunnel, for wg-quick
    Wireguard,
}

/// Where a node is, from inside and from outside; an entry of `endpoints --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEndpoint {
    /// The node's or role's id: `my-cluster-001`.
    pub id: String,
    /// The cache that it is of.
    pub cluster: String,
    /// What it is in its shard, as far as that is known.
    #[serde(default)]
    pub role: Option<Role>,
    /// The name (or address) that the cache has for it.
    #[serde(default)]
    pub host: String,
    /// The TCP port that it listens on itself.
    pub port: u16,
    /// What clients dial.
    pub public_host: String,
    /// The TCP port of the gateway that clients dial.
    pub public_port: u16,
    /// The name by which clients find any one of the cluster's nodes to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_host: Option<String>,
    /// Its own addresses, in the VPC.
    #[serde(default)]
    pub private_addresses: Vec<IpAddr>,
    /// Whether it wants TLS.
    #[serde(default)]
    pub tls: bool,
    /// What it speaks; files of other makers may leave it out.
    #[serde(default)]
    pub protocol: Option<Protocol>,
}

/// What a cache speaks with its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Redis or Valkey, cluster mode disabled: a primary and its replicas.
    Redis,
    /// Redis or Valkey, cluster mode enabled: nodes send clients on to each other.
    RedisCluster,
    /// Memcached: nodes that know nothing of each other.
    Memcached,
}

/// The contract's JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    /// 1; it grows by addition only.
    pub version: u32,
    /// In the order of the inventory.
    pub endpoints: Vec<ClientEndpoint>,
}

/// What clients dial for each of the gateway's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Public {
    /// The gateway's private addresses.
    pub gateway: Addresses,
    /// By the gateway's address; one that is not here is dialled itself.
    pub dialled: BTreeMap<IpAddr, IpAddr>,
}

impl Public {
    /// The address that clients dial to reach a listener in a family.
    fn address(&self, listener: ListenPort, family: Family) -> Option<IpAddr> {
        let private = self.gateway.endpoint(listener, family)?.address;
        Some(self.dialled.get(&private).copied().unwrap_or(private))
    }
}

/// Why there is nothing to print.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No endpoint is of a cache that the library speaks to.
    #[error("no endpoint is of a cache that speaks {wanted}; --format table shows what there is")]
    NothingToSay {
        /// `Redis`.
        wanted: &'static str,
    },
    /// A cache wants TLS.
    #[error("{library} has no TLS, and {name} wants it; --format pymemcache and --format uri have it")]
    NoTls {
        /// The library that has none.
        library: &'static str,
        /// The cache.
        name: String,
    },
    /// No endpoint is of that cache.
    #[error("there is no cache {name}; there is {}", known.join(", "))]
    NoSuchCluster {
        /// The cache that was asked for.
        name: String,
        /// The caches that there are.
        known: Vec<String>,
    },
}

/// The endpoints of every node that has a port.
pub fn endpoints(inventory: &Inventory, leases: &Leases, public: &Public) -> Vec<ClientEndpoint> {
    let holders = leases.holders();
    let listener = |node: &Node| holders.get(&node.id.as_str().parse::<ForwardId>().ok()?).copied();
    let with_listener = inventory.nodes.iter().filter_map(|node| Some((node, listener(node)?)));
    let endpoint = |(node, listener): (&Node, ListenPort)| {
        let v6_only = !node.addresses.is_empty() && node.addresses.iter().all(IpAddr::is_ipv6);
        let v4 = if v6_only { None } else { public.address(listener, Family::Ipv4) };
        let public_host = v4.or_else(|| public.address(listener, Family::Ipv6))?;
        Some(ClientEndpoint {
            id: node.id.to_string(),
            cluster: node.cluster.to_string(),
            role: node.role,
            host: node.host.clone(),
            port: node.port.get(),
            public_host: public_host.to_string(),
            public_port: listener.port.get(),
            configuration_host: node.configuration_host.clone(),
            private_addresses: node.addresses.clone(),
            tls: node.tls,
            protocol: Some(protocol(inventory, node)),
        })
    };
    with_listener.filter_map(endpoint).collect()
}

/// Those of one cache.
///
/// # Errors
///
/// [`FormatError::NoSuchCluster`], with the names that there are.
pub fn of_cluster(endpoints: Vec<ClientEndpoint>, name: &str) -> Result<Vec<ClientEndpoint>, FormatError> {
    let (of, others): (Vec<ClientEndpoint>, Vec<ClientEndpoint>) =
        endpoints.into_iter().partition(|endpoint| endpoint.cluster == name);
    if of.is_empty() {
        let mut known: Vec<String> = others.into_iter().map(|endpoint| endpoint.cluster).collect();
        known.dedup();
        return Err(FormatError::NoSuchCluster { name: name.to_owned(), known });
    }
    Ok(of)
}

/// The endpoints in a format.
///
/// # Errors
///
/// [`FormatError::NothingToSay`] where a library is asked for that speaks to none of them, [`FormatError::NoTls`]
/// where it can't speak to one of them.
pub fn text(format: Format, endpoints: &[ClientEndpoint]) -> Result<String, FormatError> {
    let caches = caches(endpoints);
    let redis = || speaking(&caches, false, "Redis");
    let memcached = || speaking(&caches, true, "Memcached");
    Ok(match format {
        Format::Table => table::table(endpoints),
        Format::Json => table::json(endpoints),
        Format::Env => lines::env(&caches),
        Format::Uri => lines::uri(&caches),
        Format::Hosts => lines::hosts(&caches),
        Format::RedisCli => lines::redis_cli(&redis()?),
        Format::RedisPy => python::redis(&redis()?, &python::REDIS_PY),
        Format::ValkeyPy => python::redis(&redis()?, &python::VALKEY_PY),
        Format::ValkeyGlidePython => python::glide(&redis()?),
        Format::Ioredis => javascript::ioredis(&redis()?),
        Format::NodeRedis => javascript::node_redis(&redis()?),
        Format::ValkeyGlideNode => javascript::glide(&redis()?),
        Format::Jedis => java::jedis(&redis()?),
        Format::Lettuce => java::lettuce(&redis()?),
        Format::Redisson => java::redisson(&redis()?),
        Format::GoRedis => go::go_redis(&redis()?),
        Format::RedisRs => rust::redis_rs(&redis()?),
        Format::Fred => rust::fred(&redis()?),
        Format::Stackexchange => dotnet::stackexchange(&redis()?),
        Format::Phpredis => php::phpredis(&redis()?),
        Format::Predis => php::predis(&redis()?),
        Format::Hiredis => c::hiredis(&redis()?),
        Format::Pymemcache => python::pymemcache(&memcached()?),
        Format::Libmemcached => c::libmemcached(&memcached()?)?,
        Format::Wireguard => wireguard(endpoints, &[], &[]),
    })
}

fn speaking<'a>(
    caches: &[Cache<'a>],
    memcached: bool,
    wanted: &'static str,
) -> Result<Vec<Cache<'a>>, FormatError> {
    let of = caches.iter().filter(|cache| (cache.protocol == Protocol::Memcached) == memcached);
    let of: Vec<Cache<'_>> = of.cloned().collect();
    if of.is_empty() { Err(FormatError::NothingToSay { wanted }) } else { Ok(of) }
}

#[cfg(test)]
mod tests;
