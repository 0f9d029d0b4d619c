//! Java: Jedis, Lettuce and Redisson. Each is a class with a method for each cache.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside};
use crate::literal::{camel, comment, double, upper};
use crate::template::Places;

/// What every Jedis client takes: its classes have changed names between versions, these have not.
pub(crate) fn jedis(caches: &[Cache<'_>]) -> String {
    let address = |host: &str, port: u16| format!("new HostAndPort({}, {port})", double(host));
    let outside = |node: &ClientEndpoint| address(node.dialled(), node.public_port);
    let list = |nodes: Vec<&ClientEndpoint>| lines(nodes.into_iter().map(outside));
    let primary =
        |node: &ClientEndpoint| Places::new().text("outside", outside(node)).text("label", node.label());
    class(caches, |cache| {
        let map = entries(cache, |inside| (address(&inside.host, inside.port), outside(inside.node)));
        cache_places(cache)
            .text("note", cache.hosts_note())
            .text("entries", map)
            .flag("tls", cache.tls)
            .text("nodes", list(cache.nodes()))
            .each("primary", cache.primary(), primary)
            .text("replicas", list(cache.replicas()))
    })
    .flag("singles", caches.iter().any(Cache::is_single))
    .flag("any_tls", caches.iter().any(|cache| cache.tls))
    .fill(include_str!("templates/Jedis.java"))
}

/// Lettuce's clients. Only the address to connect to is mapped, so Lettuce verifies the node's own name.
///
/// Without the topology refresh Lettuce asks the old nodes first until it is restarted.
pub(crate) fn lettuce(caches: &[Cache<'_>]) -> String {
    let address = |host: &str, port: u16| format!("HostAndPort.of({}, {port})", double(host));
    let uri = |node: &ClientEndpoint| {
        let (host, port) = node.seed();
        let tls = if node.tls { ".withSsl(true).withVerifyPeer(true)" } else { "" };
        format!("RedisURI.Builder.redis({}, {port}){tls}.build()", double(host))
    };
    let entry = |inside: &Inside<'_>| {
        let node = inside.node;
        (address(&inside.host, inside.port), address(&node.public_host, node.public_port))
    };
    class(caches, |cache| {
        cache_places(cache)
            .text("entries", entries(cache, entry))
            .text("nodes", lines(cache.nodes().into_iter().map(uri)))
            .text("primary", cache.primary().map(uri).unwrap_or_default())
    })
    .flag("singles", caches.iter().any(Cache::is_single))
    .fill(include_str!("templates/Lettuce.java"))
}

/// Redisson's configurations.
///
/// The mapper is a lambda because its interface has moved between packages. Replicated servers have no mapper:
/// Redisson dials them as given and asks for their roles.
pub(crate) fn redisson(caches: &[Cache<'_>]) -> String {
    let entry = |inside: &Inside<'_>| {
        let key = double(&format!("{}:{}", inside.host, inside.port));
        (key, double(&inside.node.dialled_with_port()))
    };
    class(caches, |cache| {
        cache_places(cache)
            .text("note", cache.hosts_note())
            .text("entries", entries(cache, entry))
            .text("nodes", lines(cache.nodes().iter().map(|node| double(&node.uri()))))
    })
    .fill(include_str!("templates/Redisson.java"))
}

fn class(caches: &[Cache<'_>], places: impl Fn(&Cache<'_>) -> Places) -> Places {
    Places::new().flag("clusters", caches.iter().any(Cache::is_cluster)).each("caches", caches, places)
}

fn cache_places(cache: &Cache<'_>) -> Places {
    Places::new()
        .text("name", comment(cache.name))
        .text("cache", camel(&cache.word))
        .text("CACHE", upper(&cache.word))
        .flag("cluster", cache.is_cluster())
}

/// The map's entries: Java has no trailing comma, so they are joined here.
fn entries(cache: &Cache<'_>, pair: impl Fn(&Inside<'_>) -> (String, String)) -> String {
    let entry = |inside: &Inside<'_>| {
        let (key, value) = pair(inside);
        format!("            // {}\n            Map.entry({key}, {value})", inside.node.label())
    };
    cache.inside().iter().map(entry).collect::<Vec<String>>().join(",\n")
}

fn lines(items: impl Iterator<Item = String>) -> String {
    items.map(|item| format!("                {item}")).collect::<Vec<String>>().join(",\n")
}
