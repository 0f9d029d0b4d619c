//! The gate to the kernel: no forward leads to an address that cannot be a cache, whatever the source of the ruleset.

use std::fs;
use std::net::TcpListener;

use cachenat_tests::lab::Lab;

use crate::common::{in_force, spell_out, spelled_out};

/// An applied lab whose saved ruleset is edited as the owner of the state directory could.
fn planted(edit: impl Fn(String) -> String) -> Lab {
    let lab = spelled_out(&[(1, "10.0.1.230"), (2, "10.0.1.231")]);
    lab.cachenat(&["apply"]).exits(0);
    let file = lab.dir().join("state/ruleset.json");
    let text = fs::read_to_string(&file).unwrap();
    let edited = edit(text.clone());
    assert_ne!(edited, text);
    fs::write(&file, edited).unwrap();
    lab.network.nat.nft("flush ruleset");
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn restore_refuses_targets_outside_the_caches() {
    for (target, why) in [
        ("169.254.169.254", "is an AWS instance service"),
        ("127.0.0.1", "is a loopback address"),
        ("203.0.113.200", "is outside the VPC and not private"),
        ("10.0.0.55", "is the gateway's own address"),
    ] {
        let lab = planted(|text| text.replace("10.0.1.231", target));
        let run = lab.cachenat(&["restore"]).exits(3);
        assert!(run.stderr.contains(&format!("local-002: {target} {why}")), "{}", run.stderr);
        let table = in_force(&lab);
        assert!(table.contains("10.0.1.230") && !table.contains(&format!(": {target}")), "{table}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn restore_admits_only_configured_clients() {
    let lab = planted(|text| text.replace("198.51.100.27", "0.0.0.0/0"));
    lab.cachenat(&["restore"]).exits(0);
    let table = in_force(&lab);
    assert!(table.contains("elements = { 198.51.100.27 }"), "{table}");

    // Nor one that was taken off the list and not applied, and none that was only added to it.
    lab.cachenat(&["apply"]).exits(0);
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), config.replace("198.51.100.27/32", "198.51.100.28/31")).unwrap();
    lab.network.nat.nft("flush ruleset");
    lab.cachenat(&["restore"]).exits(0);
    assert!(!in_force(&lab).contains("198.51.100.2"), "{}", in_force(&lab));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn restore_uses_only_the_gateways_ports_and_addresses() {
    let lab = planted(|text| text.replace("10.0.0.55 . 6380", "10.0.0.55 . 22"));
    let run = lab.cachenat(&["restore"]).exits(3);
    assert!(run.stderr.contains("local-002: 10.0.0.55:22 is the way into this host (SSH)"), "{}", run.stderr);
    let lab = planted(|text| text.replace("10.0.0.55 . 6380", "10.0.0.55 . 443"));
    let run = lab.cachenat(&["restore"]).exits(3);
    assert!(run.stderr.contains("local-002: port 443 is in no pool"), "{}", run.stderr);
    let lab = planted(|text| text.replace("10.0.0.55 . 6380", "10.0.0.9 . 6380"));
    let run = lab.cachenat(&["restore"]).exits(3);
    assert!(run.stderr.contains("10.0.0.9:6380 is not an address of the gateway"), "{}", run.stderr);
    assert!(!in_force(&lab).contains("6380"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn restore_maps_each_id_to_its_own_node() {
    let lab = planted(|text| text.replace("10.0.1.231", "10.0.1.230"));
    let run = lab.cachenat(&["restore"]).exits(3);
    let words = "local-002: 10.0.1.230:6379 is also claimed by local-001; it is not forwarded";
    assert!(run.stderr.contains(words), "{}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_planted_inventory_opens_nothing() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    lab.cachenat(&["apply"]).exits(0);
    let file = lab.dir().join("state/inventory.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("10.0.1.231", "169.254.169.254")).unwrap();
    lab.stop_api();
    lab.stop_dns();
    lab.network.nat.nft("flush ruleset");
    fs::remove_file(lab.dir().join("state/ruleset.json")).unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(
        run.stderr.contains("my-cluster-002: 169.254.169.254 is an AWS instance service"),
        "{}",
        run.stderr
    );
    assert!(!in_force(&lab).contains("169.254"), "{}", in_force(&lab));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn planted_kernel_rules_are_not_trusted() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    lab.cachenat(&["apply"]).exits(0);
    lab.network.nat.nft(
        "add element inet cachenat forward4 { 10.0.0.55 . 6399 comment \"my-cluster-009\" : 203.0.113.200 . 80 }",
    );
    fs::remove_dir_all(lab.dir().join("state")).unwrap();
    lab.stop_api();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("my-cluster-009: 203.0.113.200 is outside the VPC"), "{}", run.stderr);
    let table = in_force(&lab);
    assert!(table.contains("10.0.1.231") && !table.contains("203.0.113.200"), "{table}");
}

/// A container's bridge and what is behind it: services there are not meant for clients of the caches.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn internal_addresses_are_not_targets() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    lab.network.nat.ip("link add docker0 type bridge");
    lab.network.nat.ip("address add 172.17.0.1/16 dev docker0");
    lab.network.nat.ip("link set docker0 up");
    lab.network.nat.ip("route add 10.77.0.0/24 via 172.17.0.9");
    for (host, why) in [
        ("172.17.0.1", "is the gateway's own address"),
        ("172.17.0.2", "is reached by docker0"),
        ("10.77.0.9", "is reached by docker0"),
    ] {
        spell_out(&lab, &[(1, "10.0.1.230"), (2, host)]);
        let run = lab.cachenat(&["apply"]).exits(3);
        assert!(run.stderr.contains(&format!("refused: {host} {why}")), "{}", run.stderr);
        let table = in_force(&lab);
        assert!(table.contains("10.0.1.230") && !table.contains(host), "{table}");
    }

    // An address that the host got after the rules were made: the next plan asks for all of them.
    spell_out(&lab, &[(1, "10.0.1.230")]);
    lab.cachenat(&["apply"]).exits(0);
    lab.network.nat.ip("address add 10.0.1.230/32 dev docker0");
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("local-001: 10.0.1.230 is the gateway's own address"), "{}", run.stderr);
    assert!(!in_force(&lab).contains("10.0.1.230"), "{}", in_force(&lab));
}

/// Any user of the host can listen on ports above 1023; that must not stop a forward.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_listener_in_the_pool_blocks_nothing() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let _first = lab.network.nat.enter(|| TcpListener::bind("0.0.0.0:6379").unwrap());
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains("10.0.0.55 . 6380 "), "{}", in_force(&lab));

    let _second = lab.network.nat.enter(|| TcpListener::bind("10.0.0.55:6380").unwrap());
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("local-001: its port 6380 is also listened on"), "{}", run.stderr);
    assert!(in_force(&lab).contains("10.0.0.55 . 6380 "));
}

/// Lines in a hosts file affect every program on the client.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn hosts_lines_name_only_forwarded_cache_nodes() {
    let lab = Lab::new();
    let node = |id: &str, host: &str, address: &str| {
        format!(
            r#"{{"id":"{id}","cluster":"a","source":"replication_group/a","port":6379,"host":"{host}","addresses":["{address}"]}}"#
        )
    };
    let domain = "abc.use2.cache.amazonaws.com";
    let nodes = [
        node("a-001", &format!("a-001.{domain}"), "10.0.1.230"),
        node("a-002", "github.com", "10.0.1.231"),
        node("a-003", &format!("a-003.{domain}"), "169.254.169.254"),
    ];
    let file = lab.dir().join("inventory.json");
    let report = r#"{"source":"replication_group/a","outcome":"complete"}"#;
    fs::write(&file, format!(r#"{{"version":1,"nodes":[{}],"sources":[{report}]}}"#, nodes.join(",")))
        .unwrap();
    lab.write_config(
        "clients: [198.51.100.27/32]\ngateway: {public_address: 203.0.113.73}\nsources: [{replication_group: a}]\n",
    );
    let inventory = ["--inventory", file.to_str().unwrap()];
    lab.cachenat(&[&["apply"], &inventory[..]].concat()).exits(3);
    let run = lab.cachenat(&[&["endpoints", "--format", "hosts"], &inventory[..]].concat()).exits(0);
    let lines: Vec<&str> = run.stdout.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, [format!("203.0.113.73 a-001.{domain}")]);
    assert!(run.stderr.contains(r#"a-002: "github.com" is not a name of ElastiCache's"#), "{}", run.stderr);
}
