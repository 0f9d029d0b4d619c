//! Python: redis-py, valkey-py and valkey-glide.

use crate::cache::Cache;
use crate::literal::{comment, double, snake};
use crate::{ClientEndpoint, Protocol};

/// redis-py, or the library that was made of it.
pub(crate) struct Library {
    module: &'static str,
    client: &'static str,
    cluster: &'static str,
    versions: &'static str,
}

pub(crate) const REDIS_PY: Library = Library {
    module: "redis",
    client: "Redis",
    cluster: "RedisCluster",
    versions: "redis-py 4.5.5 or later",
};

pub(crate) const VALKEY_PY: Library =
    Library { module: "valkey", client: "Valkey", cluster: "ValkeyCluster", versions: "valkey-py" };

/// A client for each cache.
pub(crate) fn redis(caches: &[Cache<'_>], library: &Library) -> String {
    let Library { module, client, cluster, versions } = library;
    let has = |protocol| caches.iter().any(|cache| cache.protocol == protocol);
    let mut text = format!("# {versions}\n");
    if has(Protocol::Redis) {
        text.push_str(&format!("from {module} import {client}\n"));
    }
    if has(Protocol::RedisCluster) {
        text.push_str(&format!("from {module}.cluster import ClusterNode, {cluster}\n"));
    }
    for cache in caches {
        text.push_str(&addresses(cache));
        text.push_str(&match cache.protocol {
            Protocol::RedisCluster => cluster_client(cache, cluster),
            Protocol::Redis | Protocol::Memcached => single_clients(cache, client),
        });
    }
    text
}

/// The map as a dict, with what there is to say on the cache.
fn addresses(cache: &Cache<'_>) -> String {
    let mut text =
        format!("\n# {}: what the cache calls its nodes, and what they are outside.\n", comment(cache.name));
    cache.hosts_note().into_iter().for_each(|note| text.push_str(&format!("# {note}\n")));
    text.push_str(&format!("{} = {{\n", map_name(cache)));
    for inside in cache.inside() {
        let node = inside.node;
        text.push_str(&format!(
            "    ({}, {}): ({}, {}),  # {}\n",
            double(&inside.host),
            inside.port,
            double(node.dialled()),
            node.public_port,
            node.label()
        ));
    }
    text + "}\n"
}

fn map_name(cache: &Cache<'_>) -> String {
    snake(&cache.word, "addresses").to_ascii_uppercase()
}

const TIMEOUTS: &str = "socket_connect_timeout=3, socket_timeout=10";
// Before 6.0 redis-py did not check the name unless told.
const VERIFIED: &str = "ssl=True, ssl_cert_reqs=\"required\", ssl_check_hostname=True";

fn cluster_client(cache: &Cache<'_>, class: &str) -> String {
    let mut text = format!("\n{} = {class}(\n    startup_nodes=[\n", snake(&cache.word, "cache"));
    for node in cache.nodes() {
        text.push_str(&format!("        ClusterNode({}, {}),\n", double(node.dialled()), node.public_port));
    }
    text.push_str(&format!(
        "    ],\n    address_remap=lambda address: {map}.get(address, address),\n\
         \x20   reinitialize_steps=1,  # at a MOVED, ask for all slots anew: those go through address_remap, it does not\n\
         \x20   {TIMEOUTS},\n",
        map = map_name(cache),
    ));
    if cache.tls {
        text.push_str(&format!("    {VERIFIED},\n"));
    }
    text + ")\n"
}

fn single_clients(cache: &Cache<'_>, class: &str) -> String {
    let client = |node: &ClientEndpoint| {
        let tls = if cache.tls { format!(", {VERIFIED}") } else { String::new() };
        format!("{class}(host={}, port={}, {TIMEOUTS}{tls})", double(node.dialled()), node.public_port)
    };
    let mut text = String::new();
    if let Some(primary) = cache.primary() {
        let name = snake(&cache.word, "cache");
        text.push_str(&format!("\n{name} = {}  # {}\n", client(primary), primary.label()));
    }
    let replicas = cache.replicas();
    if !replicas.is_empty() {
        text.push_str(&format!("{} = [\n", snake(&cache.word, "replicas")));
        for node in replicas {
            text.push_str(&format!("    {},  # {}\n", client(node), node.label()));
        }
        text.push_str("]\n");
    }
    text
}

/// A configuration for each cache; making a client of it has to be awaited.
pub(crate) fn glide(caches: &[Cache<'_>]) -> String {
    let has = |protocol| caches.iter().any(|cache| cache.protocol == protocol);
    let mut text = "# valkey-glide 2.5 or later\nfrom glide import (\n".to_owned();
    if has(Protocol::Redis) {
        text.push_str("    GlideClientConfiguration,\n");
    }
    if has(Protocol::RedisCluster) {
        text.push_str("    GlideClusterClientConfiguration,\n");
    }
    text.push_str("    NodeAddress,\n)\n");
    for cache in caches {
        text.push_str(&addresses(cache));
        let class = match cache.protocol {
            Protocol::RedisCluster => "GlideClusterClient",
            Protocol::Redis | Protocol::Memcached => "GlideClient",
        };
        let name = snake(&cache.word, "cache");
        text.push_str(&format!(
            "\n# client = await {class}.create({name})\n{name} = {class}Configuration(\n    addresses=[\n"
        ));
        for node in cache.nodes() {
            let host = double(node.dialled());
            text.push_str(&format!("        NodeAddress({host}, {}),\n", node.public_port));
        }
        text.push_str(&format!(
            "    ],\n    address_resolver=lambda host, port: {}.get((host, port), (host, port)),\n",
            map_name(cache)
        ));
        if cache.tls {
            text.push_str("    use_tls=True,\n");
        }
        text.push_str("    request_timeout=5000,\n)\n");
    }
    text
}
