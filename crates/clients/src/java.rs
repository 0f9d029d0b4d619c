//! Java: Jedis, Lettuce and Redisson. Each is a class with a method for each cache.

use crate::ClientEndpoint;
use crate::cache::{Cache, Inside};
use crate::literal::{camel, comment, double, snake};

/// What every client of Jedis is made of: its classes have changed names from version to version, these have not.
pub(crate) fn jedis(caches: &[Cache<'_>]) -> String {
    let address = |host: &str, port: u16| format!("new HostAndPort({}, {port})", double(host));
    let dialled = |node: &ClientEndpoint| address(node.dialled(), node.public_port);
    let mut imports = vec!["java.util.Map"];
    if caches.iter().any(|cache| !cache.is_cluster()) {
        imports.insert(0, "java.util.List");
    }
    if caches.iter().any(Cache::is_cluster) {
        imports.push("java.util.Set");
    }
    if caches.iter().any(|cache| cache.tls) {
        imports.push("javax.net.ssl.SSLParameters");
    }
    imports.extend(["redis.clients.jedis.DefaultJedisClientConfig", "redis.clients.jedis.HostAndPort"]);
    let mut text = class("Jedis 4 or later", &imports);
    for cache in caches {
        let entry = |inside: &Inside<'_>| {
            format!("Map.entry({}, {})", address(&inside.host, inside.port), dialled(inside.node))
        };
        text.push_str(&hosts_note(cache));
        text.push_str(&map(cache, "HostAndPort", entry));
        let (nodes, config) = (camel(&cache.word, "nodes"), camel(&cache.word, "config"));
        text.push_str(&match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => {
                let node = camel(&cache.word, "node");
                format!(
                    "    /*\n     * Jedis 7.2 or later: RedisClient.builder().hostAndPort({node}()).clientConfig({config}()).build();\n     \
                     * before: new JedisPooled({node}(), {config}())\n     */\n    \
                     public static HostAndPort {node}() {{\n        return {}; // {}\n    }}\n\n{}",
                    dialled(primary),
                    primary.label(),
                    several(cache, "replicas", "HostAndPort", &cache.replicas(), dialled)
                )
            }
            _ => format!(
                "    /*\n     * Jedis 7.2 or later: RedisClusterClient.builder().nodes({nodes}()).clientConfig({config}()).build();\n     \
                 * before: new JedisCluster({nodes}(), {config}())\n     */\n    \
                 public static Set<HostAndPort> {nodes}() {{\n        return Set.of(\n{});\n    }}\n\n",
                lines(cache.nodes().iter().map(|node| dialled(node)))
            ),
        });
        let tls = match cache.tls {
            false => "",
            true => "                .ssl(true).sslParameters(verified())\n",
        };
        text.push_str(&format!(
            "    public static DefaultJedisClientConfig {config}() {{\n        return DefaultJedisClientConfig.builder()\n                \
             .hostAndPortMapper(address -> {map}.getOrDefault(address, address))\n                \
             .connectionTimeoutMillis(3000)\n{tls}                .build();\n    }}\n",
            map = map_name(cache),
        ));
    }
    if caches.iter().any(|cache| cache.tls) {
        text.push_str(
            "\n    /** Before version 8 Jedis checks the certificate's name only where it is told to. */\n    \
             private static SSLParameters verified() {\n        SSLParameters parameters = new SSLParameters();\n        \
             parameters.setEndpointIdentificationAlgorithm(\"HTTPS\");\n        return parameters;\n    }\n",
        );
    }
    text + "}\n"
}

/// Lettuce's clients. Only where it connects is mapped, so the name that it verifies stays the node's own.
pub(crate) fn lettuce(caches: &[Cache<'_>]) -> String {
    let address = |host: &str, port: u16| format!("HostAndPort.of({}, {port})", double(host));
    let uri = |node: &ClientEndpoint| {
        let (host, port) = node.seed();
        let tls = if node.tls { ".withSsl(true).withVerifyPeer(true)" } else { "" };
        format!("RedisURI.Builder.redis({}, {port}){tls}.build()", double(host))
    };
    let clusters = caches.iter().any(Cache::is_cluster);
    let singles = caches.iter().any(|cache| !cache.is_cluster());
    let only = |wanted: bool, import: &'static str| wanted.then_some(import);
    let imports = [
        only(singles, "io.lettuce.core.ClientOptions"),
        only(singles, "io.lettuce.core.RedisClient"),
        Some("io.lettuce.core.RedisURI"),
        Some("io.lettuce.core.SocketOptions"),
        only(clusters, "io.lettuce.core.cluster.ClusterClientOptions"),
        only(clusters, "io.lettuce.core.cluster.ClusterTopologyRefreshOptions"),
        only(clusters, "io.lettuce.core.cluster.RedisClusterClient"),
        Some("io.lettuce.core.internal.HostAndPort"),
        Some("io.lettuce.core.resource.ClientResources"),
        Some("io.lettuce.core.resource.DnsResolvers"),
        Some("io.lettuce.core.resource.MappingSocketAddressResolver"),
        Some("java.time.Duration"),
        Some("java.util.List"),
        Some("java.util.Map"),
    ];
    let imports: Vec<&str> = imports.into_iter().flatten().collect();
    let mut text = class("Lettuce 5.1 or later", &imports);
    for cache in caches {
        let entry = |inside: &Inside<'_>| {
            let to = address(&inside.node.public_host, inside.node.public_port);
            format!("Map.entry({}, {to})", address(&inside.host, inside.port))
        };
        text.push_str(&map(cache, "HostAndPort", entry));
        if !cache.is_cluster() {
            text.push_str(&format!(
                "    /* MasterReplica.connect({}(), StringCodec.UTF8, {}()) also reads from replicas. */\n{}",
                camel(&cache.word, "cache"),
                camel(&cache.word, "nodes"),
                several(cache, "nodes", "RedisURI", &cache.nodes(), uri)
            ));
        }
        let (seeds, class, options) = match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => (uri(primary), "RedisClient", "ClientOptions.builder()"),
            _ => (
                format!("List.of(\n{})", lines(cache.nodes().iter().map(|node| uri(node)))),
                "RedisClusterClient",
                // Without a refresh Lettuce goes on asking the old nodes first until it is started anew.
                "ClusterClientOptions.builder()\n                .topologyRefreshOptions(\n                        \
                 ClusterTopologyRefreshOptions.builder().enableAllAdaptiveRefreshTriggers().build())",
            ),
        };
        text.push_str(&format!(
            "    public static {class} {}() {{\n        {class} client = {class}.create(outside({}), {seeds});\n        \
             client.setOptions({options}\n                .socketOptions(SocketOptions.builder().connectTimeout(Duration.ofSeconds(3)).build())\n                \
             .build());\n        return client;\n    }}\n",
            camel(&cache.word, "cache"),
            map_name(cache),
        ));
    }
    text + "\n    private static ClientResources outside(Map<HostAndPort, HostAndPort> addresses) {\n        \
            return ClientResources.builder()\n                \
            .socketAddressResolver(MappingSocketAddressResolver.create(\n                        \
            DnsResolvers.UNRESOLVED, address -> addresses.getOrDefault(address, address)))\n                \
            .build();\n    }\n}\n"
}

