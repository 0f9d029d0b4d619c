//! The kernel's notifications about commits, which nft makes here.

// Test helpers report failures by panicking, and control their own indices.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod rulesets;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use applier::kernel::Generation;
use applier::monitor::{Monitor, MonitorError, Noticed};
use applier::netlink::Kernel;
use applier::sync::{Synced, sync};
use cachenat_tests::lab::namespace::Namespace;
use rules::ruleset::Ruleset;
use rulesets::{example, nodes, redirect};
use rustix::thread::{CapabilitySet, capabilities, gettid, set_capabilities};

/// Commits from another thread, and returns its id.
fn commit(namespace: &Namespace, ruleset: &Ruleset) -> (Synced, u32) {
    namespace.enter(|| {
        let synced = sync(&mut Kernel::open().unwrap(), Some(ruleset)).unwrap();
        (synced, gettid().as_raw_nonzero().get().cast_unsigned())
    })
}

fn open(namespace: &Namespace) -> Monitor {
    namespace.enter(|| Monitor::open(None).unwrap())
}

/// Needs no wait: the kernel sends the notifications before the committer continues.
fn noticed(monitor: &mut Monitor) -> Noticed {
    monitor.drain().unwrap().expect("a commit was told")
}

fn names(noticed: &Noticed) -> Vec<&str> {
    noticed.who.iter().map(|by| by.name.as_str()).collect()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn nfts_changes_to_our_table_are_noticed() {
    let edits = [
        "flush ruleset",
        "delete table inet cachenat",
        "add table inet cachenat { flags dormant; }",
        "add rule inet cachenat prerouting tcp dport 22 accept",
        "flush chain inet cachenat prerouting",
        "add chain inet cachenat mine",
        "add set inet cachenat mine { type ipv4_addr; }",
        "add counter inet cachenat mine",
        "add element inet cachenat clients4 { 203.0.113.0/24 }",
        "flush map inet cachenat forward4",
    ];
    for edit in edits {
        let namespace = Namespace::new();
        commit(&namespace, &example());
        let mut monitor = open(&namespace);
        assert_eq!(monitor.drain().unwrap(), None, "{edit}");
        namespace.nft(&format!("{edit}\n"));
        let noticed = noticed(&mut monitor);
        assert!(noticed.intrusions == 1 && !noticed.overrun, "{edit}: {noticed:?}");
        assert_eq!(names(&noticed), ["nft"], "{edit}");
        assert_eq!(monitor.drain().unwrap(), None, "{edit}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_tables_change_is_not_ours() {
    let namespace = Namespace::new();
    commit(&namespace, &example());
    let mut monitor = open(&namespace);
    for foreign in ["ip cachenat", "inet other"] {
        for verb in ["add", "flush", "delete"] {
            namespace.nft(&format!("{verb} table {foreign}\n"));
        }
        namespace.nft(&format!("add table {foreign}\nadd chain {foreign} cachenat\n"));
        let noticed = noticed(&mut monitor);
        assert!(
            noticed.generation.is_some() && noticed.is_untouched() && noticed.who.is_empty(),
            "{noticed:?}"
        );
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn our_commits_name_their_thread_and_generation() {
    let namespace = Namespace::new();
    let mut monitor = open(&namespace);
    let (mut latest, mut threads) = (Generation(0), Vec::new());
    let mut moved = example();
    redirect(&mut moved, "10.0.0.55:6379", "10.0.1.240:6379");
    for ruleset in [example(), moved] {
        let (synced, thread) = commit(&namespace, &ruleset);
        latest = synced.dump.generation;
        threads.push(thread);
    }
    let noticed = noticed(&mut monitor);
    assert_eq!((noticed.generation, noticed.last_intrusion), (Some(latest), Some(latest)));
    let who: Vec<u32> = noticed.who.iter().map(|by| by.pid).collect();
    threads.sort_unstable();
    assert_eq!(who, threads);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn our_commits_hide_no_intrusions() {
    let namespace = Namespace::new();
    let mut kernel = namespace.enter(|| Kernel::open().unwrap());
    let own = kernel.port();
    let mut monitor = namespace.enter(|| Monitor::open(Some(own)).unwrap());
    let foreign = |namespace: &Namespace| namespace.nft("add table inet other\ndelete table inet other\n");

    // Folded with commits to other tables, before and after.
    foreign(&namespace);
    sync(&mut kernel, Some(&example())).unwrap();
    foreign(&namespace);
    let own = noticed(&mut monitor);
    assert!(own.is_untouched() && own.who.is_empty(), "{own:?}");

    // Folded with an edit of our table, which comes first, and is undone by our own commit.
    namespace.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6379 }\n");
    let synced = sync(&mut kernel, Some(&example())).unwrap();
    let edited = noticed(&mut monitor);
    assert_eq!((edited.intrusions, names(&edited)), (1, vec!["nft"]));
    assert!(synced.dump.generation.is_after(edited.last_intrusion.unwrap()), "it was seen and undone");

    // Or comes last, unseen by our commit.
    let mut moved = example();
    redirect(&mut moved, "10.0.0.55:6379", "10.0.1.240:6379");
    let synced = sync(&mut kernel, Some(&moved)).unwrap();
    namespace.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6379 }\n");
    let edited = noticed(&mut monitor);
    assert_eq!((edited.intrusions, names(&edited)), (1, vec!["nft"]));
    assert!(edited.last_intrusion.unwrap().is_after(synced.dump.generation));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn commits_are_reported_again_after_an_overrun() {
    let namespace = Namespace::new();
    let mut monitor = open(&namespace);
    commit(&namespace, &nodes(60_000));
    assert!(noticed(&mut monitor).overrun);
    namespace.nft("flush ruleset\n");
    let noticed = noticed(&mut monitor);
    assert!(noticed.intrusions > 0, "{noticed:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_commit_wakes_a_waiting_thread() {
    let namespace = Namespace::new();
    commit(&namespace, &example());
    let mut monitor = open(&namespace);
    let (told, hears) = mpsc::channel();
    thread::spawn(move || told.send(monitor.wait().unwrap()));
    namespace.nft("flush ruleset\n");
    let noticed = hears.recv_timeout(Duration::from_secs(5)).expect("the thread wakes");
    assert!(noticed.intrusions > 0, "{noticed:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn monitoring_needs_cap_net_admin() {
    Namespace::new().enter(|| {
        // Capabilities belong to the thread (capabilities(7)), which ends with this closure.
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let Err(MonitorError::Open(error)) = Monitor::open(None) else {
            panic!("it is told what it may not know")
        };
        assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM));
    });
}
