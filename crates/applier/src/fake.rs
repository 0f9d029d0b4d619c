//! nf_tables in memory, with the kernel's guarantees (atomic commits, generations, the same refusals) and switches to
//! inject faults.

use std::collections::BTreeMap;
use std::io;

use rules::model::{Refusal, carry_out};
use rules::ruleset::{Key, Ruleset, Set};
use rules::{Actual, Operation, Transaction};

use crate::kernel::{CommitError, Dump, DumpError, Found, Generation, Netfilter, Table};

/// Faults to inject; each is used up when it occurs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Refuse the operation at this index with this errno.
    pub refuse: Option<(usize, i32)>,
    /// Lose the answer of the next commit, after applying it or not.
    pub lose_answer: Option<CarriedOut>,
    /// The number of commits that another process precedes.
    pub stale: usize,
    /// Replace the table with this one right after our next commit, as another process could.
    pub overwrite: Option<Table>,
    /// Answer every call with `EPERM`.
    pub denied: bool,
    /// Answer every read with `EIO`.
    pub unreadable: bool,
    /// Answer every read with `EIO` after the next commit.
    pub unreadable_after_commit: bool,
}

/// What the kernel did before its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarriedOut {
    /// It applied the transaction.
    Yes,
    /// It applied nothing.
    No,
}

/// An in-memory kernel.
#[derive(Clone, Debug)]
pub struct Fake {
    /// The faults to inject.
    pub faults: Faults,
    /// The applied transactions, in order.
    pub commits: Vec<Transaction>,
    state: Dump,
}

impl Default for Fake {
    fn default() -> Self {
        Self::with(Table::Absent)
    }
}

impl Fake {
    /// A kernel that holds this table.
    pub fn with(table: Table) -> Self {
        let mut state = Dump { generation: Generation(1), table: Table::Absent, counters: BTreeMap::new() };
        put(&mut state, table);
        Self { faults: Faults::default(), commits: Vec::new(), state }
    }

    /// Simulates another process's commit: replaces the table and increments the generation.
    pub fn overwrite(&mut self, table: Table) {
        put(&mut self.state, table);
        self.state.generation = self.state.generation.next();
    }

    /// Counts a connection through the element, if it exists.
    pub fn connect(&mut self, set: Set, key: Key) {
        if let Some(counter) = self.state.counters.get_mut(&(set, key)) {
            counter.packets += 1;
            counter.bytes += 60;
        }
    }

    fn carry_out(&mut self, transaction: &Transaction) -> Result<(), CommitError> {
        let refused = |index, source| refused(transaction, index, source);
        if let Some((index, errno)) = self.faults.refuse.take_if(|(at, _)| *at < transaction.operations.len())
        {
            return Err(refused(index, io::Error::from_raw_os_error(errno)));
        }
        let (before, strangers) = match &self.state.table {
            Table::Absent => (None, &[][..]),
            Table::Ours(Actual { ruleset, strangers }) => (Some(ruleset), strangers.as_slice()),
            // The fake has no contents for foreign tables; a commit to one is a bug in the caller.
            Table::Foreign { .. } | Table::Owned { .. } => {
                return Err(refused(0, io::Error::from_raw_os_error(libc_errno(Refusal::Exists))));
            }
        };
        let after = carry_out(before, transaction)
            .map_err(|(index, refusal)| refused(index, io::Error::from_raw_os_error(libc_errno(refusal))))?;
        let anew = transaction.operations.contains(&Operation::DeleteTable);
        let strangers = if anew { Vec::new() } else { strangers.to_vec() };
        let table = after.map_or(Table::Absent, |ruleset| Table::Ours(Actual { ruleset, strangers }));
        self.forget_counters(transaction);
        put(&mut self.state, table);
        self.state.generation = self.state.generation.next();
        self.commits.push(transaction.clone());
        Ok(())
    }

    /// Counters belong to elements: an element that is deleted and added again starts at 0.
    fn forget_counters(&mut self, transaction: &Transaction) {
        for operation in &transaction.operations {
            match operation {
                Operation::DeleteElement(set, key) => drop(self.state.counters.remove(&(*set, *key))),
                Operation::DeleteTable => self.state.counters.clear(),
                _ => {}
            }
        }
    }
}

impl Netfilter for Fake {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        if self.faults.denied {
            return Err(DumpError::Denied(denied()));
        }
        if self.faults.unreadable {
            return Err(DumpError::Io { request: "list table", source: nix::errno::Errno::EIO.into() });
        }
        Ok(self.state.clone())
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        let Dump { table, counters, .. } = self.dump()?;
        let element = |(set, key)| match &table {
            Table::Ours(actual) => actual.ruleset.sets.get(&set)?.get(&key),
            Table::Absent | Table::Foreign { .. } | Table::Owned { .. } => None,
        };
        let found = |at| Some((element(at)?.clone(), counters.get(&at).copied().unwrap_or_default()));
        Ok(keys.iter().map(|&(set, key)| (set, key, found((set, key)))).collect())
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError> {
        if self.faults.denied {
            return Err(CommitError::Denied(denied()));
        }
        if let Some(left) = self.faults.stale.checked_sub(1) {
            self.faults.stale = left;
            self.state.generation = self.state.generation.next();
        }
        if generation != self.state.generation {
            return Err(CommitError::Stale);
        }
        let lost = self.faults.lose_answer.take();
        if lost != Some(CarriedOut::No) {
            self.carry_out(transaction)?;
            self.faults.unreadable |= std::mem::take(&mut self.faults.unreadable_after_commit);
        }
        let made = self.state.generation;
        if let Some(table) = self.faults.overwrite.take() {
            self.overwrite(table);
        }
        match lost {
            Some(_) => Err(CommitError::OutcomeUnknown(nix::errno::Errno::ENOBUFS.into())),
            None => Ok(made),
        }
    }
}

/// Replaces the table; remaining elements keep their counters, new ones start at 0.
fn put(state: &mut Dump, table: Table) {
    let nothing = Ruleset::default();
    let ruleset = match &table {
        Table::Ours(actual) => &actual.ruleset,
        Table::Absent | Table::Foreign { .. } | Table::Owned { .. } => &nothing,
    };
    let maps = ruleset.sets.iter().filter(|(set, _)| set.is_map());
    let keys = maps.flat_map(|(&set, elements)| elements.keys().map(move |&key| (set, key)));
    state.counters = keys.map(|at| (at, state.counters.get(&at).copied().unwrap_or_default())).collect();
    state.table = table;
}

fn refused(transaction: &Transaction, index: usize, source: io::Error) -> CommitError {
    match transaction.operations.get(index) {
        Some(operation) => CommitError::Refused {
            index,
            total: transaction.operations.len(),
            operation: Box::new(operation.clone()),
            source,
        },
        None => CommitError::Io(source),
    }
}

fn denied() -> io::Error {
    nix::errno::Errno::EPERM.into()
}

fn libc_errno(refusal: Refusal) -> i32 {
    use nix::errno::Errno::{EBUSY, EEXIST, EINVAL, ENOENT};
    let errno = match refusal {
        Refusal::Missing => ENOENT,
        Refusal::Exists => EEXIST,
        Refusal::Busy => EBUSY,
        Refusal::Invalid => EINVAL,
    };
    errno as i32
}
