//! Formats of one line an endpoint.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::literal::{self, shell};
use crate::{ClientEndpoint, Protocol};

/// `REDIS_URL` and its kin; with several caches each name begins with the cache's.
pub(crate) fn env(caches: &[Cache<'_>]) -> String {
    let mut text = String::new();
    for cache in caches {
        let prefix = match caches {
            [_] => String::new(),
            _ => literal::snake(&cache.word, "").to_ascii_uppercase(),
        };
        let uris = |nodes: &[&ClientEndpoint]| {
            nodes.iter().map(|node| node.uri()).collect::<Vec<String>>().join(",")
        };
        let addresses = || cache.all().iter().map(|node| node.dialled_with_port()).collect::<Vec<String>>();
        let first = cache.primary().map(ClientEndpoint::uri).unwrap_or_default();
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
pub(crate) fn uri(caches: &[Cache<'_>]) -> String {
    caches.iter().flat_map(|cache| cache.all()).map(|endpoint| endpoint.uri() + "\n").collect()
}

/// hosts(5): every name of a node leads to the gateway.
///
/// Where the gateway has an address for each node, that is all that a client needs which goes by names.
pub(crate) fn hosts(caches: &[Cache<'_>]) -> String {
    let mut text = "# The caches' names, as they are from outside.\n".to_owned();
    for cache in caches {
        let why = match cache {
            cache if !cache.keeps_its_ports() => "its ports are other ones there",
            Cache { protocol: Protocol::RedisCluster, tls: false, .. } => {
                "without TLS its nodes send clients on to private addresses"
            }
            _ => continue,
        };
        text.push_str(&format!("# {}: {why}; a client needs its map too.\n", literal::comment(cache.name)));
    }
    // A name on several lines has several addresses (hosts(5), getaddrinfo(3)), and clients try one after the other.
    for endpoint in caches.iter().filter(|cache| cache.keeps_its_ports()).flat_map(|cache| cache.all()) {
        if let Some(name) = endpoint.configuration_name() {
            text.push_str(&format!("{} {name}\n", endpoint.public_host));
        }
    }
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    for endpoint in caches.iter().flat_map(|cache| cache.all()) {
        let (Some(name), host) = (endpoint.name(), endpoint.public_host.as_str()) else { continue };
        match places.insert(name, host) {
            None => text.push_str(&format!("{host} {name}\n")),
            Some(first) if first != host => text.push_str(&format!(
                "# {} is at {host}, which can't have that name as well\n",
                endpoint.label()
            )),
            Some(_) => {}
        }
    }
    text
}

/// A command for each endpoint.
pub(crate) fn redis_cli(caches: &[Cache<'_>]) -> String {
    let mut text = String::new();
    for cache in caches {
        let follows = cache.is_cluster() && cache.tls && cache.keeps_its_ports();
        if follows {
            text.push_str(&format!(
                "# {}: with the lines of --format hosts in /etc/hosts, redis-cli -c follows a MOVED by its name:\n",
                literal::comment(cache.name)
            ));
        } else if cache.is_cluster() {
            text.push_str(&format!(
                "# {}: redis-cli -c would follow a MOVED to the private address; without -c, take the node it names:\n",
                literal::comment(cache.name)
            ));
            for inside in cache.inside() {
                let to = inside.node.public_port;
                text.push_str(&format!("#   {}:{}  -p {to}\n", inside.host, inside.port));
            }
        }
        for endpoint in cache.all() {
            let tls = match (endpoint.tls, endpoint.certificate_name()) {
                (false, _) => String::new(),
                (true, None) => " --tls".to_owned(),
                (true, Some(_)) if follows => " --tls".to_owned(),
                (true, Some(name)) => format!(" --tls --sni {}", shell(name)),
            };
            let (c, host) =
                if follows { ("-c ", endpoint.dialled()) } else { ("", endpoint.public_host.as_str()) };
            text.push_str(&format!(
                "redis-cli {c}-h {} -p {}{tls}  # {}\n",
                shell(host),
                endpoint.public_port,
                endpoint.label()
            ));
        }
    }
    text
}
