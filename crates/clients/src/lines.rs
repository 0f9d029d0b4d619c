//! Formats of one line an endpoint.

use std::collections::BTreeMap;

use crate::cache::{Cache, Inside};
use crate::literal::{comment, shell, upper};
use crate::template::Places;
use crate::{ClientEndpoint, Protocol};

/// `REDIS_URL` and its kin; with several caches each name begins with the cache's.
pub(crate) fn env(caches: &[Cache<'_>]) -> String {
    let mut text = String::new();
    for cache in caches {
        let prefix = match caches {
            [_] => String::new(),
            _ => upper(&cache.word) + "_",
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
        text.push_str(&format!("# {}: {why}; a client needs its map too.\n", comment(cache.name)));
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
    let places = |cache: &Cache<'_>| {
        let follows = cache.is_cluster() && cache.tls && cache.keeps_its_ports();
        let inside = |inside: Inside<'_>| {
            Places::new()
                .text("inside", format!("{}:{}", inside.host, inside.port))
                .text("port", inside.node.public_port)
        };
        let node = |node: &ClientEndpoint| {
            let name = node.certificate_name().filter(|_| !follows);
            Places::new()
                .text("outside", shell(if follows { node.dialled() } else { &node.public_host }))
                .text("port", node.public_port)
                .flag("tls", node.tls)
                .text("sni", name.map(shell).unwrap_or_default())
                .text("label", node.label())
        };
        Places::new()
            .text("name", comment(cache.name))
            .flag("follows", follows)
            .flag("has_map", cache.is_cluster() && !follows)
            .each("inside", cache.inside(), inside)
            .each("nodes", cache.all().iter().copied(), node)
    };
    Places::new().each("caches", caches, places).fill(include_str!("templates/redis-cli.sh"))
}
