//! Golden files hold each format whole; `UPDATE_EXPECT=1 cargo test` writes them anew.

use std::path::PathBuf;

use discovery::Inventory;
use expect_test::ExpectFile;
use plan::Leases;

use super::*;

const PUBLIC: &str = "203.0.113.73";

fn node(id: &str, cluster: &str, host: &str, inside: (&str, u16), outside: u16) -> ClientEndpoint {
    ClientEndpoint {
        id: id.to_owned(),
        cluster: cluster.to_owned(),
        role: None,
        host: host.to_owned(),
        port: inside.1,
        public_host: PUBLIC.to_owned(),
        public_port: outside,
        configuration_host: None,
        private_addresses: vec![inside.0.parse().unwrap()],
        tls: false,
        protocol: Some(Protocol::Redis),
    }
}

/// AWS's example: a primary and two replicas.
fn example() -> Vec<ClientEndpoint> {
    let one = |number: u16, role| ClientEndpoint {
        role: Some(role),
        ..node(
            &format!("my-cluster-00{number}"),
            "my-cluster",
            &format!("my-cluster-00{number}.abc123.0001.use2.cache.amazonaws.com"),
            (&format!("10.0.1.{}", 229 + number), 6379),
            6378 + number,
        )
    };
    vec![one(1, Role::Primary), one(2, Role::Replica), one(3, Role::Replica)]
}

/// A Redis Cluster of two shards.
fn shards(tls: bool) -> Vec<ClientEndpoint> {
    let one = |shard: u16, number: u16, address: &str, outside| ClientEndpoint {
        tls,
        configuration_host: Some("clustercfg.shards.abc123.use2.cache.amazonaws.com".to_owned()),
        protocol: Some(Protocol::RedisCluster),
        ..node(
            &format!("shards-000{shard}-00{number}"),
            "shards",
            &format!("shards-000{shard}-00{number}.shards.abc123.use2.cache.amazonaws.com"),
            (address, 6379),
            outside,
        )
    };
    vec![
        one(1, 1, "10.0.1.240", 6382),
        one(1, 2, "10.0.1.241", 6383),
        one(2, 1, "10.0.1.242", 6384),
        one(2, 2, "10.0.1.243", 6385),
    ]
}

fn sessions() -> Vec<ClientEndpoint> {
    let one = |number: u16| ClientEndpoint {
        protocol: Some(Protocol::Memcached),
        ..node(
            &format!("sessions-000{number}"),
            "sessions",
            &format!("sessions.abc123.000{number}.use2.cache.amazonaws.com"),
            (&format!("10.0.1.25{number}"), 11211),
            6385 + number,
        )
    };
    vec![one(1), one(2)]
}

fn golden(name: &str) -> ExpectFile {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name);
    expect_test::expect_file![file]
}

fn texts() -> impl Iterator<Item = (Format, String)> {
    let formats = Format::value_variants().iter().filter(|&&format| format != Format::Json);
    formats.map(|&format| (format, format.to_possible_value().unwrap().get_name().to_owned()))
}

#[test]
fn every_format_of_aws_s_example_is_as_it_was_read_over() {
    let endpoints = [example(), shards(true), sessions()].concat();
    for (format, name) in texts() {
        golden(&format!("{name}.txt")).assert_eq(&text(format, &endpoints).unwrap());
    }
}

/// Each node on an address of its own, with the cache's own port.
#[test]
fn with_an_address_for_each_node_the_hosts_file_is_all_that_is_needed() {
    let own_addresses = |endpoints: Vec<ClientEndpoint>| -> Vec<ClientEndpoint> {
        let own = |(last, endpoint): (u8, ClientEndpoint)| ClientEndpoint {
            public_host: format!("203.0.113.{last}"),
            public_port: endpoint.port,
            ..endpoint
        };
        (73..).zip(endpoints).map(own).collect()
    };
    let all = own_addresses([example(), shards(true), sessions()].concat());
    for (format, name) in texts().filter(|(format, _)| matches!(format, Format::Hosts | Format::RedisCli)) {
        golden(&format!("own-addresses/{name}.txt")).assert_eq(&text(format, &all).unwrap());
    }
    let plain = text(Format::Hosts, &own_addresses(shards(false))).unwrap();
    assert!(
        plain.contains("# shards: without TLS its nodes send clients on to private addresses"),
        "{plain}"
    );
}

