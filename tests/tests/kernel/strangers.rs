//! Objects in our table that cachenat does not write.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::process::Stdio;

use applier::kernel::{Netfilter as _, Table};
use applier::netlink::Kernel;
use applier::sync::{Outcome, SyncError, difference, sync};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::wait::wait_for;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use rules::Actual;
use rules::json::DesiredState;
use rules::ruleset::Ruleset;
use serde_json::Value;

use crate::rulesets::{everything, example, to_several};
use crate::{dump, forget_handles, open, ours};

/// The sets of the table, and elements that fit them.
const SETS: [(&str, &[&str], &str); 10] = [
    ("clients4", &["203.0.113.9", "203.0.113.64/26", "192.0.2.200-192.0.2.210", "0.0.0.0/1"], ""),
    ("clients6", &["2001:db8:f::9", "2001:db8:f::/48", "fe80::-ffff::"], ""),
    ("backends4", &["10.0.9.9 . 6379", "10.0.1.230 . 1", "10.0.9.9 . 0"], ""),
    ("backends6", &["2001:db8:9::9 . 6379"], ""),
    ("forward4", &["10.0.0.55 . 7000", "10.9.9.9 . 1", "10.0.0.55 . 0"], " : 10.0.9.9 . 6379"),
    ("forward6", &["2001:db8::55 . 7000"], " : 2001:db8:9::9 . 6379"),
    ("spread4_2", &["10.0.0.55 . 7001", "10.9.9.9 . 0"], " : 10.0.9.9 . 6379"),
    ("spread6_2_2", &["2001:db8::55 . 7001"], " : 2001:db8:9::9 . 6379"),
    ("forward4_2", &["10.0.0.55 . 7002"], " : 10.0.9.9 . 6379"),
    ("routed4_2", &["10.0.9.9 . 6379", "10.0.1.230 . 0"], ""),
];

/// Options after a key; the kernel accepts only the first few in a set that is declared like ours.
const EXTRAS: [&str; 10] = [
    "",
    " comment \"bob laptop\"",
    " comment \"local-009\"",
    " comment \"\u{1b}[2J \u{202e}\"",
    " counter packets 7 bytes 420",
    " timeout 1h",
    " timeout 1h expires 30m",
    " counter packets 7 bytes 420 comment \"x\"",
    " limit rate 5/second",
    " quota 25 mbytes",
];

/// Other objects of a table; most have a name so that another line can use them.
const OTHERS: [&str; 64] = [
    "add set T s { type ipv4_addr; }",
    "add set T s { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.0/24 }; }",
    "add set T s { type ipv4_addr; flags dynamic,timeout; timeout 1h; size 99; }",
    "add set T s { type ipv4_addr; flags constant; elements = { 192.0.2.1 }; }",
    "add set T s { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 1-9 }; }",
    "add set T s { type ipv4_addr; counter; comment \"x\"; elements = { 192.0.2.1 counter packets 1 bytes 2 }; }",
    "add set T s { type ifname; gc-interval 10s; policy memory; timeout 1m; elements = { \"eth0\" }; }",
    "add map T v { type ipv4_addr : verdict; flags interval; elements = { 192.0.2.1 : drop, * : accept }; }",
    "add map T v { type ipv4_addr : verdict; elements = { 192.0.2.1 : jump mine }; }",
    "add map T m { type ipv4_addr : counter; elements = { 192.0.2.1 : \"o\" }; }",
    "add map T m { type ipv4_addr : mark; }",
    "add set T spread4_2 { type ipv4_addr; }",
    "add map T spread4_2 { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags timeout; }",
    "add map T spread4_16 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }",
    "add map T spread4_17 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }",
    "add map T spread4 { typeof ip daddr . tcp dport . numgen random mod 60 : ip daddr . tcp dport; flags interval; counter; }",
    "add set T clients6 { type ipv6_addr; flags interval,timeout; timeout 1h; }",
    "add set T clients6 { type ipv6_addr; flags interval; counter; elements = { ::1 }; }",
    "add set T clients6 { type ipv6_addr; flags interval; comment \"x\"; elements = { * }; }",
    "add set T backends6 { type ipv6_addr . inet_service; size 10; }",
    "add map T forward6 { type ipv6_addr . inet_service : verdict; }",
    "add counter T o { packets 5 bytes 500; }",
    "add quota T o { over 25 mbytes used 5 mbytes; }",
    "add limit T o { rate 5/second; }",
    "add ct helper T o { type \"ftp\" protocol tcp; }",
    "add ct timeout T o { protocol tcp; l3proto ip; policy = { established: 99 }; }",
    "add ct expectation T o { protocol tcp; dport 99; timeout 1m; size 5; l3proto ip; }",
    "add synproxy T o { mss 1460; wscale 7; }",
    "add secmark T o { \"system_u:object_r:ssh_t:s0\"; }",
    "add chain T mine",
    "add chain T mine { comment \"x\"; }",
    "add chain T mine { type filter hook input priority 7; policy drop; }",
    "add chain T mine { type route hook output priority -1; }",
    "add chain T mine { type nat hook output priority dstnat; }",
    "add chain T mine { type filter hook ingress device lo priority 0; }",
    "add chain T forward",
    "add chain T forward { type filter hook forward priority 0; }",
    "add chain T forward { type filter hook forward priority 0; comment \"x\"; }",
    "add chain T forward { type filter hook ingress device lo priority 0; }",
    "add chain T prerouting { type nat hook prerouting priority dstnat; policy drop; }",
    "add flowtable T f { hook ingress priority 0; devices = { lo }; }",
    "add flowtable T fastpath { hook ingress priority 5; devices = { lo }; counter; }",
    "add rule T C accept",
    "add rule T C counter comment \"x\"",
    "insert rule T C tcp dport { 22, 80-90 } counter packets 5 bytes 9 log prefix \"x\" accept",
    "add rule T C ip saddr vmap { 192.0.2.1 : drop, 192.0.2.2 : goto mine }",
    "add rule T C jump mine",
    "add rule T C jump { tcp dport 1 drop; counter }",
    "add rule T C ip saddr @clients4 ct state new limit rate 5/second quota 5 mbytes meta mark set 7",
    "add rule T C add @s { ip saddr timeout 1m counter }",
    "add rule T C add @backends4 { ip daddr . tcp dport }",
    "add rule T C meter y { ip saddr limit rate 5/second }",
    "add rule T C counter name \"o\"",
    "add rule T C ct helper set \"o\"",
    "add rule T C ip saddr vmap @v",
    "add rule T C iifname \"eth0\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
    "add rule T C iifname \"eth1\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
    "add rule T C iifname \"eth0\" numgen random mod 2 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
    "add rule T C iifname \"eth0\" numgen inc mod 2 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
    "add rule T C iifname \"eth0\" numgen random mod 2 1 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
    "add rule T C oifname \"eth0\" ct status dnat ip daddr . tcp dport @backends4 snat ip to 10.0.0.99",
    "flush chain T C",
    "add table T { flags dormant; }",
    "flush set T backends4",
];

