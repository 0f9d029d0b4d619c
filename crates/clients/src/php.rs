//! PHP: phpredis and Predis.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside};
use crate::literal::{single, snake};
use crate::template::Places;

/// phpredis' connections. Its `RedisCluster` cannot be used through NAT.
pub(crate) fn phpredis(caches: &[Cache<'_>]) -> String {
    let parameters = |node: &ClientEndpoint| {
        let scheme = if node.tls { "tls://" } else { "" };
        Places::new()
            .text("outside", single(&format!("{scheme}{}", node.public_host)))
            .text("port", node.public_port)
            .text("certificate", node.certificate_name().map(single).unwrap_or_default())
            .fill(
                "@outside@, @port@, 3.0@if certificate@, null, 0, 10.0, \
                 ['stream' => ['peer_name' => @certificate@]]@endif certificate@",
            )
    };
    let node = |node: &ClientEndpoint| node_places(node, parameters(node));
    let places = |cache: &Cache<'_>| cache.places(node).text("cache", snake(&cache.word));
    Places::new().each("caches", caches, places).fill(include_str!("templates/phpredis.php"))
}

/// Predis' clients. The factory of its connections gets the map.
pub(crate) fn predis(caches: &[Cache<'_>]) -> String {
    let parameters = |node: &ClientEndpoint| {
        Places::new()
            .text("outside", single(&node.public_host))
            .text("port", node.public_port)
            .flag("tls", node.tls)
            .text("certificate", node.certificate_name().map(single).unwrap_or_default())
            .fill(
                "['host' => @outside@, 'port' => @port@, 'timeout' => 3.0@if tls@, 'scheme' => 'tls'@endif tls@\
                 @if certificate@, 'ssl' => ['peer_name' => @certificate@]@endif certificate@]",
            )
    };
    let node = |node: &ClientEndpoint| node_places(node, parameters(node));
    let inside = |inside: Inside<'_>| {
        node(inside.node).text("inside", single(&format!("{}:{}", inside.host, inside.port)))
    };
    let places = |cache: &Cache<'_>| {
        let places = cache.places(node).text("cache", snake(&cache.word));
        places.each("inside", cache.inside(), inside)
    };
    Places::new().each("caches", caches, places).fill(include_str!("templates/predis.php"))
}

fn node_places(node: &ClientEndpoint, parameters: String) -> Places {
    Places::new().text("id", single(&node.id)).text("parameters", parameters).text("label", node.label())
}
