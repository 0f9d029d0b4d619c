//! Makes the kernel's table what is wanted: dump, diff, commit, read back.

use std::collections::BTreeSet;

use rules::diff::TableChange;
use rules::ruleset::{Key, Set};
use rules::{Actual, Ruleset, RulesetDiff, diff};

use crate::kernel::{CommitError, Dump, DumpError, Generation, Netfilter, Table};

/// How often a commit is tried while others change the ruleset or answers are lost.
pub const ATTEMPTS: usize = 10;

/// How often a table that is not as written is read before that is believed: a kernel that does not tell how many
/// elements a set has may leave some out of a dump while the set's hash grows.
const READ_BACKS: usize = 5;

/// Up to how many changed elements are read back one by one; beyond it a dump of everything costs less.
const FEW: usize = 64;

/// What [`sync`] found and did.
#[derive(Debug)]
pub struct Synced {
    /// What was changed; empty if everything was in step, and then nothing was sent to the kernel.
    pub changes: RulesetDiff,
    /// The table as it was read last.
    pub dump: Dump,
    /// Whether that is what was wanted.
    pub outcome: Outcome,
}

/// What is known of the table after [`sync`].
#[derive(Debug)]
pub enum Outcome {
    /// It is what was wanted, and was read back.
    Verified,
    /// A change went out, and the table could not be seen to be what was wanted.
    Unverified {
        /// What was in the way after the change.
        why: SyncError,
    },
}

impl Outcome {
    /// What was in the way of verifying the change, if anything was.
    pub fn failure(self) -> Option<SyncError> {
        match self {
            Self::Verified => None,
            Self::Unverified { why } => Some(why),
        }
    }
}

/// Why the table is not what is wanted. As the error of [`sync`] it says that nothing was changed as well.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Somebody else's table bears the name of ours.
    #[error(
        "table inet cachenat is not ours ({why}); look at it with `nft list table inet cachenat`, and if nothing \
         needs it, `nft delete table inet cachenat`"
    )]
    Foreign {
        /// What tells it from ours.
        why: String,
    },
    /// The ruleset could not be read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The kernel refused the transaction, or its answer was lost.
    #[error(transparent)]
    Commit(CommitError),
    /// Another process owns the table, and the kernel lets no one else change it.
    #[error(
        "table inet cachenat is owned by {owner}, and the kernel lets no other process change it: end that process, \
         or let it delete the table"
    )]
    Owned {
        /// The process, as far as it is known.
        owner: String,
    },
    /// The kernel could not be brought to it while others change the ruleset.
    #[error(
        "no change went through in {attempts} attempts; see `nft monitor` for which process changes table inet cachenat"
    )]
    Contended {
        /// How often it was tried.
        attempts: usize,
        /// Why the last attempt was in vain.
        #[source]
        last: Option<CommitError>,
    },
    /// The kernel took the transaction, and holds something else nevertheless.
    #[error("the kernel took the change, but what it holds differs from what was written:\n{difference}")]
    NotAsWritten {
        /// From what is there to what was written.
        difference: Box<RulesetDiff>,
    },
}

/// Dumps the table, commits what separates it from `desired` (`None`: it shall go), and reads back.
///
/// A commit that meets another writer is tried again from a new dump, and so is one that is refused if there is
/// something else by then; a lost answer is resolved by a dump.
///
/// # Errors
///
/// See [`SyncError`].
pub fn sync(kernel: &mut impl Netfilter, desired: Option<&Ruleset>) -> Result<Synced, SyncError> {
    let dump = kernel.dump()?;
    sync_from(kernel, dump, desired)
}

/// Like [`sync`], from a dump that the caller has: what was planned from it is committed only if the ruleset is still
/// the same, else it is compared anew.
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

/// A run of [`sync_from`], which knows at any moment whether the kernel may have changed anything.
struct Run {
    /// The table as it was read last.
    dump: Dump,
    /// What went out, once the kernel may have carried it out.
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
            // The transaction is as large as the changes, and goes before anything is read back.
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
                // ENOBUFS says that the answer was lost, not what the kernel did: the dump tells.
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
                // A commit counts the generation up a moment before it shows what is new (`nf_tables_commit`), so a dump
                // that falls in between is not what the transaction meets. If there is something else by now, that is
                // why.
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

    /// Reads back what a commit wrote at generation `written`: these elements, else everything. If it is not as desired
    /// because others have committed since, that is up to the next attempt.
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
            // The commit was for the table as it was dumped, so all else is as it was.
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

/// The keys that `changes` are about, if they are few, each a value and not an interval, and all that changes.
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
    // One that is removed and added again is asked for once.
    let keys: BTreeSet<(Set, Key)> = keys.collect();
    (keys.len() <= FEW).then(|| keys.into_iter().collect())
}

/// What separates a dump from `desired`.
///
/// # Errors
///
/// [`SyncError::Foreign`], [`SyncError::Owned`].
pub fn difference(dump: &Dump, desired: Option<&Ruleset>) -> Result<RulesetDiff, SyncError> {
    Ok(diff(ours(dump)?, desired))
}

/// Our table, if it is there.
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
