//! C: hiredis and libmemcached.

use crate::cache::{Cache, Inside, joined};
use crate::literal::{comment, double, snake};
use crate::template::Places;
use crate::{ClientEndpoint, FormatError};

/// hiredis' connections. It does not support clusters, so the program itself follows a `MOVED` by the map.
///
/// With TLS the template verifies the name itself: hiredis_ssl only checks who signed the certificate.
pub(crate) fn hiredis(caches: &[Cache<'_>]) -> String {
    let inside = |inside: Inside<'_>| {
        node_places(inside.node).text("inside", double(&joined(&inside.host, inside.port)))
    };
    let places = |cache: &Cache<'_>| {
        Places::new()
            .text("name", comment(cache.name))
            .text("cache", snake(&cache.word))
            .flag("cluster", cache.is_cluster())
            .each("inside", cache.inside(), inside)
            .each("primary", cache.primary(), node_places)
    };
    Places::new()
        .flag("any_tls", caches.iter().any(|cache| cache.tls))
        .each("caches", caches, places)
        .fill(include_str!("templates/hiredis.c"))
}

/// Where to connect, and with TLS the name to verify. A node without a name gets one that fails.
fn node_places(node: &ClientEndpoint) -> Places {
    let certificate = node.certificate_name().or(node.tls.then_some(node.public_host.as_str()));
    Places::new()
        .text("outside", double(&node.public_host))
        .text("port", node.public_port)
        .text("certificate", certificate.map_or_else(|| "NULL".to_owned(), double))
        .text("label", node.label())
}

/// libmemcached's configuration string, for `memcached()` and the libraries built on it.
///
/// # Errors
///
/// [`FormatError::NoTls`]
pub(crate) fn libmemcached(caches: &[Cache<'_>]) -> Result<String, FormatError> {
    if let Some(cache) = caches.iter().find(|cache| cache.tls) {
        return Err(FormatError::NoTls { library: "libmemcached", name: cache.name.to_owned() });
    }
    let line = |cache: &Cache<'_>| {
        let servers = cache.all().iter().map(|node| format!("--SERVER={}", node.outside()));
        servers.collect::<Vec<String>>().join(" ") + "\n"
    };
    Ok(caches.iter().map(line).collect())
}
