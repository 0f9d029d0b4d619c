//! Applied rulesets read back unchanged, and change into any other in minimal steps.

use applier::kernel::Table;
use applier::sync::sync;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::run;
use rules::Snat;
use rules::diff::TableChange;
use rules::ruleset::{Family, Key, ListIndex, Ruleset, Set, SetKind};
use serde_json::Value;

use crate::rulesets::{at, client, everything, example, nodes, redirect, to_gateway, to_several};
use crate::{dump, listed, open, ours};

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
fn one_forward_round_trips() {
    comes_out_as_it_went_in(&nodes(1));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn buffer_boundary_sizes_round_trip() {
    comes_out_as_it_went_in(&nodes(250));
    comes_out_as_it_went_in(&nodes(400));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_multi_page_batch_round_trips() {
    comes_out_as_it_went_in(&nodes(2_000));
}

#[test]
#[ignore = "needs a network namespace, and root for the size of its socket buffer: scripts/test"]
fn sixty_thousand_forwards_round_trip() {
    comes_out_as_it_went_in(&nodes(60_000));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn every_kind_of_object_round_trips() {
    for snat in [to_gateway(), to_several(), Snat::Masquerade, Snat::Off] {
        comes_out_as_it_went_in(&everything(snat));
    }
    comes_out_as_it_went_in(&without_others(example()));
    comes_out_as_it_went_in(&Ruleset::default());
}

fn without_others(mut ruleset: Ruleset) -> Ruleset {
    ruleset.drop_others(&"eth0".parse().unwrap());
    ruleset
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn apply_and_nft_make_the_same_table() {
    let rulesets = [
        example(),
        without_others(example()),
        everything(to_several()),
        everything(Snat::Masquerade),
        everything(Snat::Off),
    ];
    for ruleset in rulesets {
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
fn an_applied_ruleset_changes_into_any_other() {
    let all = [
        example(),
        everything(to_several()),
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
fn client_ranges_change_into_any_others() {
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
        ruleset.sets.get_mut(&Set::new(SetKind::Clients(ListIndex::FIRST), Family::Ipv4)).unwrap().clear();
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
fn a_replaced_node_sends_only_its_element() {
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
    let moved =
        (Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4), Key::AddrPort(at("10.0.0.55:1524")));
    for (place, counter) in &synced.dump.counters {
        let expected = if *place == moved { (0, 0) } else { (7, 420) };
        assert_eq!((counter.packets, counter.bytes), expected, "{}", place.1);
    }
}