#[test]
fn two_ports_of_one_name_on_two_addresses_are_told_of() {
    let one = |id: &str, public: &str, port| ClientEndpoint {
        public_host: public.to_owned(),
        ..node(id, "carts", "carts.example", ("10.0.1.230", port), port)
    };
    let hosts =
        |reader| text(Format::Hosts, &[one("carts", PUBLIC, 6379), one("carts/reader", reader, 6380)]);
    let alone = "# The caches' names, as they are from outside.\n203.0.113.73 carts.example\n";
    assert_eq!(hosts(PUBLIC).unwrap(), alone);
    let told = "# carts/reader is at 203.0.113.74, which can't have that name as well\n";
    assert_eq!(hosts("203.0.113.74").unwrap(), format!("{alone}{told}"));
}

#[test]
fn without_tls_a_cluster_is_dialled_by_the_gateway_s_address() {
    for (format, name) in texts() {
        if let Ok(text) = text(format, &shards(false)) {
            golden(&format!("plain/{name}.txt")).assert_eq(&text);
        }
    }
}

/// In a debug build a template panics at a place without a value, and at a value without a place.
#[test]
fn every_template_fills_every_place() {
    let with_tls = |mut endpoints: Vec<ClientEndpoint>| {
        endpoints.iter_mut().for_each(|endpoint| endpoint.tls = true);
        endpoints
    };
    let without_names = |mut endpoints: Vec<ClientEndpoint>| {
        endpoints.iter_mut().for_each(|endpoint| endpoint.host.clear());
        endpoints
    };
    let inputs =
        [example(), shards(false), shards(true), sessions(), with_tls(example()), with_tls(sessions())];
    let mixed = [example(), shards(true), with_tls(sessions())].concat();
    for input in inputs.into_iter().chain([mixed.clone(), without_names(mixed)]) {
        for (format, name) in texts() {
            let Ok(text) = text(format, &input) else { continue };
            assert!(!text.replace("@valkey/", "").contains('@'), "{name}: {text}");
        }
    }
}

#[test]
fn the_json_is_the_contract_s_and_reads_back() {
    let json = text(Format::Json, &example()).unwrap();
    golden("json.txt").assert_eq(&json);
    assert_eq!(serde_json::from_str::<Document>(&json).unwrap().endpoints, example());
    let least = r#"{"version": 1, "endpoints": [{"id": "a", "cluster": "c", "role": null, "host": "h", "port": 1,
        "public_host": "203.0.113.73", "public_port": 2, "private_addresses": [], "tls": false}]}"#;
    assert_eq!(serde_json::from_str::<Document>(least).unwrap().endpoints.len(), 1);
}

#[test]
fn every_map_has_each_address_and_each_name_of_masters_and_replicas() {
    let maps = [
        Format::RedisPy,
        Format::ValkeyPy,
        Format::ValkeyGlidePython,
        Format::Ioredis,
        Format::NodeRedis,
        Format::ValkeyGlideNode,
        Format::Jedis,
        Format::Lettuce,
        Format::Redisson,
        Format::GoRedis,
        Format::RedisRs,
        Format::Fred,
        Format::Stackexchange,
        Format::Predis,
    ];
    for format in maps {
        let endpoints = match format {
            // They dial single nodes as they are told to, and have no map there.
            Format::Redisson | Format::RedisRs => shards(true),
            _ => [example(), shards(true)].concat(),
        };
        let text = text(format, &endpoints).unwrap();
        for node in endpoints {
            assert!(text.contains(&node.host), "{format:?} lacks {}", node.host);
            assert!(text.contains(&node.private_addresses[0].to_string()), "{format:?} lacks {}", node.id);
            assert!(text.contains(&node.public_port.to_string()), "{format:?} lacks {}", node.public_port);
        }
    }
}

#[test]
fn no_format_turns_verification_off() {
    let off = [
        "rejectUnauthorized",
        "danger",
        "CERT_NONE",
        "InsecureSkipVerify",
        "verify_peer",
        "withVerifyPeer(false)",
    ];
    let more =
        ["ssl_check_hostname=False", "CertificateValidation", "--insecure", "insecure", "SSL_VERIFY_NONE"];
    for (format, name) in texts() {
        let text = text(format, &[shards(true), sessions()].concat()).unwrap();
        assert!(off.iter().chain(&more).all(|word| !text.contains(word)), "{name}: {text}");
    }
}

