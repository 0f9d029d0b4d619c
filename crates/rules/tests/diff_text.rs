//! What a reviewer reads.
#![allow(missing_docs, clippy::unwrap_used)]

use expect_test::expect;
use rules::{AccessList, Actual, Family, Forward, Gateway, Ruleset, RulesetDiff, Snat, diff, render};

fn ruleset(forwards: &[(&str, &str, &[&str])], snat: Snat) -> Ruleset {
    let forward = |&(id, listen, targets): &(&str, &str, &[&str])| Forward {
        id: id.parse().unwrap(),
        listen: listen.parse().unwrap(),
        targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
    };
    let forwards: Vec<Forward> = forwards.iter().map(forward).collect();
    let gateway = Gateway {
        ingress: vec!["eth0".parse().unwrap()],
        families: vec![Family::Ipv4],
        snat,
        tunnels: vec![],
        max_segment: None,
    };
    render(&[AccessList::new(&["198.51.100.27/32".parse().unwrap()], &forwards)], &gateway)
}

fn between(before: &Ruleset, after: &Ruleset) -> RulesetDiff {
    diff(Some(&Actual { ruleset: before.clone(), strangers: vec![] }), Some(after))
}

fn all_of(changes: &RulesetDiff) -> String {
    let forwards: String = changes.forwards().iter().map(|change| format!("{change}\n")).collect();
    format!("{changes}---\n{forwards}---\n{}", changes.transaction())
}

