//! Others who commit or read at the same moment.

use std::sync::atomic::{AtomicBool, Ordering};

use applier::kernel::{CommitError, Dump, DumpError, Generation, Netfilter, Reading};
use applier::netlink::Kernel;
use applier::sync::{SyncError, Synced, sync};
use cachenat_tests::lab::namespace::Namespace;
use rules::Transaction;
use rules::ruleset::{Key, Set};

use crate::rulesets::{everything, example, nodes, to_gateway};
use crate::{open, ours};

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
