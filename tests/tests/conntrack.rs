//! Only flows to removed targets are deleted: real connections through our table, checked independently with
//! conntrack(8).

// Test helpers report failures by panicking, and control their own indices.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod rulesets;
mod segment;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use applier::conntrack::{Bytes, Conntrack, ConntrackError, Which};
use applier::kernel::{Netfilter as _, Table};
use applier::netlink::Kernel;
use applier::sync::{ours, sync};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::{run, run_with_input};
use rules::flows::{Fate, Former, Pair};
use rules::ruleset::{AddrPort, Family};
use rules::{AccessList, Actual, Forward, Ruleset, render};
use rulesets::{FORMER, at, forward, gateway, to_gateway};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use segment::Segment;

const A: &str = "10.0.1.1:6379";
const B: &str = "10.0.1.2:6379";
const A6: &str = "[2001:db8:1::1]:6379";

type Counts = BTreeMap<(AddrPort, AddrPort), u64>;

fn rendered(forwards: &[Forward]) -> Ruleset {
    let clients = ["198.51.100.27/32", "2001:db8::27/128"].map(|client| client.parse().unwrap());
    render(&[AccessList::new(&clients, forwards)], &gateway(&[Family::Ipv4, Family::Ipv6], to_gateway()))
}

/// Applies `forwards` to the gateway as `apply` does, but without deleting flows; returns the previous ruleset.
fn apply(segment: &Segment, forwards: &[Forward]) -> Ruleset {
    let mut kernel = segment.gateway.enter(|| Kernel::open().unwrap());
    let before = ours(&kernel.dump().unwrap()).unwrap().map(|actual| actual.ruleset.clone());
    sync(&mut kernel, Some(&rendered(forwards))).unwrap();
    before.unwrap_or_default()
}

fn conntrack(namespace: &Namespace) -> Conntrack {
    namespace.enter(|| Conntrack::open().unwrap())
}

/// Like [`apply`], then deletes stale flows and returns their number.
fn follow(segment: &Segment, forwards: &[Forward]) -> usize {
    let (before, now) = (apply(segment, forwards), rendered(forwards));
    let former = Former::of(&before, &now);
    conntrack(&segment.gateway).cut(Which::Translated, |flow| former.fate(&now, flow) != Fate::Stays).unwrap()
}

/// The open flows as we count them.
fn open(conntrack: &mut Conntrack) -> Counts {
    conntrack.count(Which::Translated).unwrap().into_iter().map(|(pair, flows)| (pair, flows.open)).collect()
}

/// The open DNATed TCP flows in conntrack(8)'s list, by original destination and reply source.
fn listed(namespace: &Namespace) -> Counts {
    let mut counts = Counts::new();
    for family in ["ipv4", "ipv6"] {
        let list = run(namespace.command("conntrack").args(["-L", "-p", "tcp", "-g", "-f", family]));
        for line in list.lines().filter(|line| !line.contains(" TIME_WAIT ") && !line.contains(" CLOSE ")) {
            let value = |key: &str, which| {
                line.split(' ').filter_map(|word| word.strip_prefix(key)).nth(which).unwrap().to_owned()
            };
            let end = |address: String, port: String| AddrPort {
                address: address.parse().unwrap(),
                port: port.parse().unwrap(),
            };
            let listen = end(value("dst=", 0), value("dport=", 0));
            let target = end(value("src=", 1), value("sport=", 1));
            *counts.entry((listen, target)).or_default() += 1;
        }
    }
    counts
}

fn counts(expected: &[(&str, &str, u64)]) -> Counts {
    expected.iter().map(|&(listen, target, count)| ((at(listen), at(target)), count)).collect()
}

#[derive(PartialEq)]
enum Old {
    Alive,
    Dead,
}

