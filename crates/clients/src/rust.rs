//! Rust: redis-rs and fred. Each is a module with a function for each cache.

use crate::ClientEndpoint;
use crate::cache::Cache;
use crate::literal::{Comment, comment, double, snake};

/// redis-rs' clients. What its map leads to is also the name that it verifies.
pub(crate) fn redis_rs(caches: &[Cache<'_>]) -> String {
    let clusters = caches.iter().any(Cache::is_cluster);
    let mut text = REDIS_RS.to_owned();
    if clusters {
        text.push_str(
            "use std::time::Duration;\n\nuse redis::cluster::{ClusterClientBuilder, NodeAddress};\n",
        );
    }
    let singles = caches.iter().any(|cache| !cache.is_cluster());
    text.push_str(if singles { "use redis::{Client, RedisResult};\n" } else { "" });
    for cache in caches {
        text.push_str(&if cache.is_cluster() { redis_rs_cluster(cache) } else { redis_rs_singles(cache) });
    }
    if clusters { text + NODE } else { text }
}

fn redis_rs_cluster(cache: &Cache<'_>) -> String {
    let map = addresses(cache, |node| (node.dialled(), node.public_port));
    let seeds: String =
        cache.nodes().iter().map(|node| format!("        {},\n", double(&node.uri()))).collect();
    let note = cache.hosts_note().map_or_else(String::new, |note| format!("\n// {note}"));
    format!(
        "{note}{map}\n/// `{function}().build()?.get_connection()?`; with `.read_routing_strategy(...)` before it, reads go to replicas.\n\
         pub fn {function}() -> ClusterClientBuilder {{\n    \
         let nodes = {name}.map(|(inside, outside)| (node(inside), node(outside)));\n    \
         ClusterClientBuilder::new([\n{seeds}    ])\n    .node_address_map(nodes.into())\n    \
         .connection_timeout(Duration::from_secs(3))\n}}\n",
        function = snake(&cache.word, "cache"),
        name = map_name(cache),
    )
}

fn redis_rs_singles(cache: &Cache<'_>) -> String {
    let open = |node: &ClientEndpoint| format!("Client::open({})", double(&node.uri()));
    let mut text = format!("\n// {}\n", comment(cache.name));
    cache.hosts_note().into_iter().for_each(|note| text.push_str(&format!("// {note}\n")));
    if let Some(primary) = cache.primary() {
        let function = snake(&cache.word, "cache");
        text.push_str(&format!(
            "\n/// {}. `{function}()?.get_connection_with_timeout(Duration::from_secs(3))?`.\n\
             pub fn {function}() -> RedisResult<Client> {{\n    {}\n}}\n",
            primary.label(),
            open(primary)
        ));
    }
    let replicas = cache.replicas();
    if !replicas.is_empty() {
        let lines: String =
            replicas.iter().map(|node| format!("        {}?, // {}\n", open(node), node.label())).collect();
        let function = snake(&cache.word, "replicas");
        text.push_str(&format!(
            "\n/// Where reads may go as well.\npub fn {function}() -> RedisResult<Vec<Client>> {{\n    Ok(vec![\n{lines}    ])\n}}\n"
        ));
    }
    text
}

/// fred's clients. Its resolver is asked with the port, so it is the map, and the name that TLS verifies stays the
/// node's own.
pub(crate) fn fred(caches: &[Cache<'_>]) -> String {
    let mut text = FRED.to_owned();
    for cache in caches {
        text.push_str(&addresses(cache, |node| (&node.public_host, node.public_port)));
        let seed = |node: &ClientEndpoint| {
            let (host, port) = node.seed();
            format!("{}, {port}", double(host))
        };
        match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => {
                let single = |node| format!("new_centralized({})", seed(node));
                let name = snake(&cache.word, "cache");
                text.push_str(&fred_client(cache, &name, &primary.label(), &single(primary)));
                for (replica, number) in cache.replicas().into_iter().zip(1..) {
                    let name = snake(&cache.word, &format!("replica_{number}"));
                    text.push_str(&fred_client(cache, &name, &replica.label(), &single(replica)));
                }
            }
            _ => {
                let seeds: String =
                    cache.nodes().iter().map(|node| format!("            ({}),\n", seed(node))).collect();
                let server = format!("new_clustered(vec![\n{seeds}        ])");
                let name = snake(&cache.word, "cache");
                text.push_str(&fred_client(cache, &name, &comment(cache.name), &server));
            }
        }
    }
    text + OUTSIDE
}

fn fred_client(cache: &Cache<'_>, name: &str, what: &Comment, server: &str) -> String {
    let tls = if cache.tls { "        tls: Some(TlsConnector::default_rustls()?.into()),\n" } else { "" };
    format!(
        "\n/// {what}, connected.\npub async fn {name}() -> Result<Client, Error> {{\n    let config = Config {{\n        \
         server: ServerConfig::{server},\n{tls}        ..Config::default()\n    }};\n    \
         outside(config, &{}).await\n}}\n",
        map_name(cache)
    )
}

fn map_name(cache: &Cache<'_>) -> String {
    snake(&cache.word, "addresses").to_ascii_uppercase()
}

/// The map as an array of pairs.
fn addresses<'a>(cache: &Cache<'a>, outside: impl Fn(&'a ClientEndpoint) -> (&'a str, u16)) -> String {
    let inside = cache.inside();
    let mut text =
        format!("\n// {}: what the cache calls its nodes, and what they are outside.\n", comment(cache.name));
    text.push_str(&format!(
        "const {}: [((&str, u16), (&str, u16)); {}] = [\n",
        map_name(cache),
        inside.len()
    ));
    for inside in inside {
        let (host, port) = outside(inside.node);
        text.push_str(&format!(
            "    (({}, {}), ({}, {port})), // {}\n",
            double(&inside.host),
            inside.port,
            double(host),
            inside.node.label()
        ));
    }
    text + "];\n"
}

const REDIS_RS: &str = r#"// redis-rs 1.5 or later. Cargo.toml:
//   redis = { version = "1.5", features = ["cluster", "tls-rustls"] }   # async: cluster-async, tokio-rustls-comp
//   rustls = "0.23"                                                     # for TLS
"#;

const NODE: &str = "
fn node((host, port): (&str, u16)) -> NodeAddress {
    NodeAddress::new(host, port)
}
";

const FRED: &str = r#"// fred 10. Cargo.toml:
//   fred = { version = "10", features = ["dns", "replicas"] }   # for TLS: enable-rustls
//   async-trait = "0.1"
//   tokio = { version = "1", features = ["net"] }
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::bytes_utils::Str;
use fred::prelude::*;
use fred::types::Resolve;

type Addresses = &'static [((&'static str, u16), (&'static str, u16))];
"#;

const OUTSIDE: &str = "
struct Outside(Addresses);

#[async_trait]
impl Resolve for Outside {
    async fn resolve(&self, host: Str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let known = self.0.iter().find(|(inside, _)| *inside == (&*host, port));
        let address = known.map_or((&*host, port), |(_, outside)| *outside);
        Ok(tokio::net::lookup_host(address).await?.collect())
    }
}

async fn outside(config: Config, addresses: Addresses) -> Result<Client, Error> {
    let client = Builder::from_config(config)
        .with_connection_config(|config| config.connection_timeout = Duration::from_secs(3))
        .set_policy(ReconnectPolicy::new_exponential(0, 100, 3_000, 2))
        .build()?;
    client.set_resolver(Arc::new(Outside(addresses))).await;
    client.init().await?;
    Ok(client)
}
";
