//! The guarantees of a kernel, tested on the fake and on the running kernel, so that tests on the fake are valid.

// Test helpers report failures by panicking, and control their own indices.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod rulesets;

use applier::fake::Fake;
use applier::kernel::{CommitError, Dump, Found, Netfilter, Table};
use applier::netlink::Kernel;
use applier::sync::sync;
use cachenat_tests::lab::namespace::Namespace;
use nix::errno::Errno;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rules::ruleset::{AddrPort, Chain, Element, Key, ListIndex, Rule, Ruleset, Set, SetKind, SpreadIndex};
use rules::{AccessList, Actual, Family, Forward, Operation, Snat, Transaction, Tunnel, diff, render};
use rulesets::{at, everything, example, gateway, nodes, redirect, to_gateway, to_several};

/// Runs each test on the fake, and on the kernel in a separate namespace.
macro_rules! contract {
    ($($claim:ident)*) => {
        mod on_the_fake {
            $(#[test]
            fn $claim() {
                super::$claim(&mut applier::fake::Fake::default());
            })*
        }

        mod on_the_kernel {
            $(#[test]
            #[ignore = "needs a network namespace: scripts/test"]
            fn $claim() {
                super::$claim(&mut super::running_kernel());
            })*
        }
    };
}

contract! {
    what_is_committed_is_dumped
    each_commit_is_the_next_generation_and_a_refused_one_is_none
    a_commit_at_another_generation_is_stale_and_changes_nothing
    a_transaction_that_fails_at_any_operation_names_it_and_changes_nothing
    operations_are_refused_for_the_same_reasons
    an_element_that_stands_already_is_no_fault
    a_table_can_be_replaced_in_one_transaction
    a_set_is_gone_with_the_rule_that_held_it
    any_ruleset_changes_into_any_other
    elements_are_read_by_key_as_a_dump_shows_them
}

fn running_kernel() -> Kernel {
    // The socket keeps the namespace alive.
    Namespace::new().enter(|| Kernel::open().unwrap())
}

fn ours(ruleset: Ruleset) -> Table {
    Table::Ours(Actual { ruleset, strangers: vec![] })
}

fn dump(kernel: &mut impl Netfilter) -> Dump {
    kernel.dump().unwrap()
}

fn commit(kernel: &mut impl Netfilter, operations: Vec<Operation>) -> Result<(), CommitError> {
    let generation = dump(kernel).generation;
    let made = kernel.commit(&Transaction { operations }, generation)?;
    assert_eq!(made, generation.next());
    Ok(())
}

fn building(ruleset: &Ruleset) -> Vec<Operation> {
    diff(None, Some(ruleset)).transaction().operations
}

const FORWARD4: Set = Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4);
const CLIENTS4: Set = Set::new(SetKind::Clients(ListIndex::FIRST), Family::Ipv4);
const BACKENDS6: Set = Set::new(SetKind::Backends, Family::Ipv6);

fn listener(text: &str) -> Key {
    Key::AddrPort(at(text))
}

fn to(target: &str) -> Element {
    Element { data: Some(at(target)), comment: None }
}

fn what_is_committed_is_dumped(kernel: &mut impl Netfilter) {
    assert_eq!(dump(kernel).table, Table::Absent);
    for ruleset in [example(), everything(to_gateway()), everything(Snat::Masquerade), Ruleset::default()] {
        commit(kernel, building(&ruleset)).unwrap();
        let found = dump(kernel);
        assert_eq!(found.table, ours(ruleset.clone()));
        let maps = ruleset.sets.iter().filter(|(set, _)| set.is_map());
        let places: Vec<_> =
            maps.flat_map(|(&set, elements)| elements.keys().map(move |&key| (set, key))).collect();
        assert_eq!(found.counters.keys().copied().collect::<Vec<_>>(), places);
        commit(kernel, vec![Operation::DeleteTable]).unwrap();
    }
    assert_eq!(dump(kernel).table, Table::Absent);
}

