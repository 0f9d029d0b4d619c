//! Python: redis-py, valkey-py, valkey-glide and pymemcache.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside};
use crate::literal::{comment, double, snake, upper};
use crate::template::Places;

/// redis-py, or its fork.
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
///
/// It asks for the check of the certificate's name: redis-py before 6.0 does not check it by default.
pub(crate) fn redis(caches: &[Cache<'_>], library: &Library) -> String {
    let places = |cache: &Cache<'_>| {
        cache
            .places(node_places)
            .text("cache", snake(&cache.word))
            .text("CACHE", upper(&cache.word))
            .text("note", cache.hosts_note())
            .flag("tls", cache.tls)
            .each("inside", cache.inside(), inside_places)
    };
    Places::new()
        .text("versions", library.versions)
        .text("module", library.module)
        .text("client", library.client)
        .text("cluster_client", library.cluster)
        .flag("singles", caches.iter().any(Cache::is_single))
        .flag("clusters", caches.iter().any(Cache::is_cluster))
        .each("caches", caches, places)
        .fill(include_str!("templates/redis-py.py"))
}

/// A configuration for each cache; the program has to await the client that it makes of it.
pub(crate) fn glide(caches: &[Cache<'_>]) -> String {
    let places = |cache: &Cache<'_>| {
        Places::new()
            .text("name", comment(cache.name))
            .text("cache", snake(&cache.word))
            .text("CACHE", upper(&cache.word))
            .text("client", if cache.is_cluster() { "GlideClusterClient" } else { "GlideClient" })
            .text("note", cache.hosts_note())
            .flag("tls", cache.tls)
            .each("inside", cache.inside(), inside_places)
            .each("nodes", cache.nodes(), node_places)
    };
    Places::new()
        .flag("singles", caches.iter().any(Cache::is_single))
        .flag("clusters", caches.iter().any(Cache::is_cluster))
        .each("caches", caches, places)
        .fill(include_str!("templates/valkey-glide.py"))
}

/// pymemcache's `HashClient` with a static list of nodes: auto discovery would give it private addresses.
pub(crate) fn pymemcache(caches: &[Cache<'_>]) -> String {
    let places = |cache: &Cache<'_>| {
        Places::new()
            .text("name", comment(cache.name))
            .text("cache", snake(&cache.word))
            .text("note", cache.hosts_note())
            .flag("tls", cache.tls)
            .each("nodes", cache.all().iter().copied(), node_places)
    };
    Places::new()
        .flag("any_tls", caches.iter().any(|cache| cache.tls))
        .each("caches", caches, places)
        .fill(include_str!("templates/pymemcache.py"))
}

fn node_places(node: &ClientEndpoint) -> Places {
    Places::new()
        .text("outside", double(node.dialled()))
        .text("port", node.public_port)
        .text("label", node.label())
}

fn inside_places(inside: Inside<'_>) -> Places {
    node_places(inside.node).text("inside", double(&inside.host)).text("inside_port", inside.port)
}
