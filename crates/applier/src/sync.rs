//! Makes the kernel's table what is wanted: dump, diff, commit, read back.

use std::collections::BTreeSet;

use rules::diff::TableChange;
use rules::ruleset::{Key, Set};
use rules::{Actual, Changes, Ruleset, diff};

use crate::kernel::{CommitError, Dump, DumpError, Netfilter, Table};

/// How often a commit is tried while others change the ruleset or answers are lost.
pub const ATTEMPTS: usize = 10;

/// How often a table that is not as written is read before that is believed: a kernel that does not tell how many
/// elements a set has may leave some out of a dump while the set's hash grows.
const READ_BACKS: usize = 5;

/// Up to how many changed elements are read back one by one; beyond it a dump of everything costs less.
const FEW: usize = 64;

/// What [`sync`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What was changed; empty if everything was in step, and then nothing was sent to the kernel.
    pub changes: Changes,
    /// The table as it was read last: it is what was wanted.
    pub dump: Dump,
}

/// Why the table is not what is wanted.
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
    /// The ruleset could not be read after a commit went out, so nobody knows what is in force.
    #[error("the change was sent, but what is in force could not be read back")]
    ReadBack(#[source] DumpError),
    /// The kernel refused the transaction: nothing was changed.
    #[error(transparent)]
    Commit(CommitError),
    /// The kernel could not be brought to it while others change the ruleset.
    #[error("no commit went through in {attempts} attempts; see `nft monitor` for who changes the ruleset")]
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
        difference: Box<Changes>,
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
    mut dump: Dump,
    desired: Option<&Ruleset>,
) -> Result<Synced, SyncError> {
    let mut sent: Option<Changes> = None;
    let mut last = None;
    for attempt in 0.. {
        let changes = difference(&dump, desired)?;
        if changes.is_empty() {
            return Ok(Synced { changes: sent.unwrap_or_default(), dump });
        }
        if attempt == ATTEMPTS {
            break;
        }
        // The transaction is as large as the changes, and goes before anything is read back.
        let outcome = kernel.commit(&changes.transaction(), dump.generation);
        match outcome {
            Ok(()) => {
                dump = settled(kernel, dump, &changes, desired)?;
                sent.get_or_insert(changes);
            }
            Err(error @ CommitError::Stale) => {
                last = Some(error);
                dump = kernel.dump()?;
            }
            // ENOBUFS says that the answer was lost, not what the kernel did: the dump tells.
            Err(error @ CommitError::OutcomeUnknown(_)) => {
                last = Some(error);
                sent.get_or_insert(changes);
                dump = kernel.dump().map_err(SyncError::ReadBack)?;
            }
            // A commit counts the generation up a moment before it shows what is new (`nf_tables_commit`), so a dump that
            // falls in between is not what the transaction meets. If there is something else by now, that is why.
            Err(error @ CommitError::Refused { .. }) => {
                let seen = kernel.dump()?;
                if seen.table == dump.table {
                    return Err(SyncError::Commit(error));
                }
                last = Some(error);
                dump = seen;
            }
            Err(error) => return Err(SyncError::Commit(error)),
        }
    }
    Err(SyncError::Contended { attempts: ATTEMPTS, last })
}

/// The dump after `changes` to `before` were committed: it is as desired, or somebody else has committed since, which
/// is up to the next attempt.
fn settled(
    kernel: &mut impl Netfilter,
    before: Dump,
    changes: &Changes,
    desired: Option<&Ruleset>,
) -> Result<Dump, SyncError> {
    let written = before.generation.next();
    let mut dump = read_back(kernel, before, changes).map_err(SyncError::ReadBack)?;
    let mut reads = 1;
    loop {
        let difference = difference(&dump, desired)?;
        if dump.generation != written || difference.is_empty() {
            return Ok(dump);
        }
        if reads == READ_BACKS {
            return Err(SyncError::NotAsWritten { difference: Box::new(difference) });
        }
        dump = kernel.dump().map_err(SyncError::ReadBack)?;
        reads += 1;
    }
}

/// What the kernel holds after a commit of `changes` to `before`.
///
/// Nothing else has changed if the commit's generation is still the latest, so of a few elements only these are read.
fn read_back(kernel: &mut impl Netfilter, before: Dump, changes: &Changes) -> Result<Dump, DumpError> {
    if let Some(keys) = few_elements(changes) {
        let reading = kernel.elements(&keys)?;
        if reading.generation == before.generation.next() {
            return Ok(before.with(reading));
        }
    }
    kernel.dump()
}

/// The keys that `changes` are about, if they are few, each a value and not an interval, and all that changes.
fn few_elements(changes: &Changes) -> Option<Vec<(Set, Key)>> {
    let Changes {
        table,
        new_sets,
        old_sets,
        new_flowtable,
        old_flowtable,
        new_chains,
        old_chains,
        sets,
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
/// [`SyncError::Foreign`].
pub fn difference(dump: &Dump, desired: Option<&Ruleset>) -> Result<Changes, SyncError> {
    Ok(diff(ours(dump)?, desired))
}

/// Our table, if it is there.
///
/// # Errors
///
/// [`SyncError::Foreign`].
pub fn ours(dump: &Dump) -> Result<Option<&Actual>, SyncError> {
    match &dump.table {
        Table::Absent => Ok(None),
        Table::Ours(actual) => Ok(Some(actual)),
        Table::Foreign { why } => Err(SyncError::Foreign { why: why.clone() }),
    }
}

#[cfg(test)]
mod tests;
