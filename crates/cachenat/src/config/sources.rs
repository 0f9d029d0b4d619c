//! The `sources` list: each entry has one kind, and what goes with that kind.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU16;
use std::path::PathBuf;

use discovery::{Also, Expose, HostPort, NodeId, RedisSeed, Secret, Seed, Source, StaticNode, TlsTrust};
use rules::ruleset::ListIndex;

use super::ConfiguredSource;
use super::document::{Fields, Node};
use super::values::{ClientLists, NETWORK, client_list, network, pool};

const KINDS: [&str; 6] =
    ["replication_group", "cache_cluster", "serverless_cache", "tags", "in_band", "static"];
const KEYS: [&str; 9] = [
    "replication_group",
    "cache_cluster",
    "serverless_cache",
    "tags",
    "in_band",
    "static",
    "expose",
    "ports",
    "clients",
];

/// Every source that can be read.
pub(super) fn all(fields: &Fields<'_>, lists: &mut ClientLists) -> Vec<ConfiguredSource> {
    let what = "a list, such as [{replication_group: my-cluster}]";
    // Without sources an inventory file can still be applied; whoever discovers asks for one.
    let Some(node) = fields.get("sources") else { return vec![] };
    let mut sources: Vec<ConfiguredSource> = Vec::new();
    let (mut names, mut static_ids) = (HashSet::new(), BTreeSet::new());
    for item in node.list(what) {
        let Some(configured) = one(&item, lists) else { continue };
        let name = configured.source.name();
        if !names.insert(name.clone()) {
            item.mistake(format!("{name} stands here twice"), "name each source once");
            continue;
        }
        if let Source::Static { nodes, .. } = &configured.source {
            for twin in nodes.iter().filter(|node| !static_ids.insert(node.id.clone())) {
                item.mistake(
                    format!("the id {} stands here twice", twin.id),
                    "give each node an id of its own",
                );
            }
        }
        sources.push(configured);
    }
    let limit = usize::from(ListIndex::MAX);
    if lists.distinct.len() > limit {
        let what = format!("{} different lists of clients", lists.distinct.len());
        node.mistake(what, format!("write {limit} at most; sources with equal lists share one"));
    }
    sources
}

fn one(node: &Node<'_>, lists: &mut ClientLists) -> Option<ConfiguredSource> {
    let fields = node.fields(&KEYS);
    let kinds: Vec<(&str, Node<'_>)> =
        KINDS.iter().filter_map(|&kind| Some((kind, fields.get(kind)?))).collect();
    let ports = fields.get("ports").and_then(|node| pool(&node));
    let list = fields.get("clients").map_or(0, |node| lists.index(client_list(&node)));
    let [(kind, value)] = kinds.as_slice() else {
        let found =
            if kinds.is_empty() { "no kind of source" } else { "several kinds of source in one entry" };
        node.mistake(found, format!("write one of {}", KINDS.join(", ")));
        return None;
    };
    let expose = fields.get("expose").map(|node| expose(&node));
    if let (Some(node), "cache_cluster" | "serverless_cache" | "in_band" | "static") =
        (fields.get("expose"), *kind)
    {
        node.mistake(format!("a {kind} has no roles to expose"), "take expose away");
    }
    let expose = expose.unwrap_or_default();
    let source = match *kind {
        "replication_group" => Source::ReplicationGroup { id: identifier(value)?, expose },
        "cache_cluster" => Source::CacheCluster { id: identifier(value)? },
        "serverless_cache" => Source::ServerlessCache { name: identifier(value)? },
        "tags" => Source::Tags { tags: tags(value)?, expose },
        "in_band" => in_band(value)?,
        _ => static_nodes(value)?,
    };
    Some(ConfiguredSource { source, ports, list })
}

/// A cache's identifier: letters, digits and hyphens, at most 50 (ElastiCache API, `CreateReplicationGroup`); the
/// API keeps it in lower case.
fn identifier(node: &Node<'_>) -> Option<String> {
    node.parsed("the cache's identifier, such as my-cluster", |text| {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        (plain && !text.is_empty() && text.len() <= 50).then(|| text.to_ascii_lowercase())
    })
}

/// A name that goes into messages and ids.
fn name(fields: &Fields<'_>) -> Option<String> {
    fields.require("name", "a name, such as local")?.parsed("letters, digits, hyphens, dots", |text| {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        (plain && !text.is_empty() && text.len() <= 50).then(|| text.to_owned())
    })
}

fn expose(node: &Node<'_>) -> Expose {
    let what = "nodes, primary, reader or all";
    let words: Vec<String> = node
        .one_or_more(what)
        .iter()
        .filter_map(|item| {
            item.parsed(what, |word| Expose::from_words(&[word]).is_ok().then(|| word.to_owned()))
        })
        .collect();
    Expose::from_words(&words).unwrap_or_default()
}

fn tags(node: &Node<'_>) -> Option<BTreeMap<String, String>> {
    let what = "a mapping of tags, such as {Environment: dev}";
    let tags: BTreeMap<String, String> = node
        .entries(what)
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.text("a tag's value")?)))
        .collect();
    if tags.is_empty() && node.is_mapping() {
        node.mistake("no tag", format!("write {what}"));
    }
    (!tags.is_empty()).then_some(tags)
}