fn command() -> impl Strategy<Value = String> {
    let element = (select(&SETS[..]), any::<prop::sample::Index>(), select(&EXTRAS[..]), 0..4).prop_map(
        |((set, keys, data), key, extra, catch_all)| {
            let key = if catch_all == 0 { "*" } else { key.get(keys) };
            format!("add element T {set} {{ {key}{extra}{data} }}")
        },
    );
    let chain = select(&["prerouting", "postrouting", "mine"][..]);
    let other =
        (select(&OTHERS[..]), chain).prop_map(|(line, chain)| line.replace("T C", &format!("T {chain}")));
    prop_oneof![2 => element, 3 => other].prop_map(in_table)
}

fn in_table(command: String) -> String {
    command.replace(" T ", " inet cachenat ")
}

/// Whether nft and the kernel accept the command.
fn is_taken(namespace: &Namespace, command: &str) -> bool {
    let mut nft = namespace.command("nft");
    nft.arg(command).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// All that nft lists of the table but handles, counters, and the order in which things were made; nothing where it
/// crashes, as nft 1.0.6 does on some of what it has added itself.
fn witness(namespace: &Namespace) -> Vec<String> {
    let output = namespace.command("nft").args(["-j", "list", "ruleset"]).output().unwrap();
    let Ok(mut listed) = serde_json::from_slice::<Value>(&output.stdout) else { return vec![] };
    forget_handles(&mut listed);
    forget_counters(&mut listed);
    let mut objects: Vec<String> =
        listed["nftables"].as_array().unwrap().iter().map(Value::to_string).collect();
    objects.sort();
    objects
}

fn forget_counters(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Object(counter)) = object.get_mut("counter") {
                counter.retain(|name, _| !matches!(name.as_str(), "packets" | "bytes"));
            }
            object.values_mut().for_each(forget_counters);
        }
        Value::Array(array) => {
            array.iter_mut().for_each(forget_counters);
            array.sort_by_key(Value::to_string);
        }
        _ => {}
    }
}

struct Bench {
    namespace: Namespace,
    kernel: Kernel,
}

impl Bench {
    fn new(desired: &Ruleset) -> (Self, Vec<String>) {
        let namespace = Namespace::new();
        let mut bench = Self { kernel: open(&namespace), namespace };
        bench.sync(Some(desired));
        let witness = witness(&bench.namespace);
        (bench, witness)
    }

    fn sync(&mut self, desired: Option<&Ruleset>) {
        let synced = sync(&mut self.kernel, desired).unwrap();
        assert!(matches!(synced.outcome, Outcome::Verified), "{:?}", synced.outcome);
        assert_eq!(synced.dump.table, desired.map_or(Table::Absent, |ruleset| ours(ruleset.clone())));
    }
}

