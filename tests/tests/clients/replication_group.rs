//! Cluster mode disabled: AWS's example.

use cachenat_tests::fake_aws::Scenario;
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::shell::run;
use cachenat_tests::programs;
use serde_json::json;

use crate::program::{Language, Library, Running, client};

const LIBRARIES: [Library; 6] = [
    library(Language::Rust, "redis-rs", &[include_str!("programs/single_redis_rs.rs")]),
    library(Language::Rust, "fred", &[include_str!("programs/single_fred.rs")]),
    library(Language::C, "hiredis", &[include_str!("programs/single_hiredis.c")]),
    library(
        Language::Python,
        "redis-py",
        &["
my_cluster_cache.set('greeting', 'hello')
for replica in my_cluster_replicas:
    while replica.get('greeting') != b'hello':
        pass
"],
    ),
    library(Language::Php, "phpredis", &[PHP]),
    library(Language::Php, "predis", &[PHP]),
];

const PHP: &str = "
$my_cluster_cache->set('greeting', 'hello');
foreach ($my_cluster_replicas as $replica) {
    while ($replica->get('greeting') !== 'hello');
}
";

const fn library(language: Language, format: &'static str, program: &'static [&'static str]) -> Library {
    Library { language, format, program }
}

fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn printed_code_uses_the_primary_and_every_replica() {
    let lab = applied();
    for library in &LIBRARIES {
        for node in lab.nodes() {
            node.redis().call(&["CONFIG", "RESETSTAT"]).unwrap();
        }
        lab.node("my-cluster-001").redis().call(&["DEL", "greeting"]).unwrap();
        Running::start(&lab, library, "keys", 0).ends();
        for node in lab.nodes().skip(1) {
            let asked = node.redis().call(&["INFO", "commandstats"]).unwrap();
            assert!(asked.contains("cmdstat_get:"), "{} read nothing from {}", library.format, node.id);
        }
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unknown_public_address_is_a_warning() {
    let lab = applied();
    lab.write_config(&lab.plain_config().replace("gateway: {public_address: 203.0.113.73}\n", ""));
    let run = lab.cachenat(&["endpoints"]).exits(0);
    assert!(run.stderr.contains("gateway.public_address"), "{}", run.stderr);
    assert!(run.stdout.contains("10.0.0.55:6379"), "{}", run.stdout);

    let facts = [("mac", "02:00:00:00:00:55"), ("local-ipv4", "10.0.0.55"), ("public-ipv4", "203.0.113.73")];
    let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    lab.api().set(Scenario { imds: Some(facts), ..Scenario::default() });
    let mut command = lab.cachenat_command();
    command.env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:4566").arg("endpoints");
    let run = Run::from(command.output().unwrap()).exits(0);
    assert_eq!(run.stderr, "");
    assert!(run.stdout.contains("203.0.113.73:6379"), "{}", run.stdout);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn each_redis_cli_line_reaches_its_node() {
    let lab = applied();
    let text = lab.cachenat(&["endpoints", "--format", "redis-cli"]).exits(0).stdout;
    for (line, node) in text.lines().zip(lab.nodes()) {
        let command = line.replace("  #", " info server #");
        let printed = run(&mut client(&lab, &command));
        assert!(printed.contains(&node.run_id()), "{command}: {printed}");
    }
    assert_eq!(text.lines().count(), 3);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_shell_accepts_the_env_lines() {
    let lab = applied();
    let text = lab.cachenat(&["endpoints", "--format", "env"]).exits(0).stdout;
    let line = format!("set -a\n{text}redis-cli -u \"$REDIS_URL\" info server");
    let printed = run(&mut client(&lab, &line));
    assert!(printed.contains(&lab.node("my-cluster-001").run_id()), "{printed}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_json_names_every_node_inside_and_outside() {
    let lab = applied();
    let json = lab.cachenat(&["endpoints", "--format", "json"]).exits(0).json();
    let node = lab.node("my-cluster-002");
    let expected = json!({
        "id": "my-cluster-002", "cluster": "my-cluster", "role": "replica", "host": node.dns_name, "port": 6379,
        "public_host": "203.0.113.73", "public_port": 6380, "private_addresses": [node.at.ip().to_string()],
        "tls": false, "protocol": "redis",
    });
    assert_eq!(json["endpoints"][1], expected);
    assert_eq!(json["version"], 1);
}

/// All users may read the state directory's files, and the command does not need the kernel.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn endpoints_needs_no_privilege() {
    let lab = applied();
    let mut command = lab.operator_command("setpriv");
    command.arg("--bounding-set=-all").arg(programs::cachenat()).arg("endpoints");
    let run = Run::from(command.output().unwrap()).exits(0);
    assert!(run.stdout.contains("203.0.113.73:6381"), "{}", run.stdout);
}