/// A host name that would be code where it stands, and a cache's name that would be in a comment or a variable's.
#[test]
fn a_hostile_name_becomes_code_in_no_language() {
    let mut endpoints = [example(), shards(true), sessions()].concat();
    for endpoint in &mut endpoints {
        endpoint.host = "x\"'); evil() # \\\n// $(evil) */".to_owned();
        endpoint.cluster = "c\"'\nevil(); /*".to_owned();
    }
    for (format, name) in texts().filter(|(format, _)| *format != Format::Table) {
        let text = text(format, &endpoints).unwrap();
        let code = |line: &&str| !line.trim_start().starts_with(['#', '/']) && line.contains("evil(");
        assert_eq!(text.lines().find(code), None, "{name}");
        assert!(!text.contains("$(evil)"), "{name}");
    }
}

/// Whatever a cache and its nodes are called, no format has their code outside a string.
#[test]
fn names_end_no_comment_and_no_string() {
    let hostile =
        ["?><?php evil();", "\\u000aevil();", "*/ evil() /*", "??/\n", "\u{2028}evil()", "`evil`", "$(evil)"];
    for name in hostile {
        let mut endpoints = [example(), shards(true), sessions()].concat();
        for (endpoint, number) in endpoints.iter_mut().zip(0..) {
            endpoint.cluster = format!("{} {name}", endpoint.cluster);
            endpoint.id = format!("{number}{name}");
            endpoint.host = format!("x{name}");
            endpoint.configuration_host = Some(format!("y{name}"));
        }
        for (format, format_name) in texts().filter(|(format, _)| *format != Format::Table) {
            let text = text(format, &endpoints).unwrap();
            // PHP has ids in its code, as keys in single quotes.
            let rest = (0..9)
                .fold(text, |rest, number| rest.replace(&literal::single(&format!("{number}{name}")), ""));
            assert!(!rest.contains(name), "{format_name}: {rest}");
            assert!(!rest.contains("evil()") && !rest.contains("\\u000a"), "{format_name}: {rest}");
        }
    }
}

#[test]
fn twins_have_identifiers_of_their_own_in_every_format() {
    let called = |name: &str| {
        let rename = |endpoint: ClientEndpoint| ClientEndpoint { cluster: name.to_owned(), ..endpoint };
        [example(), sessions()].concat().into_iter().map(rename).collect::<Vec<_>>()
    };
    let twins = [called("shop-a"), called("shop.a")].concat();
    for (format, name) in texts() {
        let Ok(text) = text(format, &twins) else { continue };
        let lower = text.to_lowercase();
        let is_plain = ["shop_a_cache", "shopacache", "shop_a_redis", "shop_a_addresses"];
        assert!(is_plain.iter().all(|plain| !lower.contains(plain)), "{name}: {text}");
    }
}

#[test]
fn a_library_for_the_other_protocol_is_refused() {
    let nothing = |wanted| Err(FormatError::NothingToSay { wanted });
    assert_eq!(text(Format::Ioredis, &sessions()), nothing("Redis"));
    assert_eq!(text(Format::Pymemcache, &example()), nothing("Memcached"));
}

#[test]
fn a_library_without_tls_is_refused_where_a_cache_wants_it() {
    let mut endpoints = sessions();
    endpoints.iter_mut().for_each(|endpoint| endpoint.tls = true);
    let refused = FormatError::NoTls { library: "libmemcached", name: "sessions".to_owned() };
    assert_eq!(text(Format::Libmemcached, &endpoints), Err(refused));
}

