//! Updates the kernel's table to the desired ruleset: dump, diff, commit, read back.

use std::collections::BTreeSet;

use rules::diff::TableChange;
use rules::ruleset::{Key, Set};
use rules::{Actual, Ruleset, RulesetDiff, diff};

use crate::kernel::{CommitError, Dump, DumpError, Generation, Netfilter, Table};

/// The maximum number of commits while other processes change the ruleset or answers are lost.
pub const ATTEMPTS: usize = 10;

/// How often to read the table before reporting that it differs from what was written: kernels that do not report the
/// number of elements may omit some from a dump while the set's hash table grows.
const READ_BACKS: usize = 5;

/// The maximum number of changed elements to read back one by one; for more, a full dump is cheaper.
const FEW: usize = 64;

/// What [`sync`] found and did.
#[derive(Debug)]
pub struct Synced {
    /// The committed changes; empty if the table was up to date and nothing was sent to the kernel.
    pub changes: RulesetDiff,
    /// The table as last read.
    pub dump: Dump,
    /// Whether the table was verified.
    pub outcome: Outcome,
}

/// Whether the table is known to match after [`sync`].
#[derive(Debug)]
pub enum Outcome {
    /// It was read back and matches.
    Verified,
    /// A change was sent, but the table could not be verified.
    Unverified {
        /// What failed after the change.
        why: SyncError,
    },
}

impl Outcome {
    /// The error that prevented verification, if any.
    pub fn failure(self) -> Option<SyncError> {
        match self {
            Self::Verified => None,
            Self::Unverified { why } => Some(why),
        }
    }
}

/// Why the table does not match. If [`sync`] returns it as an error, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another program's table has our name.
    #[error(
        "table inet cachenat was not created by cachenat ({why}); run `nft list table inet cachenat` to inspect it, \
         and `nft delete table inet cachenat` if it is not needed"
    )]
    Foreign {
        /// How it differs from ours.
        why: String,
    },
    /// The ruleset could not be read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The kernel refused the transaction, or its answer was lost.
    #[error(transparent)]
    Commit(CommitError),
    /// Another process owns the table, so only that process can change it.
    #[error(
        "table inet cachenat is owned by {owner}, and no other process can change it; stop that process, or make it \
         delete the table"
    )]
    Owned {
        /// The process, if known.
        owner: String,
    },
    /// No commit succeeded because other processes kept changing the ruleset.
    #[error(
        "the ruleset kept changing; gave up after {attempts} attempts (run `nft monitor` to find the other writer)"
    )]
    Contended {
        /// The number of attempts.
        attempts: usize,
        /// Why the last attempt failed.
        #[source]
        last: Option<CommitError>,
    },
    /// The kernel accepted the transaction, but the table differs from what was written.
    #[error("the kernel accepted the change, but the table differs from what was written:\n{difference}")]
    NotAsWritten {
        /// The changes from the actual table to the written one.
        difference: Box<RulesetDiff>,
    },
}

/// Dumps the table, commits its difference to `desired` (`None`: delete the table), and reads it back.
///
/// Retries from a new dump if another process commits at the same time, or if a commit is refused and the table has
/// changed. Resolves a lost answer with a dump.
///
/// # Errors
///
/// See [`SyncError`].
pub fn sync(kernel: &mut impl Netfilter, desired: Option<&Ruleset>) -> Result<Synced, SyncError> {
    let dump = kernel.dump()?;
    sync_from(kernel, dump, desired)
}

/// Like [`sync`], but starts from the caller's dump; dumps again if the table has changed since.
///
/// # Errors
///
/// See [`SyncError`].
pub fn sync_from(
    kernel: &mut impl Netfilter,
    dump: Dump,
    desired: Option<&Ruleset>,
) -> Result<Synced, SyncError> {
    let mut run = Run { dump, sent: None };
    let done = run.converge(kernel, desired);
    kernel.rest();
    let Run { dump, sent } = run;
    match (done, sent) {
        (Ok(()), sent) => Ok(Synced { changes: sent.unwrap_or_default(), dump, outcome: Outcome::Verified }),
        (Err(why), Some(changes)) => Ok(Synced { changes, dump, outcome: Outcome::Unverified { why } }),
        (Err(error), None) => Err(error),
    }
}

/// The state of [`sync_from`], including whether the kernel may have changed anything.
struct Run {
    /// The table as last read.
    dump: Dump,
    /// The changes that the kernel may have applied.
    sent: Option<RulesetDiff>,
}

