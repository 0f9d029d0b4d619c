//! The seam to nf_tables: one consistent dump in, one guarded transaction out.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;

use rules::ruleset::{Element, Key, Set, TABLE};
use rules::{Actual, Operation, Transaction};

/// The number of the ruleset's state; each commit in the network namespace, by whomever, gives it the next one
/// (`NFTA_GEN_ID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation after one more commit; 0 is left out (`nf_tables_commit`, `net/netfilter/nf_tables_api.c`).
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.wrapping_add(1) {
            0 => Self(1),
            next => Self(next),
        }
    }

    /// Whether it comes after `other`; the numbers wrap around.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }
}

impl Display for Generation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.0)
    }
}

/// What bears the name `inet cachenat` in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// Nothing.
    Absent,
    /// Our table, known by its comment.
    Ours(Actual),
    /// Somebody else's table of the same name, which is never touched.
    Foreign {
        /// What tells it from ours.
        why: String,
    },
    /// A table that belongs to a living process, which alone may change it (`NFT_TABLE_F_OWNER`).
    Owned {
        /// The process, as far as it is known.
        owner: String,
    },
}

/// The connections that were made through an element of a map, since the element was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// First packets, that is connections.
    pub packets: u64,
    /// The bytes of those packets.
    pub bytes: u64,
}

/// The counters of maps' elements.
pub type Counters = BTreeMap<(Set, Key), Counter>;

/// The table and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// A generation at which the table was so.
    pub generation: Generation,
    /// The table.
    pub table: Table,
    /// The counters of the maps' elements; empty for a table that is not ours.
    pub counters: Counters,
}

/// An element, and its counter if it is a map's.
pub type Counted = (Element, Counter);

/// What was found at each key that was asked for; `None`: no element, or one that cachenat does not write.
pub type Found = Vec<(Set, Key, Option<Counted>)>;

impl Dump {
    /// Makes it the dump of a later generation, which differs in these elements and in no others.
    pub fn put(&mut self, generation: Generation, found: Found) {
        self.generation = generation;
        let Table::Ours(Actual { ruleset, .. }) = &mut self.table else { return };
        for (set, key, found) in found {
            let Some(elements) = ruleset.sets.get_mut(&set) else { continue };
            elements.remove(&key);
            self.counters.remove(&(set, key));
            if let Some((element, counter)) = found {
                elements.insert(key, element);
                if set.is_map() {
                    self.counters.insert((set, key), counter);
                }
            }
        }
    }
}

/// The kernel's nf_tables, or something that keeps its promises.
pub trait Netfilter {
    /// Reads the table `inet cachenat`, as it was at the dump's generation; others may change other tables meanwhile.
    ///
    /// # Errors
    ///
    /// See [`DumpError`].
    fn dump(&mut self) -> Result<Dump, DumpError>;

    /// Reads the elements of these keys one after the other; none of them of an interval set.
    ///
    /// # Errors
    ///
    /// See [`DumpError`].
    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError>;

    /// Carries out all of the transaction or nothing; and nothing if the table may have changed since
    /// `generation`. Returns the generation that it made.
    ///
    /// # Errors
    ///
    /// See [`CommitError`]. After all of them but [`CommitError::OutcomeUnknown`] nothing has changed.
    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError>;

    /// Ends what was begun to follow other writers between a dump and a commit.
    fn rest(&mut self) {}
}

/// Why the ruleset could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// `EPERM`
    #[error("reading the ruleset needs CAP_NET_ADMIN")]
    Denied(#[source] io::Error),
    /// The kernel was built without nf_tables, or its module cannot be loaded.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES, module nf_tables)")]
    Unsupported(#[source] io::Error),
    /// Others changed the table during each attempt.
    #[error(
        "table inet {TABLE} changed during each of {attempts} dumps; see `nft monitor` for who changes it"
    )]
    Restless {
        /// How often it was tried.
        attempts: usize,
    },
    /// The kernel sent what netlink does not allow.
    #[error("the kernel's answer to {request} is malformed: {fault}")]
    Malformed {
        /// What was asked for, such as `list set elements`.
        request: &'static str,
        /// What is wrong with the answer.
        fault: &'static str,
    },
    /// The request was refused, or the socket failed.
    #[error("{request}")]
    Io {
        /// What was asked for, such as `list set elements`.
        request: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl DumpError {
    /// Whether the kernel's answer did not arrive, for want of room in the socket's buffer.
    pub(crate) fn is_lost_answer(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(nix::libc::ENOBUFS))
    }
}

/// Why a transaction was not carried out, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// `ERESTART`: the table may be another one by now; dump and diff again.
    #[error("another process changed the ruleset concurrently")]
    Stale,
    /// `ENOBUFS`, `EINTR`, a timeout: the kernel may have carried it out; only a dump can tell.
    #[error("the kernel's answer was lost")]
    OutcomeUnknown(#[source] io::Error),
    /// The kernel refused one operation, and so carried out none.
    #[error("kernel refused operation {} of {total}: {operation}", index + 1)]
    Refused {
        /// Which of the transaction's operations, from 0.
        index: usize,
        /// How many the transaction has.
        total: usize,
        /// The operation, in nft's words.
        operation: Box<Operation>,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// `EPERM`
    #[error("changing the ruleset needs CAP_NET_ADMIN")]
    Denied(#[source] io::Error),
    /// The kernel was built without nf_tables, or its module cannot be loaded.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES, module nf_tables)")]
    Unsupported(#[source] io::Error),
    /// `EMSGSIZE`: an unprivileged socket may not send that much at once.
    #[error(
        "the transaction has {bytes} bytes, more than net.core.wmem_max lets an unprivileged socket send"
    )]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
    },
    /// The kernel refused the batch as a whole, or the socket failed before the kernel saw it.
    #[error("commit to table inet {TABLE}")]
    Io(#[source] io::Error),
}
