//! `check`: each fault is made, and found.

use std::fs;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::product::Run;
use cachenat_tests::programs;

use crate::common::{applied, in_force, spell_out, spelled_out};

/// The lines of `check` about one thing.
fn about(lab: &Lab, name: &str) -> String {
    let run = lab.cachenat(&["check"]).exits(1);
    let lines = run.stdout.lines().filter(|line| line[6..].starts_with(&format!("{name}: ")));
    let lines: Vec<&str> = lines.collect();
    assert!(!lines.is_empty(), "nothing about {name}: {}{}", run.stdout, run.stderr);
    lines.join("\n")
}

/// Insists on the one line about something: how it begins, and words in it.
#[track_caller]
fn says(lab: &Lab, name: &str, verdict: &str, words: &str) {
    let found = about(lab, name);
    assert!(found.starts_with(verdict) && found.contains(words), "{found}");
}

/// A table with one chain for nft(8).
fn chain(table: &str, body: &str) -> String {
    format!("table {table} {{\n chain c {{\n {body}\n }}\n}}")
}

/// The client comes from the internet in clear text, and the machine that runs the test may have no timer; all else
/// is as it should be.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn where_all_is_well_only_what_the_lab_has_wrong_is_told_and_nothing_is_touched() {
    let lab = applied();
    let before = in_force(&lab);
    let run = lab.cachenat(&["check"]).exits(1);
    let amiss = run.stdout.lines().filter(|line| !line.starts_with("ok "));
    let amiss: Vec<&str> = amiss.filter(|line| !line.contains("schedule: ")).collect();
    assert!(matches!(amiss[..], [line] if line.starts_with("warn  encryption: ")), "{}", run.stdout);
    assert!(run.stdout.contains("ok    nodes: 3 of 3 answer on TCP\n"), "{}", run.stdout);
    assert_eq!(in_force(&lab), before);

    let json = lab.cachenat(&["check", "--json"]).exits(1).json();
    assert_eq!(
        (&json["version"], json["checks"].as_array().unwrap().len()),
        (&1.into(), run.stdout.lines().count())
    );
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_node_behind_a_shut_security_group_is_told_from_one_where_nothing_listens() {
    let lab = applied();
    let group = |rule: &str| chain("ip group", &format!("type filter hook input priority 0\n {rule}"));
    lab.node("my-cluster-001").host.nft(&group("ip saddr 10.0.0.55 drop"));
    lab.node("my-cluster-002").host.nft(&group("tcp dport 6379 reject with tcp reset"));
    let silent =
        "10.0.1.230:6379 does not answer; let the cache's security group admit 10.0.0.55 on TCP port 6379";
    says(&lab, "node my-cluster-001", "fail", silent);
    says(&lab, "node my-cluster-002", "fail", "10.0.1.231:6379 refuses: nothing listens there");
    says(&lab, "nodes", "ok", "1 of 3");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn forwarding_that_is_off_is_found_now_and_at_the_next_boot() {
    let lab = applied();
    says(&lab, "net.ipv4.ip_forward", "ok", "now and at the next boot");
    fs::write(lab.dir().join("sysctl.d/99-sysctl.conf"), "net.ipv4.ip_forward = 0\n").unwrap();
    says(&lab, "net.ipv4.ip_forward", "fail", "99-sysctl.conf sets it to 0 at the next boot");
    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "0");
    says(&lab, "net.ipv4.ip_forward", "fail", "no packet is forwarded");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn rules_that_are_gone_or_not_as_wanted_are_found() {
    let lab = applied();
    says(&lab, "rules", "ok", "in force");
    lab.network.nat.nft("add element inet cachenat clients4 { 198.51.100.28 }");
    says(&lab, "rules", "warn", "out of step");
    lab.network.nat.nft("flush ruleset");
    says(&lab, "rules", "fail", "no table inet cachenat");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_chain_that_drops_what_is_forwarded_is_named() {
    let refusing = [
        ("ip docker", "0; policy drop", "chain ip docker c has policy drop"),
        ("inet fw", "10\n ct state established accept\n counter drop", "chain inet fw c ends in"),
        ("ip6 fw", "10\n log\n reject", "chain ip6 fw c ends in"),
    ];
    for (table, rest, words) in refusing {
        let lab = applied();
        says(&lab, "forward chains", "ok", "accept by default");
        lab.network.nat.nft(&chain(table, &format!("type filter hook forward priority {rest}")));
        says(&lab, "forward chains", "warn", words);
    }
    let lab = applied();
    lab.network.nat.nft(&chain("inet fw", "type filter hook forward priority 0\n ct state invalid drop"));
    says(&lab, "forward chains", "ok", "accept by default");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_nat_chain_ahead_of_ours_is_named() {
    let lab = applied();
    says(&lab, "nat chains", "ok", "none");
    lab.network.nat.nft(&chain("ip younger", "type nat hook prerouting priority dstnat"));
    says(&lab, "nat chains", "ok", "none");
    lab.cachenat(&["remove"]).exits(0);
    lab.cachenat(&["apply"]).exits(0);
    says(&lab, "nat chains", "warn", "chain ip younger c translates before");
    lab.network.nat.nft("delete table ip younger");
    lab.network.nat.nft(&chain("ip eager", "type nat hook prerouting priority -101"));
    says(&lab, "nat chains", "warn", "chain ip eager c translates before");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_strict_reverse_path_filter_is_found_where_the_way_back_is_another() {
    let lab = applied();
    lab.network.nat.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    says(&lab, "rp_filter", "ok", "leads out by eth0");
    lab.network.nat.ip("link add eth1 type bridge\naddress add 10.0.9.1/24 dev eth1\nlink set eth1 up\n\
                        route add 198.51.100.0/24 dev eth1");
    says(&lab, "rp_filter", "fail", "the way back to 198.51.100.27/32 does not lead out by eth0");
    lab.network.nat.set_sysctl("net/ipv4/conf/all/rp_filter", "2");
    says(&lab, "rp_filter", "warn", "is loose");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_source_that_fails_is_named_with_its_reason() {
    let mut lab = applied();
    says(&lab, "source replication_group/my-cluster", "ok", "whole");
    lab.stop_api();
    lab.cachenat(&["apply"]).exits(3);
    says(&lab, "source replication_group/my-cluster", "fail", "forwards stay as they were");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn faults_of_the_configuration_are_findings() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), config.replace("198.51.100.27/32", "0.0.0.0/0")).unwrap();
    says(&lab, "clients", "warn", "0.0.0.0/0 lets everybody connect");
    says(&lab, "rp_filter", "ok", "leads out by eth0");

    fs::write(lab.config(), format!("{config}gateway: {{addresses: [10.0.0.56]}}\n")).unwrap();
    says(&lab, "gateway", "warn", "no interface of this host has 10.0.0.56");

    fs::write(lab.config(), format!("{config}nonsense: 1\n")).unwrap();
    says(&lab, "configuration", "fail", "nonsense");

    spell_out(&lab, &[(1, "10.0.1.230")]);
    let _socket = lab.network.nat.enter(|| std::net::TcpListener::bind("0.0.0.0:6400").unwrap());
    says(&lab, "listening", "fail", "port 6400 is taken on this host");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn without_privilege_all_else_is_checked() {
    let lab = applied();
    let mut unprivileged = lab.operator_command("setpriv");
    unprivileged.arg("--bounding-set=-all").arg(programs::cachenat()).arg("check");
    let run = Run::from(unprivileged.output().unwrap()).exits(1);
    assert!(run.stdout.contains("fail  kernel: reading the ruleset needs CAP_NET_ADMIN"), "{}", run.stdout);
    assert!(run.stdout.contains("ok    nodes: 3 of 3 answer on TCP\n"), "{}", run.stdout);
}