impl Run {
    fn converge(&mut self, kernel: &mut impl Netfilter, desired: Option<&Ruleset>) -> Result<(), SyncError> {
        let mut last = None;
        for attempt in 0.. {
            let changes = difference(&self.dump, desired)?;
            if changes.is_empty() {
                return Ok(());
            }
            if attempt == ATTEMPTS {
                break;
            }
            // Free the transaction before reading back: it is as large as the changes.
            let outcome = kernel.commit(&changes.transaction(), self.dump.generation);
            match outcome {
                Ok(written) => {
                    let keys = few_elements(&changes);
                    self.sent.get_or_insert(changes);
                    self.read_back(kernel, written, keys, desired)?;
                }
                Err(error @ CommitError::Stale) => {
                    last = Some(error);
                    self.dump = kernel.dump()?;
                }
                // ENOBUFS means that the answer was lost. Only a dump shows what the kernel did.
                Err(error @ CommitError::OutcomeUnknown(_)) => {
                    last = Some(error);
                    let is_first = self.sent.is_none();
                    self.sent.get_or_insert(changes);
                    let seen = kernel.dump()?;
                    if is_first && seen.table == self.dump.table {
                        self.sent = None;
                    }
                    self.dump = seen;
                }
                // A commit increments the generation just before its changes become visible (`nf_tables_commit`), so
                // a dump in between shows the old table. If the table has changed by now, that caused the refusal.
                Err(error @ CommitError::Refused { .. }) => {
                    let seen = kernel.dump()?;
                    if seen.table == self.dump.table {
                        return Err(SyncError::Commit(error));
                    }
                    last = Some(error);
                    self.dump = seen;
                }
                Err(error) => return Err(SyncError::Commit(error)),
            }
        }
        Err(SyncError::Contended { attempts: ATTEMPTS, last })
    }

    /// Reads back what a commit wrote at generation `written`: the elements with these keys, or the entire table. A
    /// difference that another process committed later is left to the next attempt.
    fn read_back(
        &mut self,
        kernel: &mut impl Netfilter,
        written: Generation,
        keys: Option<Vec<(Set, Key)>>,
        desired: Option<&Ruleset>,
    ) -> Result<(), SyncError> {
        let wanted = |set, key| desired?.sets.get(set)?.get(key);
        if let Some(found) = keys.and_then(|keys| kernel.elements(&keys).ok())
            && found
                .iter()
                .all(|(set, key, found)| found.as_ref().map(|(found, _)| found) == wanted(set, key))
        {
            // The commit's guard ensured that the table was as dumped, so the rest is unchanged.
            self.dump.put(written, found);
            return Ok(());
        }
        let mut reads = 1;
        loop {
            self.dump = kernel.dump()?;
            let difference = difference(&self.dump, desired)?;
            if self.dump.generation != written || difference.is_empty() {
                return Ok(());
            }
            if reads == READ_BACKS {
                return Err(SyncError::NotAsWritten { difference: Box::new(difference) });
            }
            reads += 1;
        }
    }
}

/// The keys of the changed elements, if `changes` consists only of a few elements in sets without intervals.
fn few_elements(changes: &RulesetDiff) -> Option<Vec<(Set, Key)>> {
    let RulesetDiff {
        table,
        new_sets,
        old_sets,
        new_flowtable,
        old_flowtable,
        new_chains,
        old_chains,
        sets,
        staying: _,
        chains,
    } = changes;
    let elements_only = *table == TableChange::Keep
        && new_sets.is_empty()
        && old_sets.is_empty()
        && new_flowtable.is_none()
        && old_flowtable.is_none()
        && new_chains.is_empty()
        && old_chains.is_empty()
        && chains.is_empty();
    if !elements_only || sets.keys().any(|set| set.is_interval()) {
        return None;
    }
    let keys = sets.iter().flat_map(|(&set, change)| {
        change.removed.keys().chain(change.added.keys()).map(move |&key| (set, key))
    });
    // An element that is removed and added again is read only once.
    let keys: BTreeSet<(Set, Key)> = keys.collect();
    (keys.len() <= FEW).then(|| keys.into_iter().collect())
}

/// The changes from a dump to `desired`.
///
/// # Errors
///
/// [`SyncError::Foreign`], [`SyncError::Owned`].
pub fn difference(dump: &Dump, desired: Option<&Ruleset>) -> Result<RulesetDiff, SyncError> {
    Ok(diff(ours(dump)?, desired))
}

/// Our table, if it exists.
///
/// # Errors
///
/// [`SyncError::Foreign`], [`SyncError::Owned`].
pub fn ours(dump: &Dump) -> Result<Option<&Actual>, SyncError> {
    match &dump.table {
        Table::Absent => Ok(None),
        Table::Ours(actual) => Ok(Some(actual)),
        Table::Foreign { why } => Err(SyncError::Foreign { why: why.clone() }),
        Table::Owned { owner } => Err(SyncError::Owned { owner: owner.clone() }),
    }
}

#[cfg(test)]
mod tests;
