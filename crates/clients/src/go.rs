//! Go: go-redis.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside, joined};
use crate::literal::{camel, double, pascal};
use crate::template::Places;

/// A package with a function for each cache.
///
/// The dialer gets the address that the cache reports. With TLS the map also has the name to verify, because a cache
/// may report addresses too.
pub(crate) fn go_redis(caches: &[Cache<'_>]) -> String {
    Places::new()
        .flag("any_tls", caches.iter().any(|cache| cache.tls))
        .flag("any_plain", caches.iter().any(|cache| !cache.tls))
        .each("caches", caches, cache_places)
        .fill(include_str!("templates/go-redis.go"))
}

fn cache_places(cache: &Cache<'_>) -> Places {
    let node = |node: &ClientEndpoint| {
        let (host, port) = node.seed();
        Places::new().text("seed", double(&joined(host, port))).text("label", node.label())
    };
    let inside = |inside: Inside<'_>| {
        // Without a name, the certificate has to hold the address.
        let certificate = inside.node.certificate_name().unwrap_or(&inside.host);
        Places::new()
            .text("inside", double(&joined(&inside.host, inside.port)))
            .text("outside", double(&inside.node.outside()))
            .text("certificate", double(certificate))
            .text("label", inside.node.label())
    };
    cache
        .places(node)
        .text("cache", camel(&cache.word))
        .text("Cache", pascal(&cache.word))
        .text("dial", if cache.tls { "dialTLS" } else { "dial" })
        .flag("tls", cache.tls)
        .each("inside", cache.inside(), inside)
}
