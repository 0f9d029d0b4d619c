//! Golden messages, as nft 1.0.6 sends them for the line above each (`nft --debug=mnl`), with these differences: we
//! omit set ids in elements and lookups, since names suffice; nft numbers the elements of a list, and starts an empty
//! interval set with an end at the lowest address; nftnl writes a chain's policy, and orders its attributes differently.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use rules::Family;
use rules::ruleset::{AddrPort, Element, Key, ListIndex, SetKind, SnatTo, SpreadIndex};

use super::*;
use crate::netlink::message::{HEADER, Messages};

/// The complete messages between BEGIN and END.
fn messages(operations: Vec<Operation>) -> Vec<Vec<u8>> {
    let encoded = encode(&Transaction { operations }, Generation(7), 100);
    let bytes = encoded.pieces().concat();
    let mut sent = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some(message) = Messages(rest).next() {
        let (whole, behind) = rest.split_at(HEADER + message.unwrap().body.len());
        sent.push(whole.to_vec());
        rest = behind;
    }
    sent.pop();
    sent.split_off(1)
}

/// The attributes of the message for `operation` with their types; nested ones in braces, names in quotes. Omits
/// padding, because libmnl does not initialize it.
fn check(operation: Operation, golden: &Expect) {
    let sent = messages(vec![operation]);
    let [message] = sent.as_slice() else { panic!("{} messages", sent.len()) };
    golden.assert_eq(&tree(&message[HEADER + 4..], 0));
}

