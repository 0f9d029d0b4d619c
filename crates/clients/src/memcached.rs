//! Memcached's client for Python: the static list of nodes. Auto discovery would give it private addresses.

use crate::cache::Cache;
use crate::literal::{comment, double, snake};

/// pymemcache's `HashClient`.
pub(crate) fn pymemcache(caches: &[Cache<'_>]) -> String {
    let mut text = "from pymemcache.client.hash import HashClient\n".to_owned();
    if caches.iter().any(|cache| cache.tls) {
        text.push_str("import ssl\n");
    }
    for cache in caches {
        text.push_str(&format!("\n# {}\n", comment(cache.name)));
        cache.hosts_note().into_iter().for_each(|note| text.push_str(&format!("# {note}\n")));
        text.push_str(&format!("{} = HashClient(\n    [\n", snake(&cache.word, "cache")));
        for node in cache.all() {
            let host = double(node.dialled());
            text.push_str(&format!("        ({host}, {}),  # {}\n", node.public_port, node.label()));
        }
        text.push_str("    ],\n    connect_timeout=3,\n    timeout=3,\n");
        if cache.tls {
            text.push_str("    tls_context=ssl.create_default_context(),\n");
        }
        text.push_str(")\n");
    }
    text
}
