//! Node: ioredis, node-redis and valkey-glide.

use crate::cache::Cache;
use crate::literal::{camel, comment, double};
use crate::{ClientEndpoint, Protocol};

/// A `Cluster` or `Redis` for each cache.
pub(crate) fn ioredis(caches: &[Cache<'_>]) -> String {
    let target = |node: &ClientEndpoint| {
        let tls = node.certificate_name().map(|name| format!(", tls: {{ servername: {} }}", double(name)));
        let (host, port) = (double(&node.public_host), node.public_port);
        format!("{{ host: {host}, port: {port}{} }}", tls.unwrap_or_else(|| bare_tls(node, ", tls: {}")))
    };
    let mut text = imports(caches, "ioredis", "Cluster", "Redis");
    for cache in caches {
        text.push_str(&addresses(cache, target));
        match cache.protocol {
            Protocol::RedisCluster => text.push_str(&format!(
                "\nexport const {} = new Cluster(\n  [\n{}  ],\n  {{\n    natMap: {},\n    \
                 redisOptions: {{ connectTimeout: 3000{} }},\n  }},\n);\n",
                camel(&cache.word, "cache"),
                list(&cache.nodes(), target),
                camel(&cache.word, "addresses"),
                if cache.tls { ", tls: {}" } else { "" },
            )),
            Protocol::Redis | Protocol::Memcached => {
                text.push_str(&singles(cache, |node| format!("new Redis({})", target(node))));
            }
        }
    }
    text
}

/// A cluster or client for each cache; it still has to be connected.
pub(crate) fn node_redis(caches: &[Cache<'_>]) -> String {
    let target = |node: &ClientEndpoint| {
        let tls = node.certificate_name().map(|name| format!(", tls: true, servername: {}", double(name)));
        let (host, port) = (double(&node.public_host), node.public_port);
        format!("{{ host: {host}, port: {port}{} }}", tls.unwrap_or_else(|| bare_tls(node, ", tls: true")))
    };
    let mut text = imports(caches, "redis", "createCluster", "createClient");
    for cache in caches {
        let name = camel(&cache.word, "cache");
        text.push_str(&addresses(cache, target));
        match cache.protocol {
            Protocol::RedisCluster => text.push_str(&format!(
                "\nexport const {name} = createCluster({{\n  rootNodes: [\n{}  ],\n  nodeAddressMap: {},\n  \
                 defaults: {{ socket: {{ connectTimeout: 3000{} }} }},\n}});\n",
                list(&cache.nodes(), |node| format!("{{ socket: {} }}", target(node))),
                camel(&cache.word, "addresses"),
                if cache.tls { ", tls: true" } else { "" },
            )),
            Protocol::Redis | Protocol::Memcached => {
                text.push_str(&singles(cache, |node| {
                    format!("createClient({{ socket: {} }})", target(node))
                }));
            }
        }
        // An error that nobody listens to ends the process.
        text.push_str(&format!(
            "{name}.on(\"error\", (error) => console.error(error));\n// await {name}.connect();\n"
        ));
    }
    text
}

/// A configuration for each cache; making a client of it has to be awaited.
pub(crate) fn glide(caches: &[Cache<'_>]) -> String {
    let target = |node: &ClientEndpoint| format!("[{}, {}]", double(node.dialled()), node.public_port);
    let seed =
        |node: &ClientEndpoint| format!("{{ host: {}, port: {} }}", double(node.dialled()), node.public_port);
    let mut text = "// @valkey/valkey-glide 2.5 or later\n".to_owned();
    for cache in caches {
        let class = match cache.protocol {
            Protocol::RedisCluster => "GlideClusterClient",
            Protocol::Redis | Protocol::Memcached => "GlideClient",
        };
        let name = camel(&cache.word, "cache");
        text.push_str(&addresses(cache, target));
        text.push_str(&format!(
            "\n// const client = await {class}.createClient({name});\nexport const {name} = {{\n  addresses: [\n{}  ],\n  \
             addressResolver: (host, port) => {}[`${{host}}:${{port}}`] ?? [host, port],\n{}  requestTimeout: 5000,\n}};\n",
            list(&cache.nodes(), seed),
            camel(&cache.word, "addresses"),
            if cache.tls { "  useTLS: true,\n" } else { "" },
        ));
    }
    text
}

fn imports(caches: &[Cache<'_>], module: &str, cluster: &str, single: &str) -> String {
    let has = |protocol| caches.iter().any(|cache| cache.protocol == protocol);
    let names = [(Protocol::RedisCluster, cluster), (Protocol::Redis, single)];
    let names: Vec<&str> =
        names.iter().filter(|(protocol, _)| has(*protocol)).map(|(_, name)| *name).collect();
    format!("import {{ {} }} from \"{module}\";\n", names.join(", "))
}

/// TLS for a node whose name is not known.
fn bare_tls(node: &ClientEndpoint, option: &str) -> String {
    if node.tls { option.to_owned() } else { String::new() }
}

/// The map as an object.
fn addresses(cache: &Cache<'_>, target: impl Fn(&ClientEndpoint) -> String) -> String {
    let mut text =
        format!("\n// {}: what the cache calls its nodes, and what they are outside.\n", comment(cache.name));
    text.push_str(&format!("export const {} = {{\n", camel(&cache.word, "addresses")));
    for inside in cache.inside() {
        let key = double(&format!("{}:{}", inside.host, inside.port));
        text.push_str(&format!("  {key}: {}, // {}\n", target(inside.node), inside.node.label()));
    }
    text + "};\n"
}

fn list(nodes: &[&ClientEndpoint], item: impl Fn(&ClientEndpoint) -> String) -> String {
    nodes.iter().map(|node| format!("    {},\n", item(node))).collect()
}

fn singles(cache: &Cache<'_>, client: impl Fn(&ClientEndpoint) -> String) -> String {
    let mut text = String::new();
    if let Some(primary) = cache.primary() {
        let name = camel(&cache.word, "cache");
        text.push_str(&format!("\nexport const {name} = {}; // {}\n", client(primary), primary.label()));
    }
    let replicas = cache.replicas();
    if !replicas.is_empty() {
        let name = camel(&cache.word, "replicas");
        text.push_str(&format!("export const {name} = [\n{}];\n", list(&replicas, client)));
    }
    text
}
