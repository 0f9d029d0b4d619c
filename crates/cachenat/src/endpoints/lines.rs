//! Formats of one line an endpoint.

use std::collections::BTreeSet;

use super::cache::Cache;
use super::literal::{self, shell};
use super::{Endpoint, Protocol};

/// `REDIS_URL` and its kin; with several caches each name begins with the cache's.
pub(super) fn env(caches: &[Cache<'_>]) -> String {
    let mut text = String::new();
    for cache in caches {
        let prefix = match caches {
            [_] => String::new(),
            _ => literal::snake(cache.name, "").to_ascii_uppercase(),
        };
        let uris =
            |nodes: &[&Endpoint]| nodes.iter().map(|node| node.uri()).collect::<Vec<String>>().join(",");
        let addresses = || cache.all().iter().map(|node| node.dialled_with_port()).collect::<Vec<String>>();
        let first = cache.primary().map(Endpoint::uri).unwrap_or_default();
        let lines = match cache.protocol {
            Protocol::Memcached => vec![("MEMCACHED_SERVERS", addresses().join(","))],
            Protocol::RedisCluster => vec![("REDIS_URL", first), ("REDIS_URLS", uris(&cache.nodes()))],
            Protocol::Redis => vec![("REDIS_URL", first), ("REDIS_REPLICA_URLS", uris(&cache.replicas()))],
        };
        for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{prefix}{name}={}\n", shell(&value)));
        }
    }
    text
}

/// A URI for each endpoint.
pub(super) fn uri(caches: &[Cache<'_>]) -> String {
    caches.iter().flat_map(|cache| cache.all()).map(|endpoint| endpoint.uri() + "\n").collect()
}

/// hosts(5): every name of a node leads to the gateway.
pub(super) fn hosts(endpoints: &[Endpoint]) -> String {
    let mut text =
        "# The caches' names, as they are from outside. Their ports are other ones there: a client needs \
                    its map of ports too.\n"
            .to_owned();
    let mut seen = BTreeSet::new();
    for endpoint in endpoints {
        if let Some(name) = endpoint.name().filter(|name| seen.insert(*name)) {
            text.push_str(&format!("{} {}\n", endpoint.public_host, literal::comment(name)));
        }
    }
    text
}

/// A command for each endpoint.
pub(super) fn redis_cli(caches: &[Cache<'_>]) -> String {
    let mut text = String::new();
    for cache in caches {
        if cache.protocol == Protocol::RedisCluster {
            text.push_str(&format!(
                "# {}: redis-cli -c would follow a MOVED to the private address; without -c, take the node it names:\n",
                literal::comment(cache.name)
            ));
            for inside in cache.inside() {
                let to = inside.node.public_port;
                text.push_str(&format!("#   {}:{}  -p {to}\n", literal::comment(&inside.host), inside.port));
            }
        }
        for endpoint in cache.all() {
            let tls = match (endpoint.tls, endpoint.certificate_name()) {
                (false, _) => String::new(),
                (true, None) => " --tls".to_owned(),
                (true, Some(name)) => format!(" --tls --sni {}", shell(name)),
            };
            text.push_str(&format!(
                "redis-cli -h {} -p {}{tls}  # {}\n",
                shell(&endpoint.public_host),
                endpoint.public_port,
                endpoint.label()
            ));
        }
    }
    text
}
