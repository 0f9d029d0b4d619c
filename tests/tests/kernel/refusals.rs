//! The kernel's refusals and their error messages.

use applier::kernel::{CommitError, DumpError, Generation, Netfilter as _};
use applier::netlink::Kernel;
use applier::sync::sync;
use cachenat_tests::lab::namespace::Namespace;
use rules::ruleset::{Element, Family, Key, ListIndex, Set, SetKind};
use rules::{Actual, Operation, Transaction, diff};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::rulesets::{at, example, nodes};
use crate::{dump, open};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn one_refused_element_among_thousands_is_named() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    sync(kernel, Some(&example())).unwrap();
    let before = dump(kernel);
    let mut operations = diff(Some(&Actual { ruleset: example(), strangers: vec![] }), Some(&nodes(3_000)));
    operations.sets.values_mut().for_each(|change| change.removed.clear());
    let mut operations = operations.transaction().operations;
    let forward4 = Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4);
    let taken = Key::AddrPort(at("10.0.0.55:6380"));
    operations.retain(|operation| {
        matches!(operation, Operation::AddElement(set, key, _) if *set == forward4 && (*key == taken || *key < Key::AddrPort(at("10.0.0.55:4000"))))
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
fn too_many_refusals_leave_the_outcome_unknown() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    sync(kernel, Some(&example())).unwrap();
    let before = dump(kernel);
    let bad = [
        Operation::FlushChain(rules::ruleset::Chain::Prerouting),
        Operation::DeleteSet(Set::new(SetKind::Backends, Family::Ipv6)),
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
fn missing_cap_net_admin_is_named() {
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
fn an_oversized_unprivileged_batch_is_refused() {
    let namespace = Namespace::new();
    let sendable: usize =
        std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse().unwrap();
    let operation = Operation::DeleteSet(Set::new(SetKind::Backends, Family::Ipv6));
    // The kernel doubles the limit, and a message has some 50 bytes.
    let operations = vec![operation; sendable * 2 / 40];
    namespace.enter(|| {
        drop_net_admin();
        let error = Kernel::open().unwrap().commit(&Transaction { operations }, Generation(1)).unwrap_err();
        assert!(matches!(error, CommitError::TooLarge { bytes } if bytes > sendable * 2), "{error}");
    });
}
