//! Run by `scripts/test-kernel-6.1`, and by `scripts/test` where the running kernel has flowtables.

use applier::kernel::CommitError;
use applier::sync::{SyncError, sync};
use cachenat_tests::lab::namespace::Namespace;
use rules::diff::TableChange;
use rules::ruleset::Ruleset;
use rules::{Flowtable, Operation};

use crate::rulesets::{everything, example, to_gateway};
use crate::{dump, listed, open, ours};

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
fn a_flowtable_can_change_its_device() {
    let namespace = with_devices();
    let kernel = &mut open(&namespace);
    let rulesets =
        [example(), with_flowtable(example(), "eth0"), with_flowtable(example(), "eth1"), example()];
    for ruleset in &rulesets {
        sync(kernel, Some(ruleset)).unwrap();
        assert_eq!(dump(kernel).table, ours(ruleset.clone()));
    }
    // Another program has changed the device, but not the rules.
    let [_, fast, ..] = rulesets;
    let edited =
        Ruleset { flowtable: Some(Flowtable { interface: "eth1".parse().unwrap() }), ..fast.clone() };
    namespace.nft(&edited.script());
    assert_eq!(sync(kernel, Some(&fast)).unwrap().changes.table, TableChange::Keep);

    namespace.nft("add flowtable inet cachenat fastpath { devices = { eth1 }; }\n");
    let synced = sync(kernel, Some(&fast)).unwrap();
    let TableChange::Replace { strangers, .. } = synced.changes.table else { panic!("a device went unseen") };
    assert_eq!(strangers, ["flowtable fastpath"]);
    assert_eq!(dump(kernel).table, ours(fast));
}

#[test]
#[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
fn a_flowtable_needs_its_device() {
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
