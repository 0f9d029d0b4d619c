//! Nodes are added, moved and removed; everything else stays unchanged.

use std::io;

use cachenat_tests::lab::redis::Redis;

use crate::common::{applied, dial, open, reached, table, without};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_added_node_gets_the_next_port() {
    let mut lab = applied();
    let mut connections = [open(&lab, 6379), open(&lab, 6380), open(&lab, 6381)];
    let before = table(&lab);

    let id = lab.add_node("my-cluster");
    lab.cachenat(&["apply"]).exits(0);

    assert_eq!(without(table(&lab), &["10.0.1.233", "6382"]), before);
    assert!(connections.iter_mut().all(is_alive));
    assert_eq!(reached(&lab, 6382), lab.node(&id).run_id());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_replaced_node_keeps_its_port() {
    let mut lab = applied();
    let mut connections = [open(&lab, 6379), open(&lab, 6381)];
    let former = lab.node("my-cluster-002").run_id();
    let before = table(&lab);

    lab.replace_node("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);

    let moved = ["10.0.1.231", "10.0.1.233"];
    assert_eq!(without(table(&lab), &moved), without(before, &moved));
    assert!(connections.iter_mut().all(is_alive));
    assert_eq!(reached(&lab, 6380), lab.node("my-cluster-002").run_id());
    assert_ne!(reached(&lab, 6380), former);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn only_the_removed_node_becomes_unreachable() {
    let mut lab = applied();
    let mut connections = [open(&lab, 6379), open(&lab, 6381)];
    let before = table(&lab);

    lab.remove_node("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);

    assert_eq!(table(&lab), without(before, &["10.0.1.231", "6380"]));
    assert!(connections.iter_mut().all(is_alive));
    let refused = dial(&lab.network.client, 6380).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// A client that knows a removed node's port must not come to another node's data.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_removed_nodes_port_is_not_reused() {
    let mut lab = applied();
    lab.remove_node("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);
    let id = lab.add_node("my-cluster");
    lab.cachenat(&["apply"]).exits(0);

    assert!(dial(&lab.network.client, 6380).is_err());
    assert_eq!(reached(&lab, 6382), lab.node(&id).run_id());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn diff_predicts_apply_and_changes_nothing() {
    let mut lab = applied();
    lab.replace_node("my-cluster-003");
    let before = table(&lab);

    let diff = lab.cachenat(&["diff", "--format", "json"]).exits(1).json();
    assert_eq!(table(&lab), before);
    assert_eq!(diff["changes"][0]["action"], "move");
    assert_eq!(diff["changes"][0]["id"], "my-cluster-003");
    assert_eq!(diff["changes"][0]["listen"], "10.0.0.55:6381");
    assert_eq!(diff["changes"][0]["from"], "10.0.1.232:6379");
    assert_eq!(diff["changes"][0]["to"], "10.0.1.233:6379");

    let applied = lab.cachenat(&["apply", "--json"]).exits(0).json();
    assert_eq!(applied["changes"], diff["changes"]);
    lab.cachenat(&["diff"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_apply_in_step_is_silent() {
    let lab = applied();
    let before = table(&lab);
    let again = lab.cachenat(&["apply"]).exits(0);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("", ""));
    assert_eq!(lab.cachenat(&["apply", "--json"]).exits(0).json()["changed"], false);
    assert_eq!(table(&lab), before);
}

fn is_alive(connection: &mut Redis) -> bool {
    connection.call(&["PING"]).is_ok_and(|reply| reply == "PONG")
}
