//! PHP: phpredis and Predis.

use crate::ClientEndpoint;
use crate::cache::Cache;
use crate::literal::{comment, single, snake};

/// phpredis' connections; its `RedisCluster` can't be helped.
pub(crate) fn phpredis(caches: &[Cache<'_>]) -> String {
    let mut text = "<?php\n".to_owned();
    for cache in caches {
        text.push_str(&format!("\n// {}\n", comment(cache.name)));
        if cache.is_cluster() {
            text.push_str(
                "// This is a Redis Cluster, and phpredis' RedisCluster has no map of addresses: it would follow the\n\
                 // nodes to their private addresses and hang. Use Predis (cachenat endpoints --format predis). What\n\
                 // follows reaches each node by itself, for the keys that it holds.\n",
            );
        }
        let variable = snake(&cache.word, "cache");
        let connect = |variable: &str, node: &ClientEndpoint| {
            let scheme = if node.tls { "tls://" } else { "" };
            let host = single(&format!("{scheme}{}", node.public_host));
            let stream = match node.certificate_name() {
                Some(name) => format!(", null, 0, 10.0, ['stream' => ['peer_name' => {}]]", single(name)),
                None => String::new(),
            };
            format!("{variable}->connect({host}, {}, 3.0{stream}); // {}\n", node.public_port, node.label())
        };
        match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => {
                let variable = format!("${variable}");
                text.push_str(&format!("{variable} = new Redis();\n{}", connect(&variable, primary)));
                for node in cache.replicas() {
                    let variable = format!("${}[{}]", snake(&cache.word, "replicas"), single(&node.id));
                    text.push_str(&format!("{variable} = new Redis();\n{}", connect(&variable, node)));
                }
            }
            _ => {
                for node in cache.nodes() {
                    let variable = format!("${variable}[{}]", single(&node.id));
                    text.push_str(&format!("{variable} = new Redis();\n{}", connect(&variable, node)));
                }
            }
        }
    }
    text
}

/// Predis' clients: the factory of its connections is told the map.
pub(crate) fn predis(caches: &[Cache<'_>]) -> String {
    let mut text = PREDIS.to_owned();
    for cache in caches {
        let map = snake(&cache.word, "addresses");
        text.push_str(&format!(
            "\n// {}: what the cache calls its nodes, and what they are outside.\n${map} = [\n",
            comment(cache.name)
        ));
        for inside in cache.inside() {
            let key = single(&format!("{}:{}", inside.host, inside.port));
            text.push_str(&format!("    {key} => {}, // {}\n", parameters(inside.node), inside.node.label()));
        }
        text.push_str("];\n");
        let variable = snake(&cache.word, "cache");
        match (cache.is_cluster(), cache.primary()) {
            (false, Some(primary)) => {
                let to = parameters(primary);
                text.push_str(&format!("${variable} = new Predis\\Client({to}); // {}\n", primary.label()));
                for node in cache.replicas() {
                    text.push_str(&format!(
                        "${}[{}] = new Predis\\Client({});\n",
                        snake(&cache.word, "replicas"),
                        single(&node.id),
                        parameters(node)
                    ));
                }
            }
            _ => {
                text.push_str(&format!("${variable} = new Predis\\Client([\n"));
                for node in cache.nodes() {
                    text.push_str(&format!("    {},\n", parameters(node)));
                }
                text.push_str(&format!(
                    "], ['cluster' => 'redis', 'connections' => new OutsideFactory(${map})]);\n"
                ));
            }
        }
    }
    text
}

fn parameters(node: &ClientEndpoint) -> String {
    let tls = match (node.tls, node.certificate_name()) {
        (false, _) => String::new(),
        (true, None) => ", 'scheme' => 'tls'".to_owned(),
        (true, Some(name)) => format!(", 'scheme' => 'tls', 'ssl' => ['peer_name' => {}]", single(name)),
    };
    let (host, port) = (single(&node.public_host), node.public_port);
    format!("['host' => {host}, 'port' => {port}, 'timeout' => 3.0{tls}]")
}

const PREDIS: &str = r"<?php
// Predis 1.1 or 2, after its autoloader

final class OutsideFactory extends Predis\Connection\Factory
{
    private $outside;

    public function __construct(array $outside)
    {
        $this->outside = $outside;
    }

    protected function createParameters($parameters)
    {
        if (is_array($parameters) && isset($parameters['host'], $parameters['port'])) {
            $key = $parameters['host'].':'.$parameters['port'];
            $parameters = ($this->outside[$key] ?? []) + $parameters;
        }

        return parent::createParameters($parameters);
    }
}
";
