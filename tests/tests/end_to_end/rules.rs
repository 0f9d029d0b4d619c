//! Our rules in the kernel next to foreign rules.

use std::process::Stdio;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::shell::run_with_input;

use crate::common::{applied, foreign_tables, in_force, reached, table};

/// Rules that look like ours, with our priority, our port and a counter; the lab's own `ip nat` is there too.
pub(crate) const FOREIGN: &str = "
table inet filter {
    comment \"the operator's\"
    set trusted { type ipv4_addr; elements = { 198.51.100.27, 192.0.2.1 } }
    chain forward { type filter hook forward priority filter; policy accept;
        ip saddr @trusted tcp dport 6379 ct state new counter accept comment \"cachenat\"
    }
}
table ip cachenat {
    chain prerouting { type nat hook prerouting priority dstnat; policy accept;
        tcp dport 6400 dnat to 10.0.1.99:6379
    }
}";

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_tables_stay_unchanged_throughout() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    lab.network.nat.nft(FOREIGN);
    let foreign = foreign_tables(&lab);
    let everything = lab.network.nat.nft_list("ruleset");

    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(foreign_tables(&lab), foreign, "after apply");
    lab.replace_node("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(foreign_tables(&lab), foreign, "after a change");
    lab.cachenat(&["remove"]).exits(0);
    assert_eq!(lab.network.nat.nft_list("ruleset"), everything, "after remove");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_counting_accept_keeps_counting() {
    let lab = applied();
    lab.network.nat.nft(FOREIGN);
    reached(&lab, 6379);
    lab.cachenat(&["apply"]).exits(0);
    // The client's first packet, translated before it came to the forward hook.
    assert!(lab.network.nat.nft_list("table inet filter").contains("counter packets 1"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn rendered_rules_equal_applied_rules() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.add_memcached("sessions", 2);
    let rendered = lab.cachenat(&["render"]).exits(0).stdout;
    lab.network.nat.nft(&rendered);
    let by_nft = in_force(&lab);
    lab.network.nat.nft("delete table inet cachenat");

    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(in_force(&lab), by_nft);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn rendered_rules_are_in_step() {
    let lab = applied();
    let rendered = lab.cachenat(&["render"]).exits(0).stdout;
    lab.network.nat.nft("delete table inet cachenat");
    lab.cachenat(&["diff"]).exits(1);
    lab.network.nat.nft(&rendered);
    let diff = lab.cachenat(&["diff"]).exits(0);
    assert_eq!(diff.stdout, "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_iptables_rendering_forwards_the_same() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    let rendered = lab.cachenat(&["render", "--format", "iptables-restore"]).exits(0).stdout;
    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "1");
    run_with_input(lab.network.nat.command("iptables-restore").arg("--noflush"), &rendered);
    let servers: Vec<String> = (6379..=6381).map(|port| reached(&lab, port)).collect();
    let nodes: Vec<String> = lab.nodes().map(|node| node.run_id()).collect();
    assert_eq!(servers, nodes);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn apply_enables_forwarding_and_remove_restores_it() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    let drop_in = lab.dir().join("sysctl.d/90-cachenat.conf");
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "0");
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "1");
    assert!(std::fs::read_to_string(&drop_in).unwrap().contains("net.ipv4.ip_forward = 1"));
    lab.cachenat(&["remove"]).exits(0);
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "0");
    assert!(!drop_in.exists());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn concurrent_applies_leave_one_complete_ruleset() {
    let lab = applied();
    let whole = in_force(&lab);
    lab.network.nat.nft("delete table inet cachenat");
    let start = |_| {
        let mut command = lab.cachenat_command();
        command.arg("apply").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs: Vec<_> = (0..4).map(start).collect();
    for child in runs {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(in_force(&lab), whole);
    let before = table(&lab);
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(table(&lab), before);
}