fn each_commit_is_the_next_generation_and_a_refused_one_is_none(kernel: &mut impl Netfilter) {
    let first = dump(kernel).generation;
    commit(kernel, building(&example())).unwrap();
    assert_eq!(dump(kernel).generation, first.next());
    commit(kernel, vec![Operation::DeleteSet(BACKENDS6)]).unwrap_err();
    assert_eq!(dump(kernel).generation, first.next());
}

fn a_commit_at_another_generation_is_stale_and_changes_nothing(kernel: &mut impl Netfilter) {
    let old = dump(kernel).generation;
    commit(kernel, building(&example())).unwrap();
    let before = dump(kernel);
    let transaction = Transaction { operations: vec![Operation::DeleteTable] };
    for generation in [old, before.generation.next()] {
        assert!(matches!(kernel.commit(&transaction, generation), Err(CommitError::Stale)));
    }
    assert_eq!(dump(kernel), before);
}

fn a_transaction_that_fails_at_any_operation_names_it_and_changes_nothing(kernel: &mut impl Netfilter) {
    commit(kernel, building(&nodes(2))).unwrap();
    let before = dump(kernel);
    let Table::Ours(actual) = &before.table else { panic!("the table was just made") };
    let operations = diff(Some(actual), Some(&everything(Snat::Masquerade))).transaction().operations;
    let bad = Operation::DeleteElement(FORWARD4, listener("192.0.2.1:9"));
    for index in 0..=operations.len() {
        let mut operations = operations.clone();
        operations.insert(index, bad.clone());
        let total = operations.len();
        match commit(kernel, operations).unwrap_err() {
            CommitError::Refused { index: found, total: of, operation, source } => {
                assert_eq!((found, of, *operation), (index, total, bad.clone()));
                assert_eq!(source.raw_os_error(), Some(Errno::ENOENT as i32));
            }
            error => panic!("{error}"),
        }
        assert_eq!(dump(kernel), before);
    }
}

fn operations_are_refused_for_the_same_reasons(kernel: &mut impl Netfilter) {
    commit(kernel, building(&everything(to_gateway()))).unwrap();
    let range = |text: &str| Key::Addresses(text.parse().unwrap());
    let third = Set::new(SetKind::Spread(ListIndex::FIRST, SpreadIndex::new(3).unwrap()), Family::Ipv4);
    let unused = Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4);
    let cases = [
        (Operation::AddElement(FORWARD4, listener("10.0.0.55:6379"), to("10.0.1.99:6379")), Errno::EEXIST),
        (Operation::AddElement(CLIENTS4, range("198.51.100.0/24"), Element::default()), Errno::EEXIST),
        (Operation::AddElement(third, listener("10.0.0.55:6390"), to("10.0.1.231:6379")), Errno::EEXIST),
        (Operation::DeleteElement(FORWARD4, listener("10.0.0.55:6391")), Errno::ENOENT),
        (Operation::DeleteElement(CLIENTS4, range("203.0.113.7")), Errno::ENOENT),
        (Operation::DeleteElement(third, listener("10.0.0.55:6391")), Errno::ENOENT),
        (Operation::DeleteSet(third), Errno::EBUSY),
        (Operation::DeleteSet(unused), Errno::EBUSY),
        (Operation::DeleteChain(Chain::Prerouting), Errno::EBUSY),
    ];
    for (operation, errno) in cases {
        match commit(kernel, vec![operation.clone()]) {
            Err(CommitError::Refused { index: 0, total: 1, source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(errno as i32), "{operation}");
            }
            other => panic!("{operation}: {other:?}"),
        }
    }
    commit(kernel, vec![Operation::DeleteTable]).unwrap();
    let interface = || "eth0".parse().unwrap();
    let without_a_table = [
        Operation::DeleteTable,
        Operation::AddSet(FORWARD4),
        Operation::DeleteSet(FORWARD4),
        Operation::AddElement(FORWARD4, listener("10.0.0.55:1"), to("10.0.1.230:1")),
        Operation::DeleteElement(FORWARD4, listener("10.0.0.55:1")),
        Operation::AddChain(Chain::Prerouting),
        Operation::FlushChain(Chain::Prerouting),
        Operation::DeleteChain(Chain::Prerouting),
        Operation::AddRule(
            Chain::Prerouting,
            Rule::Forward { interface: interface(), family: Family::Ipv4, list: ListIndex::FIRST },
        ),
    ];
    for operation in without_a_table {
        match commit(kernel, vec![operation.clone()]).unwrap_err() {
            CommitError::Refused { source, .. } => {
                assert_eq!(source.raw_os_error(), Some(Errno::ENOENT as i32), "{operation}");
            }
            error => panic!("{operation}: {error}"),
        }
    }
    assert_eq!(dump(kernel).table, Table::Absent);
}

