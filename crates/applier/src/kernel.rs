//! The interface to nf_tables: a consistent dump, and a transaction that is guarded by its generation.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;

use rules::ruleset::{Element, Key, Set, TABLE};
use rules::{Actual, Operation, Transaction};

/// The generation of the ruleset (`NFTA_GEN_ID`), which every commit in the network namespace increments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation after one more commit; skips 0 (`nf_tables_commit`, `net/netfilter/nf_tables_api.c`).
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.wrapping_add(1) {
            0 => Self(1),
            next => Self(next),
        }
    }

    /// Whether this generation is later than `other`; generations wrap around.
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

/// The table named `inet cachenat` in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// There is no such table.
    Absent,
    /// Our table, recognized by its comment.
    Ours(Actual),
    /// Another program's table of the same name, which is never changed.
    Foreign {
        /// How it differs from ours.
        why: String,
    },
    /// A table that only its owner, a running process, may change (`NFT_TABLE_F_OWNER`).
    Owned {
        /// The process, if known.
        owner: String,
    },
}

/// The connections made through an element of a map since the element was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The number of first packets, which equals the number of connections.
    pub packets: u64,
    /// The bytes in those packets.
    pub bytes: u64,
}

/// The counters of the elements of maps.
pub type Counters = BTreeMap<(Set, Key), Counter>;

/// The table and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// A generation at which the table had this content.
    pub generation: Generation,
    /// The table.
    pub table: Table,
    /// The counters of the elements of maps; empty for a table that is not ours.
    pub counters: Counters,
}

/// An element and its counter, which is 0 outside of maps.
pub type Counted = (Element, Counter);

/// The element at each requested key; `None` if there is none, or one that cachenat does not write.
pub type Found = Vec<(Set, Key, Option<Counted>)>;

impl Dump {
    /// Updates the dump to a later generation that differs only in these elements.
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

/// nf_tables, or an implementation with the same guarantees.
pub trait Netfilter {
    /// Reads the table `inet cachenat` at one generation; other tables may change meanwhile.
    ///
    /// # Errors
    ///
    /// See [`DumpError`].
    fn dump(&mut self) -> Result<Dump, DumpError>;

    /// Reads the elements with these keys, one after the other; interval sets are not supported.
    ///
    /// # Errors
    ///
    /// See [`DumpError`].
    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError>;

    /// Applies the transaction atomically, unless the table may have changed since `generation`. Returns the new
    /// generation.
    ///
    /// # Errors
    ///
    /// See [`CommitError`]. Nothing has changed, except possibly after [`CommitError::OutcomeUnknown`].
    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError>;

    /// Stops following other writers, which [`dump`](Self::dump) may have started.
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
    /// Another process changed the table during each attempt.
    #[error(
        "table inet {TABLE} changed during each of {attempts} dumps; run `nft monitor` to find the other writer"
    )]
    Restless {
        /// How often it was tried.
        attempts: usize,
    },
    /// The kernel's answer violates the netlink protocol.
    #[error("the kernel's answer to {request} is malformed: {fault}")]
    Malformed {
        /// The request, such as `list set elements`.
        request: &'static str,
        /// The problem with the answer.
        fault: &'static str,
    },
    /// The request was refused, or the socket failed.
    #[error("{request}")]
    Io {
        /// The request, such as `list set elements`.
        request: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl DumpError {
    /// Whether the kernel's answer was lost because the socket's buffer was full.
    pub(crate) fn is_lost_answer(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(nix::libc::ENOBUFS))
    }
}

/// Why a transaction was not carried out, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// `ERESTART`: the table may have changed; dump and diff again.
    #[error("another process changed the ruleset concurrently")]
    Stale,
    /// `ENOBUFS`, `EINTR` or a timeout: the kernel may have applied it; only a dump can tell.
    #[error("the kernel's answer was lost")]
    OutcomeUnknown(#[source] io::Error),
    /// The kernel refused one operation, and so applied none.
    #[error("kernel refused operation {} of {total}: {operation}", index + 1)]
    Refused {
        /// The index of the operation in the transaction, from 0.
        index: usize,
        /// The number of operations in the transaction.
        total: usize,
        /// The operation, displayed in nft syntax.
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
    /// `EMSGSIZE`: an unprivileged socket may not send a message of this size.
    #[error(
        "the transaction has {bytes} bytes; net.core.wmem_max does not let an unprivileged socket send that much"
    )]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
    },
    /// The kernel refused the entire batch, or the socket failed before the kernel received it.
    #[error("commit to table inet {TABLE}")]
    Io(#[source] io::Error),
}
