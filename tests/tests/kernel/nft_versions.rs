//! Other versions of nft can list our table, and save and load it together with other tables.

use std::process::Command;

use applier::sync::{Outcome, difference, sync};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::{run, run_with_input};
use cachenat_tests::programs;

use crate::rulesets::{everything, to_several};
use crate::{dump, open};

/// The host's own firewall, which must stay unchanged.
const FIREWALL: &str = "table inet filter {
    set admins { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        ip saddr @admins tcp dport 22 accept
    }
}";

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

/// The words between a listing's lines and commas, in order: elements come as the kernel's hash has them, or sorted.
fn parts(listing: &str) -> Vec<String> {
    // nft 0.9.8 shows these counters although it is not asked to, and others show that there is one.
    let listing = listing.replace(" counter packets 0 bytes 0", "").replace(" counter comment", " comment");
    // nft 0.9.8 shows the last network of all as a range, and writes out what a rule's other words imply.
    let listing = listing.replace("255.255.255.0-255.255.255.255", "255.255.255.0/24");
    let listing = listing.replace("ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff::/16");
    let listing = listing.replace(" addr . port to ", " to ");
    let listing = listing.replace(" meta nfproto ipv4 ", " ").replace(" meta nfproto ipv6 ", " ");
    let listing = listing.replace("elements = {", "").replace([',', '}'], "\n");
    let mut parts: Vec<String> = listing.lines().map(|part| part.trim().to_owned()).collect();
    parts.retain(|part| !part.is_empty());
    parts.sort_unstable();
    parts
}

/// Lists our table, saves it and loads it again, next to the host's own firewall.
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
    let table = run(nft_of(release, &namespace).args(["--stateless", "list", "table", "inet", "cachenat"]));
    assert_eq!(parts(&table), parts(&desired.to_string()), "{release}");
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
