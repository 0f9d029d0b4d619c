//! `cachenat probe` on the client's own host, which has neither configuration nor privilege.

use std::fs;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::product::Run;
use cachenat_tests::programs;
use serde_json::Value;

/// A lab with AWS's example and a Memcached, cachenat applied to it, and the file for its clients.
fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.add_memcached("sessions", 1);
    lab.cachenat(&["apply"]).exits(0);
    write_file(&lab);
    lab
}

fn write_file(lab: &Lab) {
    let json = lab.cachenat(&["endpoints", "--format", "json"]).exits(0).stdout;
    fs::write(lab.dir().join("endpoints.json"), json).unwrap();
}

fn probe(lab: &Lab, from: &Namespace, args: &[&str]) -> Run {
    let mut command = from.command("setpriv");
    command.args(["--bounding-set=-all", "--reuid=65534", "--clear-groups"]).arg(programs::cachenat());
    command.current_dir(lab.dir()).env("CACHENAT_CONFIG", "/nonexistent").arg("probe").args(args);
    Run::from(command.output().unwrap())
}

/// The results of the nodes, in the order of the file.
fn results(run: &Run) -> Vec<String> {
    let nodes = run.json()["nodes"].as_array().unwrap().clone();
    nodes.iter().map(|node: &Value| node["result"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn every_node_answers_with_its_location() {
    let lab = applied();
    open_to_all(&lab);
    let run = probe(&lab, &lab.network.client, &["endpoints.json"]).exits(0);
    for node in lab.nodes().take(3) {
        assert!(run.stdout.contains(&format!("at {}", node.at)), "{}", run.stdout);
    }
    assert!(run.stdout.contains("Memcached 1."), "{}", run.stdout);
    assert_eq!(run.stdout.lines().count(), 5);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn ports_are_probed_without_a_file() {
    let lab = applied();
    let run = probe(&lab, &lab.network.client, &["203.0.113.73:6379-6383", "--json"]).exits(1);
    assert_eq!(results(&run), ["ok", "ok", "ok", "ok", "refused"]);
    assert_eq!(run.json()["ok"], false);
}

/// Of a port that could not be tried nothing is said.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn many_ports_need_few_open_files() {
    let lab = applied();
    let limited = |files: u32, first: u16| {
        let ports = format!("203.0.113.73:{first}-{}", first + 1023);
        let mut command = lab.network.client.command("prlimit");
        command.arg(format!("--nofile={files}")).arg(programs::cachenat());
        Run::from(command.args(["probe", &ports, "--json"]).output().unwrap())
    };
    let expected: Vec<&str> = [["ok"; 4].as_slice(), ["refused"; 1020].as_slice()].concat();
    for files in [256, 32] {
        assert_eq!(results(&limited(files, 6379).exits(1)), expected, "{files} open files");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn probing_from_the_gateway_is_reported() {
    let lab = applied();
    let run = probe(&lab, &lab.network.nat, &["10.0.0.55:6379"]).exits(1);
    assert!(run.stderr.contains("this host is the gateway itself"), "{}", run.stderr);
    let run = probe(&lab, &lab.network.client, &["203.0.113.73:6379"]).exits(0);
    assert_eq!(run.stderr, "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unlisted_client_is_pointed_to_the_list() {
    let lab = applied();
    open_to_all(&lab);
    let run = probe(&lab, &lab.network.stranger, &["endpoints.json"]).exits(1);
    assert!(run.stdout.contains("refused") && run.stdout.contains("'clients'"), "{}", run.stdout);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_dropping_security_group_is_a_timeout() {
    let lab = applied();
    open_to_all(&lab);
    lab.network.nat.nft(
        "table ip group {
            chain in {
                type filter hook prerouting priority raw; policy accept;
                tcp dport 6380 drop
            }
        }",
    );
    let run = probe(&lab, &lab.network.client, &["endpoints.json", "--timeout", "1s", "--json"]).exits(1);
    assert_eq!(results(&run), ["ok", "silent", "ok", "ok"]);
    assert!(run.json()["nodes"][1]["remedy"].as_str().unwrap().contains("security group"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_wrong_node_behind_a_port_is_named() {
    let lab = applied();
    open_to_all(&lab);
    // What a hand that types rules does: the port of my-cluster-002 leads to my-cluster-003.
    lab.network.nat.nft(
        "table ip byhand {
            chain in {
                type nat hook prerouting priority dstnat - 1; policy accept;
                tcp dport 6380 dnat to 10.0.1.232:6379
            }
            chain out {
                type nat hook postrouting priority srcnat - 1; policy accept;
                ip daddr 10.0.1.232 snat to 10.0.0.55
            }
        }",
    );
    let run = probe(&lab, &lab.network.client, &["endpoints.json", "--json"]).exits(1);
    assert_eq!(run.json()["nodes"][1]["result"], "wrong-node");
    let detail = run.json()["nodes"][1]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("my-cluster-003"), "{detail}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_replaced_node_needs_a_new_file() {
    let mut lab = applied();
    open_to_all(&lab);
    lab.replace_node("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);
    let run = probe(&lab, &lab.network.client, &["endpoints.json", "--json"]).exits(1);
    assert_eq!(run.json()["nodes"][1]["result"], "wrong-node");
    write_file(&lab);
    probe(&lab, &lab.network.client, &["endpoints.json"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn tls_requires_the_nodes_own_certificate() {
    let mut lab = Lab::new();
    lab.add_tls_cluster("shards", 1);
    lab.cachenat(&["apply"]).exits(0);
    write_file(&lab);
    open_to_all(&lab);
    let client = &lab.network.client;
    let run = probe(&lab, client, &["endpoints.json", "--ca-file", "ca.pem", "--json"]).exits(0);
    assert_eq!(results(&run), ["ok", "ok"]);

    // Without the file the nodes' names are unknown; without the authority no certificate is trusted.
    let run =
        probe(&lab, client, &["203.0.113.73:6379-6380", "--tls", "--ca-file", "ca.pem", "--json"]).exits(1);
    assert_eq!(results(&run), ["tls-name", "tls-name"]);
    assert!(run.json()["nodes"][0]["detail"].as_str().unwrap().contains("shards-0001-001"), "{}", run.stdout);
    let run = probe(&lab, client, &["endpoints.json", "--json"]).exits(1);
    assert_eq!(results(&run), ["tls", "tls"]);
    let run = probe(&lab, client, &["203.0.113.73:6379", "--json"]).exits(1);
    assert_eq!(results(&run), ["no-answer"]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn unprobeable_input_is_a_usage_error() {
    let lab = applied();
    let run = probe(&lab, &lab.network.client, &["no-such-file.json"]).exits(2);
    assert!(run.stderr.contains("HOST:PORTS"), "{}", run.stderr);
}

/// Opens the lab's directory, so that the client's user can read the file in it.
fn open_to_all(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755)).unwrap();
}
