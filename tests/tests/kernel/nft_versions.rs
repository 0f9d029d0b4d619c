//! The nft that others have on the host: it has to list our table, and to save and load it beside theirs.

use std::process::Command;

use applier::kernel::Table;
use applier::sync::{Outcome, difference, sync};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::{run, run_with_input};
use cachenat_tests::programs;
use rules::Snat;

use crate::rulesets::{everything, forward, gateway, to_several};
use crate::{dump, open, ours};

/// A firewall of the host's own, of which not a word may be lost.
const FIREWALL: &str = "table inet filter {
    set admins { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        ip saddr @admins tcp dport 22 accept
    }
}";

/// What cachenat itself wrote before a listener's targets had a map each.
const FORMER: &str = "
    add map inet cachenat spread4 { typeof ip daddr . tcp dport . numgen random mod 60 : ip daddr . tcp dport; flags interval; counter; }
    add element inet cachenat spread4 { 10.0.0.55 . 6390 . 0-29 comment \"my-cluster/reader\" : 10.0.1.231 . 6379 }
    add element inet cachenat spread4 { 10.0.0.55 . 6390 . 30-59 comment \"my-cluster/reader\" : 10.0.1.232 . 6379 }
    add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 dnat ip to ip daddr . tcp dport . numgen random mod 60 map @spread4
";

fn nft_of(release: &str, namespace: &Namespace) -> Command {
    let words = programs::nft_of(release);
    let mut command = namespace.command(&words[0]);
    command.args(&words[1..]);
    command
}

/// The whole ruleset, without what was counted.
fn saved(release: &str, namespace: &Namespace) -> String {
    run(nft_of(release, namespace).args(["--stateless", "list", "ruleset"]))
}

/// Each of them lists the table, saves it and loads it again, beside a firewall of the host's own.
fn lists_saves_and_loads(release: &str) {
    let (namespace, desired) = (Namespace::new(), everything(to_several()));
    namespace.nft(FIREWALL);
    let firewall = || run(nft_of(release, &namespace).args(["list", "table", "inet", "filter"]));
    let before = firewall();
    let kernel = &mut open(&namespace);
    sync(kernel, Some(&desired)).unwrap();
    let is_in_step = |kernel: &mut _| {
        let found = dump(kernel);
        let changes = difference(&found, Some(&desired)).unwrap();
        assert!(changes.is_empty(), "{release}: {changes}");
    };

    let whole = run(nft_of(release, &namespace).args(["list", "ruleset"]));
    assert_eq!(whole.matches("comment \"my-cluster/reader\" : ").count(), 3, "{release}: {whole}");
    let saved_once = saved(release, &namespace);
    // nft 0.9.8 does not read the counters of a map's elements that it lists itself; it is no matter of readers.
    let loadable = match release {
        "bullseye" => saved_once.replace("\t\tcounter\n", "").replace(" counter packets 0 bytes 0", ""),
        _ => saved_once.clone(),
    };
    run_with_input(nft_of(release, &namespace).args(["-f", "-"]), &format!("flush ruleset\n{loadable}"));
    assert_eq!(firewall(), before, "{release}");
    if release == "bullseye" {
        let outcome = sync(kernel, Some(&desired)).unwrap().outcome;
        assert!(matches!(outcome, Outcome::Verified), "{outcome:?}");
    }
    is_in_step(kernel);
    assert_eq!(saved(release, &namespace), saved_once, "{release}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_nft_of_debian_11_lists_saves_and_loads_the_table() {
    lists_saves_and_loads("bullseye");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_nft_of_debian_12_lists_saves_and_loads_the_table() {
    lists_saves_and_loads("bookworm");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_nft_of_debian_13_lists_saves_and_loads_the_table() {
    lists_saves_and_loads("trixie");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn what_cachenat_wrote_before_becomes_what_it_writes_now() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    let families = [rules::Family::Ipv4];
    let single = [forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"])];
    let several = [
        forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("my-cluster/reader", "10.0.0.55:6390", &["10.0.1.231:6379", "10.0.1.232:6379"]),
    ];
    let of = |forwards| {
        let clients = ["198.51.100.27/32".parse().unwrap()];
        rules::render(forwards, &clients, &gateway(&families, Snat::Masquerade))
    };
    sync(kernel, Some(&of(&single))).unwrap();
    namespace.nft(FORMER);
    sync(kernel, Some(&of(&several))).unwrap();
    assert_eq!(dump(kernel).table, ours(of(&several)));
    assert!(matches!(dump(kernel).table, Table::Ours(actual) if actual.strangers.is_empty()));
}