/// A node whose name is not known has to fail its verification, rather than be spoken to in clear.
#[test]
fn hiredis_is_given_a_name_to_verify_wherever_there_is_tls() {
    let mut endpoints = shards(true);
    endpoints.iter_mut().for_each(|endpoint| endpoint.host.clear());
    let text = text(Format::Hiredis, &endpoints).unwrap();
    assert!(text.contains(r#"{"10.0.1.240:6379", "203.0.113.73", 6382, "203.0.113.73"}"#), "{text}");
}

#[test]
fn one_cache_is_found_by_its_name_and_an_unknown_name_is_told_the_others() {
    let all = || [example(), sessions()].concat();
    assert_eq!(of_cluster(all(), "sessions").unwrap(), sessions());
    let error = of_cluster(all(), "session").unwrap_err();
    assert_eq!(error.to_string(), "there is no cache session; there is my-cluster, sessions");
}

/// A port that spreads over replicas is no node, and must not stand for one.
#[test]
fn a_role_s_port_stands_for_its_name_and_not_for_a_node_s_address() {
    let role = |role, outside| ClientEndpoint {
        role: Some(role),
        ..node(
            &format!("my-cluster/{role}"),
            "my-cluster",
            &format!("{role}.example"),
            ("10.0.1.230", 6379),
            outside,
        )
    };
    let all = [vec![role(Role::Primary, 6400), role(Role::Reader, 6401)], example()].concat();
    let ioredis = text(Format::Ioredis, &all).unwrap();
    assert!(ioredis.contains(r#""10.0.1.230:6379": { host: "203.0.113.73", port: 6379 }"#), "{ioredis}");
    assert!(ioredis.contains(r#""reader.example:6379": { host: "203.0.113.73", port: 6401 }"#), "{ioredis}");
    assert!(
        ioredis.contains(r#"myClusterCache = new Redis({ host: "203.0.113.73", port: 6400 })"#),
        "{ioredis}"
    );
    let only_roles = text(Format::Ioredis, &all[..2]).unwrap();
    assert!(
        only_roles.contains(r#""10.0.1.230:6379": { host: "203.0.113.73", port: 6400 }"#),
        "{only_roles}"
    );
}

fn protocols(nodes: &str) -> Vec<Protocol> {
    let inventory = Inventory::from_json(&format!(r#"{{"version": 1, "nodes": [{nodes}]}}"#)).unwrap();
    inventory.nodes.iter().map(|node| protocol(&inventory, node)).collect()
}

#[test]
fn what_a_cache_speaks_is_told_by_engine_shards_and_roles() {
    use Protocol::{Memcached, Redis, RedisCluster};
    let one = |id: &str, source: &str, rest: &str| {
        format!(r#"{{"id": "{id}", "cluster": "c", "source": "{source}", "host": "h", "port": 6379{rest}}}"#)
    };
    let group = |rest: &str| one("n", "replication_group/c", rest);
    assert_eq!(protocols(&group(r#", "shard": "0001", "role": "primary""#)), [Redis]);
    assert_eq!(protocols(&group(r#", "shard": "0001""#)), [RedisCluster]);
    assert_eq!(protocols(&group(r#", "engine": "memcached""#)), [Memcached]);
    assert_eq!(protocols(&one("n", "in_band/c", r#", "shard": "0001", "role": "primary""#)), [RedisCluster]);
    assert_eq!(protocols(&one("n", "serverless_cache/c", "")), [RedisCluster]);
    assert_eq!(protocols(&one("n", "cache_cluster/c", "")), [Redis]);
    let (a, b) = (one("a", "static/c", ""), one("b", "static/c", ""));
    assert_eq!(protocols(&format!("{a}, {b}")), [RedisCluster; 2]);
}

#[test]
fn only_nodes_with_a_port_are_endpoints_and_each_is_dialled_in_its_family() {
    let node = |id: &str, address: &str| {
        format!(
            r#"{{"id": "{id}", "cluster": "c", "source": "static/c", "host": "h", "port": 6379, "addresses": ["{address}"]}}"#
        )
    };
    let nodes = [node("a", "10.0.1.230"), node("b", "fd00::1"), node("c", "10.0.1.231")].join(",");
    let inventory = Inventory::from_json(&format!(r#"{{"version": 1, "nodes": [{nodes}]}}"#)).unwrap();
    let leases: Leases = serde_json::from_str(
        r#"[{"port": 6379, "id": "a", "since": 0}, {"port": 6380, "id": "b", "since": 0}]"#,
    )
    .unwrap();
    let gateway = Addresses::new(vec!["10.0.0.55".parse().unwrap(), "fd00::55".parse().unwrap()]);
    let elastic = |private: &str, public: &str| (private.parse().unwrap(), public.parse().unwrap());
    let dialled = [elastic("10.0.0.55", PUBLIC), elastic("fd00::55", "2001:db8::73")].into();
    let found = endpoints(&inventory, &leases, &Public { gateway, dialled });
    let dialled: Vec<String> = found.iter().map(ClientEndpoint::outside).collect();
    assert_eq!(dialled, ["203.0.113.73:6379", "[2001:db8::73]:6380"]);
}
