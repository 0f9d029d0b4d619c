//! Redis Cluster: three masters and three replicas, which tell clients of each other by private addresses.

use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::{Lab, Node};

use crate::compiled;
use crate::program::{Language, Library, Running, on_the_client};

const TRIES: &str = include_str!("programs/tries.mjs");

// Those that have to be compiled come first, so that no other waits for them running.
const LIBRARIES: [Library; 9] = [
    rust("redis-rs", &[include_str!("programs/redis_rs.rs")]),
    rust("fred", &[include_str!("programs/fred.rs")]),
    python("redis-py", &[include_str!("programs/redis_py.py")]),
    python("valkey-py", &[include_str!("programs/redis_py.py")]),
    python("valkey-glide-python", &[include_str!("programs/valkey_glide.py")]),
    node("ioredis", &[TRIES, include_str!("programs/ioredis.mjs")]),
    node("node-redis", &[TRIES, include_str!("programs/node_redis.mjs")]),
    node("valkey-glide-node", &[TRIES, include_str!("programs/valkey_glide.mjs")]),
    Library { language: Language::Php, format: "predis", program: &[include_str!("programs/predis.php")] },
];

// The hiredis of Debian 12 has no TLS.
const HIREDIS: Library =
    Library { language: Language::C, format: "hiredis", program: &[include_str!("programs/hiredis.c")] };

const fn python(format: &'static str, program: &'static [&'static str]) -> Library {
    Library { language: Language::Python, format, program }
}

const fn node(format: &'static str, program: &'static [&'static str]) -> Library {
    Library { language: Language::Node, format, program }
}

const fn rust(format: &'static str, program: &'static [&'static str]) -> Library {
    Library { language: Language::Rust, format, program }
}

const PHPREDIS: &str =
    "foreach ($shards_cache as $id => $node) { echo \"$id {$node->info('server')['run_id']}\\n\"; }";

fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_cluster("shards", 3);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

fn applied_with_tls() -> Lab {
    let mut lab = Lab::new();
    lab.add_tls_cluster("shards", 3);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn pasted_code_survives_failover_and_node_replacement() {
    outlive(applied(), &[HIREDIS]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn pasted_tls_code_survives_failover_and_replacement() {
    outlive(applied_with_tls(), &[]);
}

/// The node that was the primary lives on and sends its clients to the new one, by its private address.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_failover_loses_no_command() {
    let lab = applied();
    let start = |library| Running::start(&lab, library, "running", 0);
    let mut running: Vec<Running> = [HIREDIS].iter().chain(&LIBRARIES).map(start).collect();
    running.iter_mut().for_each(|program| program.says("before"));
    lab.hand_over("shards-0001-001");
    running.iter_mut().for_each(Running::go_on);
    running.iter_mut().for_each(|program| program.says("after"));
    running.into_iter().for_each(|program| drop(program.ends()));
}

fn outlive(mut lab: Lab, more: &[Library]) {
    let start = |library| Running::start(&lab, library, "running", 20);
    let mut running: Vec<Running> = more.iter().chain(&LIBRARIES).map(start).collect();
    running.iter_mut().for_each(|program| program.says("before"));

    lab.replace_cluster_node("shards-0001-001");
    lab.cachenat(&["apply"]).exits(0);

    running.iter_mut().for_each(Running::go_on);
    running.iter_mut().for_each(|program| program.says("after"));
    running.into_iter().for_each(|program| drop(program.ends()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn printed_code_reaches_every_node_after_a_replacement() {
    let mut lab = applied();
    lab.replace_cluster_node("shards-0001-001");
    lab.cachenat(&["apply"]).exits(0);
    reach_all(&lab, &[HIREDIS]);
}

/// Each node has a certificate of its own, so a client that verified another name would be turned away.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn tls_clients_reach_and_verify_every_node() {
    reach_all(&applied_with_tls(), &[]);
}

/// go-redis itself is not to be had, so its dialer is handed each address, and the node behind it asked who it is.
fn go_reaches_all(lab: &Lab) {
    let printed = lab.cachenat(&["endpoints", "--format", "go-redis"]).exits(0).stdout;
    let program = compiled::go(lab.dir(), &printed, include_str!("programs/go_redis.go"));
    let mut command = on_the_client(lab);
    command.arg(program);
    let mut expected = Vec::new();
    for node in lab.nodes() {
        let id = node.redis().call(&["CLUSTER", "MYID"]).unwrap();
        for host in [node.at.ip().to_string(), node.dns_name.clone()] {
            command.arg(format!("{host}:6379"));
            expected.push(id.clone());
        }
    }
    // The seeds are the nodes once more, in their order.
    expected.extend(lab.nodes().map(|node| node.redis().call(&["CLUSTER", "MYID"]).unwrap()));
    assert_eq!(run(&mut command).lines().collect::<Vec<_>>(), expected);
}

/// phpredis' cluster can't be helped; its single connections are each to a node of its own.
fn phpredis_reaches_all(lab: &Lab) {
    let library = Library { language: Language::Php, format: "phpredis", program: &[PHPREDIS] };
    let expected: String = lab.nodes().map(|node| format!("{} {}\n", node.id, node.run_id())).collect();
    assert_eq!(Running::start(lab, &library, "nodes", 0).ends(), expected);
}

/// The commands as they stand, and the URIs in the same program.
fn redis_cli_reaches_all(lab: &Lab) {
    let commands = lab.cachenat(&["endpoints", "--format", "redis-cli"]).exits(0).stdout;
    let commands = commands.lines().filter(|line| !line.starts_with('#'));
    let uris = lab.cachenat(&["endpoints", "--format", "uri"]).exits(0).stdout;
    let uris = uris.lines().map(|uri| format!("redis-cli -u {uri}  #"));
    let asked = commands.map(str::to_owned).chain(uris).map(|line| line.replace("  #", " info server #"));
    let script: String = asked.map(|line| line + "\n").collect();
    let printed = run(on_the_client(lab).args(["sh", "-ec", &script]));
    let reached = printed.lines().filter_map(|line| line.strip_prefix("run_id:"));
    let nodes: Vec<String> = lab.nodes().map(Node::run_id).collect();
    assert_eq!(reached.collect::<Vec<_>>(), [&nodes[..], &nodes[..]].concat());
}

fn reach_all(lab: &Lab, more: &[Library]) {
    go_reaches_all(lab);
    phpredis_reaches_all(lab);
    redis_cli_reaches_all(lab);
    for library in more.iter().chain(&LIBRARIES) {
        for node in lab.nodes() {
            node.redis().call(&["CONFIG", "RESETSTAT"]).unwrap();
        }
        let mut program = Running::start(lab, library, "fresh", 0);
        program.says("before");
        program.ends();
        for node in lab.nodes() {
            let asked = node.redis().call(&["INFO", "commandstats"]).unwrap();
            assert!(asked.contains("cmdstat_get:"), "{} read nothing from {}", library.format, node.id);
        }
    }
}