fn tree(mut bytes: &[u8], depth: usize) -> String {
    let mut text = String::new();
    while !bytes.is_empty() {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let (length, kind) = (usize::from(number(0)), number(2));
        let value = &bytes[4..length];
        let (kind, nested) = (kind & 0x3fff, kind & 0x8000 != 0);
        let (before, after) = if depth < 2 { ("  ".repeat(depth), "\n") } else { (" ".to_owned(), "") };
        let name =
            value.strip_suffix(&[0]).filter(|name| !name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        let value = match name {
            _ if nested && depth == 0 => format!("{{\n{}}}", tree(value, 1)),
            _ if nested => format!("{{{} }}", tree(value, depth + 1)),
            Some(name) => format!("{:?}", String::from_utf8_lossy(name)),
            None => value.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        write!(text, "{before}{kind} {value}{after}").unwrap();
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    text
}

fn at(text: &str) -> AddrPort {
    text.parse().unwrap()
}

fn set(kind: SetKind, family: Family) -> Set {
    Set::new(kind, family)
}

fn spread(place: usize) -> SetKind {
    SetKind::Spread(ListIndex::FIRST, SpreadIndex::new(place).unwrap())
}

fn element(target: Option<&str>, comment: Option<&str>) -> Element {
    Element { data: target.map(at), comment: comment.map(Into::into) }
}

#[test]
fn begin_names_the_generation_and_the_subsystem() {
    let encoded = encode(&Transaction { operations: vec![] }, Generation(0x0102_0304), 100);
    // NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, number 100; no family, NFNL_SUBSYS_NFTABLES; NFNL_BATCH_GENID
    assert_eq!(
        encoded.begin,
        [28, 0, 0, 0, 16, 0, 1, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 8, 0, 1, 0, 1, 2, 3, 4]
    );
}

#[test]
fn messages_are_numbered_and_request_no_acknowledgement() {
    let chain = Chain::Prerouting;
    let rule =
        Rule::Forward { interface: "eth0".parse().unwrap(), family: Family::Ipv4, list: ListIndex::FIRST };
    let clients4 = set(SetKind::Clients(ListIndex::FIRST), Family::Ipv4);
    let range = Key::Addresses("198.51.100.0/24".parse().unwrap());
    let operations = vec![
        Operation::AddTable,
        Operation::DeleteTable,
        Operation::AddSet(clients4),
        Operation::AddElement(clients4, range, Element::default()),
        Operation::DeleteElement(clients4, range),
        Operation::DeleteSet(clients4),
        Operation::AddChain(chain),
        Operation::AddRule(chain, rule),
        Operation::FlushChain(chain),
        Operation::DeleteChain(chain),
    ];
    let kinds = [
        "newtable",
        "deltable",
        "newset",
        "newsetelem",
        "delsetelem",
        "delset",
        "newchain",
        "newrule",
        "delrule",
        "delchain",
    ];
    let numbers = [0, 2, 9, 12, 14, 11, 3, 6, 8, 5];
    let sent = messages(operations);
    assert_eq!(sent.len(), kinds.len());
    for (at, message) in sent.iter().enumerate() {
        let message = Messages(message).next().unwrap().unwrap();
        assert_eq!(message.kind, 0x0a00 | numbers[at], "{}", kinds[at]);
        assert_eq!(message.sequence, 101 + at as u32, "{}", kinds[at]);
        assert_eq!(i32::from(message.flags) & (libc::NLM_F_REQUEST | libc::NLM_F_ACK), libc::NLM_F_REQUEST);
    }
}

#[test]
fn a_table() {
    // add table inet cachenat { comment "made by cachenat: changes are undone by its next run"; }
    check(
        Operation::AddTable,
        &expect![[r#"
            1 "cachenat"
            2 00000000
            6 00356d616e616765642062792063616368656e61743b206d616e75616c206368616e6765732077696c6c20626520726576657274656400
        "#]],
    );
}

#[test]
fn sets_and_maps() {
    // add set inet cachenat clients4 { type ipv4_addr; flags interval; }
    check(
        Operation::AddSet(set(SetKind::Clients(ListIndex::FIRST), Family::Ipv4)),
        &expect![[r#"
        1 "cachenat"
        2 "clients4"
        3 00000004
        4 00000007
        5 00000004
        10 00000001
        13 000402000000
    "#]],
    );
    // add set inet cachenat clients6 { type ipv6_addr; flags interval; }
    check(
        Operation::AddSet(set(SetKind::Clients(ListIndex::FIRST), Family::Ipv6)),
        &expect![[r#"
        1 "cachenat"
        2 "clients6"
        3 00000004
        4 00000008
        5 00000010
        10 00000002
        13 000402000000
    "#]],
    );
    // add map inet cachenat forward4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }
    check(
        Operation::AddSet(set(SetKind::Forward(ListIndex::FIRST), Family::Ipv4)),
        &expect![[r#"
        1 "cachenat"
        2 "forward4"
        3 00000008
        4 000001cd
        5 00000008
        6 000001cd
        7 00000008
        10 00000003
        13 000400000000010400000000030800040d0000000100040800040d0000000100060400000000
        17 {
          1 "counter"
          2 { }
        }
    "#]],
    );
    // add map inet cachenat forward6 { type ipv6_addr . inet_service : ipv6_addr . inet_service; counter; }
    check(
        Operation::AddSet(set(SetKind::Forward(ListIndex::FIRST), Family::Ipv6)),
        &expect![[r#"
        1 "cachenat"
        2 "forward6"
        3 00000008
        4 0000020d
        5 00000014
        6 0000020d
        7 00000014
        10 00000004
        13 000400000000010400000000030800040d0000000100040800040d0000000100060400000000
        17 {
          1 "counter"
          2 { }
        }
    "#]],
    );
    // add map inet cachenat spread4_2 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }
    check(
        Operation::AddSet(set(spread(2), Family::Ipv4)),
        &expect![[r#"
            1 "cachenat"
            2 "spread4_2"
            3 00000008
            4 000001cd
            5 00000008
            6 000001cd
            7 00000008
            10 00000007
            13 000400000000010400000000030800040d0000000100040800040d0000000100060400000000
            17 {
              1 "counter"
              2 { }
            }
        "#]],
    );
    // add map inet cachenat spread6_16 { type ipv6_addr . inet_service : ipv6_addr . inet_service; counter; }
    check(
        Operation::AddSet(set(spread(16), Family::Ipv6)),
        &expect![[r#"
            1 "cachenat"
            2 "spread6_16"
            3 00000008
            4 0000020d
            5 00000014
            6 0000020d
            7 00000014
            10 00000024
            13 000400000000010400000000030800040d0000000100040800040d0000000100060400000000
            17 {
              1 "counter"
              2 { }
            }
        "#]],
    );
    // add set inet cachenat backends4 { type ipv4_addr . inet_service; }
    check(
        Operation::AddSet(set(SetKind::Backends, Family::Ipv4)),
        &expect![[r#"
            1 "cachenat"
            2 "backends4"
            3 00000000
            4 000001cd
            5 00000008
            10 00000241
            13 000400000000030800040d0000000100
        "#]],
    );
    // add set inet cachenat backends6 { type ipv6_addr . inet_service; }
    check(
        Operation::AddSet(set(SetKind::Backends, Family::Ipv6)),
        &expect![[r#"
            1 "cachenat"
            2 "backends6"
            3 00000000
            4 0000020d
            5 00000014
            10 00000242
            13 000400000000030800040d0000000100
        "#]],
    );
}

#[test]
fn elements_of_hashes() {
    // add element inet cachenat forward4 { 10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.230 . 6379 }
    let (key, data) =
        (Key::AddrPort(at("10.0.0.55:6379")), element(Some("10.0.1.230:6379"), Some("my-cluster-001")));
    check(
        Operation::AddElement(set(SetKind::Forward(ListIndex::FIRST), Family::Ipv4), key, data),
        &expect![[r#"
        1 "cachenat"
        2 "forward4"
        3 {
          1 { 1 { 1 0a00003718eb0000 } 2 { 1 0a0001e618eb0000 } 6 000f6d792d636c75737465722d30303100 }
        }
    "#]],
    );
    // delete element inet cachenat forward4 { 10.0.0.55 . 6379 }
    check(
        Operation::DeleteElement(set(SetKind::Forward(ListIndex::FIRST), Family::Ipv4), key),
        &expect![[r#"
        1 "cachenat"
        2 "forward4"
        3 {
          1 { 1 { 1 0a00003718eb0000 } }
        }
    "#]],
    );
    // add element inet cachenat backends6 { 2001:db8::230 . 6379 }
    let key = Key::AddrPort(at("[2001:db8::230]:6379"));
    check(
        Operation::AddElement(set(SetKind::Backends, Family::Ipv6), key, Element::default()),
        &expect![[r#"
        1 "cachenat"
        2 "backends6"
        3 {
          1 { 1 { 1 20010db800000000000000000000023018eb0000 } }
        }
    "#]],
    );
}

#[test]
fn ranges_are_two_elements_except_the_highest() {
    let clients4 = set(SetKind::Clients(ListIndex::FIRST), Family::Ipv4);
    // add element inet cachenat clients4 { 203.0.113.0/25 }
    let range = Key::Addresses("203.0.113.0/25".parse().unwrap());
    check(
        Operation::AddElement(clients4, range, Element::default()),
        &expect![[r#"
        1 "cachenat"
        2 "clients4"
        3 {
          1 { 1 { 1 cb007100 } }
          1 { 3 00000001 1 { 1 cb007180 } }
        }
    "#]],
    );
    // add element inet cachenat clients4 { 255.255.255.0/24 }
    let range = Key::Addresses("255.255.255.0/24".parse().unwrap());
    check(
        Operation::AddElement(clients4, range, Element::default()),
        &expect![[r#"
        1 "cachenat"
        2 "clients4"
        3 {
          1 { 1 { 1 ffffff00 } 6 010401000000 }
        }
    "#]],
    );
}

#[test]
fn chains() {
    // add chain inet cachenat prerouting { type nat hook prerouting priority dstnat; policy accept; }
    check(
        Operation::AddChain(Chain::Prerouting),
        &expect![[r#"
        1 "cachenat"
        3 "prerouting"
        4 {
          1 00000000
          2 ffffff9c
        }
        5 00000001
        7 "nat"
    "#]],
    );
    // add chain inet cachenat postrouting { type nat hook postrouting priority srcnat; policy accept; }
    check(
        Operation::AddChain(Chain::Postrouting),
        &expect![[r#"
        1 "cachenat"
        3 "postrouting"
        4 {
          1 00000004
          2 00000064
        }
        5 00000001
        7 "nat"
    "#]],
    );
}

#[test]
fn a_flowtable() {
    // add flowtable inet cachenat fastpath { hook ingress priority filter; devices = { "eth0" }; }
    let flowtable = Flowtable { interface: "eth0".parse().unwrap() };
    check(
        Operation::AddFlowtable(flowtable),
        &expect![[r#"
        1 "cachenat"
        2 "fastpath"
        3 {
          1 00000000
          2 00000000
          3 { 1 "eth0" }
        }
    "#]],
    );
    // delete flowtable inet cachenat fastpath
    check(
        Operation::DeleteFlowtable,
        &expect![[r#"
        1 "cachenat"
        2 "fastpath"
    "#]],
    );
    // add chain inet cachenat forward { type filter hook forward priority filter; policy accept; }
    check(
        Operation::AddChain(Chain::Forward),
        &expect![[r#"
        1 "cachenat"
        3 "forward"
        4 {
          1 00000002
          2 00000000
        }
        5 00000001
        7 "filter"
    "#]],
    );
    // add rule inet cachenat forward iifname "eth0" ct state invalid,new,untracked ct status ! dnat drop
    let rule = Rule::DropOthers { interface: "eth0".parse().unwrap() };
    check(
        Operation::AddRule(Chain::Forward, rule),
        &expect![[r#"
        1 "cachenat"
        2 "forward"
        4 {
          1 { 1 "meta" 2 { 2 00000006 1 00000001 } }
          1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 65746830000000000000000000000000 } } }
          1 { 1 "ct" 2 { 2 00000000 1 00000001 } }
          1 { 1 "bitwise" 2 { 1 00000001 2 00000001 3 00000004 4 { 1 49000000 } 5 { 1 00000000 } } }
          1 { 1 "cmp" 2 { 1 00000001 2 00000001 3 { 1 00000000 } } }
          1 { 1 "ct" 2 { 2 00000002 1 00000001 } }
          1 { 1 "bitwise" 2 { 1 00000001 2 00000001 3 00000004 4 { 1 20000000 } 5 { 1 00000000 } } }
          1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 00000000 } } }
          1 { 1 "immediate" 2 { 1 00000000 2 { 2 { 1 00000000 } } } }
        }
    "#]],
    );
    // add rule inet cachenat forward oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 flow add @fastpath
    let rule = Rule::Offload { interface: "eth0".parse().unwrap(), family: Family::Ipv4 };
    check(
        Operation::AddRule(Chain::Forward, rule),
        &expect![[r#"
            1 "cachenat"
            2 "forward"
            4 {
              1 { 1 "meta" 2 { 2 00000007 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 65746830000000000000000000000000 } } }
              1 { 1 "ct" 2 { 2 00000000 1 00000001 } }
              1 { 1 "bitwise" 2 { 1 00000001 2 00000001 3 00000004 4 { 1 02000000 } 5 { 1 00000000 } } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000001 3 { 1 00000000 } } }
              1 { 1 "ct" 2 { 2 00000002 1 00000001 } }
              1 { 1 "bitwise" 2 { 1 00000001 2 00000001 3 00000004 4 { 1 20000000 } 5 { 1 00000000 } } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000001 3 { 1 00000000 } } }
              1 { 1 "meta" 2 { 2 0000000f 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 02 } } }
              1 { 1 "meta" 2 { 2 00000010 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 06 } } }
              1 { 1 "payload" 2 { 1 00000001 2 00000001 3 00000010 4 00000004 } }
              1 { 1 "payload" 2 { 1 00000009 2 00000002 3 00000002 4 00000002 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "backends4" } }
              1 { 1 "ct" 2 { 2 00000014 1 00000001 3 00 } }
              1 { 1 "ct" 2 { 2 0000000c 1 00000009 3 00 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "listeners4" } }
              1 { 1 "flow_offload" 2 { 1 "fastpath" } }
            }
        "#]],
    );
}

#[test]
fn rules() {
    let interface = || "eth0".parse().unwrap();
    let add = |chain, rule: Rule, golden: &Expect| check(Operation::AddRule(chain, rule), golden);
    // add rule inet cachenat prerouting iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
    let rule = Rule::Forward { interface: interface(), family: Family::Ipv4, list: ListIndex::FIRST };
    add(
        Chain::Prerouting,
        rule,
        &expect![[r#"
        1 "cachenat"
        2 "prerouting"
        4 {
          1 { 1 "meta" 2 { 2 00000006 1 00000001 } }
          1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 65746830000000000000000000000000 } } }
          1 { 1 "meta" 2 { 2 0000000f 1 00000001 } }
          1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 02 } } }
          1 { 1 "payload" 2 { 1 00000001 2 00000001 3 0000000c 4 00000004 } }
          1 { 1 "lookup" 2 { 2 00000001 1 "clients4" } }
          1 { 1 "meta" 2 { 2 00000010 1 00000001 } }
          1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 06 } } }
          1 { 1 "payload" 2 { 1 00000001 2 00000001 3 00000010 4 00000004 } }
          1 { 1 "payload" 2 { 1 00000009 2 00000002 3 00000002 4 00000002 } }
          1 { 1 "lookup" 2 { 2 00000001 3 00000001 1 "forward4" } }
          1 { 1 "nat" 2 { 1 00000001 2 00000002 3 00000001 5 00000009 } }
        }
    "#]],
    );
    // add rule inet cachenat prerouting iifname "eth0" numgen random mod 3 0 ip6 saddr @clients6 dnat ip6 to ip6 daddr . tcp dport map @spread6_3
    let place = SpreadIndex::new(3).unwrap();
    let rule = Rule::Spread { interface: interface(), family: Family::Ipv6, list: ListIndex::FIRST, place };
    add(
        Chain::Prerouting,
        rule,
        &expect![[r#"
            1 "cachenat"
            2 "prerouting"
            4 {
              1 { 1 "meta" 2 { 2 00000006 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 65746830000000000000000000000000 } } }
              1 { 1 "numgen" 2 { 1 00000001 2 00000003 3 00000001 4 00000000 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 00000000 } } }
              1 { 1 "meta" 2 { 2 0000000f 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 0a } } }
              1 { 1 "payload" 2 { 1 00000001 2 00000001 3 00000008 4 00000010 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "clients6" } }
              1 { 1 "meta" 2 { 2 00000010 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 06 } } }
              1 { 1 "payload" 2 { 1 00000001 2 00000001 3 00000018 4 00000010 } }
              1 { 1 "payload" 2 { 1 00000002 2 00000002 3 00000002 4 00000002 } }
              1 { 1 "lookup" 2 { 2 00000001 3 00000001 1 "spread6_3" } }
              1 { 1 "nat" 2 { 1 00000001 2 0000000a 3 00000001 5 00000002 } }
            }
        "#]],
    );
    // add rule inet cachenat postrouting oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 snat ip to 10.0.0.55
    let to = SnatTo::Address("10.0.0.55".parse().unwrap());
    add(
        Chain::Postrouting,
        Rule::Snat { interface: Some(interface()), family: Family::Ipv4, to, place: None },
        &expect![[r#"
            1 "cachenat"
            2 "postrouting"
            4 {
              1 { 1 "meta" 2 { 2 00000007 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 65746830000000000000000000000000 } } }
              1 { 1 "ct" 2 { 2 00000002 1 00000001 } }
              1 { 1 "bitwise" 2 { 1 00000001 2 00000001 3 00000004 4 { 1 20000000 } 5 { 1 00000000 } } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000001 3 { 1 00000000 } } }
              1 { 1 "meta" 2 { 2 0000000f 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 02 } } }
              1 { 1 "meta" 2 { 2 00000010 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 06 } } }
              1 { 1 "payload" 2 { 1 00000001 2 00000001 3 00000010 4 00000004 } }
              1 { 1 "payload" 2 { 1 00000009 2 00000002 3 00000002 4 00000002 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "backends4" } }
              1 { 1 "ct" 2 { 2 00000014 1 00000001 3 00 } }
              1 { 1 "ct" 2 { 2 0000000c 1 00000009 3 00 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "listeners4" } }
              1 { 1 "immediate" 2 { 1 00000001 2 { 1 0a000037 } } }
              1 { 1 "nat" 2 { 1 00000000 2 00000002 3 00000001 } }
            }
        "#]],
    );
    // add rule inet cachenat postrouting oifname "eth0" ct status dnat ip6 daddr . tcp dport @backends6 masquerade
    let rule = Rule::Snat {
        interface: Some(interface()),
        family: Family::Ipv6,
        to: SnatTo::Masquerade,
        place: None,
    };
    add(
        Chain::Postrouting,
        rule,
        &expect![[r#"
            1 "cachenat"
            2 "postrouting"
            4 {
              1 { 1 "meta" 2 { 2 00000007 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 65746830000000000000000000000000 } } }
              1 { 1 "ct" 2 { 2 00000002 1 00000001 } }
              1 { 1 "bitwise" 2 { 1 00000001 2 00000001 3 00000004 4 { 1 20000000 } 5 { 1 00000000 } } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000001 3 { 1 00000000 } } }
              1 { 1 "meta" 2 { 2 0000000f 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 0a } } }
              1 { 1 "meta" 2 { 2 00000010 1 00000001 } }
              1 { 1 "cmp" 2 { 1 00000001 2 00000000 3 { 1 06 } } }
              1 { 1 "payload" 2 { 1 00000001 2 00000001 3 00000018 4 00000010 } }
              1 { 1 "payload" 2 { 1 00000002 2 00000002 3 00000002 4 00000002 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "backends6" } }
              1 { 1 "ct" 2 { 2 00000016 1 00000001 3 00 } }
              1 { 1 "ct" 2 { 2 0000000c 1 00000002 3 00 } }
              1 { 1 "lookup" 2 { 2 00000001 1 "listeners6" } }
              1 { 1 "masq" 2 { } }
            }
        "#]],
    );
}

#[test]
fn packed_offsets_map_back_to_operations() {
    let forward4 = set(SetKind::Forward(ListIndex::FIRST), Family::Ipv4);
    let clients4 = set(SetKind::Clients(ListIndex::FIRST), Family::Ipv4);
    let mut operations = vec![Operation::AddTable];
    operations.extend((1..=2_000).map(|port| {
        let listen = format!("10.0.0.55:{port}");
        Operation::AddElement(
            forward4,
            Key::AddrPort(at(&listen)),
            element(Some("10.0.1.230:6379"), Some(&listen)),
        )
    }));
    operations.extend((0..10).map(|net| {
        let range = Key::Addresses(format!("198.51.{net}.0/24").parse().unwrap());
        Operation::AddElement(clients4, range, Element::default())
    }));
    let transaction = Transaction { operations };
    let encoded = encode(&transaction, Generation(1), 9);
    assert_eq!(encoded.firsts.first(), Some(&0));
    assert!(encoded.firsts.len() > 3, "2,000 elements do not fit in one message");
    for (message, &first) in encoded.firsts.iter().enumerate().skip(1) {
        let sequence = 10 + message as u32;
        let Packed { ends, message: bytes } = pack(&transaction.operations[first..], sequence);
        assert!(bytes.len() < usize::from(u16::MAX));
        let start = HEADER + 4;
        for (within, &end) in ends.iter().enumerate() {
            let begin = if within == 0 { start } else { ends[within - 1] };
            // Each lookup packs the message again, so test only some.
            for offset in
                [begin, end - 4].into_iter().filter(|_| within % 50 == 0 || within + 1 == ends.len())
            {
                let found = encoded.operation(&transaction, sequence, Some(offset as u32));
                assert_eq!(found, Some(first + within));
            }
        }
        assert_eq!(encoded.operation(&transaction, sequence, None), Some(first));
    }
    assert_eq!(encoded.operation(&transaction, 9, None), None, "BEGIN is not an operation");
    assert_eq!(encoded.operation(&transaction, 8, Some(60)), None);
    assert_eq!(encoded.operation(&transaction, 5_000, None), None);
}