fn an_element_that_stands_already_is_no_fault(kernel: &mut impl Netfilter) {
    let ruleset = everything(to_gateway());
    commit(kernel, building(&ruleset)).unwrap();
    let again = building(&ruleset).into_iter();
    let again =
        again.filter(|operation| matches!(operation, Operation::AddElement(..) | Operation::AddTable));
    commit(kernel, again.collect()).unwrap();
    assert_eq!(dump(kernel).table, ours(ruleset));
}

fn a_table_can_be_replaced_in_one_transaction(kernel: &mut impl Netfilter) {
    commit(kernel, building(&nodes(20))).unwrap();
    let mut operations = vec![Operation::DeleteTable];
    operations.extend(building(&everything(to_gateway())));
    commit(kernel, operations).unwrap();
    assert_eq!(dump(kernel).table, ours(everything(to_gateway())));
}

fn a_set_is_gone_with_the_rule_that_held_it(kernel: &mut impl Netfilter) {
    commit(kernel, building(&example())).unwrap();
    let operations = vec![Operation::FlushChain(Chain::Prerouting), Operation::DeleteSet(FORWARD4)];
    commit(kernel, operations).unwrap();
    let Table::Ours(Actual { ruleset, .. }) = dump(kernel).table else { panic!("the table is still there") };
    assert!(!ruleset.sets.contains_key(&FORWARD4) && ruleset.sets.contains_key(&CLIENTS4));
    assert_eq!(ruleset.chains[&Chain::Prerouting], []);
}

fn any_ruleset_changes_into_any_other(kernel: &mut impl Netfilter) {
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let kernel = std::cell::RefCell::new(kernel);
    let checked = runner.run(&arbitrary_ruleset(), |desired| {
        let kernel = &mut **kernel.borrow_mut();
        let synced = sync(&mut Borrowed(kernel), Some(&desired))
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&synced.dump.table, &ours(desired.clone()));
        prop_assert!(sync(&mut Borrowed(kernel), Some(&desired)).unwrap().changes.is_empty());
        Ok(())
    });
    checked.unwrap();
}

fn elements_are_read_by_key_as_a_dump_shows_them(kernel: &mut impl Netfilter) {
    commit(kernel, building(&everything(to_gateway()))).unwrap();
    let dumped = dump(kernel);
    let Table::Ours(Actual { ruleset, .. }) = &dumped.table else { panic!("{:?}", dumped.table) };
    let plain = ruleset.sets.iter().filter(|(set, _)| !set.is_interval());
    let mut keys: Vec<(Set, Key)> =
        plain.flat_map(|(&set, elements)| elements.keys().map(move |&key| (set, key))).collect();
    let missing = (FORWARD4, Key::AddrPort(at("192.0.2.1:1")));
    keys.push(missing);

    let elements = kernel.elements(&keys).unwrap();
    assert_eq!(elements.len(), keys.len());
    for (set, key, found) in elements {
        let element = found.map(|(element, _)| element);
        assert_eq!(element.as_ref(), ruleset.sets[&set].get(&key), "{set} {key}");
        assert_eq!(element.is_none(), (set, key) == missing);
    }
}

