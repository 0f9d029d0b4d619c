//! .NET: StackExchange.Redis.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside, joined};
use crate::literal::{comment, double, pascal};
use crate::template::Places;

/// A class with the options for each cache. A tunnel only changes where a socket connects to.
///
/// The template's first line turns nullable annotations off, which old versions of C# do not know.
pub(crate) fn stackexchange(caches: &[Cache<'_>]) -> String {
    Places::new().each("caches", caches, cache_places).fill(include_str!("templates/StackExchange.cs"))
}

fn cache_places(cache: &Cache<'_>) -> Places {
    let certificate = cache.primary().and_then(ClientEndpoint::certificate_name);
    let node = |node: &ClientEndpoint| {
        let (host, port) = node.seed();
        Places::new().text("seed", double(host)).text("port", port)
    };
    let inside = |inside: Inside<'_>| {
        Places::new()
            .text("inside", double(&joined(&inside.host, inside.port)))
            .text("outside", double(&inside.node.public_host))
            .text("port", inside.node.public_port)
            .text("label", inside.node.label())
    };
    Places::new()
        .text("name", comment(cache.name))
        .text("Cache", pascal(&cache.word))
        .flag("tls", cache.tls)
        .text("certificate", certificate.map(double).unwrap_or_default())
        .each("inside", cache.inside(), inside)
        .each("nodes", cache.nodes(), node)
}
