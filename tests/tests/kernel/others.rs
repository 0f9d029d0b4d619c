//! Other programs' tables, and their changes to ours.

use applier::sync::{SyncError, sync};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::run;
use rules::Snat;
use rules::diff::TableChange;

use crate::rulesets::{everything, example};
use crate::{dump, open, ours};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_tables_stay_unchanged() {
    let namespace = Namespace::new();
    namespace.nft(
        "table ip nat {\n map m {\n type inet_service : ipv4_addr . inet_service\n elements = { 80 : 10.9.9.9 . 80 }\n }\n \
         chain PREROUTING {\n type nat hook prerouting priority -100\n counter packets 3 bytes 180 dnat to tcp dport map @m\n }\n}\n\
         table ip6 cachenat {\n chain c {\n accept\n }\n}\n\
         table inet other {\n set s {\n type ipv4_addr\n elements = { 192.0.2.1 }\n }\n}\n",
    );
    let tables = ["ip nat", "ip6 cachenat", "inet other"];
    let list = || {
        tables.map(|table| run(namespace.command("nft").args(["-a", "list", "table"]).args(table.split(' '))))
    };
    let before = list();
    let kernel = &mut open(&namespace);
    for desired in [Some(example()), Some(everything(Snat::Masquerade)), None] {
        sync(kernel, desired.as_ref()).unwrap();
        assert_eq!(list(), before);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_table_with_our_name_is_refused() {
    for (comment, why) in [("", "it has no comment"), ("comment \"mine\"", "its comment is \"mine\"")] {
        let namespace = Namespace::new();
        namespace
            .nft(&format!("table inet cachenat {{\n {comment}\n chain prerouting {{\n accept\n }}\n}}\n"));
        let before = namespace.nft_list("ruleset");
        let kernel = &mut open(&namespace);
        for desired in [Some(example()), None] {
            let error = sync(kernel, desired.as_ref()).unwrap_err();
            assert!(matches!(&error, SyncError::Foreign { why: found } if found == why), "{error}");
        }
        assert_eq!(namespace.nft_list("ruleset"), before);
    }
}

/// Manual edits of our table, and their names in messages.
const EDITS: [(&str, &str); 19] = [
    ("add rule inet cachenat prerouting tcp dport 22 accept", "rule handle 12 in chain prerouting"),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4 comment \"x\"",
        "rule handle 12 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 counter dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 12 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iif \"lo\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 12 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth*\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 12 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr != @clients4 dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 12 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 dnat ip to ip daddr . udp dport map @forward4",
        "rule handle 12 in chain prerouting",
    ),
    (
        "add rule inet cachenat postrouting oifname \"eth0\" ct status dnat ip daddr . tcp dport @backends4 snat ip to 10.0.0.55 random",
        "rule handle 12 in chain postrouting",
    ),
    (
        "add rule inet cachenat postrouting oifname \"eth0\" ct status dnat ip daddr . tcp dport @backends4 masquerade fully-random",
        "rule handle 12 in chain postrouting",
    ),
    (
        "add rule inet cachenat postrouting ip daddr { 192.0.2.1, 192.0.2.9 } accept",
        "rule handle 13 in chain postrouting",
    ),
    (
        "add chain inet cachenat forward { type filter hook forward priority 0; policy drop; }",
        "chain forward with another type, hook, priority, policy or comment",
    ),
    ("add chain inet cachenat mine { type filter hook forward priority 0; }", "chain mine"),
    (
        "add chain inet cachenat prerouting { type nat hook prerouting priority dstnat; policy drop; }",
        "chain prerouting with another type, hook, priority, policy or comment",
    ),
    ("add set inet cachenat mine { type ipv4_addr; }", "set mine"),
    ("add map inet cachenat mine { type ipv4_addr : verdict; }", "map mine"),
    (
        "add map inet cachenat forward6 { type ipv6_addr . inet_service : ipv6_addr . inet_service; size 100; }",
        "map forward6 with another type or other flags",
    ),
    ("add set inet cachenat backends6 { type ipv6_addr; }", "set backends6 with another type or other flags"),
    ("add counter inet cachenat mine", "counter mine"),
    ("add table inet cachenat { flags dormant; }", "flags dormant"),
];

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_objects_in_our_table_are_removed() {
    for (edit, name) in EDITS {
        let namespace = Namespace::new();
        let kernel = &mut open(&namespace);
        sync(kernel, Some(&example())).unwrap();
        namespace.nft(&format!("{edit}\n"));
        let before = dump(kernel).generation;
        let synced = sync(kernel, Some(&example())).unwrap_or_else(|error| panic!("{edit}: {error}"));
        let TableChange::Replace { strangers, .. } = &synced.changes.table else {
            panic!("{edit} went unseen")
        };
        assert_eq!(strangers, &[name], "{edit}");
        assert_eq!((synced.dump.table, synced.dump.generation), (ours(example()), before.next()), "{edit}");
        sync(kernel, None).unwrap();
        assert_eq!(namespace.nft_list("ruleset"), "", "{edit}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn manual_edits_are_reverted_one_by_one() {
    let edits = [
        "add element inet cachenat clients4 { 203.0.113.0/24 }",
        "delete element inet cachenat clients4 { 198.51.100.27 }",
        "flush map inet cachenat forward4",
        "flush set inet cachenat backends4",
        "flush chain inet cachenat prerouting",
        "flush chain inet cachenat postrouting; delete chain inet cachenat postrouting",
        "add set inet cachenat clients6 { type ipv6_addr; flags interval; elements = { ::/0 }; }",
    ];
    for edit in edits {
        let namespace = Namespace::new();
        let kernel = &mut open(&namespace);
        sync(kernel, Some(&example())).unwrap();
        namespace.nft(&format!("{edit}\n"));
        let synced = sync(kernel, Some(&example())).unwrap();
        assert!(!synced.changes.is_empty() && synced.changes.table == TableChange::Keep, "{edit}");
        assert_eq!(synced.dump.table, ours(example()), "{edit}");
    }
}
