//! The applier on the running kernel, in namespaces of the tests' own, with nft as the independent witness.

// Helpers of tests fail by panicking, and their indices are their own.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod rulesets;

use std::sync::atomic::{AtomicBool, Ordering};

use applier::kernel::{CommitError, Dump, DumpError, Generation, Netfilter, Reading, Table};
use applier::netlink::Kernel;
use applier::sync::{SyncError, Synced, sync};
use applier::sysctl::Sysctls;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::run;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rules::diff::TableChange;
use rules::ruleset::{Element, Family, Key, Ruleset, Set, SetKind};
use rules::{Actual, Operation, Snat, Sysctl, Transaction, diff};
use rulesets::{at, client, everything, example, nodes, redirect, to_gateway};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::Value;

/// The kernel as seen from inside `namespace`; a socket stays in the namespace in which it was opened.
fn open(namespace: &Namespace) -> Kernel {
    namespace.enter(|| Kernel::open().unwrap())
}

fn dump(kernel: &mut Kernel) -> Dump {
    kernel.dump().unwrap()
}

fn ours(ruleset: Ruleset) -> Table {
    Table::Ours(Actual { ruleset, strangers: vec![] })
}

/// All tables as nft's JSON, without handles: they tell the order in which things were made.
fn listed(namespace: &Namespace) -> Value {
    let mut listed =
        serde_json::from_str(&run(namespace.command("nft").args(["-j", "list", "ruleset"]))).unwrap();
    forget_handles(&mut listed);
    listed
}

fn forget_handles(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("handle");
            object.values_mut().for_each(forget_handles);
        }
        Value::Array(array) => array.iter_mut().for_each(forget_handles),
        _ => {}
    }
}

