//! `restore`: works at boot, before any service answers.

use std::fs;

use crate::common::{applied, in_force, reached, spelled_out};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn restore_needs_no_api_dns_or_route() {
    let mut lab = applied();
    let before = in_force(&lab);
    // As a boot leaves it, and not even a lease of DHCP yet.
    lab.network.nat.nft("flush ruleset");
    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "0");
    lab.network.nat.ip("route del default");
    lab.stop_api();
    lab.stop_dns();
    lab.cachenat(&["restore"]).exits(0);
    assert_eq!(in_force(&lab), before);
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "1");
    lab.network.nat.ip("route add default via 10.0.0.1");
    for (node, port) in lab.nodes().zip(6379..) {
        assert_eq!(reached(&lab, port), node.run_id());
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn restore_without_state_is_refused() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let run = lab.cachenat(&["restore"]).exits(2);
    assert!(run.stderr.contains("no ruleset of an earlier run"), "{}", run.stderr);
    assert_eq!(in_force(&lab), "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn removed_rules_stay_away_at_boot() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    lab.cachenat(&["apply"]).exits(0);
    lab.cachenat(&["remove"]).exits(0);
    lab.cachenat(&["restore"]).exits(2);
    assert_eq!(in_force(&lab), "");
    assert!(lab.cachenat(&["leases"]).exits(0).stdout.contains("local-001"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_damaged_ruleset_is_named_and_changes_nothing() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    lab.cachenat(&["apply"]).exits(0);
    let before = in_force(&lab);
    let file = lab.dir().join("state/ruleset.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let run = lab.cachenat(&["restore"]).exits(2);
    assert!(run.stderr.contains("ruleset.json"), "{}", run.stderr);
    assert_eq!(in_force(&lab), before);
}
