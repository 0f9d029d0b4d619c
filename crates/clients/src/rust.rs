//! Rust: redis-rs and fred. Each is a module with a function for each cache.

use crate::ClientEndpoint;
use crate::cache::Cache;
use crate::literal::{comment, double, snake, upper};
use crate::template::Places;

/// redis-rs' clients. Its map leads to the name that redis-rs verifies.
pub(crate) fn redis_rs(caches: &[Cache<'_>]) -> String {
    let node =
        |node: &ClientEndpoint| Places::new().text("uri", double(&node.uri())).text("label", node.label());
    let places = |cache: &Cache<'_>| {
        with_map(cache.places(node), cache, ClientEndpoint::dialled).text("note", cache.hosts_note())
    };
    Places::new()
        .flag("clusters", caches.iter().any(Cache::is_cluster))
        .flag("singles", caches.iter().any(Cache::is_single))
        .each("caches", caches, places)
        .fill(include_str!("templates/redis-rs.rs"))
}

/// fred's clients. fred gives its resolver the port, so the resolver is the map, and TLS verifies the node's own name.
pub(crate) fn fred(caches: &[Cache<'_>]) -> String {
    let node = |node: &ClientEndpoint| {
        let (host, port) = node.seed();
        Places::new().text("seed", double(host)).text("seed_port", port)
    };
    let client = |(name, client): (String, &ClientEndpoint)| {
        node(client).text("client", name).text("label", client.label())
    };
    let places = |cache: &Cache<'_>| {
        let places = Places::new()
            .text("name", comment(cache.name))
            .flag("cluster", cache.is_cluster())
            .flag("tls", cache.tls)
            .each("nodes", cache.nodes(), node);
        let places = with_map(places, cache, |node| &node.public_host);
        if cache.is_cluster() {
            let client = |name| Places::new().text("client", name).text("label", comment(cache.name));
            return places.each("clients", ["cache"], client);
        }
        let primary = cache.primary().map(|node| ("cache".to_owned(), node));
        let replicas = (1..).map(|number| format!("replica_{number}")).zip(cache.replicas());
        places.each("clients", primary.into_iter().chain(replicas), client)
    };
    Places::new().each("caches", caches, places).fill(include_str!("templates/fred.rs"))
}

/// The map, an array of pairs.
fn with_map(places: Places, cache: &Cache<'_>, outside: impl Fn(&ClientEndpoint) -> &str) -> Places {
    let inside = cache.inside();
    places
        .text("cache", snake(&cache.word))
        .text("CACHE", upper(&cache.word))
        .text("count", inside.len())
        .each("inside", inside, |inside| {
            Places::new()
                .text("inside", double(&inside.host))
                .text("inside_port", inside.port)
                .text("outside", double(outside(inside.node)))
                .text("port", inside.node.public_port)
                .text("label", inside.node.label())
        })
}