fn host_port(node: &Node<'_>) -> Option<HostPort> {
    node.parsed("host:port, such as 10.0.1.230:6379", |text| text.parse().ok())
}

fn in_band(node: &Node<'_>) -> Option<Source> {
    let fields = node.fields(&[
        "name",
        "redis",
        "memcached",
        "tls",
        "username",
        "password_file",
        "password_env",
        "also_ports",
        "also_hosts",
    ]);
    let name = name(&fields);
    let seed = match (fields.get("redis"), fields.get("memcached")) {
        (Some(redis), None) => Seed::Redis(RedisSeed {
            address: host_port(&redis)?,
            tls: fields.get("tls").and_then(|node| tls(&node)),
            username: fields.get("username").and_then(|node| node.text("an ACL user's name")),
            password: password(&fields),
        }),
        (None, Some(memcached)) => {
            for key in ["tls", "username", "password_file", "password_env"] {
                if let Some(node) = fields.get(key) {
                    node.mistake("goes with redis only", format!("take {key} away"));
                }
            }
            Seed::Memcached(host_port(&memcached)?)
        }
        _ => {
            node.mistake("the node to ask is not clear", "write redis: host:port, or memcached: host:port");
            return None;
        }
    };
    Some(Source::InBand { name: name?, seed, also: also(&fields) })
}

/// Where the nodes that the seed announces may be besides its own port and the VPC.
fn also(fields: &Fields<'_>) -> Also {
    let ports = "a port or a range of ports, such as 6380 or 7000-7005";
    let port = |node: &Node<'_>| {
        node.scalar(ports, |text| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let ports = first.trim().parse::<NonZeroU16>().ok()?..=last.trim().parse().ok()?;
            (!ports.is_empty()).then_some(ports)
        })
    };
    let list = |key: &str, what: &str| fields.get(key).map(|node| node.one_or_more(what)).unwrap_or_default();
    Also {
        ports: list("also_ports", ports).iter().filter_map(port).collect(),
        hosts: list("also_hosts", NETWORK).iter().filter_map(network).collect(),
    }
}

fn tls(node: &Node<'_>) -> Option<TlsTrust> {
    if !node.is_mapping() {
        let on = node
            .scalar("true, false or a mapping with ca_file, server_name", |text| text.parse::<bool>().ok())?;
        return on.then(TlsTrust::default);
    }
    let fields = node.fields(&["ca_file", "server_name"]);
    Some(TlsTrust {
        ca_file: fields.get("ca_file").and_then(|node| node.text("a PEM file")).map(PathBuf::from),
        server_name: fields.get("server_name").and_then(|node| node.text("the name in the certificate")),
    })
}

fn password(fields: &Fields<'_>) -> Option<Secret> {
    match (fields.get("password_file"), fields.get("password_env")) {
        (None, None) => None,
        (Some(file), None) => file.text("a file's path").map(|path| Secret::File(PathBuf::from(path))),
        (None, Some(variable)) => variable.text("an environment variable's name").map(Secret::Env),
        (Some(_), Some(variable)) => {
            variable.mistake("the password has two places", "keep either password_file or password_env");
            None
        }
    }
}

fn static_nodes(node: &Node<'_>) -> Option<Source> {
    let fields = node.fields(&["name", "nodes"]);
    let what = "a list, such as [{id: local-001, host: 10.0.1.230, port: 6379}]";
    let name = name(&fields);
    let mut nodes: Vec<StaticNode> = Vec::new();
    for item in fields.require("nodes", what)?.list(what) {
        let Some(node) = static_node(&item) else { continue };
        if let Some(twin) = nodes.iter().find(|other| (&other.host, other.port) == (&node.host, node.port)) {
            let what = format!("{} and {} are both {}:{}", twin.id, node.id, node.host, node.port);
            item.mistake(what, "give each node an address and port of its own");
        }
        nodes.push(node);
    }
    Some(Source::Static { name: name?, nodes })
}

fn static_node(node: &Node<'_>) -> Option<StaticNode> {
    let fields = node.fields(&["id", "host", "port"]);
    let id = fields.require("id", "a name for the node, such as local-001");
    let host = fields.require("host", "a name or an address, such as 10.0.1.230");
    let port = fields.require("port", "the port that the node listens on, such as 6379");
    let id = id?.parsed("up to 120 letters, digits and -_./:", |text| text.parse::<NodeId>().ok());
    let host = host?.parsed("a name or an address", |text| {
        // Whatever follows a host in `host:port` is checked there.
        let address = text.parse::<std::net::IpAddr>().is_ok();
        let name = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        (address || (name && !text.is_empty() && text.len() <= 253)).then(|| text.to_owned())
    });
    let port = port?.scalar("a port from 1 to 65535", |text| text.parse().ok());
    Some(StaticNode { id: id?, host: host?, port: port? })
}
