//! Missing information never removes a working forward.

use std::fs;

use cachenat_tests::fake_dns::Answer;
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::product::Run;
use cachenat_tests::programs;
use hickory_resolver::proto::op::ResponseCode;

use crate::common::{applied, reached, table};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_api_outage_keeps_forwards_and_exits_3() {
    let mut lab = applied();
    let before = table(&lab);
    lab.stop_api();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("replication_group/my-cluster"), "{}", run.stderr);
    assert_eq!(table(&lab), before);
    for (node, port) in lab.nodes().zip(6379..) {
        assert_eq!(reached(&lab, port), node.run_id());
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_first_run_without_sources_says_why() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    lab.stop_api();
    for command in ["apply", "diff"] {
        let run = lab.cachenat(&[command]).exits(2);
        let words =
            "error: no source could be read, and there is no saved state:\n  replication_group/my-cluster: ";
        assert!(run.stderr.contains(words), "{}", run.stderr);
        assert!(run.stderr.contains("Connection refused"), "{}", run.stderr);
    }
}

/// Other programs flush the ruleset: `nft flush ruleset`, fck-nat, firewalld.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn flushed_forwards_return_during_an_api_outage() {
    let mut lab = applied();
    lab.network.nat.nft("flush ruleset");
    lab.stop_api();
    lab.cachenat(&["apply"]).exits(3);
    for (node, port) in lab.nodes().zip(6379..) {
        assert_eq!(reached(&lab, port), node.run_id());
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn losing_state_during_an_outage_keeps_forwards() {
    let mut lab = applied();
    let before = table(&lab);
    fs::remove_dir_all(lab.dir().join("state")).unwrap();
    lab.stop_api();
    lab.cachenat(&["apply"]).exits(3);
    assert_eq!(table(&lab), before);
}

/// The leases come back from the kernel's comments: without them my-cluster-003 would get the lowest free port.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn losing_state_moves_no_port() {
    let mut lab = applied();
    lab.remove_node("my-cluster-001");
    lab.cachenat(&["apply"]).exits(0);
    let before = table(&lab);
    fs::remove_dir_all(lab.dir().join("state")).unwrap();
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(table(&lab), before);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_dns_outage_keeps_forwards_and_exits_3() {
    let mut lab = applied();
    let before = table(&lab);
    lab.stop_dns();
    lab.cachenat(&["apply"]).exits(3);
    assert_eq!(table(&lab), before);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unresolved_node_is_kept_while_others_change() {
    let mut lab = applied();
    lab.replace_node("my-cluster-003");
    lab.answer_for("my-cluster-002", Answer::Code(ResponseCode::ServFail));
    lab.cachenat(&["apply"]).exits(3);
    assert_eq!(reached(&lab, 6380), lab.node("my-cluster-002").run_id());
    assert_eq!(reached(&lab, 6381), lab.node("my-cluster-003").run_id());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn unprivileged_apply_exits_2_and_changes_nothing() {
    let mut lab = applied();
    let before = table(&lab);
    lab.replace_node("my-cluster-002");
    let mut unprivileged = lab.operator_command("setpriv");
    unprivileged.arg("--bounding-set=-all").arg(programs::cachenat()).arg("apply");
    let run = Run::from(unprivileged.output().unwrap()).exits(2);
    assert!(run.stderr.contains("CAP_NET_ADMIN"), "{}", run.stderr);
    assert_eq!(table(&lab), before);
}