#[test]
fn a_replaced_node_is_one_element_in_the_map_and_one_in_the_backends() {
    let others: (&str, &str, &[&str]) = ("my-cluster-002", "10.0.0.55:6380", &["10.0.1.231:6379"]);
    let before =
        ruleset(&[("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]), others], Snat::Masquerade);
    let after =
        ruleset(&[("my-cluster-001", "10.0.0.55:6379", &["10.0.1.240:6379"]), others], Snat::Masquerade);
    expect![[r#"
          table inet cachenat
              map forward4
        -         10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.230 . 6379
        +         10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.240 . 6379
              set backends4
        -         10.0.1.230 . 6379
        +         10.0.1.240 . 6379
        ---
        move my-cluster-001 10.0.0.55:6379 from 10.0.1.230:6379 to 10.0.1.240:6379
        ---
        delete element inet cachenat forward4 { 10.0.0.55 . 6379 }
        add element inet cachenat forward4 { 10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.240 . 6379 }
        delete element inet cachenat backends4 { 10.0.1.230 . 6379 }
        add element inet cachenat backends4 { 10.0.1.240 . 6379 }
    "#]]
    .assert_eq(&all_of(&between(&before, &after)));
}

#[test]
fn a_reader_that_gains_a_replica_moves() {
    let before = ruleset(&[("c/reader", "10.0.0.55:6390", &["10.0.1.231:6379"])], Snat::Off);
    let after =
        ruleset(&[("c/reader", "10.0.0.55:6390", &["10.0.1.231:6379", "10.0.1.232:6379"])], Snat::Off);
    expect![[r#"
          table inet cachenat
        +     map spread4_2
        +         10.0.0.55 . 6390 comment "c/reader" : 10.0.1.232 . 6379
              set backends4
        +         10.0.1.232 . 6379
              chain prerouting
        +         iifname "eth0" numgen random mod 2 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @spread4_2
        ---
        move c/reader 10.0.0.55:6390 from 10.0.1.231:6379 to 10.0.1.231:6379, 10.0.1.232:6379
        ---
        flush chain inet cachenat prerouting
        add map inet cachenat spread4_2 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }
        add element inet cachenat spread4_2 { 10.0.0.55 . 6390 comment "c/reader" : 10.0.1.232 . 6379 }
        add element inet cachenat backends4 { 10.0.1.232 . 6379 }
        add rule inet cachenat prerouting iifname "eth0" numgen random mod 2 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @spread4_2
        add rule inet cachenat prerouting iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
    "#]].assert_eq(&all_of(&between(&before, &after)));
}

#[test]
fn a_new_snat_address_replaces_the_rule_and_leaves_the_elements() {
    let nodes: &[(&str, &str, &[&str])] = &[("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"])];
    let before = ruleset(nodes, Snat::Masquerade);
    let after = ruleset(nodes, Snat::fixed("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()]));
    expect![[r#"
          table inet cachenat
              chain postrouting
        -         ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
        +         oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 snat ip to 10.0.0.55
        ---
        ---
        flush chain inet cachenat postrouting
        add rule inet cachenat postrouting oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 snat ip to 10.0.0.55
    "#]].assert_eq(&all_of(&between(&before, &after)));
}

#[test]
fn a_port_that_passes_to_another_node_is_a_removal_and_an_addition() {
    let before = ruleset(&[("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"])], Snat::Off);
    let after = ruleset(&[("b-001", "10.0.0.55:6379", &["10.0.1.230:6379"])], Snat::Off);
    expect![[r#"
          table inet cachenat
              map forward4
        -         10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379
        +         10.0.0.55 . 6379 comment "b-001" : 10.0.1.230 . 6379
        ---
        remove a-001 10.0.0.55:6379, which led to 10.0.1.230:6379
        add b-001 10.0.0.55:6379 to 10.0.1.230:6379
        ---
        delete element inet cachenat forward4 { 10.0.0.55 . 6379 }
        add element inet cachenat forward4 { 10.0.0.55 . 6379 comment "b-001" : 10.0.1.230 . 6379 }
    "#]]
    .assert_eq(&all_of(&between(&before, &after)));
}

#[test]
fn a_flowtable_comes_before_its_rules_and_goes_after_them() {
    let chains = ruleset(&[("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"])], Snat::Off);
    let mut fast = chains.clone();
    fast.offload(&"eth0".parse().unwrap());
    expect![[r#"
          table inet cachenat
        +     flowtable fastpath
        +         hook ingress priority filter
        +         devices = { "eth0" }
        +     chain forward
        +         oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
        ---
        ---
        add flowtable inet cachenat fastpath { hook ingress priority filter; devices = { "eth0" }; }
        add chain inet cachenat forward { type filter hook forward priority filter; policy accept; }
        add rule inet cachenat forward oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
    "#]].assert_eq(&all_of(&between(&chains, &fast)));
    let mut moved = chains.clone();
    moved.offload(&"ens5".parse().unwrap());
    expect![[r#"
          table inet cachenat
        -     flowtable fastpath
        -         hook ingress priority filter
        -         devices = { "eth0" }
        +     flowtable fastpath
        +         hook ingress priority filter
        +         devices = { "ens5" }
              chain forward
        -         oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
        +         oifname "ens5" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
        ---
        ---
        flush chain inet cachenat forward
        delete flowtable inet cachenat fastpath
        add flowtable inet cachenat fastpath { hook ingress priority filter; devices = { "ens5" }; }
        add rule inet cachenat forward oifname "ens5" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
    "#]].assert_eq(&all_of(&between(&fast, &moved)));
    expect![[r#"
          table inet cachenat
        -     flowtable fastpath
        -         hook ingress priority filter
        -         devices = { "ens5" }
        -     chain forward
        -         oifname "ens5" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
        ---
        ---
        flush chain inet cachenat forward
        delete chain inet cachenat forward
        delete flowtable inet cachenat fastpath
    "#]].assert_eq(&all_of(&between(&moved, &chains)));
}

#[test]
fn strangers_are_named_and_the_table_is_rebuilt() {
    let wanted = ruleset(&[("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"])], Snat::Off);
    let actual = Actual { ruleset: wanted.clone(), strangers: vec!["chain forward".to_owned()] };
    expect![[r#"
          table inet cachenat
        -     chain forward
        ---
        ---
        delete table inet cachenat
        add table inet cachenat
        add set inet cachenat clients4 { type ipv4_addr; flags interval; }
        add map inet cachenat forward4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }
        add set inet cachenat backends4 { type ipv4_addr . inet_service; }
        add set inet cachenat listeners4 { type ipv4_addr . inet_service; }
        add element inet cachenat clients4 { 198.51.100.27 }
        add element inet cachenat forward4 { 10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379 }
        add element inet cachenat backends4 { 10.0.1.230 . 6379 }
        add element inet cachenat listeners4 { 10.0.0.55 . 6379 }
        add chain inet cachenat prerouting { type nat hook prerouting priority dstnat; policy accept; }
        add rule inet cachenat prerouting iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
    "#]].assert_eq(&all_of(&diff(Some(&actual), Some(&wanted))));
}

#[test]
fn creation_and_removal_show_all_there_is() {
    let wanted = ruleset(&[("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"])], Snat::Masquerade);
    expect![[r#"
        + table inet cachenat
        +     set clients4
        +         198.51.100.27
        +     map forward4
        +         10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379
        +     set backends4
        +         10.0.1.230 . 6379
        +     set listeners4
        +         10.0.0.55 . 6379
        +     chain prerouting
        +         iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        +     chain input
        +         ct state invalid ip saddr . tcp sport @backends4 drop
        +         ct state invalid ip daddr . tcp dport @listeners4 drop
        +     chain postrouting
        +         ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
        ---
        add a-001 10.0.0.55:6379 to 10.0.1.230:6379
        ---
        add table inet cachenat
        add set inet cachenat clients4 { type ipv4_addr; flags interval; }
        add map inet cachenat forward4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }
        add set inet cachenat backends4 { type ipv4_addr . inet_service; }
        add set inet cachenat listeners4 { type ipv4_addr . inet_service; }
        add element inet cachenat clients4 { 198.51.100.27 }
        add element inet cachenat forward4 { 10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379 }
        add element inet cachenat backends4 { 10.0.1.230 . 6379 }
        add element inet cachenat listeners4 { 10.0.0.55 . 6379 }
        add chain inet cachenat prerouting { type nat hook prerouting priority dstnat; policy accept; }
        add chain inet cachenat input { type filter hook input priority filter; policy accept; }
        add chain inet cachenat postrouting { type nat hook postrouting priority srcnat; policy accept; }
        add rule inet cachenat prerouting iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        add rule inet cachenat input ct state invalid ip saddr . tcp sport @backends4 drop
        add rule inet cachenat input ct state invalid ip daddr . tcp dport @listeners4 drop
        add rule inet cachenat postrouting ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
    "#]].assert_eq(&all_of(&diff(None, Some(&wanted))));
    let actual = Actual { ruleset: wanted, strangers: vec![] };
    expect![[r#"
        - table inet cachenat
        -     set clients4
        -         198.51.100.27
        -     map forward4
        -         10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379
        -     set backends4
        -         10.0.1.230 . 6379
        -     set listeners4
        -         10.0.0.55 . 6379
        -     chain prerouting
        -         iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        -     chain input
        -         ct state invalid ip saddr . tcp sport @backends4 drop
        -         ct state invalid ip daddr . tcp dport @listeners4 drop
        -     chain postrouting
        -         ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
        ---
        remove a-001 10.0.0.55:6379, which led to 10.0.1.230:6379
        ---
        delete table inet cachenat
    "#]]
    .assert_eq(&all_of(&diff(Some(&actual), None)));
}

#[test]
fn the_reviewers_iptables_form_is_the_aws_procedure_with_its_gaps_closed() {
    let wanted = ruleset(
        &[
            ("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            ("my-cluster/reader", "10.0.0.55:6390", &["10.0.1.231:6379", "10.0.1.232:6379"]),
        ],
        Snat::fixed("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()]),
    );
    expect![[r##"
        # for review: 'cachenat apply' writes nftables, not this
        *nat
        :CACHENAT - [0:0]
        -A PREROUTING -i eth0 -s 198.51.100.27/32 -p tcp -j CACHENAT
        -A CACHENAT -d 10.0.0.55 -p tcp -m tcp --dport 6390 -m statistic --mode random --probability 0.5000000000 -m comment --comment "my-cluster/reader" -j DNAT --to-destination 10.0.1.232:6379
        -A CACHENAT -d 10.0.0.55 -p tcp -m tcp --dport 6379 -m comment --comment "my-cluster-001" -j DNAT --to-destination 10.0.1.230:6379
        -A CACHENAT -d 10.0.0.55 -p tcp -m tcp --dport 6390 -m comment --comment "my-cluster/reader" -j DNAT --to-destination 10.0.1.231:6379
        -A POSTROUTING -o eth0 -d 10.0.1.230 -p tcp -m tcp --dport 6379 -m conntrack --ctstate DNAT --ctorigdst 10.0.0.55 --ctorigdstport 6379 -j SNAT --to-source 10.0.0.55
        -A POSTROUTING -o eth0 -d 10.0.1.231 -p tcp -m tcp --dport 6379 -m conntrack --ctstate DNAT --ctorigdst 10.0.0.55 --ctorigdstport 6390 -j SNAT --to-source 10.0.0.55
        -A POSTROUTING -o eth0 -d 10.0.1.232 -p tcp -m tcp --dport 6379 -m conntrack --ctstate DNAT --ctorigdst 10.0.0.55 --ctorigdstport 6390 -j SNAT --to-source 10.0.0.55
        COMMIT
        *filter
        -A INPUT -s 10.0.1.230 -p tcp -m tcp --sport 6379 -m conntrack --ctstate INVALID -j DROP
        -A INPUT -s 10.0.1.231 -p tcp -m tcp --sport 6379 -m conntrack --ctstate INVALID -j DROP
        -A INPUT -s 10.0.1.232 -p tcp -m tcp --sport 6379 -m conntrack --ctstate INVALID -j DROP
        -A INPUT -d 10.0.0.55 -p tcp -m tcp --dport 6379 -m conntrack --ctstate INVALID -j DROP
        -A INPUT -d 10.0.0.55 -p tcp -m tcp --dport 6390 -m conntrack --ctstate INVALID -j DROP
        COMMIT
    "##]].assert_eq(&rules::iptables::iptables_restore(&wanted));
}