/// Applies `ruleset` to an empty kernel, reads it back, finds it in step, and removes it.
fn comes_out_as_it_went_in(ruleset: &Ruleset) {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    let first = sync(kernel, Some(ruleset)).unwrap();
    assert_eq!(first.changes.table, TableChange::Create);
    assert!(dump(kernel).table == ours(ruleset.clone()));
    let second = sync(kernel, Some(ruleset)).unwrap();
    assert!(second.changes.is_empty());
    assert_eq!(second.dump.generation, first.dump.generation, "something was sent");
    sync(kernel, None).unwrap();
    assert_eq!(dump(kernel).table, Table::Absent);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn one_forward_comes_out_as_it_went_in() {
    comes_out_as_it_went_in(&nodes(1));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn numbers_at_which_acknowledgements_overflow_a_buffer_come_out_as_they_went_in() {
    comes_out_as_it_went_in(&nodes(250));
    comes_out_as_it_went_in(&nodes(400));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_batch_of_several_pages_comes_out_as_it_went_in() {
    comes_out_as_it_went_in(&nodes(2_000));
}

#[test]
#[ignore = "needs a network namespace, and root for the size of its socket buffer: scripts/test"]
fn sixty_thousand_forwards_come_out_as_they_went_in() {
    comes_out_as_it_went_in(&nodes(60_000));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn everything_that_a_ruleset_can_hold_comes_out_as_it_went_in() {
    for snat in [to_gateway(), Snat::Masquerade, Snat::Off] {
        comes_out_as_it_went_in(&everything(snat));
    }
    comes_out_as_it_went_in(&Ruleset::default());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn apply_and_nft_make_the_same_table() {
    for ruleset in [example(), everything(to_gateway()), everything(Snat::Masquerade), everything(Snat::Off)]
    {
        let (applied, loaded) = (Namespace::new(), Namespace::new());
        sync(&mut open(&applied), Some(&ruleset)).unwrap();
        loaded.nft(&ruleset.script());
        assert_eq!(listed(&applied), listed(&loaded));
        assert_eq!(applied.nft_list("ruleset"), loaded.nft_list("ruleset"));

        let kernel = &mut open(&loaded);
        let before = dump(kernel);
        assert_eq!(before.table, ours(ruleset.clone()));
        let synced = sync(kernel, Some(&ruleset)).unwrap();
        assert_eq!((synced.changes.is_empty(), synced.dump.generation), (true, before.generation));
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn what_apply_made_changes_into_anything_else_piece_by_piece_also_if_nft_made_it() {
    let all = [
        example(),
        everything(to_gateway()),
        Ruleset::default(),
        everything(Snat::Masquerade),
        nodes(3),
        everything(Snat::Off),
    ];
    for from in &all {
        for to in &all {
            let namespace = Namespace::new();
            namespace.nft(&from.script());
            let kernel = &mut open(&namespace);
            let synced = sync(kernel, Some(to)).unwrap();
            assert_eq!(synced.changes.table, TableChange::Keep);
            assert_eq!(synced.dump.table, ours(to.clone()));
        }
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn client_ranges_change_into_any_others_also_where_they_touch_or_overlap() {
    let all: [&[&str]; 9] = [
        &[],
        &["0.0.0.0/0"],
        &["198.51.100.27"],
        &["198.51.100.0/24"],
        &["198.51.100.0/25", "198.51.100.128/25"],
        &["198.51.100.0-198.51.100.26", "198.51.100.27", "198.51.100.28-198.51.100.255"],
        &["0.0.0.0", "255.255.255.255"],
        &["0.0.0.0-198.51.100.27", "198.51.100.28-255.255.255.255"],
        &["198.51.100.27-255.255.255.255"],
    ];
    let with = |ranges: &[&str]| {
        let mut ruleset = example();
        ruleset.sets.get_mut(&Set::new(SetKind::Clients, Family::Ipv4)).unwrap().clear();
        ranges.iter().for_each(|range| client(&mut ruleset, range, None));
        ruleset
    };
    for from in all {
        for to in all {
            let namespace = Namespace::new();
            let kernel = &mut open(&namespace);
            sync(kernel, Some(&with(from))).unwrap();
            let synced =
                sync(kernel, Some(&with(to))).unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}"));
            assert_eq!(synced.dump.table, ours(with(to)), "{from:?} to {to:?}");
            let fresh = Namespace::new();
            fresh.nft(&with(to).script());
            assert_eq!(listed(&namespace), listed(&fresh), "{from:?} to {to:?}");
        }
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_replaced_node_sends_its_element_only_and_all_else_keeps_handles_and_counters() {
    let namespace = Namespace::new();
    let counted =
        nodes(1_000).script().replace(" comment \"node-", " counter packets 7 bytes 420 comment \"node-");
    namespace.nft(&counted);
    let kernel = &mut open(&namespace);
    let objects = |namespace: &Namespace| {
        let listed: Value =
            serde_json::from_str(&run(namespace.command("nft").args(["-j", "list", "ruleset"]))).unwrap();
        let objects =
            listed["nftables"].as_array().unwrap().iter().flat_map(|object| object.as_object().unwrap());
        objects.map(|(kind, object)| (kind.clone(), object["handle"].clone())).collect::<Vec<_>>()
    };
    let handles = objects(&namespace);

    let mut desired = nodes(1_000);
    redirect(&mut desired, "10.0.0.55:1524", "10.0.1.240:6379");
    let synced = sync(kernel, Some(&desired)).unwrap();
    assert_eq!(synced.changes.transaction().operations.len(), 4, "{}", synced.changes);

    assert_eq!(objects(&namespace), handles);
    let moved = (Set::new(SetKind::Forward, Family::Ipv4), Key::Endpoint(at("10.0.0.55:1524")));
    for (place, counter) in &synced.dump.counters {
        let expected = if *place == moved { (0, 0) } else { (7, 420) };
        assert_eq!((counter.packets, counter.bytes), expected, "{}", place.1);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_tables_stay_byte_for_byte() {
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
fn somebody_elses_table_of_our_name_is_refused_and_stays() {
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

/// Edits that somebody may make to our table by hand, and what they are called then.
const EDITS: [(&str, &str); 19] = [
    ("add rule inet cachenat prerouting tcp dport 22 accept", "rule handle 8 in chain prerouting"),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4 comment \"x\"",
        "rule handle 8 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 counter dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 8 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iif \"lo\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 8 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth*\" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 8 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr != @clients4 dnat ip to ip daddr . tcp dport map @forward4",
        "rule handle 8 in chain prerouting",
    ),
    (
        "add rule inet cachenat prerouting iifname \"eth0\" ip saddr @clients4 dnat ip to ip daddr . udp dport map @forward4",
        "rule handle 8 in chain prerouting",
    ),
    (
        "add rule inet cachenat postrouting oifname \"eth0\" ct status dnat ip daddr . tcp dport @backends4 snat ip to 10.0.0.55 random",
        "rule handle 8 in chain postrouting",
    ),
    (
        "add rule inet cachenat postrouting oifname \"eth0\" ct status dnat ip daddr . tcp dport @backends4 masquerade fully-random",
        "rule handle 8 in chain postrouting",
    ),
    (
        "add rule inet cachenat postrouting ip daddr { 192.0.2.1, 192.0.2.9 } accept",
        "rule handle 9 in chain postrouting",
    ),
    (
        "add chain inet cachenat forward { type filter hook forward priority 0; policy drop; }",
        "chain forward with another type, hook, priority or policy",
    ),
    ("add chain inet cachenat mine { type filter hook forward priority 0; }", "chain mine"),
    (
        "add chain inet cachenat prerouting { type nat hook prerouting priority dstnat; policy drop; }",
        "chain prerouting with another type, hook, priority or policy",
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
fn what_somebody_put_into_our_table_is_named_and_goes_with_the_table_in_one_step() {
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
fn what_somebody_did_in_our_own_words_is_changed_back_piece_by_piece() {
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

/// A kernel before whose first commits somebody else commits.
struct Contended<'a> {
    kernel: Kernel,
    namespace: &'a Namespace,
    left: usize,
}

impl Netfilter for Contended<'_> {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        self.kernel.dump()
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Reading, DumpError> {
        self.kernel.elements(keys)
    }

    fn commit(&mut self, transaction: &Transaction, generation: Generation) -> Result<(), CommitError> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            self.namespace.nft(&format!("add table inet other{left}\n"));
        }
        self.kernel.commit(transaction, generation)
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_commit_that_meets_another_writer_is_tried_again_and_neither_is_lost() {
    let namespace = Namespace::new();
    let mut kernel = Contended { kernel: open(&namespace), namespace: &namespace, left: 3 };
    let Synced { dump, .. } = sync(&mut kernel, Some(&example())).unwrap();
    assert_eq!(dump.table, ours(example()));
    assert!(namespace.nft_list("tables").contains("other0"));

    let mut kernel = Contended { kernel: open(&namespace), namespace: &namespace, left: usize::MAX };
    let error = sync(&mut kernel, None).unwrap_err();
    assert!(matches!(error, SyncError::Contended { last: Some(CommitError::Stale), .. }), "{error}");
    assert_eq!(kernel.dump().unwrap().table, ours(example()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_reader_beside_a_writer_sees_all_of_a_state_or_none_of_it() {
    let namespace = Namespace::new();
    let (one, other) = (&nodes(50), &everything(to_gateway()));
    let mut writer = open(&namespace);
    sync(&mut writer, Some(one)).unwrap();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                sync(&mut writer, Some(other)).unwrap();
                sync(&mut writer, Some(one)).unwrap();
            }
        });
        let mut reader = open(&namespace);
        let (mut ones, mut others, mut torn) = (0, 0, 0);
        while !writing.is_finished() && (ones < 20 || others < 20) {
            match reader.dump() {
                Ok(dump) if dump.table == ours(one.clone()) => ones += 1,
                Ok(dump) if dump.table == ours(other.clone()) => others += 1,
                // The kernel counts a generation up a moment before it shows what is new (`nf_tables_commit`): a dump that
                // falls in between has something of both. That takes a writer that is interrupted at that very
                // moment, so it is rare; were generations not heeded, most dumps here would be torn.
                Ok(_) if torn < 2 => torn += 1,
                Ok(dump) => {
                    enough.store(true, Ordering::Relaxed);
                    panic!("neither the one nor the other: {dump:?}");
                }
                // With a writer that never rests a dump may give up, and says so.
                Err(DumpError::Restless { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        enough.store(true, Ordering::Relaxed);
        writing.join().unwrap();
    });
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_element_that_is_refused_is_named_among_thousands_in_one_message_and_nothing_is_applied() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    sync(kernel, Some(&example())).unwrap();
    let before = dump(kernel);
    let mut operations = diff(Some(&Actual { ruleset: example(), strangers: vec![] }), Some(&nodes(3_000)));
    operations.sets.values_mut().for_each(|change| change.removed.clear());
    let mut operations = operations.transaction().operations;
    let forward4 = Set::new(SetKind::Forward, Family::Ipv4);
    let taken = Key::Endpoint(at("10.0.0.55:6380"));
    operations.retain(|operation| {
        matches!(operation, Operation::AddElement(set, key, _) if *set == forward4 && (*key == taken || *key < Key::Endpoint(at("10.0.0.55:4000"))))
    });
    let element = Element { data: Some(at("10.0.1.99:6379")), comment: None };
    for index in [0, 1, 700, operations.len()] {
        let mut operations = operations.clone();
        operations.insert(index, Operation::AddElement(forward4, taken, element.clone()));
        let transaction = Transaction { operations };
        let error = kernel.commit(&transaction, before.generation).unwrap_err();
        let CommitError::Refused { index: found, operation, source, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, source.raw_os_error()), (index, Some(nix::libc::EEXIST)));
        assert_eq!(
            operation.to_string(),
            "add element inet cachenat forward4 { 10.0.0.55 . 6380 : 10.0.1.99 . 6379 }"
        );
        assert_eq!(dump(kernel), before);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn more_refusals_than_the_receive_buffer_holds_leave_the_outcome_unknown_and_the_table_as_it_was() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    sync(kernel, Some(&example())).unwrap();
    let before = dump(kernel);
    let bad = [
        Operation::FlushChain(rules::ruleset::Chain::Prerouting),
        Operation::DeleteSet(Set::new(SetKind::Spread, Family::Ipv6)),
    ];
    let operations = std::iter::repeat_n(bad, 30_000).flatten().collect();
    let error = kernel.commit(&Transaction { operations }, before.generation).unwrap_err();
    assert!(
        matches!(error, CommitError::OutcomeUnknown(_) | CommitError::Refused { index: 1, .. }),
        "{error}"
    );
    assert_eq!(dump(kernel), before);
    sync(kernel, Some(&nodes(5))).unwrap();
}

/// Capabilities belong to the thread (capabilities(7)), so call it on one that ends.
fn drop_net_admin() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn without_cap_net_admin_reading_and_writing_say_which_privilege_is_lacking() {
    let namespace = Namespace::new();
    namespace.enter(|| {
        drop_net_admin();
        let mut kernel = Kernel::open().unwrap();
        let error = kernel.dump().unwrap_err();
        assert!(matches!(error, DumpError::Denied(_)), "{error}");
        let operations = vec![Operation::AddTable];
        let error = kernel.commit(&Transaction { operations }, Generation(1)).unwrap_err();
        assert!(matches!(error, CommitError::Denied(_)), "{error}");
        assert_eq!(error.to_string(), "changing the ruleset needs CAP_NET_ADMIN");
    });
    assert_eq!(namespace.nft_list("ruleset"), "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_batch_that_is_larger_than_an_unprivileged_socket_may_send_says_so_and_is_not_sent_in_parts() {
    let namespace = Namespace::new();
    let sendable: usize =
        std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse().unwrap();
    let operation = Operation::DeleteSet(Set::new(SetKind::Spread, Family::Ipv6));
    // The kernel doubles the limit, and a message has some 50 bytes.
    let operations = vec![operation; sendable * 2 / 40];
    namespace.enter(|| {
        drop_net_admin();
        let error = Kernel::open().unwrap().commit(&Transaction { operations }, Generation(1)).unwrap_err();
        assert!(matches!(error, CommitError::TooLarge { bytes } if bytes > sendable * 2), "{error}");
    });
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn forwarding_is_switched_on_in_the_running_kernel_and_put_back() {
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().unwrap();
    let sysctls = Sysctls::new(directory.path());
    let wanted = [Sysctl::Ipv4Forward, Sysctl::Ipv6Forward];
    let live = || ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].map(|path| namespace.sysctl(path));
    let before = live();
    namespace.enter(|| {
        assert_eq!(sysctls.apply(&wanted).unwrap().changes.len(), 4);
        assert_eq!(sysctls.apply(&wanted).unwrap().changes, []);
    });
    assert_eq!(live(), ["1", "1"]);
    namespace.enter(|| sysctls.remove().unwrap());
    assert_eq!(live(), before);
}

#[test]
#[ignore = "needs a network and a mount namespace: scripts/test"]
fn a_read_only_proc_is_no_fault_while_it_is_right_and_else_the_file_and_the_remedy_are_named() {
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().unwrap();
    let sysctls = Sysctls::new(directory.path());
    namespace.set_sysctl("net/ipv4/ip_forward", "1");
    namespace.enter(|| {
        // As in a container; it is this thread's mount namespace alone.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("/proc/sys"), "/proc/sys", none, MsFlags::MS_BIND, none).unwrap();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, "/proc/sys", none, read_only, none).unwrap();

        assert_eq!(sysctls.apply(&[Sysctl::Ipv4Forward]).unwrap().changes.len(), 1, "only the drop-in");
        let drop_in = directory.path().join("90-cachenat.conf");
        let written = std::fs::read(&drop_in).unwrap();
        let error = sysctls.apply(&[Sysctl::Ipv4Forward, Sysctl::Ipv6Forward]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "write 1 to /proc/sys/net/ipv6/conf/all/forwarding; run as root, or set it on the host with \
             `sysctl -w net.ipv6.conf.all.forwarding=1`"
        );
        assert_eq!(std::fs::read(&drop_in).unwrap(), written, "the drop-in was put back");
    });
}

/// Run by `scripts/test-kernel-6.1`, and by `scripts/test` where the running kernel has flowtables.
mod on_a_kernel_with_flowtables {
    use rules::Flowtable;

    use super::*;

    fn with_flowtable(mut ruleset: Ruleset, device: &str) -> Ruleset {
        ruleset.offload(&device.parse().unwrap());
        ruleset
    }

    fn with_devices() -> Namespace {
        let namespace = Namespace::new();
        for device in ["eth0", "eth1"] {
            namespace.ip(&format!("link add {device} type dummy"));
        }
        namespace
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
    fn apply_and_nft_make_the_same_flowtable() {
        for ruleset in [example(), everything(to_gateway())] {
            let ruleset = with_flowtable(ruleset, "eth0");
            let (applied, loaded) = (with_devices(), with_devices());
            sync(&mut open(&applied), Some(&ruleset)).unwrap();
            loaded.nft(&ruleset.script());
            assert_eq!(listed(&applied), listed(&loaded));
            assert_eq!(applied.nft_list("ruleset"), loaded.nft_list("ruleset"));
            assert_eq!(dump(&mut open(&loaded)).table, ours(ruleset));
        }
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
    fn a_flowtable_comes_gets_another_device_is_rebuilt_with_the_table_and_goes() {
        let namespace = with_devices();
        let kernel = &mut open(&namespace);
        let rulesets =
            [example(), with_flowtable(example(), "eth0"), with_flowtable(example(), "eth1"), example()];
        for ruleset in &rulesets {
            sync(kernel, Some(ruleset)).unwrap();
            assert_eq!(dump(kernel).table, ours(ruleset.clone()));
        }
        // Somebody has given it another device, under the very rules that we want.
        let [_, fast, ..] = rulesets;
        let edited =
            Ruleset { flowtable: Some(Flowtable { interface: "eth1".parse().unwrap() }), ..fast.clone() };
        namespace.nft(&edited.script());
        assert_eq!(sync(kernel, Some(&fast)).unwrap().changes.table, TableChange::Keep);

        namespace.nft("add flowtable inet cachenat fastpath { devices = { eth1 }; }\n");
        let synced = sync(kernel, Some(&fast)).unwrap();
        let TableChange::Replace { strangers, .. } = synced.changes.table else {
            panic!("a device went unseen")
        };
        assert_eq!(strangers, ["flowtable fastpath"]);
        assert_eq!(dump(kernel).table, ours(fast));
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
    fn a_flowtable_whose_device_has_gone_is_refused_until_it_is_back() {
        let namespace = with_devices();
        let kernel = &mut open(&namespace);
        let fast = with_flowtable(example(), "eth0");
        sync(kernel, Some(&fast)).unwrap();
        namespace.ip("link delete eth0");
        let SyncError::Commit(CommitError::Refused { operation, source, .. }) =
            sync(kernel, Some(&fast)).unwrap_err()
        else {
            panic!("the kernel took a device that is not there")
        };
        assert!(matches!(*operation, Operation::AddFlowtable(_)), "{operation}");
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        namespace.ip("link add eth0 type dummy");
        sync(kernel, Some(&fast)).unwrap();
    }
}
