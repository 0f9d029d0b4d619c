//! Node: ioredis, node-redis and valkey-glide.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside};
use crate::literal::{camel, comment, double};
use crate::template::Places;

/// A `Cluster` or `Redis` for each cache.
pub(crate) fn ioredis(caches: &[Cache<'_>]) -> String {
    let socket = "{ host: @outside@, port: @port@@if tls@, tls: \
                  {@if certificate@ servername: @certificate@ @endif certificate@}@endif tls@ }";
    Places::new()
        .text("imports", imports(caches, "Cluster", "Redis"))
        .each("caches", caches, |cache| cache_places(cache, socket))
        .fill(include_str!("templates/ioredis.js"))
}

/// A cluster or client for each cache; the program still has to connect it.
///
/// It needs an error listener: Node ends the process at an error event without one.
pub(crate) fn node_redis(caches: &[Cache<'_>]) -> String {
    let socket = "{ host: @outside@, port: @port@@if tls@, tls: true\
                  @if certificate@, servername: @certificate@@endif certificate@@endif tls@ }";
    Places::new()
        .text("imports", imports(caches, "createCluster", "createClient"))
        .each("caches", caches, |cache| cache_places(cache, socket))
        .fill(include_str!("templates/node-redis.js"))
}

/// A configuration for each cache; the program has to await the client that it makes of it.
pub(crate) fn glide(caches: &[Cache<'_>]) -> String {
    let node = |node: &ClientEndpoint| {
        Places::new().text("outside", double(node.dialled())).text("port", node.public_port)
    };
    let places = |cache: &Cache<'_>| {
        Places::new()
            .text("name", comment(cache.name))
            .text("cache", camel(&cache.word))
            .text("client", if cache.is_cluster() { "GlideClusterClient" } else { "GlideClient" })
            .flag("tls", cache.tls)
            .each("inside", cache.inside(), |inside| {
                node(inside.node).text("inside", key(&inside)).text("label", inside.node.label())
            })
            .each("nodes", cache.nodes(), node)
    };
    Places::new().each("caches", caches, places).fill(include_str!("templates/valkey-glide.js"))
}

fn cache_places(cache: &Cache<'_>, socket: &str) -> Places {
    let outside = |node: &ClientEndpoint| {
        Places::new()
            .text("outside", double(&node.public_host))
            .text("port", node.public_port)
            .flag("tls", node.tls)
            .text("certificate", node.certificate_name().map(double).unwrap_or_default())
            .fill(socket)
    };
    let node = |node| Places::new().text("outside", outside(node)).text("label", node.label());
    cache.places(node).text("cache", camel(&cache.word)).flag("tls", cache.tls).each(
        "inside",
        cache.inside(),
        |inside| node(inside.node).text("inside", key(&inside)),
    )
}

fn imports(caches: &[Cache<'_>], cluster: &str, single: &str) -> String {
    let names = [
        caches.iter().any(Cache::is_cluster).then_some(cluster),
        caches.iter().any(Cache::is_single).then_some(single),
    ];
    names.into_iter().flatten().collect::<Vec<&str>>().join(", ")
}

fn key(inside: &Inside<'_>) -> String {
    double(&format!("{}:{}", inside.host, inside.port))
}