/// A borrowed kernel.
struct Borrowed<'a, K>(&'a mut K);

impl<K: Netfilter> Netfilter for Borrowed<'_, K> {
    fn dump(&mut self) -> Result<Dump, applier::kernel::DumpError> {
        self.0.dump()
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, applier::kernel::DumpError> {
        self.0.elements(keys)
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: applier::kernel::Generation,
    ) -> Result<applier::kernel::Generation, CommitError> {
        self.0.commit(transaction, generation)
    }
}

/// Few addresses and ports, so that successive rulesets have much in common.
fn arbitrary_ruleset() -> impl Strategy<Value = Ruleset> {
    let endpoint = |network: &'static str| {
        (0..4u16, 1..6u16).prop_map(move |(host, port)| -> AddrPort {
            format!("{network}{host:x}]:{port}").parse().unwrap()
        })
    };
    let endpoint4 = |network: &'static str| {
        (0..4u16, 1..6u16)
            .prop_map(move |(host, port)| -> AddrPort { format!("{network}{host}:{port}").parse().unwrap() })
    };
    let forward = |listen: BoxedStrategy<AddrPort>, target: BoxedStrategy<AddrPort>| {
        let targets = prop::collection::btree_set(target, 1..4);
        ("[a-z]{1,3}", listen, targets).prop_map(|(id, listen, targets)| Forward {
            id: id.parse().unwrap(),
            listen,
            targets: targets.into_iter().collect(),
        })
    };
    let any_forward = prop_oneof![
        forward(endpoint4("10.0.0.").boxed(), endpoint4("10.0.1.").boxed()),
        forward(endpoint("[2001:db8::").boxed(), endpoint("[2001:db8:1::").boxed()),
    ];
    let forwards = prop::collection::vec(any_forward, 0..12);
    let clients = prop::collection::vec((0..16u8, 28..=32u8), 0..4);
    let snat = prop_oneof![Just(to_gateway()), Just(to_several()), Just(Snat::Masquerade), Just(Snat::Off)];
    let shape = (any::<bool>(), 0..3usize, any::<bool>(), prop::option::of(any::<bool>()));
    (forwards, clients, snat, shape).prop_map(
        |(mut forwards, clients, snat, (both, split, clamps, confine))| {
            forwards.sort_by_key(|forward| forward.listen);
            forwards.dedup_by_key(|forward| forward.listen);
            let clients: Vec<_> = clients
                .iter()
                .map(|(host, length)| format!("198.51.100.{host}/{length}").parse().unwrap())
                .collect();
            let families = if both { &[Family::Ipv4, Family::Ipv6][..] } else { &[Family::Ipv4] };
            let mut gateway = gateway(families, snat);
            gateway.max_segment = clamps.then_some(1360);
            let tunnel = |confine| Tunnel { interface: "wg0".parse().unwrap(), confine };
            gateway.tunnels = confine.map(tunnel).into_iter().collect();
            let (first, second) = forwards.split_at(split.min(forwards.len()));
            let mut lists = vec![AccessList::new(&clients, second)];
            if split > 0 {
                lists.push(AccessList::new(&["192.0.2.0/24".parse().unwrap()], first));
            }
            render(&lists, &gateway)
        },
    )
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn fake_and_kernel_agree_after_the_same_history() {
    let (mut fake, mut kernel) = (Fake::default(), running_kernel());
    let mut moved = nodes(5);
    redirect(&mut moved, "10.0.0.55:1025", "10.0.9.9:6379");
    for ruleset in [nodes(5), moved, everything(Snat::Off), nodes(1)] {
        let (on_fake, on_kernel) =
            (sync(&mut fake, Some(&ruleset)).unwrap(), sync(&mut kernel, Some(&ruleset)).unwrap());
        assert_eq!(on_fake.changes, on_kernel.changes);
        assert_eq!(
            (on_fake.dump.table, on_fake.dump.counters),
            (on_kernel.dump.table, on_kernel.dump.counters)
        );
    }
}