/// Moves a listener from one node to another while a client is connected.
fn client_of_a_moved_listener_comes_back(listen: &str, from: &str, to: &str, old: Old) {
    let segment = Segment::new();
    let (one, other) = (segment.node(1), segment.node(2));
    apply(&segment, &[forward("c-001", listen, &[from])]);
    let mut connection = segment.connect(listen, &one);
    connection.speak();
    assert_eq!(connection.source(), at(listen).address, "SNAT");
    if old == Old::Dead {
        segment.kill(&one);
    }
    assert_eq!(listed(&segment.gateway), counts(&[(listen, from, 1)]));
    assert_eq!(follow(&segment, &[forward("c-001", listen, &[to])]), 1);
    assert_eq!(listed(&segment.gateway), Counts::new());
    connection.is_reset();
    segment.connect(listen, &other).speak();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_moved_listeners_client_reaches_the_new_target() {
    client_of_a_moved_listener_comes_back("10.0.0.55:6379", A, B, Old::Alive);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_dead_targets_client_reaches_the_new_one() {
    client_of_a_moved_listener_comes_back("10.0.0.55:6379", A, B, Old::Dead);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_ipv6_client_reaches_the_new_target() {
    let (listen, from, to) = ("[2001:db8::55]:6379", "[2001:db8:1::1]:6379", "[2001:db8:1::2]:6379");
    client_of_a_moved_listener_comes_back(listen, from, to, Old::Alive);
    client_of_a_moved_listener_comes_back(listen, from, to, Old::Dead);
}

/// Another table leads a port of its own to one of our nodes, and gives those flows a source of its own.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_flows_to_our_node_keep_their_replies() {
    let segment = Segment::new();
    let node = segment.node(1);
    segment.gateway.ip("address add 10.0.0.56/32 dev eth0");
    segment.gateway.ip("address add 2001:db8::56/128 dev eth0 nodad");
    apply(
        &segment,
        &[forward("c-001", "10.0.0.55:6379", &[A]), forward("c-001", "[2001:db8::55]:6379", &[A6])],
    );
    segment.gateway.nft(
        "table inet other {
            chain to { type nat hook prerouting priority dstnat + 1;
                ip daddr 10.0.0.55 tcp dport 7000 dnat ip to 10.0.1.1:6379
                ip6 daddr 2001:db8::55 tcp dport 7000 dnat ip6 to [2001:db8:1::1]:6379
            }
            chain back { type nat hook postrouting priority srcnat + 1;
                ip daddr 10.0.1.1 ct status dnat snat ip to 10.0.0.56
                ip6 daddr 2001:db8:1::1 ct status dnat snat ip6 to 2001:db8::56
            }
        }",
    );
    for (ours, others, source) in [
        ("10.0.0.55:6379", "10.0.0.55:7000", "10.0.0.56"),
        ("[2001:db8::55]:6379", "[2001:db8::55]:7000", "2001:db8::56"),
    ] {
        let (mut by_us, mut by_others) = (segment.connect(ours, &node), segment.connect(others, &node));
        by_us.speak();
        by_others.speak();
        assert_eq!(by_us.source(), at(ours).address);
        assert_eq!(by_others.source().to_string(), source);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_failover_keeps_flows_of_the_nodes_port() {
    let segment = Segment::new();
    let (one, two) = (segment.node(1), segment.node(2));
    let (primary, own, twos) = ("10.0.0.55:6390", "10.0.0.55:6379", "10.0.0.55:6380");
    let forwards = |target| {
        [forward("c/primary", primary, &[target]), forward("c-001", own, &[A]), forward("c-002", twos, &[B])]
    };
    apply(&segment, &forwards(A));
    let (mut by_role, mut by_node) = (segment.connect(primary, &one), segment.connect(own, &one));
    let mut other = segment.connect(twos, &two);

    assert_eq!(follow(&segment, &forwards(B)), 1);
    by_node.speak();
    other.speak();
    assert_eq!(listed(&segment.gateway), counts(&[(own, A, 1), (twos, B, 1)]));
    by_role.is_reset();
    segment.connect(primary, &two).speak();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_reader_keeps_flows_to_remaining_replicas() {
    let segment = Segment::new();
    let nodes = [segment.node(1), segment.node(2), segment.node(3)];
    let (reader, c) = ("10.0.0.55:6390", "10.0.1.3:6379");
    apply(&segment, &[forward("c/reader", reader, &[A, B, c])]);
    let streams: Vec<_> = (0..60).map(|_| segment.dial(reader)).collect();
    let mut expected = listed(&segment.gateway);
    assert_eq!((expected.len(), expected.values().sum::<u64>()), (nodes.len(), streams.len() as u64));

    let lost = expected.remove(&(at(reader), at(B))).unwrap();
    assert_eq!(follow(&segment, &[forward("c/reader", reader, &[A, c])]) as u64, lost);
    assert_eq!(listed(&segment.gateway), expected);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_older_versions_reader_flows_are_kept() {
    let segment = Segment::new();
    let _nodes = (segment.node(1), segment.node(2));
    let node = forward("c-001", "10.0.0.55:6379", &[A]);
    let node6 = forward("c-001", "[2001:db8::55]:6379", &[A6]);
    apply(&segment, &[node.clone(), node6.clone()]);
    segment.gateway.nft(FORMER);
    let readers = ["10.0.0.55:6390", "[2001:db8::55]:6390"];
    // The probability that all 40 go to the same node is 2^-39.
    let dial = || readers.map(|reader| (0..40).map(|_| segment.dial(reader)).collect::<Vec<_>>());
    let _old = dial();
    let before = listed(&segment.gateway);
    assert_eq!(before.len(), 4);

    let dump = || segment.gateway.enter(|| Kernel::open().unwrap()).dump().unwrap();
    let former = dump();
    let forwards = [
        node,
        node6,
        forward("c/reader", readers[0], &[A, B]),
        forward("c/reader", readers[1], &[A6, "[2001:db8:1::2]:6379"]),
    ];
    assert_eq!(follow(&segment, &forwards), 0);
    let now = dump();
    assert_eq!(now.generation, former.generation.next(), "one commit");
    let desired = Actual { ruleset: rendered(&forwards), strangers: vec![] };
    assert_eq!(now.table, Table::Ours(desired));
    assert_eq!(listed(&segment.gateway), before);
    let _new = dial();
    let after = listed(&segment.gateway);
    assert!(before.iter().all(|(way, flows)| after[way] > *flows), "{before:?} {after:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_flows_to_the_same_target_stay() {
    let segment = Segment::new();
    let (one, _two) = (segment.node(1), segment.node(2));
    let listen = "10.0.0.55:6379";
    segment.gateway.nft(
        "table ip other {
            chain prerouting {
                type nat hook prerouting priority dstnat - 10
                tcp dport 7000 dnat to 10.0.1.1:6379
            }
            chain postrouting {
                type nat hook postrouting priority srcnat - 10
                ip daddr 10.0.1.1 masquerade
            }
        }",
    );
    segment.client.ip("route add 10.0.1.1 via 10.0.0.55 dev eth0 onlink");
    apply(&segment, &[forward("c-001", listen, &[A])]);
    let mut ours = segment.connect(listen, &one);
    let mut translated = segment.connect("10.0.0.55:7000", &one);
    let mut routed = segment.connect(A, &one);
    // The same listener and target, in another protocol and in another zone.
    let flow = "-t 600 -s 198.51.100.27 -d 10.0.0.55 --sport 5 --dport 6379 -g 10.0.1.1:6379";
    let state = "--state ESTABLISHED -u SEEN_REPLY,ASSURED";
    for more in ["-p udp".to_owned(), format!("-w 5 -p tcp {state}")] {
        run(segment.gateway.command("conntrack").arg("-I").args(more.split(' ')).args(flow.split(' ')));
    }
    let elsewhere =
        |options: &[&str]| run(segment.gateway.command("conntrack").arg("-L").args(options)).lines().count();

    assert_eq!(follow(&segment, &[forward("c-001", listen, &[B])]), 1);
    translated.speak();
    routed.speak();
    assert_eq!((elsewhere(&["-p", "udp"]), elsewhere(&["-w", "5"])), (1, 1));
    ours.is_reset();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn flows_stay_while_every_target_exists() {
    let segment = Segment::new();
    let one = segment.node(1);
    let listen = "10.0.0.55:6379";
    apply(&segment, &[forward("c-001", listen, &[A])]);
    let mut connection = segment.connect(listen, &one);
    assert_eq!(follow(&segment, &[forward("c-001", listen, &[A])]), 0);
    assert_eq!(
        follow(&segment, &[forward("renamed-001", listen, &[A]), forward("d-001", "10.0.0.55:6380", &[B])]),
        0
    );
    connection.speak();
    // The flow belongs neither to another listener of its target nor to another target of its listener.
    let near =
        [Pair { listen: at(listen), target: at(B) }, Pair { listen: at("10.0.0.55:6380"), target: at(A) }];
    assert_eq!(
        conntrack(&segment.gateway).cut(Which::Translated, |flow| near.contains(&flow.pair)).unwrap(),
        0
    );
    connection.speak();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn open_flows_are_counted_by_listener_and_target() {
    let segment = Segment::new();
    let (one, _two) = (segment.node(1), segment.node(2));
    let (listen, six) = ("10.0.0.55:6379", "[2001:db8::55]:6379");
    let to_six = "[2001:db8:1::1]:6379";
    apply(&segment, &[forward("c-001", listen, &[A]), forward("six-001", six, &[to_six])]);
    let kept = [segment.connect(listen, &one), segment.connect(listen, &one), segment.connect(six, &one)];
    let mut conntrack = conntrack(&segment.gateway);
    let expected = counts(&[(listen, A, 2), (six, to_six, 1)]);
    assert_eq!(open(&mut conntrack), expected);

    drop(segment.connect(listen, &one));
    let list = || run(segment.gateway.command("conntrack").args(["-L", "-p", "tcp"]));
    cachenat_tests::lab::wait::wait_for("the end of a connection", || {
        list().contains(" TIME_WAIT ").then_some(())
    });
    assert_eq!(open(&mut conntrack), expected);
    assert_eq!(listed(&segment.gateway), expected);
    drop(kept);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn bytes_are_unknown_without_conntrack_accounting() {
    let segment = Segment::new();
    let one = segment.node(1);
    let listen = "10.0.0.55:6379";
    apply(&segment, &[forward("c-001", listen, &[A])]);
    let unaccounted = segment.connect(listen, &one);
    let mut conntrack = conntrack(&segment.gateway);
    let bytes =
        |conntrack: &mut Conntrack| conntrack.count(Which::Translated).unwrap()[&(at(listen), at(A))].bytes;
    assert_eq!(bytes(&mut conntrack), None);

    segment.gateway.set_sysctl("net/netfilter/nf_conntrack_acct", "1");
    let mut accounted = [segment.connect(listen, &one), segment.connect(listen, &one)];
    accounted[0].speak();
    let list = run(segment.gateway.command("conntrack").args(["-L", "-p", "tcp", "-f", "ipv4"]));
    let sum = |which| -> u64 {
        let of = |line: &str| line.split("bytes=").nth(which)?.split(' ').next()?.parse::<u64>().ok();
        list.lines().filter_map(of).sum()
    };
    assert_eq!(bytes(&mut conntrack), Some(Bytes { sent: sum(1), received: sum(2) }), "{list}");
    assert!(sum(1) > 0 && sum(2) > 0, "{list}");
    drop(unaccounted);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn ten_thousand_of_fifty_thousand_flows_are_deleted() {
    let namespace = Namespace::new();
    let mut flows = String::new();
    for number in 0..50_000 {
        let (node, client, port) = (number % 5, number / 5 / 1000, 1024 + number / 5 % 1000);
        writeln!(
            flows,
            "-I -t 600 -u SEEN_REPLY,ASSURED -p tcp --state ESTABLISHED -s 198.51.100.{client} -d 10.0.0.55 \
             --sport {port} --dport {} -g 10.0.1.{node}:6379",
            6379 + node
        )
        .unwrap();
    }
    run_with_input(namespace.command("conntrack").args(["-R", "-"]), &flows);
    let mut conntrack = conntrack(&namespace);
    let pair = |node: u16| (at(&format!("10.0.0.55:{}", 6379 + node)), at(&format!("10.0.1.{node}:6379")));
    let mut expected: Counts = (0..5).map(|node| (pair(node), 10_000)).collect();
    assert_eq!(open(&mut conntrack), expected);

    let (listen, target) = pair(3);
    expected.remove(&(listen, target));
    let begin = std::time::Instant::now();
    assert_eq!(
        conntrack.cut(Which::Translated, |flow| flow.pair == Pair { listen, target }).unwrap(),
        10_000
    );
    println!("10,000 of 50,000 flows cut in {:?}", begin.elapsed());
    assert_eq!(listed(&namespace), expected);
    assert_eq!(conntrack.cut(Which::Translated, |flow| flow.pair == Pair { listen, target }).unwrap(), 0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn missing_cap_net_admin_is_named() {
    Namespace::new().enter(|| {
        // Capabilities belong to the thread (capabilities(7)), which ends with this closure.
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let error = Conntrack::open().unwrap().count(Which::Translated).unwrap_err();
        assert!(matches!(error, ConntrackError::Denied(_)), "{error}");
    });
}
