//! `status`: the active forwards, for people and for Prometheus.

use std::time::{SystemTime, UNIX_EPOCH};

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::wait::wait_for;
use serde_json::Value;

use crate::common::{applied, open, read_metrics, sample, value};

fn samples(lab: &Lab) -> Vec<Value> {
    read_metrics(lab, &lab.cachenat(&["status", "--format", "prometheus"]).exits(0).stdout)
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn total_and_open_connections_are_distinguished() {
    let lab = applied();
    drop(open(&lab, 6380));
    let _open = [open(&lab, 6379), open(&lab, 6379)];
    let status = lab.cachenat(&["status", "--format", "json"]).exits(0).json();
    let of = |key: &str| -> Vec<u64> {
        status["listeners"].as_array().unwrap().iter().filter_map(|listener| listener[key].as_u64()).collect()
    };
    assert_eq!(of("connections"), [2, 1, 0]);
    assert_eq!(of("flows")[0], 2, "{status:#}");
    assert_eq!(of("flows")[2], 0, "{status:#}");
    assert!(status["last_change"].as_u64().unwrap() > 0);

    let text = lab.cachenat(&["status"]).exits(0).stdout;
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    let (public, listen) = ("203.0.113.73:6379", "10.0.0.55:6379");
    assert_eq!(
        row[..8],
        ["my-cluster-001", "primary", public, listen, "10.0.1.230:6379", "2", "2", "-"],
        "{text}"
    );
    assert_eq!(row.last(), Some(&"ok"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("last change "), "{text}");
}

/// The listener of a node in `status --format json`.
fn listener(lab: &Lab, id: &str) -> Value {
    let status = lab.cachenat(&["status", "--format", "json"]).exits(0).json();
    let listeners = status["listeners"].as_array().unwrap();
    listeners.iter().find(|listener| listener["id"] == id).unwrap_or_else(|| panic!("{status:#}")).clone()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn bytes_are_reported_with_conntrack_accounting() {
    let lab = applied();
    let _before = open(&lab, 6380);
    assert_eq!(listener(&lab, "my-cluster-002")["bytes_sent"], Value::Null);
    lab.network.nat.set_sysctl("net/netfilter/nf_conntrack_acct", "1");
    let mut connection = open(&lab, 6379);
    connection.call(&["SET", "key", &"x".repeat(10_000)]).unwrap();
    connection.call(&["PING"]).unwrap();
    let node = listener(&lab, "my-cluster-001");
    let (sent, received) = (node["bytes_sent"].as_u64().unwrap(), node["bytes_received"].as_u64().unwrap());
    assert!(sent > 10_000 && received > 100 && sent > received, "{node:#}");
    let found = samples(&lab);
    let of = |direction: &str| {
        let is = |sample: &&Value| {
            sample[2] == "cachenat_listener_flow_bytes"
                && sample[3]["id"] == "my-cluster-001"
                && sample[3]["direction"] == direction
        };
        found.iter().find(is).unwrap()[4].as_f64().unwrap()
    };
    assert!(of("sent") >= sent as f64 && of("received") >= received as f64, "{found:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_moved_node_keeps_its_leases_age() {
    let mut lab = applied();
    let before = listener(&lab, "my-cluster-002");
    assert_eq!(before["changed"], before["since"]);
    // Times have a resolution of one second.
    wait_for("the next second", || {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        (second > before["since"].as_u64().unwrap()).then_some(())
    });
    lab.replace_node("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);
    let after = listener(&lab, "my-cluster-002");
    assert_eq!(after["since"], before["since"]);
    assert!(after["changed"].as_u64() > before["changed"].as_u64(), "{after:#}");
    let other = listener(&lab, "my-cluster-001");
    assert_eq!(other["changed"], other["since"]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn each_listener_reports_whether_it_is_in_step() {
    let lab = applied();
    let nat = &lab.network.nat;
    nat.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6380 }");
    nat.nft(
        "delete element inet cachenat forward4 { 10.0.0.55 . 6381 }
         add element inet cachenat forward4 { 10.0.0.55 . 6381 comment \"my-cluster-003\" : 10.0.1.9 . 6379 }
         add element inet cachenat forward4 { 10.0.0.55 . 6390 comment \"stray\" : 10.0.1.9 . 6379 }",
    );
    let run = lab.cachenat(&["status"]).exits(0);
    let state = |id: &str| {
        let line =
            run.stdout.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{}", run.stdout));
        line.split_whitespace().last().unwrap().to_owned()
    };
    let ids = ["my-cluster-001", "my-cluster-002", "my-cluster-003", "stray"];
    assert_eq!(ids.map(state), ["ok", "missing", "elsewhere", "unwanted"], "{}", run.stdout);
    assert!(run.stderr.contains("out of step"), "{}", run.stderr);
    assert_eq!(listener(&lab, "my-cluster-002")["drift"], "add");
    let found = samples(&lab);
    assert_eq!(ids.map(|id| value(&found, "cachenat_listener_in_step", id)), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn prometheus_reads_the_metrics() {
    let mut lab = applied();
    let _open = open(&lab, 6379);
    let found = samples(&lab);
    assert!(found.iter().all(|sample| sample[0] != "unknown" && sample[1] != ""), "{found:?}");
    let made = sample(&found, "cachenat_listener_connections_total", "my-cluster-001");
    assert_eq!((&made[0], &made[3]["target"]), (&"counter".into(), &"10.0.1.230:6379".into()));
    assert_eq!(value(&found, "cachenat_listener_connections_total", "my-cluster-001"), 1.0);
    assert_eq!(value(&found, "cachenat_listener_flows", "my-cluster-001"), 1.0);
    assert_eq!(value(&found, "cachenat_in_step", ""), 1.0);
    assert_eq!(value(&found, "cachenat_source_failing_seconds", ""), 0.0);

    lab.network.nat.nft("flush ruleset");
    lab.stop_api();
    let found = samples(&lab);
    assert_eq!(value(&found, "cachenat_in_step", ""), 0.0);
    assert_eq!(value(&found, "cachenat_installed", ""), 0.0);
}