/// Redisson's configurations. The mapper's interface has moved from one package to another between the versions, so
/// none is named.
pub(crate) fn redisson(caches: &[Cache<'_>]) -> String {
    let clusters = caches.iter().any(Cache::is_cluster);
    let imports: &[&str] = match clusters {
        true => &["java.util.Map", "org.redisson.config.Config", "org.redisson.misc.RedisURI"],
        false => &["org.redisson.config.Config"],
    };
    let mut text = class("Redisson 3.12 or later", imports);
    for cache in caches {
        // Replicated servers are dialled as they are given, and asked for their roles; they have no mapper.
        let (servers, mapper) = match cache.is_cluster() {
            true => (
                "useClusterServers",
                format!("                .setNatMapper(uri -> outside({}, uri))\n", map_name(cache)),
            ),
            false => ("useReplicatedServers", String::new()),
        };
        let entry = |inside: &Inside<'_>| {
            let key = double(&format!("{}:{}", inside.host, inside.port));
            format!("Map.entry({key}, {})", double(&inside.node.dialled_with_port()))
        };
        text.push_str(&hosts_note(cache));
        text.push_str(&match cache.is_cluster() {
            true => map(cache, "String", entry),
            false => format!("\n    // {}\n", comment(cache.name)),
        });
        let seed = |node: &&ClientEndpoint| double(&node.uri());
        text.push_str(&format!(
            "    public static Config {}() {{\n        Config config = new Config();\n        config.{servers}()\n{mapper}                \
             .setConnectTimeout(3000)\n                .addNodeAddress(\n{});\n        return config;\n    }}\n",
            camel(&cache.word, "cache"),
            lines(cache.nodes().iter().map(seed)),
        ));
    }
    if clusters {
        text.push_str(
            "\n    private static RedisURI outside(Map<String, String> addresses, RedisURI uri) {\n        \
             String address = addresses.get(uri.getHost() + \":\" + uri.getPort());\n        \
             return address == null ? uri : new RedisURI(uri.getScheme() + \"://\" + address);\n    }\n",
        );
    }
    text + "}\n"
}

fn class(library: &str, imports: &[&str]) -> String {
    let imports: String = imports.iter().map(|import| format!("import {import};\n")).collect();
    format!("{imports}\n/** {library}. */\npublic final class Caches {{\n")
}

fn map_name(cache: &Cache<'_>) -> String {
    snake(&cache.word, "addresses").to_ascii_uppercase()
}

/// A sentence on the hosts file, for libraries that take the name that they dial for the one to verify.
fn hosts_note(cache: &Cache<'_>) -> String {
    cache.hosts_note().map_or_else(String::new, |note| format!("\n    // {note}"))
}

fn map(cache: &Cache<'_>, of: &str, entry: impl Fn(&Inside<'_>) -> String) -> String {
    let mut text = format!(
        "\n    // {}: what the cache calls its nodes, and what they are outside.\n",
        comment(cache.name)
    );
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

/// A method that gives some of the nodes.
fn several(
    cache: &Cache<'_>,
    suffix: &str,
    of: &str,
    nodes: &[&ClientEndpoint],
    item: impl Fn(&ClientEndpoint) -> String,
) -> String {
    format!(
        "    public static List<{of}> {}() {{\n        return List.of(\n{});\n    }}\n\n",
        camel(&cache.word, suffix),
        lines(nodes.iter().map(|node| item(node)))
    )
}

fn lines(items: impl Iterator<Item = String>) -> String {
    items.map(|item| format!("                {item}")).collect::<Vec<String>>().join(",\n")
}
