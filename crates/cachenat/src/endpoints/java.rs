//! Java: Jedis, Lettuce and Redisson. Each is a class with a method for each cache.

use super::Endpoint;
use super::cache::{Cache, Inside, joined};
use super::literal::{camel, comment, double, snake};

/// Jedis' clients.
pub(super) fn jedis(caches: &[Cache<'_>]) -> String {
    let address = |host: &str, port: u16| format!("new HostAndPort({}, {port})", double(host));
    let dialled = |node: &Endpoint| address(node.dialled(), node.public_port);
    let mut imports = vec!["java.util.Map", "java.util.Set"];
    if caches.iter().any(|cache| cache.tls) {
        imports.push("javax.net.ssl.SSLParameters");
    }
    imports.extend(["redis.clients.jedis.DefaultJedisClientConfig", "redis.clients.jedis.HostAndPort"]);
    imports.extend(["redis.clients.jedis.JedisCluster", "redis.clients.jedis.JedisPooled"]);
    let mut text = class("Jedis 4 or later", &imports);
    for cache in caches {
        let entry = |inside: &Inside<'_>| {
            format!("Map.entry({}, {})", address(&inside.host, inside.port), dialled(inside.node))
        };
        text.push_str(&map(cache, "HostAndPort", entry));
        let map = map_name(cache);
        let (seeds, class) = match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => (dialled(primary), "JedisPooled"),
            _ => (
                format!("Set.of(\n{})", lines(cache.nodes().iter().map(|node| dialled(node)))),
                "JedisCluster",
            ),
        };
        let tls = match cache.tls {
            false => "",
            true => "                .ssl(true).sslParameters(verified())\n",
        };
        text.push_str(&format!(
            "    public static {class} {}() {{\n        return new {class}({seeds}, DefaultJedisClientConfig.builder()\n                \
             .hostAndPortMapper(address -> {map}.getOrDefault(address, address))\n                \
             .connectionTimeoutMillis(3000)\n{tls}                .build());\n    }}\n",
            camel(cache.name, "cache"),
        ));
    }
    if caches.iter().any(|cache| cache.tls) {
        text.push_str(
            "\n    /** Jedis checks the certificate's chain, and its name only where it is told to. */\n    \
             private static SSLParameters verified() {\n        SSLParameters parameters = new SSLParameters();\n        \
             parameters.setEndpointIdentificationAlgorithm(\"HTTPS\");\n        return parameters;\n    }\n",
        );
    }
    text + "}\n"
}

/// Lettuce's clients. Only where it connects is mapped, so the name that it verifies stays the node's own.
pub(super) fn lettuce(caches: &[Cache<'_>]) -> String {
    let address = |host: &str, port: u16| format!("HostAndPort.of({}, {port})", double(host));
    let uri = |node: &Endpoint| {
        let (host, port) = node.seed();
        let tls = if node.tls { ".withSsl(true).withVerifyPeer(true)" } else { "" };
        format!("RedisURI.Builder.redis({}, {port}){tls}.build()", double(host))
    };
    let imports = [
        "io.lettuce.core.RedisClient",
        "io.lettuce.core.RedisURI",
        "io.lettuce.core.cluster.RedisClusterClient",
        "io.lettuce.core.internal.HostAndPort",
        "io.lettuce.core.resource.ClientResources",
        "io.lettuce.core.resource.DnsResolvers",
        "io.lettuce.core.resource.MappingSocketAddressResolver",
        "java.util.List",
        "java.util.Map",
    ];
    let mut text = class("Lettuce 5.1 or later", &imports);
    for cache in caches {
        let entry = |inside: &Inside<'_>| {
            let to = address(&inside.node.public_host, inside.node.public_port);
            format!("Map.entry({}, {to})", address(&inside.host, inside.port))
        };
        text.push_str(&map(cache, "HostAndPort", entry));
        let (seeds, class) = match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => (uri(primary), "RedisClient"),
            _ => (
                format!("List.of(\n{})", lines(cache.nodes().iter().map(|node| uri(node)))),
                "RedisClusterClient",
            ),
        };
        text.push_str(&format!(
            "    public static {class} {}() {{\n        return {class}.create(outside({}), {seeds});\n    }}\n",
            camel(cache.name, "cache"),
            map_name(cache),
        ));
    }
    text + "\n    private static ClientResources outside(Map<HostAndPort, HostAndPort> addresses) {\n        \
            return ClientResources.builder()\n                \
            .socketAddressResolver(MappingSocketAddressResolver.create(\n                        \
            DnsResolvers.UNRESOLVED, address -> addresses.getOrDefault(address, address)))\n                \
            .build();\n    }\n}\n"
}

/// Redisson's configurations.
pub(super) fn redisson(caches: &[Cache<'_>]) -> String {
    let imports = ["java.util.Map", "org.redisson.api.HostPortNatMapper", "org.redisson.config.Config"];
    let mut text = class("Redisson 3.12 or later", &imports);
    for cache in caches {
        let entry = |inside: &Inside<'_>| {
            let key = double(&format!("{}:{}", inside.host, inside.port));
            format!("Map.entry({key}, {})", double(&inside.node.dialled_with_port()))
        };
        text.push_str(&map(cache, "String", entry));
        let servers = if cache.is_cluster() { "useClusterServers" } else { "useReplicatedServers" };
        let seed = |node: &&Endpoint| {
            let scheme = if node.tls { "rediss" } else { "redis" };
            double(&format!("{scheme}://{}", joined(node.dialled(), node.public_port)))
        };
        text.push_str(&format!(
            "    public static Config {}() {{\n        HostPortNatMapper mapper = new HostPortNatMapper();\n        \
             mapper.setHostsPortMap({});\n        Config config = new Config();\n        config.{servers}()\n                \
             .setNatMapper(mapper)\n                .setConnectTimeout(3000)\n                .addNodeAddress(\n{});\n        \
             return config;\n    }}\n",
            camel(cache.name, "cache"),
            map_name(cache),
            lines(cache.nodes().iter().map(seed)),
        ));
    }
    text + "}\n"
}

fn class(library: &str, imports: &[&str]) -> String {
    let imports: String = imports.iter().map(|import| format!("import {import};\n")).collect();
    format!("{imports}\n/** {library}. */\npublic final class Caches {{\n")
}

fn map_name(cache: &Cache<'_>) -> String {
    snake(cache.name, "addresses").to_ascii_uppercase()
}

fn map(cache: &Cache<'_>, of: &str, entry: impl Fn(&Inside<'_>) -> String) -> String {
    let mut text = format!(
        "\n    // {}: what the cache calls its nodes, and what they are outside.\n",
        comment(cache.name)
    );
    cache.hosts_note().into_iter().for_each(|note| text.push_str(&format!("    // {note}\n")));
    let inside = cache.inside();
    let entries: Vec<String> = inside
        .iter()
        .map(|inside| format!("            // {}\n            {}", inside.node.label(), entry(inside)))
        .collect();
    text.push_str(&format!(
        "    private static final Map<{of}, {of}> {} = Map.ofEntries(\n{});\n\n",
        map_name(cache),
        entries.join(",\n"),
    ));
    text
}

fn lines(items: impl Iterator<Item = String>) -> String {
    items.map(|item| format!("                {item}")).collect::<Vec<String>>().join(",\n")
}
