//! Other processes that commit or read concurrently.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use applier::kernel::{CommitError, Dump, DumpError, Found, Generation, Netfilter, Table};
use applier::netlink::Kernel;
use applier::sync::{Outcome, SyncError, Synced, sync};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::wait::wait_for;
use rules::Transaction;
use rules::ruleset::{Key, Set};

use crate::rulesets::{everything, example, nodes, redirect, to_gateway};
use crate::{dump, open, ours};

/// A kernel where nft commits just before each of our commits.
struct Contended<'a> {
    kernel: Kernel,
    namespace: &'a Namespace,
    /// What nft adds, with a number behind it.
    adds: &'static str,
    times: usize,
}

impl Netfilter for Contended<'_> {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        self.kernel.dump()
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        self.kernel.elements(keys)
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError> {
        self.times += 1;
        self.namespace.nft(&format!("add {}{}\n", self.adds, self.times));
        self.kernel.commit(transaction, generation)
    }

    fn rest(&mut self) {
        self.kernel.rest();
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn commits_to_other_tables_cost_one_more_dump() {
    let namespace = Namespace::new();
    let mut kernel =
        Contended { kernel: open(&namespace), namespace: &namespace, adds: "table inet other", times: 0 };
    for (desired, commits) in [(Some(example()), 2), (Some(nodes(5)), 4), (None, 6)] {
        let Synced { dump, .. } = sync(&mut kernel, desired.as_ref()).unwrap();
        assert_eq!(dump.table, desired.map_or(Table::Absent, ours));
        assert_eq!(kernel.times, commits);
        assert!(namespace.nft_list("tables").contains(&format!("other{commits}")));
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn commits_to_our_table_are_always_seen() {
    let namespace = Namespace::new();
    sync(&mut open(&namespace), Some(&example())).unwrap();
    let mut kernel = Contended {
        kernel: open(&namespace),
        namespace: &namespace,
        adds: "chain inet cachenat c",
        times: 0,
    };
    let error = sync(&mut kernel, Some(&nodes(5))).unwrap_err();
    assert!(matches!(error, SyncError::Contended { last: Some(CommitError::Stale), .. }), "{error}");
    let Table::Ours(actual) = kernel.dump().unwrap().table else { panic!("the table is gone") };
    assert_eq!((actual.ruleset, actual.strangers.len()), (example(), kernel.times));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_concurrent_reader_sees_complete_states() {
    let namespace = Namespace::new();
    let (one, other) = (&nodes(50), &everything(to_gateway()));
    let mut writer = open(&namespace);
    sync(&mut writer, Some(one)).unwrap();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
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
                // The kernel increments the generation just before the changes become visible (`nf_tables_commit`); a dump
                // in between mixes old and new, the more likely the larger the change. If generations were ignored,
                // most dumps here would be torn.
                Ok(_) => torn += 1,
                // With a continuous writer, a dump may give up with an error.
                Err(DumpError::Restless { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        enough.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        assert!(
            torn * 4 <= ones + others,
            "{torn} dumps are neither the one nor the other, {ones} and {others} are"
        );
    });
}

/// nft processes that commit to a table of their own without a pause, for as long as this lives.
struct Writers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(namespace: &Namespace, count: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let write = |number: usize| {
            let mut nft = namespace.command("nft");
            let mut nft =
                nft.arg("--interactive").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let mut lines = nft.stdin.take().unwrap();
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let (table, chain) = (format!("inet other{number}"), format!("inet other{number} c"));
                writeln!(lines, "add table {table}; add chain {chain}").unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    // The pipe limits how far the writer is ahead of nft(8).
                    writeln!(lines, "add rule {chain} accept; flush chain {chain}").unwrap();
                }
                drop(lines);
                nft.wait().unwrap();
            })
        };
        Self { threads: (0..count).map(write).collect(), is_over }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn changes_succeed_next_to_busy_writers() {
    let namespace = Namespace::new();
    let kernel = &mut open(&namespace);
    let _writers = Writers::start(&namespace, 3);
    for (count, changes) in [(3, 30), (2_000, 4)] {
        let mut moved = nodes(count);
        redirect(&mut moved, "10.0.0.55:1024", "10.9.9.9:6379");
        for wanted in [&nodes(count), &moved].into_iter().cycle().take(changes) {
            let before = dump(kernel).generation;
            wait_for("others' commits", || (dump(kernel).generation != before).then_some(()));
            let synced = sync(kernel, Some(wanted)).unwrap();
            assert!(matches!(synced.outcome, Outcome::Verified), "{:?}", synced.outcome);
            assert_eq!(synced.dump.table, ours(wanted.clone()));
        }
        sync(kernel, None).unwrap();
        assert_eq!(dump(kernel).table, Table::Absent);
    }
}
