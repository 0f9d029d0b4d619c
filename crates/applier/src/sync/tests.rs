use nix::errno::Errno;
use rules::diff::TableChange;
use rules::ruleset::{AddrPort, Chain, Element, Key, ListIndex, Set, SetKind};
use rules::{AccessList, Family, Forward, Gateway, Snat, Transaction, render};

use super::*;
use crate::fake::{CarriedOut, Fake};
use crate::kernel::{Found, Generation};

fn at(text: &str) -> AddrPort {
    text.parse().unwrap()
}

/// Forwards from ports 6379 and up of 10.0.0.55 to these nodes.
fn nodes(hosts: &[&str]) -> Ruleset {
    let forwards = hosts.iter().zip(6379..).map(|(host, port): (_, u16)| Forward {
        id: format!("node-{host}").parse().unwrap(),
        listen: at(&format!("10.0.0.55:{port}")),
        targets: vec![at(&format!("10.0.1.{host}:6379"))],
    });
    let gateway = Gateway {
        ingress: vec!["eth0".parse().unwrap()],
        families: vec![Family::Ipv4],
        snat: Snat::fixed("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()]),
        tunnels: vec![],
        max_segment: None,
    };
    render(
        &[AccessList::new(&["198.51.100.27/32".parse().unwrap()], &forwards.collect::<Vec<_>>())],
        &gateway,
    )
}

fn ours(ruleset: Ruleset) -> Table {
    Table::Ours(Actual { ruleset, strangers: vec![] })
}

fn table(kernel: &mut Fake) -> Table {
    kernel.dump().unwrap().table
}

/// The error that prevented verification after a change.
fn unverified(synced: Result<Synced, SyncError>) -> SyncError {
    match synced {
        Ok(Synced { outcome: Outcome::Unverified { why }, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_table_in_step_sends_nothing() {
    let desired = nodes(&["230", "231"]);
    let mut kernel = Fake::default();
    let first = sync(&mut kernel, Some(&desired)).unwrap();
    assert_eq!(first.changes.table, TableChange::Create);
    let second = sync(&mut kernel, Some(&desired)).unwrap();
    assert!(second.changes.is_empty());
    assert_eq!(kernel.commits.len(), 1);
    assert!(sync(&mut Fake::default(), None).unwrap().changes.is_empty());
}

#[test]
fn a_moved_node_resets_only_its_own_counter() {
    let mut kernel = Fake::with(ours(nodes(&["230", "231"])));
    let place = |port| {
        (
            Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4),
            Key::AddrPort(at(&format!("10.0.0.55:{port}"))),
        )
    };
    for port in [6379, 6380] {
        let (set, key) = place(port);
        kernel.connect(set, key);
    }
    let synced = sync(&mut kernel, Some(&nodes(&["230", "240"]))).unwrap();
    assert_eq!(synced.dump.counters[&place(6379)].packets, 1);
    assert_eq!(synced.dump.counters[&place(6380)].packets, 0);
}

#[test]
fn a_lost_answer_is_resolved_by_reading_back() {
    for carried_out in [CarriedOut::Yes, CarriedOut::No] {
        let mut kernel = Fake::default();
        kernel.faults.lose_answer = Some(carried_out);
        let desired = nodes(&["230"]);
        let synced = sync(&mut kernel, Some(&desired)).unwrap();
        assert_eq!(synced.changes.table, TableChange::Create, "changes are reported");
        assert_eq!((table(&mut kernel), kernel.commits.len()), (ours(desired), 1), "{carried_out:?}");
    }
}

#[test]
fn an_unreadable_change_is_unverified() {
    for (before, after) in [(vec![], vec!["230"]), (vec!["230"], vec!["240"])] {
        for lost in [None, Some(CarriedOut::Yes)] {
            let mut kernel = Fake::with(ours(nodes(&before)));
            kernel.faults.unreadable_after_commit = true;
            kernel.faults.lose_answer = lost;
            let synced = sync(&mut kernel, Some(&nodes(&after))).unwrap();
            assert!(!synced.changes.is_empty());
            assert!(matches!(unverified(Ok(synced)), SyncError::Dump(_)));
            kernel.faults = crate::fake::Faults::default();
            assert_eq!(table(&mut kernel), ours(nodes(&after)));
        }
    }
}

#[test]
fn a_retry_refused_after_a_lost_answer_fails() {
    let mut kernel = Fake::default();
    kernel.faults.lose_answer = Some(CarriedOut::No);
    kernel.faults.refuse = Some((1, Errno::ENOMEM as i32));
    let error = sync(&mut kernel, Some(&nodes(&["230"]))).unwrap_err();
    assert!(matches!(error, SyncError::Commit(CommitError::Refused { .. })), "{error}");
    assert_eq!(table(&mut kernel), Table::Absent);
}

#[test]
fn failures_before_a_commit_are_errors() {
    let mut kernel = Fake::default();
    kernel.faults.unreadable = true;
    assert!(matches!(sync(&mut kernel, Some(&nodes(&["230"]))), Err(SyncError::Dump(_))));
    for table in [Table::Foreign { why: String::new() }, Table::Owned { owner: "process 7 (nft)".into() }] {
        assert!(sync(&mut Fake::with(table.clone()), Some(&nodes(&["230"]))).is_err());
        assert!(sync(&mut Fake::with(table), None).is_err());
    }
}

#[test]
fn endless_concurrent_writers_are_reported() {
    let desired = nodes(&["230"]);
    let mut kernel = Fake::default();
    kernel.faults.stale = ATTEMPTS - 1;
    sync(&mut kernel, Some(&desired)).unwrap();

    let mut kernel = Fake::default();
    kernel.faults.stale = ATTEMPTS;
    let error = sync(&mut kernel, Some(&desired)).unwrap_err();
    assert!(
        matches!(error, SyncError::Contended { attempts: ATTEMPTS, last: Some(CommitError::Stale) }),
        "{error}"
    );
    assert_eq!(table(&mut kernel), Table::Absent);
}

/// A kernel whose next dump shows an earlier table.
struct Behind {
    kernel: Fake,
    dumps: Vec<Table>,
}

impl Netfilter for Behind {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        let dump = self.kernel.dump()?;
        Ok(match self.dumps.pop() {
            Some(table) => Dump { table, ..dump },
            None => dump,
        })
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        self.kernel.elements(keys)
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError> {
        self.kernel.commit(transaction, generation)
    }
}

#[test]
fn a_plan_from_a_half_commit_is_redone() {
    let (desired, was, is) = (nodes(&["230", "240"]), ours(nodes(&["230", "231"])), ours(nodes(&["230"])));
    // Deleting node-231's element is refused because it is gone.
    let behind = |dumps| Behind { kernel: Fake::with(is.clone()), dumps };
    let synced = sync(&mut behind(vec![was.clone()]), Some(&desired)).unwrap();
    assert_eq!(synced.dump.table, ours(desired.clone()));
    let error = sync(&mut behind(vec![was.clone(), was]), Some(&desired)).unwrap_err();
    assert!(matches!(error, SyncError::Commit(CommitError::Refused { .. })), "{error}");
}

#[test]
fn a_foreign_commit_after_ours_is_reverted() {
    let mut kernel = Fake::default();
    kernel.faults.overwrite = Some(ours(nodes(&["1", "2", "3"])));
    let desired = nodes(&["230"]);
    let synced = sync(&mut kernel, Some(&desired)).unwrap();
    assert_eq!((synced.dump.table, kernel.commits.len()), (ours(desired), 2));
}

#[test]
fn a_table_taken_over_meanwhile_is_left_alone() {
    let mut kernel = Fake::default();
    let foreign = Table::Foreign { why: "it has no comment".to_owned() };
    kernel.faults.overwrite = Some(foreign.clone());
    let error = unverified(sync(&mut kernel, Some(&nodes(&["230"]))));
    assert!(error.to_string().contains("nft delete table inet cachenat"), "{error}");
    assert_eq!((table(&mut kernel), kernel.commits.len()), (foreign, 1));
}

#[test]
fn a_stale_dump_is_compared_again() {
    let mut kernel = Fake::with(ours(nodes(&["230"])));
    let dump = kernel.dump().unwrap();
    kernel.overwrite(ours(nodes(&["230", "231"])));
    let synced = sync_from(&mut kernel, dump, Some(&nodes(&["230", "240"]))).unwrap();
    assert_eq!(synced.dump.table, ours(nodes(&["230", "240"])));
    assert_eq!(synced.changes.forwards().len(), 2, "node-231 goes and node-240 comes: {}", synced.changes);
}

#[test]
fn strangers_are_removed_in_one_transaction() {
    let ruleset = nodes(&["230"]);
    let strangers = vec!["chain forward".to_owned()];
    let mut kernel = Fake::with(Table::Ours(Actual { ruleset: ruleset.clone(), strangers }));
    sync(&mut kernel, Some(&ruleset)).unwrap();
    assert_eq!((table(&mut kernel), kernel.commits.len()), (ours(ruleset), 1));
}

#[test]
fn a_refusal_names_the_operation_and_changes_nothing() {
    let before = nodes(&["230"]);
    let mut kernel = Fake::with(ours(before.clone()));
    kernel.faults.refuse = Some((1, Errno::ENFILE as i32));
    let error = sync(&mut kernel, Some(&nodes(&["230", "231"]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel refused operation 2 of 3: add element inet cachenat backends4 { 10.0.1.231 . 6379 }"
    );
    assert_eq!(table(&mut kernel), ours(before));
}

#[test]
fn missing_privilege_is_named() {
    let mut kernel = Fake::default();
    kernel.faults.denied = true;
    let error = sync(&mut kernel, None).unwrap_err();
    assert_eq!(error.to_string(), "reading the ruleset needs CAP_NET_ADMIN");
}

/// A kernel that omits an element from its first dumps after a commit, as happens while a hash table grows.
struct Growing {
    kernel: Fake,
    partial: usize,
}

impl Netfilter for Growing {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        let mut dump = self.kernel.dump()?;
        if let (Table::Ours(actual), Some(left)) = (&mut dump.table, self.partial.checked_sub(1)) {
            self.partial = left;
            actual
                .ruleset
                .sets
                .get_mut(&Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4))
                .unwrap()
                .pop_first();
        }
        Ok(dump)
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        self.kernel.elements(keys)
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError> {
        self.kernel.commit(transaction, generation)
    }
}

#[test]
fn a_mismatched_read_back_is_repeated() {
    let desired = nodes(&["230", "231"]);
    let mut kernel = Growing { kernel: Fake::default(), partial: READ_BACKS - 1 };
    sync(&mut kernel, Some(&desired)).unwrap();
    assert_eq!(kernel.kernel.commits.len(), 1);

    let mut kernel = Growing { kernel: Fake::default(), partial: usize::MAX };
    let error = unverified(sync(&mut kernel, Some(&desired)));
    let SyncError::NotAsWritten { difference } = &error else { panic!("{error}") };
    assert!(difference.to_string().contains("+         10.0.0.55 . 6379"), "{error}");
}

/// A kernel that counts its calls, and can forget an added element.
#[derive(Default)]
struct Watched {
    kernel: Fake,
    dumps: usize,
    elements: Vec<(Set, Key)>,
    forgetful: bool,
    /// A table that another process commits just before elements are read.
    overwrite: Option<Table>,
}

impl Netfilter for Watched {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        self.dumps += 1;
        self.kernel.dump()
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        self.elements.extend(keys);
        if let Some(table) = self.overwrite.take() {
            self.kernel.overwrite(table);
        }
        self.kernel.elements(keys)
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError> {
        let mut transaction = transaction.clone();
        if self.forgetful {
            transaction.operations.pop();
        }
        self.kernel.commit(&transaction, generation)
    }
}

fn watched(before: &[&str]) -> Watched {
    Watched { kernel: Fake::with(ours(nodes(before))), ..Watched::default() }
}

#[test]
fn a_moved_node_reads_back_only_its_elements() {
    let mut kernel = watched(&["230", "231"]);
    let desired = nodes(&["230", "240"]);
    let synced = sync(&mut kernel, Some(&desired)).unwrap();
    let key = |text: &str| Key::AddrPort(at(text));
    let (forward, backends) = (
        Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4),
        Set::new(SetKind::Backends, Family::Ipv4),
    );
    let read = [
        (forward, key("10.0.0.55:6380")),
        (backends, key("10.0.1.231:6379")),
        (backends, key("10.0.1.240:6379")),
    ];
    assert_eq!((kernel.dumps, kernel.elements.as_slice()), (1, read.as_slice()));
    assert_eq!(synced.dump, kernel.kernel.dump().unwrap(), "as a dump would have shown it");
    assert_eq!(synced.dump.table, ours(desired));
}

#[test]
fn large_changes_are_read_back_completely() {
    let hosts: Vec<String> = (1..=FEW).map(|host| host.to_string()).collect();
    let many = nodes(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut without_snat = nodes(&["230"]);
    without_snat.chains.remove(&Chain::Postrouting);
    let mut more_clients = nodes(&["230"]);
    let clients =
        more_clients.sets.get_mut(&Set::new(SetKind::Clients(ListIndex::FIRST), Family::Ipv4)).unwrap();
    clients.insert(Key::Addresses("203.0.113.9".parse().unwrap()), Element::default());
    for desired in [many, without_snat, more_clients, Ruleset::default()] {
        let mut kernel = watched(&["230"]);
        let synced = sync(&mut kernel, Some(&desired)).unwrap();
        assert_eq!(synced.dump.table, ours(desired));
        assert_eq!((kernel.dumps, kernel.elements.len()), (2, 0));
    }
}

#[test]
fn an_element_the_kernel_dropped_is_detected() {
    let mut kernel = Watched { forgetful: true, ..watched(&["230"]) };
    let error = unverified(sync(&mut kernel, Some(&nodes(&["240"]))));
    let SyncError::NotAsWritten { difference } = &error else { panic!("{error}") };
    assert!(difference.to_string().contains("+         10.0.1.240 . 6379"), "{error}");
}

#[test]
fn a_foreign_commit_before_read_back_is_reverted() {
    let mut kernel = watched(&["230"]);
    kernel.overwrite = Some(ours(nodes(&["1", "2", "3"])));
    let desired = nodes(&["240"]);
    let synced = sync(&mut kernel, Some(&desired)).unwrap();
    assert_eq!((synced.dump.table, table(&mut kernel.kernel)), (ours(desired.clone()), ours(desired)));
    assert_eq!(kernel.kernel.commits.len(), 2);
}