/// The property: a stranger is reported, the next run removes it, and it blocks neither `remove` nor a rollback.
fn whatever_is_there_goes(
    bench: &mut Bench,
    clean: &[String],
    desired: &Ruleset,
    commands: &[String],
) -> usize {
    let add = |bench: &Bench| commands.iter().filter(|command| is_taken(&bench.namespace, command)).count();
    let taken = add(bench);
    let seen = dump(&mut bench.kernel);
    let is_clean = witness(&bench.namespace) == clean;
    let difference = difference(&seen, Some(desired)).unwrap();
    assert_eq!(difference.is_empty(), is_clean, "{commands:?}\n{difference}");
    assert!(!difference.to_string().contains(|c: char| c.is_control() && c != '\n'), "{difference}");

    bench.sync(Some(desired));
    assert_eq!(witness(&bench.namespace), clean, "{commands:?}");

    let Table::Ours(Actual { ruleset: before, strangers }) = seen.table else { panic!("{:?}", seen.table) };
    if strangers.is_empty() {
        let text = DesiredState { ruleset: before.clone(), sysctls: vec![] }.to_json();
        assert_eq!(DesiredState::from_json(&text).unwrap().ruleset, before, "{commands:?}");
        bench.sync(Some(&before));
    }
    add(bench);
    bench.sync(None);
    assert_eq!(bench.namespace.nft_list("ruleset"), "", "{commands:?}");
    bench.sync(Some(desired));
    taken
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn any_foreign_object_is_removed() {
    for desired in [example(), everything(to_several())] {
        let (bench, clean) = Bench::new(&desired);
        let bench = RefCell::new(bench);
        let taken = Cell::new(0);
        let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
        let commands = prop::collection::vec(command(), 1..8);
        TestRunner::new(config)
            .run(&commands, |commands| {
                let bench = &mut *bench.borrow_mut();
                taken.set(taken.get() + whatever_is_there_goes(bench, &clean, &desired, &commands));
                Ok(())
            })
            .unwrap();
        assert!(taken.get() > 48, "nft took only {} commands", taken.get());
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_elements_of_our_sets_are_removed() {
    let desired = everything(to_several());
    let (mut bench, clean) = Bench::new(&desired);
    let mut taken = 0;
    for (set, keys, data) in SETS {
        for key in keys.iter().chain(&["*"]) {
            for extra in &EXTRAS[..5] {
                let command = in_table(format!("add element T {set} {{ {key}{extra}{data} }}"));
                taken += whatever_is_there_goes(&mut bench, &clean, &desired, &[command]);
            }
        }
    }
    assert!(taken > 80, "nft took only {taken} commands");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_objects_of_our_table_are_removed() {
    let desired = example();
    let (mut bench, clean) = Bench::new(&desired);
    // What others of them name is there before.
    let before = ["add chain T mine", "add set T s { type ipv4_addr; flags timeout; }", "add counter T o"];
    let mut taken = 0;
    for line in OTHERS {
        let needed = if line.contains("T C") { &before[..] } else { &[] };
        let commands =
            needed.iter().copied().chain([line]).map(|line| in_table(line.replace("T C", "T prerouting")));
        let commands: Vec<String> = commands.collect();
        taken += whatever_is_there_goes(&mut bench, &clean, &desired, &commands);
    }
    assert!(taken > 50, "nft took only {taken} commands");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_table_of_an_earlier_version_is_ours() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    let comment = rules::ruleset::FORMER_TABLE_COMMENT;
    namespace.nft(&format!("add table inet cachenat {{ comment \"{comment}\"; }}"));
    sync(kernel, Some(&example())).unwrap();
    assert_eq!(kernel.dump().unwrap().table, ours(example()));
    assert!(sync(kernel, Some(&example())).unwrap().changes.is_empty());
    assert!(namespace.nft_list("ruleset").contains(comment));
    sync(kernel, None).unwrap();
    assert_eq!(namespace.nft_list("ruleset"), "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_owned_table_names_its_owner() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    let mut nft = namespace.command("nft");
    let mut nft = nft.arg("--interactive").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = nft.stdin.take().unwrap();
    let comment = rules::ruleset::TABLE_COMMENT;
    writeln!(lines, "add table inet cachenat {{ comment \"{comment}\"; flags owner; }}").unwrap();
    wait_for("the table", || (dump(kernel).table != Table::Absent).then_some(()));
    for desired in [Some(example()), None] {
        let error = sync(kernel, desired.as_ref()).unwrap_err();
        assert!(matches!(&error, SyncError::Owned { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains(&format!("process {} (nft)", nft.id())), "{words}");
    }
    drop(lines);
    nft.wait().unwrap();
    sync(kernel, Some(&example())).unwrap();
    assert_eq!(kernel.dump().unwrap().table, ours(example()));
}
